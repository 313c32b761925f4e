"""YAML in which no key stands twice in a mapping; of two, PyYAML's own loader would keep the last."""

from __future__ import annotations

from pathlib import Path

import yaml


class RepeatedKeyError(yaml.YAMLError):
    """A key that stands twice; the message names file and lines."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        lines = {}
        for key, _ in node.value:
            said, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if said in lines:
                raise RepeatedKeyError(
                    f'{self.name}:{line}: "{key.value}" is already in line {lines[said]}; keep one'
                )
            lines[said] = line
        return super().construct_mapping(node, deep)


def read(path: Path | str):
    """The content of a YAML file. Raises RepeatedKeyError, or yaml.YAMLError, UnicodeDecodeError or OSError."""
    loader = _Loader(Path(path).read_text(encoding="utf-8"))
    loader.name = str(path)
    return loader.get_single_data()
