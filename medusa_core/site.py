"""Builds the report: saved chapters, results and dashboard as a site that needs no network. `make report` runs it."""

from __future__ import annotations

import argparse
import html
import json
import secrets
import shutil
import sys
from pathlib import Path

import nbformat

from medusa_core import commands, report, results, runtime, study
from medusa_core.files import replacing_folder
from medusa_core.plots.dashboard_panels import FILTERS, NOTHING, PANELS, View, choices, first_view
from medusa_core.plots.palette import TEMPLATE
from medusa_core.results import Results
from medusa_core.tables import as_csv

TITLE = "Medusa decoding on Jittor"
LEAD = (
    "<p>Chapters with their saved outputs, and the result files behind them. Nothing on these pages comes from "
    "another place. <a href='dashboard.html'><b>The benchmark dashboard</b></a> shows the results with filters.</p>"
)


def build(root: Path, folder: Path) -> list[str]:
    """Write the site of the repository at `root` to `folder`, which it replaces, without running anything.

    Returns a message for every result file that is damaged; the pages say so, too. Raises study.StudyError where
    there are no chapters or one is no notebook, and leaves `folder` as it was.
    """
    with replacing_folder(folder) as temporary:
        return _build(root, temporary)


def _build(root: Path, folder: Path) -> list[str]:
    (folder / "data").mkdir()
    found = results.read(root / "artifacts" / "results")
    tables, links, damaged = _copy_results(root, folder / "data")
    found.damaged = list(dict.fromkeys([*found.damaged, *damaged]))
    chapters = study.chapters(root)
    titles = {stem: _title(notebook) for stem, notebook in chapters.items()}
    for place, (stem, notebook) in enumerate(chapters.items()):
        report.export(notebook, folder / f"{stem}.html", _navigation(titles, place))
    lead = LEAD + _said(found)
    named = [(stem, f"{stem[:2]}  {title}", "") for stem, title in titles.items()]
    report.write_index(folder / "index.html", TITLE, named, tables, lead, links)
    write_dashboard(folder / "dashboard.html", found, links)
    return found.damaged


def write_dashboard(page: Path, found: Results, links: dict[str, str]) -> None:
    """Write the dashboard as a page whose filters work without a kernel; links: HTML by the name of a result file."""
    nonce = secrets.token_urlsafe(16)
    known, first = choices(found), first_view(found)
    lines = [f"<nav>{report.NAVIGATION}</nav><h1>Benchmark dashboard</h1>{_said(found)}<div class='filters'>"]
    for name, words in FILTERS.items():
        offered = [] if name == "source" else [("", "all")]
        options = "".join(
            f"<option value='{html.escape(value)}'{' selected' * (value == getattr(first, name))}>"
            f"{html.escape(label)}</option>"
            for value, label in [*offered, *((value, value) for value in known[name])]
        )
        lines.append(
            f"<label>{words}<select data-filter='{name}'>{options or '<option>none</option>'}</select></label>"
        )
    lines.append("</div><p>Chosen: <span id='chosen' aria-live='polite'></span></p><div class='panels'>")
    for number, panel in enumerate(PANELS):
        kind = "panel full" if panel.wide else "panel"
        lines.append(
            f"<section class='{kind}' aria-label='{panel.name}'><p class='shown' id='shown-{number}'></p>"
            f"<div id='panel-{number}'></div></section>"
        )
    lines.append(
        "</div><noscript>The figures need JavaScript; the numbers are in the files below.</noscript>"
    )
    lines.append("<h2>Files</h2><ul>")
    lines.extend(f"<li>{html.escape(name)}: {link}</li>" for name, link in links.items())
    lines.append("</ul>")
    scripts = report.plotly_script(page.parent, nonce) + (
        f"<script type='application/json' id='figures'>{_inert(figures(found))}</script>"
        f"<script nonce='{nonce}'>{(report.PAGES / 'dashboard.js').read_text(encoding='utf-8')}</script>"
    )
    report.write_page(page, "Benchmark dashboard", "\n".join(lines), scripts, nonce)


