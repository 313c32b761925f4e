"""Turns executed notebooks into pages that need no network, and result files into tables."""

import html
import json
import os
import re
import secrets
from pathlib import Path

from medusa_core import runtime
from medusa_core.tables import cell_text, columns_of

PLOTLY = "application/vnd.plotly.v1+json"
PLOTLY_FILE = "plotly.min.js"  # beside the pages, which share it
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MATH = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$]+?)\$", re.DOTALL)
# nbconvert's page without the scripts that it would load from elsewhere, dark where the reader's system is.
PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block notebook_css %}{{ super() }}
{{ resources.include_css('static/theme-dark.css')
   | replace('<style', '<style media="(prefers-color-scheme: dark)"', 1) }}
{% endblock %}"""
# Nothing is loaded but files beside the page, and no script runs that does not carry the page's own number.
POLICY = (
    "default-src 'none'; img-src data: blob: 'self'; font-src data:; style-src 'unsafe-inline'; "
    "script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'"
)
PAGES = Path(__file__).with_name("pages")
NAVIGATION = "<a href='index.html'>All chapters</a>"


def export(notebook: Path, page: Path, navigation: str = NAVIGATION) -> None:
    """Write an executed notebook as an HTML page that loads nothing but plotly.js from the file beside it.

    Formulas become MathML and links to notebooks links to their pages; what would run within outputs is left out.
    navigation: HTML of the links on top.
    """
    import nbformat
    from bs4 import BeautifulSoup
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("widgets", None)  # with it, the page would load a widget manager from elsewhere
    nonce = secrets.token_urlsafe(16)
    for cell in content.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                _still_widget(output)
                _draw_figure(output, nonce)
    exporter = HTMLExporter(extra_loaders=[DictLoader({"page.html.j2": PAGE})], template_file="page.html.j2")
    body, _ = exporter.from_notebook_node(content, {"metadata": {"name": notebook.stem}})
    soup = BeautifulSoup(body, "html.parser")
    _disarm(soup, nonce)
    _set_formulas(soup)
    _set_links(soup, page)
    script = f"<script nonce='{nonce}'>{_read('chapter.js')}</script>"
    style = f"<style>{_read('chapter.css')}</style>"
    head = policy(nonce) + plotly_script(page.parent, nonce) + script + style
    soup.head.insert(0, BeautifulSoup(head, "html.parser"))
    soup.body.insert(0, BeautifulSoup(f"<nav class='site'>{navigation}</nav>", "html.parser"))
    page.write_text(str(soup), encoding="utf-8")


def policy(nonce: str) -> str:
    """The tag that forbids a page to load from elsewhere or to run scripts without its `nonce`."""
    return f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(nonce=nonce)}">'


def plotly_script(folder: Path, nonce: str) -> str:
    """The tag that loads plotly.js from `folder`, where it is put unless it lies there already."""
    from plotly.offline import get_plotlyjs

    file, text = folder / PLOTLY_FILE, get_plotlyjs()
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")
    return f"<script src='{PLOTLY_FILE}' nonce='{nonce}'></script>"


def _disarm(soup, nonce: str) -> None:
    """Take out what would run: scripts without the page's `nonce`, event handlers, and addresses that are scripts."""
    for script in soup.find_all("script"):
        if script.get("nonce") != nonce:
            script.decompose()
    for tag in soup.find_all(True):
        for name, value in list(tag.attrs.items()):
            if name.startswith("on") or str(value).strip().lower().startswith("javascript:"):
                del tag[name]


def _still_widget(output: dict) -> None:
    """Put the figure that is saved with a widget, or a note, in its place: it shows nothing without a kernel."""
    data = output.get("data", {})
    if data.pop(WIDGET_VIEW, None) and PLOTLY not in data:
        output["data"] = {"text/plain": "(an interactive control: open this chapter in JupyterLab)"}


def _draw_figure(output: dict, nonce: str) -> None:
    """Replace a stored plotly figure by HTML that draws it."""
    figure = output.get("data", {}).get(PLOTLY)
    if figure is None:
        return
    import plotly.io

    drawing = plotly.io.to_html(
        figure,
        config=figure.get("config"),
        include_plotlyjs=False,
        full_html=False,
        validate=False,
        auto_play=False,  # frames wait for their button
    )
    # Texts of the figure hold no "<script": plotly writes their "<" as an escape.
    output["data"] = {"text/html": drawing.replace("<script", f'<script nonce="{nonce}"')}


def _set_links(soup, page: Path) -> None:
    """Let links that are relative to the notebooks' folder lead where they mean from `page`."""
    for link in soup.select(".jp-MarkdownOutput a[href]"):
        target, mark, place = link["href"].partition("#")
        if not target or ":" in target:
            continue
        file = runtime.ROOT / "notebooks" / target
        if file.suffix == ".ipynb":
            link["href"] = file.with_suffix(".html").name + mark + place
        elif (copy := page.parent / "data" / file.name).exists():
            link["href"] = copy.relative_to(page.parent).as_posix()
        elif file.exists():
            link["href"] = Path(os.path.relpath(file, page.parent)).as_posix() + mark + place


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


def write_index(
    page: Path,
    title: str,
    chapters: list[tuple[str, str, str]],
    tables: dict[str, list[dict]],
    lead: str = "",
    links: dict[str, str] | None = None,
) -> None:
    """Write the page that links chapters, given as (stem, words, note), and shows tables by file name.

    lead: HTML below the title; links: HTML after the name of a table.
    """
    lines = [f"<h1>{html.escape(title)}</h1>{lead}<h2>Chapters</h2><ul>"]
    for stem, words, note in chapters:
        href = html.escape(f"{stem}.html")
        lines.append(f"<li><a href='{href}'>{html.escape(words)}</a> {html.escape(note)}</li>")
    lines.append("</ul><h2>Results</h2>")
    for name, rows in tables.items():
        after = (links or {}).get(name, "")
        lines.append(f"<details><summary>{html.escape(name)}: {len(rows)} rows</summary><p>{after}</p>")
        lines.append(f"{html_table(rows)}</details>")
    write_page(page, title, "\n".join(lines))


def write_page(page: Path, title: str, body: str, scripts: str = "", nonce: str = "") -> None:
    """Write a page of this site's style. Only `scripts`, tags that carry `nonce`, run on it."""
    page.write_text(
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"{policy(nonce or secrets.token_urlsafe(16))}<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_read('page.css')}</style></head>\n"
        f"<body>{body}\n{scripts}</body></html>\n",
        encoding="utf-8",
    )


def html_table(rows: list[dict]) -> str:
    """Rows as an HTML table, one column per key in order of appearance; it scrolls where it is too wide."""
    columns = columns_of(rows)
    lines = ["".join(f"<th>{html.escape(column)}</th>" for column in columns)]
    for row in rows:
        values = [row.get(column) for column in columns]
        cells = (f"<td{_side(value)}>{html.escape(cell_text(value))}</td>" for value in values)
        lines.append("".join(cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class='wide' tabindex='0'><table>{body}</table></div>"


def _side(value: object) -> str:
    return " class='number'" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _read(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")


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
