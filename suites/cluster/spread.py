"""Start a training on all nodes of the job that this process runs in.

The tool itself makes one training of the tasks of `srun` (backbones/core/machines.py).  This process stands between it
and the job: `srun` answers SIGTERM with SIGKILL to all tasks, so that SIGUSR1 is sent instead, which the tool takes as
SIGTERM; and its exit code is the largest of all tasks, while the error that counts is the one that a tool has left.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from backbones.core.arguments import ArgumentParser
from backbones.core.entry import REPORTS, run_tool
from backbones.core.errors import InputError
from backbones.core.launch import die_with_parent, refusals
from backbones.core.stopping import Stopped, hold_signals, noted_signal
from suites.cluster.slurm import outside_jobs
from suites.stages import Stage

# Name of the steps of a job that train.
STEP = "smooth2det-training"
# Seconds between two signals, as a tool that has just been started does not see the first; to wait for an answer of
# SLURM, and for the end of a step that was killed.
_AGAIN, _PATIENCE, _END = 3.0, 60.0, 60.0
_POLL = 0.1
# The tool ignores the signals by which a cluster tells all processes of its time limit, from its first moment on.
_SHELL = ("sh", "-c", 'trap "" USR1 USR2; exec "$@"', "sh")


def spread(stage: Stage, folder: Path) -> Stage:
    """Return the stage with the command that trains on all nodes of this job; the same stage if it has one node.

    Args:
        folder: one that all nodes share.
    """
    if stage.resources.nodes == 1:
        return stage
    resources, number = stage.resources, stage.processes_per_node
    script, *arguments = stage.command[stage.command.index(f"--nproc_per_node={stage.processes}") + 1 :]
    options = {
        "nodes": resources.nodes,
        "cores": (resources.cores or resources.threads) * number,
        "gpus": resources.gpus * number,
        "folder": folder,
    }
    told = [f"--{name}={value}" for name, value in options.items()]
    tool = (sys.executable, script, f"--num-gpus={number}", *arguments)
    return replace(stage, command=(sys.executable, "-m", "suites.cluster.spread", *told, *tool))


def end_steps(job: str) -> None:
    """Kill the trainings of this job, which a killed call has left on its nodes, and wait for their end.

    Raises:
        InputError: they do not end.
    """
    deadline = time.monotonic() + _END
    while left := _steps(job):
        _ask("scancel", "--signal=KILL", *left)
        if time.monotonic() > deadline:
            raise InputError(f"the steps {' '.join(left)} of an earlier call do not end; cancel the job and call again")
        time.sleep(1.0)


def _steps(job: str) -> list[str]:
    said = _ask("squeue", "--steps", "--noheader", f"--jobs={job}", "--format=%i|%j")
    return [number for number, _, name in (line.strip().partition("|") for line in said.splitlines()) if name == STEP]


def _ask(*command: str) -> str:
    """Return what a program of SLURM says; "" if it does not answer, as `srun` will not then, either."""
    with outside_jobs(), suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command on all nodes of the job; return its exit code."""
    args, job = _parse(argv), os.environ["SLURM_JOB_ID"]
    end_steps(job)
    reports = args.folder / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    try:
        with hold_signals():
            code = _run(_srun(args, job), reports)
            if refused := refusals(reports):
                raise refused[0]
    except Stopped as stopped:
        return stopped.exit_code
    return 1 if code > 128 else code  # ended by a signal


def _srun(args: argparse.Namespace, job: str) -> list[str]:
    options = [
        f"--jobid={job}", "--overlap", f"--job-name={STEP}", f"--nodes={args.nodes}", f"--ntasks={args.nodes}",
        "--ntasks-per-node=1", f"--cpus-per-task={args.cores}", "--distribution=block", "--kill-on-bad-exit=1",
        "--unbuffered", "--input=none", "--mpi=none",
    ]  # fmt: skip
    options += [f"--gpus-per-node={args.gpus}"] if args.gpus else []
    return ["srun", *options, *_SHELL, *args.command]


def _run(command: Sequence[str], reports: Path) -> int:
    """Run `srun`, and pass on the signals that are noted meanwhile; return its exit code."""
    with outside_jobs():
        environment = os.environ | {REPORTS: str(reports)}
        child = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
    told = 0.0
    try:
        while (code := child.poll()) is None:
            if noted_signal() and time.monotonic() - told > _AGAIN:
                child.send_signal(signal.SIGUSR1)
                told = time.monotonic()
            time.sleep(_POLL)
    finally:
        with suppress(ProcessLookupError):
            child.kill()
    return code if code >= 0 else 128 - code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, required=True, help="nodes of the job")
    parser.add_argument("--cores", type=int, required=True, help="cores on each")
    parser.add_argument("--gpus", type=int, required=True, help="GPUs on each")
    parser.add_argument("--folder", type=Path, required=True, help="folder that all nodes share")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what runs on each node")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
