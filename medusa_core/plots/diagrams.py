"""Drawings as SVG text, for notebooks and for pages that run no script."""

from __future__ import annotations

import html

from medusa_core.plots.palette import COLOURS
from medusa_core.plots.trees import layout
from medusa_core.tree import Tree

BOX, GAP, LEFT = 92, 12, 14  # width of a token's box, space between boxes, left margin
TOKENS, HEADS = 210, 70  # heights of the rows of tokens and of heads


def svg_heads(read: list[str], coming: list[str], heads: int) -> str:
    """How heads guess: texts of the tokens `read` so far, and of the `heads` + 1 that come next."""
    last = len(read) - 1
    wide = LEFT + (len(read) + heads + 1) * (BOX + GAP)
    base = _x(last) + BOX - LEFT
    parts = [
        _box(LEFT, 130, base, 44, "base model, frozen: one forward", "#FFFFFF", COLOURS["plain"]),
        _box(_x(last), HEADS, BOX, 36, "state h", COLOURS["prefix"], COLOURS["ancestor"]),
        _line(_x(last) + BOX / 2, 130, _x(last) + BOX / 2, HEADS + 36),
    ]
    for place, text in enumerate(read):
        parts.append(_box(_x(place), TOKENS, BOX, 34, text, COLOURS["prefix"], COLOURS["ancestor"]))
        parts.append(_line(_x(place) + BOX / 2, TOKENS, _x(place) + BOX / 2, 174))
    middle = _x(last) + BOX / 2
    end = _x(last + heads + 1) + BOX / 2
    parts.append(f'<path d="M{middle} {HEADS}V36H{end}" fill="none" stroke="#444" stroke-width="2"/>')
    for ahead, text in enumerate(coming[: heads + 1]):
        x, name = _x(last + 1 + ahead), f"head {ahead}" if ahead else "LM head"
        ground = "#FFFFFF" if ahead else COLOURS["closed"]
        colour = COLOURS["accepted"] if ahead else COLOURS["plain"]
        parts.append(_line(x + BOX / 2, 36, x + BOX / 2, HEADS))
        parts.append(_box(x, HEADS, BOX, 36, name, ground, colour))
        parts.append(_line(x + BOX / 2, HEADS + 36, x + BOX / 2, TOKENS, dash="5 4"))
        parts.append(_box(x, TOKENS, BOX, 34, text, "#FFFFFF", colour, dash="5 4"))
        parts.append(_label(x + BOX / 2, TOKENS + 56, f"t + {ahead + 1}"))
    parts.append(_label(middle, TOKENS + 56, "t"))
    return svg(wide, TOKENS + 72, "One hidden state feeds the LM head and all heads", parts)


def svg_step(before: list[str], tree: Tree, texts: list[str], path: tuple[int, ...], bonus: str) -> str:
    """One step of decoding: the text `before`, the tree's texts (n,), which `path` was accepted, the next token."""
    first, top, row = len(before), 84, 46
    height = layout(tree)
    y = [top + row * value for value in height]
    bottom = top + row * (max(height) + 1)
    names = {0: "text so far", first: "root"} | {first + k: f"head {k}" for k in range(1, tree.max_depth + 1)}
    parts = [_label(LEFT, 26, "1  The heads guess a tree of continuations.", "start", 17)]
    parts += [_label(_x(place) + BOX / 2, 62, name, colour="#555555") for place, name in names.items()]
    for place, text in enumerate(before):
        parts.append(_box(_x(place), y[0], BOX, 34, text, COLOURS["prefix"], COLOURS["ancestor"]))
    for node in range(1, tree.size):
        parent = tree.parents[node]
        start, end = _x(first + tree.depth[parent]) + BOX, _x(first + tree.depth[node])
        colour, width = (COLOURS["accepted"], 4) if node in path else (COLOURS["plain"], 1.5)
        parts.append(
            f'<line x1="{start:g}" y1="{y[parent] + 17:g}" x2="{end:g}" y2="{y[node] + 17:g}" '
            f'stroke="{colour}" stroke-width="{width}"/>'
        )
    for node, text in enumerate(texts):
        ground, colour, mark = "#FFFFFF", COLOURS["plain"], " \N{MULTIPLICATION SIGN}"
        if node in path:
            ground, colour, mark = "#CDEDE3", COLOURS["accepted"], " \N{CHECK MARK}"
        if node == 0:
            ground, colour, mark = COLOURS["prefix"], COLOURS["ancestor"], ""
        parts.append(_box(_x(first + tree.depth[node]), y[node], BOX, 34, text + mark, ground, colour))
    check = f"2  One forward of the base model checks all {tree.size} rows at once."
    kept = f"3  The longest right path stays, and the base adds a token: {len(path)} tokens in one step."
    parts += [
        _label(LEFT, place, text, "start", 17) for place, text in ((bottom + 20, check), (bottom + 50, kept))
    ]
    after = [*before, texts[0], *(texts[node] for node in path[1:]), bonus]
    for place, text in enumerate(after):
        ground, colour = COLOURS["prefix"], COLOURS["ancestor"]
        if place > first:
            ground, colour = "#CDEDE3", COLOURS["accepted"]
        if place == len(after) - 1:
            ground, colour = "#F6E3EE", COLOURS["bonus"]
        parts.append(_box(_x(place), bottom + 68, BOX, 34, text, ground, colour))
    columns = max(len(after), first + tree.max_depth + 1)
    return svg(max(_x(columns), 640), bottom + 116, "A step of Medusa decoding", parts)


