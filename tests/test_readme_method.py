"""README's "Add your own method", done as it says in a copy of the tree: it works, and no test of the tree minds."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers.killing import ROOT
from helpers.pretraining import arguments

from backbones.core.results import load_results
from backbones.methods import METHODS

FOLDERS = ("backbones", "detection", "comparison", "suites", "tools", "tests", "configs", "docs", "benchmarks")
# Those that list the methods one by one; the contract test is beside them.
LISTING = "readmes_table or has_a_neutral_setting or every_block or defaults_of_the_config or loss_of_their_own"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The tree with README's two blocks where it says: a module of its own, named, and the end of the defaults."""
    tree = tmp_path_factory.mktemp("copy")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml", "setup.py", "Makefile"):
        shutil.copy(ROOT / name, tree)
    if "Halfway" in METHODS.names():  # a tree in which a reader has done it already
        return tree
    section = (ROOT / "README.md").read_text().partition("## Add your own method\n")[2].partition("\n## ")[0]
    method, block = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    module, init, defaults = re.findall(r"`(backbones/methods/(?:halfway|__init__|defaults)\.py)`", section)
    (tree / module).write_text(method)
    text = (tree / init).read_text()
    named = text.replace("    instance,\n", "    halfway,\n    instance,\n")
    assert named != text
    (tree / init).write_text(named)
    with (tree / defaults).open("a") as file:
        file.write(f"\n{block}")
    return tree


def run(tree, *command):
    """A process that sees the copy alone."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def passed(done):
    """How many tests passed; none failed."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return int(re.findall(r"(\d+) passed", done.stdout)[-1])


def test_the_contract_covers_it_and_the_tests_that_list_methods_pass(copy):
    files = ("method_contract", "methods", "configs", "pretraining_methods", "house")
    chosen = f"((Halfway or halfway) and not interrupted) or {LISTING}"
    done = run(copy, "-m", "pytest", "-v", "-rN", "-k", chosen, *(copy / "tests" / f"test_{name}.py" for name in files))
    assert passed(done) >= 20
    assert len(re.findall(r"test_method_contract\.py::\w+\[[\w-]*Halfway\] PASSED", done.stdout)) == 14
    for name in ("of_a_kind", "defaults_of_the_config", "has_a_file_that_chooses_it", "has_a_neutral_setting"):
        assert re.search(rf"::test_\w*{name}\w* PASSED", done.stdout), name


def test_two_epochs_are_trained_with_it(copy, small_scenes, tmp_path):
    options = ["METHOD.NAME", "Halfway", "METHOD.Halfway.share", 0.25, "SOLVER.MAX_EPOCH", 2]
    done = run(copy, copy / "tools" / "pretrain.py", *arguments(small_scenes, tmp_path / "run", *options))
    assert done.returncode == 0, done.stderr[-2000:]
    results = load_results(tmp_path / "run")
    assert (results["backbone"]["label"], results["backbone"]["method"]) == ("Halfway", "Halfway")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["iteration"] == 9  # of 10: two epochs of 5 batches


@pytest.mark.exhaustive
def test_every_method_keeps_the_contract_beside_it(copy):
    names = ("method_contract", "methods", "configs", "papers", "golden_losses", "core", "house", "pretraining_methods")
    done = run(copy, "-m", "pytest", "-q", "-rN", *(copy / "tests" / f"test_{name}.py" for name in names))
    assert passed(done) > 500
