"""A picture beside every saved figure, for places that show notebooks without plotly: code hosts and editors."""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medusa_core import runtime
from medusa_core.files import replacing
from medusa_core.report import PLOTLY
from medusa_core.study import chapters

PNG = "image/png"
DRAWN = "picture_of"  # in an output's metadata: which figure its picture shows
WIDTH = 900  # of figures that take the width they are given
COLOURS = 256  # figures are flat: a palette makes files of a third of the size


class NoPictures(Exception):
    """Figures cannot be drawn here; says what is missing."""


def digest(figure: dict) -> str:
    """Names a figure by its content."""
    return hashlib.sha256(json.dumps(figure, sort_keys=True).encode()).hexdigest()[:16]


def figures(content) -> Iterator[dict]:
    """The outputs of a notebook that hold a plotly figure."""
    for cell in content["cells"]:
        yield from (output for output in cell.get("outputs", []) if PLOTLY in output.get("data", {}))


def saved(content) -> dict[str, str]:
    """The pictures that a notebook holds, by the digest of their figure."""
    outputs = [output for output in figures(content) if PNG in output["data"]]
    return {output["metadata"].get(DRAWN): output["data"][PNG] for output in outputs}


def missing(content) -> list[dict]:
    """The outputs whose figure has no picture, or one of another figure."""
    return [
        output
        for output in figures(content)
        if PNG not in output["data"] or output["metadata"].get(DRAWN) != digest(output["data"][PLOTLY])
    ]


def draw(content, known: dict[str, str] | None = None) -> int:
    """Put the pictures that are missing beside the figures, from `known` where they are; returns how many were drawn.

    Raises NoPictures where kaleido or a Chromium is not installed.
    """
    outputs, known = missing(content), known or {}
    names = [digest(output["data"][PLOTLY]) for output in outputs]
    new = {name: output["data"][PLOTLY] for name, output in zip(names, outputs) if name not in known}
    with ThreadPoolExecutor(1) as apart:  # a notebook's own thread runs an event loop already
        pictures = {**known, **(apart.submit(lambda: asyncio.run(_paint(new))).result() if new else {})}
    for name, output in zip(names, outputs):
        output["data"][PNG], output["metadata"][DRAWN] = pictures[name], name
    return len(new)


async def _paint(figures: dict[str, dict]) -> dict[str, str]:
    """Each figure as a PNG in base64, under its name."""
    try:
        from kaleido import Kaleido

        # mathjax=False: it would be fetched from elsewhere
        async with Kaleido(mathjax=False, path=os.environ.get("CHROMIUM")) as browser:
            return {name: _small(await _shoot(browser, figure)) for name, figure in figures.items()}
    except (ImportError, RuntimeError) as error:
        raise NoPictures(
            f"{error}\nPictures of figures need `pip install -e '.[browser]'` and a Chromium "
            "(Debian: apt install chromium, or CHROMIUM=/path/to/one)."
        ) from error


async def _shoot(browser, figure: dict) -> bytes:
    layout = figure["layout"]
    options = {
        "format": "png",
        "scale": 1,
        "width": layout.get("width") or WIDTH,
        "height": layout.get("height"),
    }
    return await browser.calc_fig({"data": figure["data"], "layout": layout}, options)


def _small(png: bytes) -> str:
    from PIL import Image

    image, file = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(arguments: list[str] | None = None, root: Path = runtime.ROOT) -> int:
    """Run the command line; returns the exit status."""
    import nbformat

    parser = argparse.ArgumentParser("python -m medusa_core.pictures", description=__doc__)
    parser.parse_args(arguments)
    for notebook in chapters(root).values():
        content = nbformat.read(notebook, as_version=4)
        try:
            drawn = draw(content)
        except NoPictures as error:
            print(error, file=sys.stderr)
            return 1
        if drawn:
            with replacing(notebook) as temporary:
                nbformat.write(content, temporary)
        print(f"{notebook.name}: {drawn} drawn", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