def svg_lora(inputs: int, outputs: int, rank: int) -> str:
    """A frozen matrix (outputs x inputs) and the adapter of `rank` beside it, whose results are added."""
    tall, left, right = 150, 190, 430
    beside = COLOURS["accepted"]
    parts = [
        _box(LEFT, 110, BOX, 44, f"x: {inputs}", COLOURS["prefix"], COLOURS["ancestor"]),
        _box(left, 20, 330, 70, f"W, frozen: {outputs} x {inputs}", COLOURS["closed"], COLOURS["plain"]),
        _box(left, tall, 140, 60, f"A: {rank} x {inputs}", "#CDEDE3", beside),
        _box(left + 190, tall, 140, 60, f"B: {outputs} x {rank}", "#CDEDE3", beside),
        _box(right + 130, 110, 44, 44, "+", "#FFFFFF", COLOURS["plain"]),
        _box(right + 220, 110, BOX, 44, f"y: {outputs}", COLOURS["prefix"], COLOURS["ancestor"]),
        _line(LEFT + BOX, 126, left, 55),
        _line(LEFT + BOX, 138, left, tall + 30),
        _line(left + 140, tall + 30, left + 190, tall + 30),
        _line(left + 330, 55, right + 130, 122),
        _line(left + 330, tall + 30, right + 130, 142),
        _line(right + 174, 132, right + 220, 132),
        _label(left + 165, tall + 18, f"{rank}"),
        _label(
            left + 165, tall + 88, f"{rank * (inputs + outputs):,} numbers learn beside {inputs * outputs:,}"
        ),
    ]
    return svg(right + 220 + BOX + LEFT, tall + 110, "A matrix with an adapter", parts)


def svg(width: float, height: float, title: str, parts: list[str]) -> str:
    """One picture of `parts` on a white ground, which dark pages need, with a marker for arrows."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'role="img" style="max-width:100%"><title>{html.escape(title)}</title>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#444"/></marker></defs>'
        f'<rect width="{width:g}" height="{height:g}" fill="#FFFFFF"/>{"".join(parts)}</svg>\n'
    )


def shown(text: str, most: int = 10) -> str:
    """Text of a token with its spaces visible, cut to `most` characters."""
    text = text.replace("\n", "\\n").replace(" ", "\N{OPEN BOX}")
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _x(place: int) -> float:
    return LEFT + place * (BOX + GAP)


def _box(x, y, width, height, text, ground, colour, dash="") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{ground}" '
        f'stroke="{colour}" stroke-width="2"{dashes}/>{_label(x + width / 2, y + height / 2 + 5, text)}'
    )


def _line(x1, y1, x2, y2, dash="") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#444" stroke-width="2"{dashes} '
        'marker-end="url(#tip)"/>'
    )


def _label(x, y, text, anchor="middle", size=15, colour="#1A1A1A", weight="normal") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-family="sans-serif" font-size="{size}" '
        f'fill="{colour}" font-weight="{weight}">{html.escape(text)}</text>'
    )
