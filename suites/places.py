"""Where a suite runs: on this machine, or as jobs of a cluster, by LAUNCH.EXECUTOR."""

import argparse
from collections.abc import Sequence

from backbones.core.errors import InputError
from suites.cleaning import ask, clean
from suites.cluster.front import cancel_jobs, describe_jobs, run_on_cluster
from suites.config import SLURM
from suites.execution.runner import run_plan
from suites.plan import Plan
from suites.status import describe_status

# Options of tools/benchmark.py that exclude each other.
MODES = {
    "--dry-run": "list stages, time and disk; needs no data",
    "--status": "list what runs, waits and failed, also while it runs",
    "--wait": "with LAUNCH.EXECUTOR slurm: stay until all jobs have ended",
    "--cancel": "with LAUNCH.EXECUTOR slurm: cancel all jobs of the output folder",
    "--clean": "list and delete folders that no suite needs any more",
}


# Options of it that only one of these uses.
OF_MODE = {"commands": "dry_run", "yes": "clean"}


def refuse_alone(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error for an option that would be ignored without its mode."""
    for option, mode in OF_MODE.items():
        if getattr(args, option) and not getattr(args, mode):
            parser.error(f"--{option} is for --{mode.replace('_', '-')}; add that, or leave it out")


def run_suite(plan: Plan, command: Sequence[str], *, wait: bool = False) -> int:
    """Run a suite, or submit it; return the exit code.

    Args:
        command: calls the suite again, in a job.
        wait: stay until the jobs have ended.
    """
    if _on_cluster(plan):
        return run_on_cluster(plan, command, wait=wait)
    if wait:
        raise InputError("--wait is for LAUNCH.EXECUTOR slurm; a suite on this machine always stays until it has ended")
    return run_plan(plan)


def manage_suite(plan: Plan, *, status: bool, cancel: bool, confirm: bool) -> None:
    """Print the states of the stages, or cancel the jobs, or delete what no suite needs.

    Args:
        confirm: delete without asking.
    """
    if status:
        print(describe_jobs(plan) if _on_cluster(plan) else describe_status(plan))
    elif not cancel:
        clean(plan, confirm or ask)
    elif _on_cluster(plan):
        print(cancel_jobs(plan))
    else:
        raise InputError("--cancel is for LAUNCH.EXECUTOR slurm; stop a suite on this machine with Ctrl-C")


def _on_cluster(plan: Plan) -> bool:
    return plan.suite.launch.executor == SLURM