def figures(found: Results) -> dict:
    """What pages/dashboard.js draws: panels, with the number of the figure for each choice, and every figure once."""
    known = choices(found)
    drawn: dict[str, int] = {}
    panels = []
    for panel in PANELS:
        numbers = {}
        for source in known["source"] if "source" in panel.by else (None,):
            for category in (None, *known["category"]) if "category" in panel.by else (None,):
                view = View(source=source, category=category)
                figure = panel.draw(found, view)
                key = json.dumps(
                    [getattr(view, name) for name in panel.by], separators=(",", ":"), ensure_ascii=False
                )
                if figure is not None:
                    figure.layout.template = None  # all have the same, which the page holds once
                    numbers[key] = drawn.setdefault(figure.to_json(), len(drawn))
        panels.append({"name": panel.name, "by": panel.by, "uses": panel.uses, "figures": numbers})
    return {
        "panels": panels,
        "figures": [json.loads(text) for text in drawn],
        "template": TEMPLATE.to_plotly_json(),
        "nothing": NOTHING,
    }


def _inert(value: object) -> str:
    """JSON for a script tag: nothing in it can end the tag or begin another."""
    return (
        json.dumps(value, ensure_ascii=False)
        .replace("&", r"\u0026")
        .replace("<", r"\u003c")
        .replace(">", r"\u003e")
    )


def _copy_results(root: Path, folder: Path) -> tuple[dict[str, list[dict]], dict[str, str], list[str]]:
    """Copy result files, with their summaries as CSV; returns tables and links by file name, and what is damaged."""
    tables, links, damaged = {}, {}, []
    for file in sorted((root / "artifacts" / "results").glob("*.json")):
        try:
            rows = next(iter(report.result_tables([file], root).values()), None)
        except ValueError as error:
            damaged.append(str(error))
            continue
        shutil.copyfile(file, folder / file.name)
        links[file.name] = f"<a href='data/{html.escape(file.name)}'>JSON</a>"
        if rows:
            tables[file.name] = rows
            (folder / f"{file.stem}.csv").write_text(as_csv(rows), encoding="utf-8", newline="")
            links[file.name] += f", <a href='data/{html.escape(file.stem)}.csv'>CSV of the summary</a>"
    return tables, links, damaged


def _said(found: Results) -> str:
    lines = (f"<p class='problem' role='alert'>{html.escape(problem)}</p>" for problem in found.problems)
    return "".join(lines)


def _title(notebook: Path) -> str:
    """The heading that a chapter opens with, without its number."""
    try:
        content = nbformat.read(notebook, as_version=4)
    except (ValueError, AttributeError) as error:
        raise study.StudyError(f"{notebook}: not a notebook ({error})") from error
    first = next(
        (line for cell in content.cells for line in cell.source.splitlines() if line.startswith("# ")), ""
    )
    return first.removeprefix("# ").removeprefix(notebook.stem[:2]).lstrip(" .:·") or notebook.stem


def _navigation(titles: dict[str, str], place: int) -> str:
    """Links to all chapters, the dashboard, and the chapters before and after."""
    links = [report.NAVIGATION, "<a href='dashboard.html'>Dashboard</a>"]
    stems = list(titles)
    for words, other in (("Before", place - 1), ("Next", place + 1)):
        if 0 <= other < len(stems):
            title = html.escape(titles[stems[other]])
            links.append(f"<a href='{stems[other]}.html' title='{title}'>{words}: {stems[other][:2]}</a>")
    return "\n".join(links)


def main(root: Path = runtime.ROOT) -> int:
    """Build the site below artifacts/runs; the exit status is 1 where something is damaged."""
    folder = root / "artifacts" / "runs" / "report"
    damaged: list[str] = []

    def work() -> None:
        damaged.extend(build(root, folder))
        for message in damaged:
            print(f"warning: {message}", file=sys.stderr)
        print(f"The report: {folder / 'index.html'}")

    return commands.finish(work) or (1 if damaged else 0)


if __name__ == "__main__":
    argparse.ArgumentParser("python -m medusa_core.site", description=main.__doc__).parse_args()
    sys.exit(main())
