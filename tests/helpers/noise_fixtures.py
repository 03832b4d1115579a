"""Fixtures for tests that evaluate classifiers: noise images, and the run of a random network."""

from pathlib import Path

import pytest

from helpers.noise_runs import write_run, write_split


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "val", "shifted"):
        write_split(root, split, boxes=True)
    write_split(root, "whole", boxes=True, whole=True)
    write_split(root, "unboxed", boxes=False)
    return root


@pytest.fixture(scope="module")
def run_dir(root, tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "a", root, 0)
