"""Rows of results as aligned text, Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence

import numpy as np

CELL = "text-align:left;vertical-align:top;white-space:pre-wrap"
NUMBER = int | float | np.number


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Cells in columns two spaces apart; right: which columns are set to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    sides = [str.rjust if each else str.ljust for each in right]
    return "\n".join(
        "  ".join(side(*cell) for side, *cell in zip(sides, line, widths)).rstrip() for line in lines
    )


def text_table(rows: list[dict]) -> str:
    """Rows as aligned text, one column per key in order of appearance; numbers to the right."""
    columns = columns_of(rows)
    lines = [columns, *([cell_text(row.get(column)) for column in columns] for row in rows)]
    numeric = [all(isinstance(row.get(column), NUMBER | None) for row in rows) for column in columns]
    return aligned(lines, numeric)


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *lines)]


def as_csv(rows: list[dict]) -> str:
    """Rows as CSV, one column per key in order of appearance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def html_table(rows: list[dict]):
    """Rows as a table for notebooks, one column per key in order of appearance; long cells wrap, line breaks stay."""
    from IPython.display import HTML  # slow to import, and only notebooks need it

    columns = columns_of(rows)
    lines = ["".join(f"<th>{html.escape(column)}</th>" for column in columns)]
    for row in rows:
        cells = (html.escape(cell_text(row.get(column))) for column in columns)
        lines.append("".join(f'<td style="{CELL}">{cell}</td>' for cell in cells))
    return HTML("<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>")


def columns_of(rows: list[dict]) -> list[str]:
    """The keys of rows, in order of appearance."""
    return list(dict.fromkeys(column for row in rows for column in row))


def cell_text(value: object) -> str:
    """A value as tables show it."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
