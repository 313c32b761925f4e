"""The step numbers that a page shows while an answer plays, every one of them, however late anybody looks."""

from __future__ import annotations

# Makes window.steps: the numbers that the first element of a selector shows after each change.
WATCH = """(root, selector) => {
  const read = () => Number(root.querySelector(selector).textContent.replace(/\\D/g, ''));
  let last = read();
  window.steps = [];
  window.watch?.disconnect();
  window.watch = new MutationObserver(() => {
    if (read() !== last) window.steps.push(last = read());
  });
  window.watch.observe(root, { subtree: true, childList: true, characterData: true });
}"""


class Steps:
    """root: playwright's locator of what holds the number; selector: of the number within it."""

    def __init__(self, root, selector: str):
        self._page = root.page
        root.evaluate(WATCH, selector)

    def after(self, changes: int) -> list[int]:
        """The numbers since this was made, once there are so many."""
        for _ in range(200):
            if len(steps := self._page.evaluate("() => window.steps")) >= changes:
                return steps
            self._page.wait_for_timeout(100)
        raise AssertionError(f"20 seconds brought the steps {steps}, not {changes} of them")


def go_up_by_one(steps: list[int]) -> bool:
    """Whether none was left out and none came twice."""
    return steps == list(range(steps[0], steps[0] + len(steps)))
