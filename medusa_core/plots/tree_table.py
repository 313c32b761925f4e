"""Tables of trees as HTML: the buffers that decoding reads, and two trees side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping

from medusa_core.plots.masks import path_name
from medusa_core.prospects import Prospects
from medusa_core.tree import Tree


def buffer_rows(prospects: Prospects, tree: Tree) -> list[dict[str, str]]:
    """One row a node: the buffers' entries as text, "retrieve path" only where a path ends."""
    ranks = prospects.measured.accuracy.shape[1]
    index, values = tree.token_index(ranks), prospects.values(tree)
    ends = {max(path): (number, path) for number, path in enumerate(tree.paths.tolist())}
    rows = []
    for node in range(tree.size):
        number, path = ends.get(node, (0, ()))
        rows.append(
            {
                "row": str(node),
                "node": path_name(tree.choices[node - 1]) if node else "root",
                "depth": str(tree.depth[node]),
                "parent": str(tree.parents[node]),
                "token index": str(index[node]),
                "accepted": f"{values[node]:.1%}",
                "mask row": "".join("1" if seen else "·" for seen in tree.mask[node]),
                "retrieve path": f"{number}: {' '.join(map(str, path))}" if path else "",
            }
        )
    return rows


def html_buffers(prospects: Prospects, tree: Tree, locked: int | None = None) -> str:
    """The buffers of a tree; the locked node's row is framed and marked, and so are the rows that it sees."""
    seen = set() if locked is None else set(tree.path_to(locked))
    rows = buffer_rows(prospects, tree)
    lines = ["<table><thead><tr><th></th>", *(f"<th>{html.escape(name)}</th>" for name in rows[0])]
    lines.append("</tr></thead><tbody>")
    for node, row in enumerate(rows):
        mark = "locked" if node == locked else "on its path" if node in seen else ""
        cells = [f"<b>{html.escape(text)}</b>" if mark else html.escape(text) for text in row.values()]
        cells[-2] = f"<code>{cells[-2]}</code>"
        lines.append(f"<tr><td><b>{mark}</b></td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "".join([*lines, "</tbody></table>"])


def html_comparison(prospects: Prospects, named: Mapping[str, Tree]) -> str:
    """Each tree's size and what it promises, a row a tree."""
    heads = ("tree", "rows", "depth", "paths", "tokens / step", "overhead", "speed-up")
    lines = ["<table><thead><tr>", *(f"<th>{name}</th>" for name in heads), "</tr></thead><tbody>"]
    for name, tree in named.items():
        outlook = prospects.judge(tree)
        promised = (outlook.tokens_per_step, outlook.overhead, outlook.speedup)
        cells = [html.escape(name), *map(str, (tree.size, tree.max_depth, len(tree.paths)))]
        cells += [f"{value:.2f}" for value in promised]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "".join([*lines, "</tbody></table>"])
