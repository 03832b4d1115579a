"""The second method of docs/own_code.md as printed, in a copy of the tree: one file, and it trains; no test fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.killing import ROOT
from helpers.pretraining import arguments

from backbones.core.results import load_results
from backbones.methods.base import METHODS

FOLDERS = ("backbones", "detection", "comparison", "suites", "tools", "tests", "configs", "docs", "benchmarks")
# Tests of all methods together, or that know them by name; the contract is beside them.
KNOWING = "readmes_table or has_a_neutral_setting or shows_every_argument or block_of_the_config"


@pytest.fixture(scope="module")
def example() -> tuple[str, str]:
    """The one file that the section names, and the one block of code that it prints."""
    text = (ROOT / "docs" / "own_code.md").read_text()
    section = text.partition("## A method inside the project\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    (file,) = re.findall(r"new file `([\w/.]+)`", section)
    return file, code


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, example: tuple[str, str]) -> Path:
    """The tree with the file of the manual in it, and no other change."""
    tree = tmp_path_factory.mktemp("copy")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml", "setup.py", "Makefile"):
        shutil.copy(ROOT / name, tree)
    file, code = example
    if "Halfway" not in METHODS.names():  # else a reader has done it already
        assert not (tree / file).exists()
        (tree / file).write_text(code)
    return tree


def run(tree: Path, *command: object) -> subprocess.CompletedProcess:
    """A process that sees the copy alone."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def passed(done: subprocess.CompletedProcess) -> int:
    """How many tests passed; none failed."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return int(re.findall(r"(\d+) passed", done.stdout)[-1])


def test_an_epoch_is_trained_with_it(copy, small_scenes, tmp_path):
    options = ["METHOD.NAME", "Halfway", "METHOD.Halfway.share", 0.25, "SOLVER.MAX_EPOCH", 1]
    done = run(copy, copy / "tools" / "pretrain.py", *arguments(small_scenes, tmp_path / "run", *options))
    assert done.returncode == 0, done.stderr[-2000:]
    results = load_results(tmp_path / "run")
    assert (results["backbone"]["label"], results["backbone"]["method"]) == ("Halfway", "Halfway")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["METHOD"]["Halfway"] == {"share": 0.25}


def test_the_tests_cover_it_without_being_told(copy):
    """The contract for this method alone, and the tests of all methods together."""
    files = ("method_contract", "methods_manual", "methods", "configs")
    chosen = f"Halfway or {KNOWING}"
    done = run(copy, "-m", "pytest", "-v", "-rN", "-k", chosen, *(copy / "tests" / f"test_{name}.py" for name in files))
    assert passed(done) == 15
    assert len(re.findall(r"test_method_contract\.py::\w+\[[\w-]*Halfway\] PASSED", done.stdout)) == 11
    for name in ("shows_every_argument", "block_of_the_config", "has_a_file_that_chooses_it", "has_a_neutral_setting"):
        assert re.search(rf"::test_\w*{name}\w* PASSED", done.stdout), name


@pytest.mark.exhaustive
def test_every_method_keeps_the_contract_beside_it(copy):
    names = ("method_contract", "methods", "configs", "papers", "golden_losses", "core", "house", "pretraining_methods")
    done = run(copy, "-m", "pytest", "-q", "-rN", *(copy / "tests" / f"test_{name}.py" for name in names))
    assert passed(done) > 500
