"""pyproject.toml, environment.yml and the Makefile agree with the code and with each other."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
import yaml

from medusa_core.runtime import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
OWN = {"medusa_core", *(path.stem for path in (ROOT / "tests").rglob("*.py")), "oracles"}
# Distributions whose name is another than their module's, and that need not be installed here.
NAMES = {"llama_cpp": "llama-cpp-python", "jittor_utils": "jittor"}


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared():
    """Names in pyproject's lists of requirements."""
    found = re.findall(r'"([A-Za-z][\w.-]*)(?:[=<>][^"]*)"', PYPROJECT)
    return {plain(name) for name in found}


def imported():
    """Modules of others that the code, the tests and the chapters import by name."""
    sources = [
        path.read_text(encoding="utf-8")
        for top in ("medusa_core", "tests")
        for path in (ROOT / top).rglob("*.py")
    ]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - OWN - sys.stdlib_module_names


def test_every_imported_package_is_declared():
    owners = packages_distributions()
    missing = {
        name
        for name in imported()
        if not declared() & {plain(each) for each in [NAMES.get(name, name), *owners.get(name, [])]}
    }
    assert not missing


def test_conda_installs_what_pip_does():
    (pip,) = (
        item["pip"]
        for item in yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
        if isinstance(item, dict)
    )
    assert pip == ["-e .[dev]"]


def test_the_formatter_that_is_checked_has_an_upper_bound():
    assert re.search(r'"ruff>=[\d.]+,<[\d.]+"', PYPROJECT)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("works", [True, False], ids=["whole", "cut short"])
def test_make_replaces_an_environment_without_pip(tmp_path, works):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    log = tmp_path / "log"
    # Stands for both interpreters: one makes an environment by copying itself, and its pip installs nothing.
    script = f"""#!/bin/bash
echo "$(basename "$PWD"): $*" >> '{log}'
case "$*" in
*"venv --clear .venv") rm -rf .venv; mkdir -p .venv/bin; cp '{tmp_path}/a python' .venv/bin/python ;;
esac
"""
    for path, text in (
        ("a python", script),
        (".venv/bin/python", script if works else "#!/bin/sh\nexit 1\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    command = ["make", f"PYTHON={tmp_path / 'a python'}", ".venv/installed"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=environment)
    assert ("venv --clear .venv" in log.read_text()) == (not works)
    assert (tmp_path / ".venv" / "installed").exists()
