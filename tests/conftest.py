"""Fixtures of all tests: the shared data, small data sets, and one thread for every test."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import tools

from backbones.core.machine import count_cores, total_memory

ROOT = Path(__file__).resolve().parent.parent
# Seconds of one core that the longest files take, rounded; a file that is not named counts as OTHERS.  They only decide
# the order: a process takes a whole file, and one that is left with a long file at the end keeps the others waiting.
SECONDS = {
    "test_pretraining_methods": 95,
    "test_pretraining": 90,
    "test_finetune_tool": 50,
    "test_finetune_voc_tool": 50,
    "test_suite_own_backbones": 10,
    "test_page_browser": 45,
    "test_eval_period": 35,
    "test_run_folder": 35,
    "test_slurm": 75,
    "test_slurm_nodes": 400,
    "test_cluster": 35,
    "test_cluster_schedules": 12,
    "test_cluster_processes": 30,
    "test_evidence": 30,
    "test_predict": 15,
    "test_results_files": 30,
    "test_stopping": 30,
    "test_method_example": 25,
    "test_read_once": 25,
    "test_validation": 25,
}
OTHERS = 5
SHARED = Path(os.environ.get("SMOOTH2DET_SHARED", ROOT.parent / "shared"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes of `-n auto`: a test process takes one core and up to 2 GB."""
    return max(1, min(count_cores(), int(total_memory() / 2)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; within a file, and among files of equal length, the order stays."""
    items.sort(key=lambda item: -SECONDS.get(item.path.stem, OTHERS))


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set SMOOTH2DET_SHARED to the folder that holds data/ and golden/")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real data sets in their original formats."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Small files that went wrong once."""
    return _shared("cases")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of reference implementations."""
    return _shared("golden")


@pytest.fixture(scope="session")
def run_tool() -> Callable[..., subprocess.CompletedProcess]:
    """Run `tools/<name>.py` with arguments in a process of its own; returns the finished process."""

    def run(name: str, *arguments: object, **kwargs: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **kwargs)  # type: ignore[call-overload]

    return run


@pytest.fixture(scope="session")
def load_tool() -> Callable[[str], ModuleType]:
    """Import `tools/<name>.py`; its `main(argv)` runs in this process, which saves the start of another."""
    return tools.load_tool


@pytest.fixture(scope="session")
def small_scenes(
    tmp_path_factory: pytest.TempPathFactory, run_tool: Callable[..., subprocess.CompletedProcess]
) -> Path:
    """A tiny `scenes` data set: 40 training and 24 validation images, 12 and 6 detection scenes."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    counts = ["--train", 40, "--val", 24, "--detection-train", 12, "--detection-val", 6]
    done = run_tool("prepare_data", "scenes", "--output-dir", folder, *counts)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module", autouse=True)
def _free_memory() -> Iterator[None]:
    """Networks that trained in this process are large, and some are in reference cycles."""
    yield
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
