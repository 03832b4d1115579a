"""KEEP results with real trainings: a killed suite resumes, leaves no weights, and compares the same numbers."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import finetuning, pretraining
from helpers.finetuning import MEAN, STD
from helpers.killing import ROOT

pytestmark = pytest.mark.exhaustive

SHORT = ["MODEL.ARCH", "resnet18", "DATA.MEAN", list(MEAN), "DATA.STD", list(STD), "SOLVER.MAX_EPOCH", 1]
WEIGHTS = ("checkpoint.pth", "backbone.pth")


@pytest.fixture(scope="module")
def suite(small_scenes, tmp_path_factory):
    """Return a function: the command of a suite with two rows in a folder, under some KEEP."""
    overrides = ["DATASETS.ROOT", "{data:scenes}", *finetuning.TINY, "SOLVER.MAX_ITER", 3]
    tree = {
        "DATA": [{"NAME": "scenes", "FOLDER": str(small_scenes)}],
        "PRETRAIN": {
            "CONFIG": "configs/pretrain/quick_scenes.yaml",
            "OVERRIDES": ["DATA.ROOT", "{data:scenes}", *pretraining.TINY, *SHORT],
        },
        "EVALUATE": {"ENABLED": False},
        "LOCALIZE": {"ENABLED": False},
        "FINETUNE": [{"NAME": "quick", "CONFIG": "configs/detection/quick.yaml", "OVERRIDES": overrides}],
        "COMPARE": {"ARGUMENTS": ["--resamples", 20]},
        "ROWS": [
            {"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]},
            {"LABEL": "student", "OVERRIDES": ["METHOD.NAME", "KD", "TEACHER.RUN", "{run:CE}"]},
        ],
    }
    config = tmp_path_factory.mktemp("suite") / "suite.yaml"
    config.write_text(json.dumps(tree))

    def command(folder, keep):
        words = ["--config-file", config, "--output-dir", folder, "KEEP", keep]
        return [str(word) for word in (sys.executable, ROOT / "tools" / "benchmark.py", *words, "LAUNCH.JOBS", 1)]

    return command


def run(command):
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def kill_when(command, pattern, folder):
    """Start a suite, wait until a file matches, then kill its process and the training with -9."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 600
    while not any(path.stat().st_size for path in folder.glob(pattern)):
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def weights(folder):
    return sorted(str(path.relative_to(folder)) for name in WEIGHTS for path in folder.glob(f"runs/*/{name}"))


def table(folder):
    """Return the rows of the comparison without their folders and durations."""
    rows = json.loads((folder / "report" / "comparison.json").read_text())["rows"]
    return {row["label"]: (row["metrics"], row["hash"]) for row in rows}


@pytest.fixture(scope="module")
def whole(suite, tmp_path_factory):
    """The folder of the suite, run without an interruption, with all weights."""
    folder = tmp_path_factory.mktemp("whole")
    run(suite(folder, "all"))
    assert len(weights(folder)) == 6
    return folder


@pytest.mark.parametrize("moment", ["CE-s0-pretrain", "student-s0-pretrain", "CE-s0-finetune"])
def test_a_killed_suite_resumes_and_keeps_results_only(suite, whole, tmp_path, moment):
    kill_when(suite(tmp_path, "results"), f"runs/{moment}-*/metrics.jsonl", tmp_path)
    run(suite(tmp_path, "results"))
    assert weights(tmp_path) == []
    assert table(tmp_path) == table(whole)


def test_a_stage_that_is_added_later_trains_the_same_weights_again(suite, whole, tmp_path):
    run(suite(tmp_path, "results"))
    assert weights(tmp_path) == []
    for folder, keep in ((whole, "all"), (tmp_path, "results")):
        run([*suite(folder, keep), "LOCALIZE.ENABLED", "True"])
    assert weights(tmp_path) == []
    assert table(tmp_path) == table(whole)
    metrics, _ = table(tmp_path)["CE"]
    assert metrics["max_box_acc_v2"] is not None
