"""Check what this machine can run, and how to fix the rest.

    python tools/doctor.py [--output-dir runs] [--suite FILE] [--json] [--slurm-job]

The last lines are verdicts: pretraining, both engines, the quick suite, COCO at scale.  Exit code 0 if the torchvision
engine works, which needs only packages from the package index; otherwise 1.
"""

import argparse
import json
import sys
from pathlib import Path

try:
    from backbones.core.arguments import ArgumentParser, path_argument
    from backbones.core.doctor import (
        ABILITIES,
        OK,
        PROBLEM,
        QUICK,
        TORCHVISION,
        Check,
        as_dict,
        check_machine,
        check_packages,
        describe,
        reason,
        verdicts,
    )
    from backbones.core.doctor_torch import check_torch
    from backbones.core.entry import run_tool
except ModuleNotFoundError:
    sys.exit(f"error: smooth2det is not installed in {sys.executable}; run: pip install -e .")


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    checks = [*check_machine(args.output_dir), *check_torch(), *check_packages()]
    checks += check_suites(args.output_dir, args.slurm_job, args.suite)
    checks += check_detection(verdicts(checks)[TORCHVISION] == "yes")
    print(json.dumps(as_dict(checks), indent=1) if args.json else describe(checks))
    return 0 if verdicts(checks)[TORCHVISION] == "yes" else 1


def check_suites(output_dir: Path, slurm_job: bool, suite: Path | None) -> list[Check]:
    """Check where suites run, here and on a cluster; imported late, so that a missing package does not prevent it."""
    try:
        from suites.cluster.doctor import check_slurm
        from suites.execution.disk import QUICK_SUITE, check_space
        from suites.execution.slots import check_system, make_slots, this_machine

        check_system()
        machine = this_machine()
    except Exception as error:
        return [Check("suite slots", PROBLEM, reason(error), "fix the lines above, then check again", (QUICK,))]
    found = f"{len(make_slots(machine, ()))} ({machine}); change with LAUNCH.JOBS"
    space = check_space(suite or QUICK_SUITE, output_dir)
    return [Check("suite slots", OK, found), space, *check_slurm(output_dir, test_job=slurm_job)]


def check_detection(installed: bool) -> list[Check]:
    """Check detectron2 and the data; imported late, so that a missing package does not prevent the report."""
    try:
        from detection.doctor import check_data, check_detectron2
    except Exception as error:
        blocks = ABILITIES if installed else ()  # a missing package has its own line
        return [Check("detection", PROBLEM, reason(error), "fix the lines above, then check again", blocks)]
    return [*check_detectron2(), *check_data()]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output-dir", type=path_argument, default="runs", help="folder for future runs (default: %(default)s)"
    )
    parser.add_argument("--suite", type=path_argument, help="yaml file whose DISK must be free (default: quick.yaml)")
    parser.add_argument("--slurm-job", action="store_true", help="also run a job of two seconds on the SLURM cluster")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
