"""Files are replaced whole, and lines that were appended come back whole."""

import argparse
import os
from pathlib import Path

import pytest

from medusa_core.files import append_line, file_name, finished_lines, replacing, replacing_folder, write_json


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a" / "x.json"
    write_json(path, {"é": [1, None]})
    before = path.read_bytes()
    assert before.decode() == '{\n "é": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, float("nan"))
    assert path.read_bytes() == before and os.listdir(path.parent) == ["x.json"]


def test_a_line_that_was_cut_short_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "x.jsonl"
    assert finished_lines(path) == []
    rows = [{"n": 1, "text": "a\u2028b"}, {"n": 2, "text": "ü" * 20}]
    for row in rows:
        append_line(path, row)
    whole = path.read_bytes()
    for cut in (1, 10, 25):  # the last cuts a character of two bytes in half
        path.write_bytes(whole[:-cut])
        assert finished_lines(path) == rows[:1]
        append_line(path, rows[1])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("text", ["", "a/b", "..", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused_in_words_that_argparse_shows(text, capsys):
    cli = argparse.ArgumentParser()
    cli.add_argument("--name", type=file_name)
    with pytest.raises(SystemExit):
        cli.parse_args(["--name", text])
    assert f"{text!r} is not the name of a file" in capsys.readouterr().err


def test_files_of_a_new_folder_can_be_read_by_others(tmp_path):
    with replacing_folder(tmp_path / "new") as folder:
        (folder / "private").touch(mode=0o600)
        (folder / "inside").mkdir(mode=0o700)
        (folder / "inside" / "too").touch(mode=0o600)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*")}
    assert modes == {"private": 0o644, "inside": 0o755, "too": 0o644}


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"n": 1}\n\xff\n')
    with pytest.raises(ValueError, match=r"x\.jsonl:2: not valid JSON"):
        finished_lines(path)


def test_a_folder_that_cannot_be_put_in_its_place_leaves_the_one_before(tmp_path, monkeypatch):
    folder, rename = tmp_path / "report", Path.rename
    folder.mkdir()
    (folder / "index.html").write_text("before")

    def fail(path, target):
        if path.suffix == ".part":
            raise OSError("no space")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no space"), replacing_folder(folder) as temporary:
        (temporary / "index.html").write_text("after")
    assert (folder / "index.html").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
