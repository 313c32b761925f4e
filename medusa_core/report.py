"""Turns executed notebooks into pages that need no network, and result files into tables."""

import html
import json
import re
from pathlib import Path

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MATH = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$]+?)\$", re.DOTALL)
# nbconvert's page without the scripts that it would load from elsewhere.
PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}"""
STYLE = "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}" + (
    "table{border-collapse:collapse}td,th{border-bottom:1px solid #ccc;padding:.2em .8em;text-align:left}"
)


def export(notebook: Path, page: Path) -> None:
    """Write an executed notebook as one HTML file that loads nothing: plotly.js once, formulas as MathML."""
    import nbformat
    from bs4 import BeautifulSoup
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("widgets", None)  # with it, the page would load a widget manager from elsewhere
    has_figures = False
    for cell in content.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                _still_widget(output)
                has_figures |= _draw_figure(output)
    exporter = HTMLExporter(extra_loaders=[DictLoader({"page.html.j2": PAGE})], template_file="page.html.j2")
    body, _ = exporter.from_notebook_node(content, {"metadata": {"name": notebook.stem}})
    soup = BeautifulSoup(body, "html.parser")
    _set_formulas(soup)
    text = str(soup)
    if has_figures:
        from plotly.offline import get_plotlyjs

        text = text.replace("</head>", f"<script>{get_plotlyjs()}</script></head>", 1)
    page.write_text(text, encoding="utf-8")


def _still_widget(output: dict) -> None:
    """Put a note in place of a widget, which shows nothing without a kernel."""
    if WIDGET_VIEW in output.get("data", {}):
        output["data"] = {"text/plain": "(an interactive control: open this chapter in JupyterLab)"}


def _draw_figure(output: dict) -> bool:
    """Replace a stored plotly figure by HTML that draws it; whether there was one."""
    figure = output.get("data", {}).get(PLOTLY)
    if figure is None:
        return False
    import plotly.io

    drawing = plotly.io.to_html(
        figure,
        config=figure.get("config"),
        include_plotlyjs=False,
        full_html=False,
        validate=False,
        auto_play=False,  # frames wait for their button
    )
    output["data"] = {"text/html": drawing}
    return True


def _set_formulas(soup) -> None:
    """Replace TeX in the page's text by MathML; code keeps its dollars, unknown TeX stays as it is."""
    from bs4 import BeautifulSoup

    for prose in soup.select(".jp-MarkdownOutput"):
        for text in prose.find_all(string=MATH):
            if text.find_parent(["code", "pre", "script"]) is None:
                escaped = MATH.sub(_formula, html.escape(str(text), quote=False))
                text.replace_with(BeautifulSoup(escaped, "html.parser"))


def _formula(match: re.Match) -> str:
    from latex2mathml.converter import convert

    tex = html.unescape(match["block"] or match["inline"])
    try:
        return convert(tex, display="block" if match["block"] else "inline")
    except Exception:  # the library's errors share no class; the formula stays readable as TeX
        return match[0]


def write_index(page: Path, chapters: list[tuple[str, str]], tables: dict[str, list[dict]]) -> None:
    """Write the page that links chapters, given as (stem, note), and shows the result tables by file name."""
    lines = [f"<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>{page.parent.name}</title>"]
    lines.append(f"<style>{STYLE}</style><h1>The study: {html.escape(page.parent.name)}</h1>")
    lines.append("<h2>Chapters</h2><ul>")
    for stem, note in chapters:
        lines.append(f"<li><a href='{stem}.html'>{stem}</a> {html.escape(note)}</li>")
    lines.append("</ul>")
    for name, rows in tables.items():
        columns = _columns(rows)
        lines.append(f"<h2>{html.escape(name)}</h2><table><tr>")
        lines.extend(f"<th>{html.escape(column)}</th>" for column in columns)
        for row in rows:
            cells = "".join(f"<td>{html.escape(_shown(row.get(column)))}</td>" for column in columns)
            lines.append(f"</tr><tr>{cells}")
        lines.append("</tr></table>")
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def result_tables(files: list[Path], root: Path) -> dict[str, list[dict]]:
    """The "summary" rows of each result file, by its path below `root`; files without a summary are left out.

    Raises ValueError naming a file that is not JSON or whose summary is no list of flat rows.
    """
    tables = {}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{file}: not a JSON result file ({error}); remove it or make it again"
            ) from error
        rows = content.get("summary") if isinstance(content, dict) else None
        if rows is None:
            continue
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f'{file}: "summary" must be a list of rows (objects)')
        tables[str(file.relative_to(root))] = rows
    return tables


def text_table(rows: list[dict]) -> str:
    """Rows as aligned text, one column per key in order of appearance; numbers to the right."""
    columns = _columns(rows)
    cells = [columns, *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric)
        ).rstrip()
        for line in cells
    )


def _columns(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
