"""Every control of every explorer is reached by Tab and changed by a key."""

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from explorer import Explorer

EXPLORERS = {
    "masks": "from medusa_core.widgets import explore_mask\nexplore_mask()",
    "dashboard": "from medusa_core.widgets_dashboard import explore_dashboard\nexplore_dashboard()",
    "simulator": "from medusa_core.widgets_simulator import explore_simulator\nexplore_simulator()",
    "trees": (
        "from medusa_core.runtime import ARTIFACTS\n"
        "from medusa_core.widgets_trees import explore_trees\n"
        "explore_trees({'as shipped': ARTIFACTS / 'results' / 'search_trees.json'})"
    ),
}
# Numbers the controls that are in use, in the order of the page.
NUMBER = """output => {
  const found = [...output.querySelectorAll('.jupyter-widgets :is(select, input, textarea, button, .noUi-handle)')]
    .filter(e => !e.disabled && !e.readOnly && !e.closest('[disabled], .js-plotly-plot') && e.offsetParent !== null);
  found.forEach((e, number) => e.dataset.stop = number);
  return found.map(e => e.matches('.noUi-handle') ? 'slider' : e.options?.length === 1 ? 'only choice' : e.type);
}"""
STOP = "() => document.activeElement?.dataset.stop ?? null"
STATE = "e => e.getAttribute('aria-valuetext') ?? (e.type === 'checkbox' ? e.checked : e.value)"
# Sequences of keys, tried until the control says something else: it may stand at an end. JupyterLab keeps up and
# down on a closed dropdown for itself, so Space opens it first.
KEYS = {
    "slider": (("ArrowRight",), ("ArrowLeft",)),
    "select-one": (("Space", "ArrowDown", "Enter"), ("Space", "ArrowUp", "Enter")),
    "checkbox": (("Space",),),
    "text": (("1",),),
    "number": (("1",),),
    "textarea": (("1",),),
}


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_is_reached_by_tab_and_changed_by_a_key(lab, page, picture, name):
    notebook = lab.cell(page, f"keyboard-{name}", EXPLORERS[name])
    notebook.run_all()
    output = notebook.output_of("explore_")
    explorer = Explorer(output)
    if name in ("trees", "dashboard"):  # pictures of the others are taken in their chapters
        picture(f"explore_{name}", explorer.figures.first)
    kinds = output.evaluate(NUMBER)
    assert kinds

    output.locator("[data-stop='0']").focus()
    reached = ["0"]
    for _ in range(2 * len(kinds)):  # a slider's number takes the focus, too
        page.raw.keyboard.press("Tab")
        reached.append(page.raw.evaluate(STOP))
    assert [int(stop) for stop in reached if stop is not None] == list(range(len(kinds)))

    for number, kind in enumerate(kinds):
        if kind not in (
            "button",
            "submit",
            "only choice",
        ):  # native buttons; test_replay.py presses one by Space
            control = output.locator(f"[data-stop='{number}']")
            assert _changes(page, control, KEYS[kind]), f"no key changes control {number}, a {kind}"
    assert explorer.figures.count()


def _changes(page, control, sequences) -> bool:
    before = control.evaluate(STATE)
    for keys in sequences:
        control.focus()
        for key in keys:
            page.raw.keyboard.press(key)
            page.raw.wait_for_timeout(100)  # what is read is the page's own state: no kernel is asked
        if control.evaluate(STATE) != before:
            return True
    return False
