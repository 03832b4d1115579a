"""A training on all nodes of a job, with programs of SLURM that run the first task here."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.killing import ROOT

SRUN = """#!/bin/sh
echo "$@" > "$(dirname "$0")/asked"
while [ "$1" != sh ]; do shift; done
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_NODELIST=localhost
exec "$@"
"""
SQUEUE = """#!/bin/sh
[ -e "$(dirname "$0")/cancelled" ] || echo "77.1|smooth2det-training"
echo "77.0|other"
"""
SCANCEL = """#!/bin/sh
echo "$@" > "$(dirname "$0")/cancelled"
"""


@pytest.fixture
def start(tmp_path):
    programs, folder = tmp_path / "bin", tmp_path / "job"
    programs.mkdir()
    folder.mkdir()
    for name, text in {"srun": SRUN, "squeue": SQUEUE, "scancel": SCANCEL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}"}
    own = {"SLURM_JOB_ID": "77", "SLURM_CPU_BIND": "quiet", "SLURM_STEP_ID": "0"}

    def run(*command):
        options = ["--nodes=2", "--cores=4", "--gpus=1", f"--folder={folder}"]
        tool = [sys.executable, ROOT / "tests" / "helpers" / "launched.py", *command]
        return subprocess.Popen(
            [sys.executable, "-m", "suites.cluster.spread", *options, *map(str, tool)],
            stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment | own,
        )  # fmt: skip

    return run


def test_the_error_of_a_tool_and_what_is_asked(start, tmp_path):
    """A step that an earlier call has left is killed before."""
    training = start("refuse", tmp_path)
    error = training.communicate(timeout=120)[1]
    assert (training.returncode, error) == (2, "error: the key is wrong; set it right\n")
    asked = (tmp_path / "bin" / "asked").read_text().split()
    for option in ("--jobid=77", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=4", "--gpus-per-node=1"):
        assert option in asked
    assert (tmp_path / "bin" / "cancelled").read_text() == "--signal=KILL 77.1\n"


@pytest.mark.exhaustive
def test_sigterm_is_passed_on_as_sigusr1(start, tmp_path):
    training = start("wait", tmp_path)
    deadline = time.monotonic() + 100
    while not (path := tmp_path / "wait-0").exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    training.send_signal(signal.SIGTERM)
    training.communicate(timeout=60)
    assert training.returncode == 143


@pytest.mark.exhaustive
def test_a_process_that_is_killed_is_one_that_can_be_started_again(start, tmp_path):
    training = start("kill", tmp_path, "--num-gpus", 2)
    error = training.communicate(timeout=120)[1]
    assert (training.returncode, error) == (1, "error: a process was ended by signal 9 (Killed)\n")
