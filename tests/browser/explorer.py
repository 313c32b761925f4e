"""An explorer in a cell's output: its controls by their labels, and its figures as they are drawn."""

from __future__ import annotations

from playwright.sync_api import expect

expect.set_options(timeout=20_000)


class Explorer:
    """output: playwright's locator of the cell's outputs."""

    def __init__(self, output):
        self.output = output
        self.figures = output.locator(".js-plotly-plot")
        expect(self.figures.first).to_be_visible(timeout=60_000)

    def row(self, label: str):
        """The control with a label before it."""
        name = self.output.page.locator(".widget-label", has_text=label)
        return self.output.locator(".widget-inline-hbox", has=name)

    def slider(self, label: str):
        """The handle of a slider, which takes the keyboard."""
        return self.row(label).locator(".noUi-handle")

    def value(self, label: str):
        """What a slider reads, to expect something of."""
        return self.row(label).locator(".widget-readout")

    def drag(self, label: str, share: float) -> None:
        """Move a slider with the mouse, to a share of its length."""
        handle, track = self.slider(label), self.row(label).locator(".noUi-base")
        handle.scroll_into_view_if_needed()
        start, box, mouse = handle.bounding_box(), track.bounding_box(), self.output.page.mouse
        mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        mouse.down()
        mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2, steps=4)
        mouse.up()

    def choose(self, label: str, option: str) -> None:
        """Choose an option of a dropdown."""
        self.row(label).locator("select").select_option(label=option)

    def write(self, label: str, text: str) -> None:
        """Type into a text field, and leave it by Enter."""
        field = self.row(label).locator("input[type=text], textarea")
        field.fill(text)
        field.press("Enter")

    def press(self, name: str) -> None:
        """Click a button."""
        self.output.get_by_role("button", name=name, exact=True).click()

    def title(self, number: int = 0):
        """The title of a figure, to expect something of."""
        return self.figures.nth(number).locator(".gtitle")

    def drawing(self) -> str:
        """What the first figure shows, to compare."""
        return self.figures.first.locator(".main-svg").first.inner_html()

    def wait_for_change(self, before: str) -> None:
        """Wait until the first figure shows something else than it did."""
        for _ in range(200):
            if self.figures.count() and self.drawing() != before:
                return
            self.output.page.wait_for_timeout(100)
        raise AssertionError("the figure did not change in 20 seconds")

    def alert(self):
        """The message about wrong input."""
        return self.output.get_by_role("alert")
