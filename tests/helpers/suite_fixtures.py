"""Fixtures for the tests of suites."""

import pytest

from helpers.suite_lab import Lab


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path / "lab")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """A lab whose suite has run, each stage in a separate process; its output, and its calls."""
    lab = Lab(tmp_path_factory.mktemp("first") / "lab")
    for block in ("PRETRAIN", "EVALUATE", "LOCALIZE", "COMPARE"):
        lab.tree.setdefault(block, {})["COST"] = 60
    lab.tree["DATA"][0]["COST"] = lab.tree["FINETUNE"][0]["COST"] = 60
    lab.processes = 1
    code, said = lab.run()
    lab.processes = 0
    assert code == 0
    return lab, said, lab.calls()


@pytest.fixture
def finished(first_run, tmp_path):
    """A copy of that lab in another folder, where every stage must still count as complete."""
    return first_run[0].copy(tmp_path / "lab")
