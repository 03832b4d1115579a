"""Compare backbones from the folders of their runs: a table, confidence intervals and an HTML page.

    python tools/compare.py RUN ... --output-dir D
    python tools/compare.py --truth annotations.json --results CE=ce.json --results ALS=als.json --output-dir D

RUN is a folder with results.json files, at any depth.  All results of one backbone (pretraining, evaluation,
localisation, detection) form one row; several fine-tunings give one row per detector seed.  Evaluations of a run on
other data sets (RUN/evaluation-DATASET) count only if their own folders are given.  Differences in AP and AR are row
minus the hard-label baseline (method CE), with a paired bootstrap interval over images.  Stages that failed are listed
in the file of --failures (comparison/failures.py); their rows show the reason.  Results files of other detectors
(docs/results_files.md) form rows of their own, or join the rows of runs with the same ground truth.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.entry import run_tool
from comparison import compare
from comparison.failures import load_failures
from comparison.page.page import PAGE
from comparison.rows import collect_rows
from comparison.tables.terminal import terminal_table, terminal_verdicts
from detection.evaluation.arguments import add_results_arguments, evaluate_arguments

# Options that are arguments of `compare`.
OPTIONS = ("baseline", "primary", "margin", "seed_hours", "tuning_hours")
OPTIONS += ("resamples", "level", "seed", "chosen", "bundle", "paper")


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    failures = load_failures(args.failures) if args.failures else []
    mixed = args.allow_mixed_protocols
    rows = collect_rows(args.runs, allow_mixed_protocols=mixed) if args.runs and args.results else []
    foreign = evaluate_arguments(args, [row.folders["detection"] for row in rows if "detection" in row.folders])
    comparison = compare(
        [*args.runs, *foreign], args.output_dir, failures=failures, notes=args.note, allow_mixed_protocols=mixed,
        read_images=partial(read_images, args, foreign), **{name: getattr(args, name) for name in OPTIONS},
    )  # fmt: skip
    print("\n\n".join(filter(None, [terminal_table(comparison), terminal_verdicts(comparison)])))
    print(f"\nreport: {args.output_dir / PAGE}")
    return 0


def read_images(args: argparse.Namespace, foreign: list[Path], *run: Any, **options: Any) -> Any:
    from detection.drawing.results import read_scenes  # slow

    return read_scenes(args, foreign, *run, **options)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=path_argument, metavar="RUN", help="folder at or above results.json")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="folder for the report")
    parser.add_argument("--baseline", metavar="LABEL", help="row to compare with (default: the row of method CE)")
    parser.add_argument("--allow-mixed-protocols", action="store_true", help="accept several protocols, with a note")
    parser.add_argument(
        "--chosen", metavar="KEY", action="append", default=[],
        help="config key selected separately per seed: rows that differ only in it count as seeds of one row",
    )  # fmt: skip
    parser.add_argument("--failures", type=path_argument, metavar="FILE", help="json list of stages that failed")
    parser.add_argument("--bundle", type=path_argument, metavar="FILE.zip", help="write the evidence, too (verify.py)")
    parser.add_argument("--paper", metavar="TABLE", default="", help="show numbers of docs/papers.yaml: TABLE[:PART]")
    parser.add_argument("--note", metavar="TEXT", action="append", default=[], help="line to add to the page's notes")
    parser.add_argument("--primary", metavar="NAME", default="AP", help="number that decides (default %(default)s)")
    parser.add_argument("--margin", type=float, default=0.005, help="difference that does not matter (%(default)s)")
    parser.add_argument("--seed-hours", type=float, metavar="H", help="hours per further seed of a row, for the plan")
    parser.add_argument("--tuning-hours", type=float, metavar="H", help="those of --seed-hours for the fine-tuning")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s)")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (default %(default)s)")
    add_results_arguments(parser)
    args = parser.parse_args(argv)
    if not args.runs and not args.results:
        parser.error("nothing to compare; give RUN folders, or --truth and --results")
    return args


if __name__ == "__main__":
    run_tool(main)
