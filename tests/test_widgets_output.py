"""Outputs that controls change: plotly's own until the first change, then a live chart, which is not shown again."""

import json

import plotly.graph_objects as go
import pytest
from IPython.utils.capture import capture_output
from live_charts import answer, chart_of, title_in

from medusa_core.report import PLOTLY, WIDGET_VIEW
from medusa_core.widgets_output import Drawing, Line, Table


def figure(title):
    return go.Figure(go.Scatter(y=[1, 2]), layout={"title": {"text": title}})


@pytest.fixture
def shown(shell):
    """A drawing on the page, and the name of its place there."""
    drawing = Drawing()
    drawing.draw(figure("first"))
    with capture_output() as captured:
        drawing.show()
    return drawing, captured.outputs[0].transient["display_id"]


def changes(drawing, title):
    with capture_output() as captured:
        drawing.draw(figure(title))
        answer()
    return captured.outputs


def test_the_first_output_is_the_figure_that_was_drawn_last_and_no_widget(shell):
    drawing = Drawing()
    with capture_output() as captured:
        drawing.draw(figure("zero"))
        drawing.draw(figure("<b>first</b> &amp; best"))
        drawing.show()
    (output,) = captured.outputs
    assert output.data[PLOTLY]["layout"]["title"]["text"] == "<b>first</b> &amp; best"
    assert output.data["text/plain"] == "first  & best" and WIDGET_VIEW not in output.data


def test_a_change_puts_a_chart_in_place_and_the_next_ones_only_tell_it(shown):
    drawing, place = shown
    (update,) = changes(drawing, "second")
    assert update.update and update.transient["display_id"] == place
    assert title_in(update) == update.data["text/plain"] == "second"
    assert changes(drawing, "third") == [] and title_in(update) == "third"


def test_without_a_page_that_answers_the_output_stays(shown):
    with capture_output() as captured:
        shown[0].draw(figure("second"))
    assert captured.outputs == []


def test_what_replaces_the_figure_holds_it_for_pages_without_widgets(shown):
    (update,) = changes(shown[0], "second")
    assert update.data[PLOTLY]["layout"]["title"]["text"] == "second"


def test_a_drawing_that_is_shown_again_changes_where_it_was_shown_last(shown):
    drawing, place = shown
    changes(drawing, "second")
    with capture_output() as captured:
        drawing.show()
    (again,) = captured.outputs
    assert again.data["text/plain"] == "second" and WIDGET_VIEW not in again.data
    (update,) = changes(drawing, "third")
    assert update.transient["display_id"] == again.transient["display_id"] != place


def test_no_chart_carries_plotly_itself(shown):
    (update,) = changes(shown[0], "second")
    assert len(json.dumps(chart_of(update).get_state())) < 20_000


def test_a_page_without_plotly_is_sent_it_on_request(shown, monkeypatch):
    (update,) = changes(shown[0], "second")
    chart, sent = chart_of(update), []
    monkeypatch.setattr(chart, "send", lambda content, buffers: sent.append(buffers))
    chart._handle_custom_msg("plotly.js", [])  # what arrives from the page
    assert b"window.Plotly = Plotly" in sent[0][0]


def test_a_table_is_replaced_by_html_and_words(shell):
    table = Table()
    table.write("<b>1</b>", "1")
    with capture_output() as captured:
        table.show()
        table.write("<b>2</b>", "2")
    first, second = captured.outputs
    assert first.data == {"text/plain": "1", "text/html": "<b>1</b>"}
    assert second.data == {"text/plain": "2", "text/html": "<b>2</b>"} and second.update
    assert first.transient["display_id"] == second.transient["display_id"]


def test_a_line_is_replaced_in_place_and_its_text_is_no_markup(shell):
    line = Line()
    line.write("first")
    with capture_output() as captured:
        line.show()
        line.write("<b>")
    first, second = captured.outputs
    assert first.data["text/plain"] == "first"
    assert second.data == {"text/plain": "<b>", "text/html": "<p>&lt;b&gt;</p>"} and second.update
    assert first.transient["display_id"] == second.transient["display_id"]
