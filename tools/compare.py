"""Compare backbones from the folders of their runs: a table, confidence intervals and an HTML page.

    python tools/compare.py RUN ... --output-dir D

RUN is a folder with results.json files, at any depth.  All results of one backbone (pretraining, evaluation,
localisation, detection) form one row; several fine-tunings give one row per detector seed.  Evaluations of a run on
other data sets (RUN/evaluation-DATASET) count only if their own folders are given.  Differences in AP and AR are row
minus the hard-label baseline (method CE), with a paired bootstrap interval over images.  Writes comparison.json,
comparison.csv, comparison.md and index.html.  Stages that failed are listed in the file of --failures (its format:
comparison/failures.py); their rows show the reason.
"""

import argparse

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.checks import ABOVE_0, BELOW_1, check_range
from backbones.core.entry import run_tool
from backbones.core.locking import lock_run
from comparison.evidence.bundle import save_bundle
from comparison.failures import load_failures
from comparison.methods import read_goal
from comparison.page.page import save_comparison
from comparison.rows import collect_rows, find_other_evaluations
from comparison.summary import build_comparison
from comparison.tables.terminal import terminal_table, terminal_verdicts


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    check_range("--resamples", args.resamples, 1)
    check_range("--level", args.level, ABOVE_0, BELOW_1)
    failures = load_failures(args.failures) if args.failures else []
    rows = collect_rows(args.runs, allow_mixed_protocols=args.allow_mixed_protocols)
    options = {
        **{"baseline": args.baseline, "resamples": args.resamples, "seed": args.seed, "level": args.level},
        **{"chosen": args.chosen, "goal": read_goal(args.primary, args.margin, args.seed_hours), "failures": failures},
    }
    comparison = build_comparison(rows, **options)
    others = ", ".join(map(str, find_other_evaluations(args.runs)))
    left_out = [f"Left out, as not given themselves: evaluations on other data sets in {others}."] if others else []
    notes = [*left_out, *args.note]
    comparison["notes"] += notes
    with lock_run(args.output_dir):
        page = save_comparison(args.output_dir, comparison, rows)
    if args.bundle:
        save_bundle(args.bundle, args.output_dir, rows, options, notes)
    print("\n\n".join(filter(None, [terminal_table(comparison), terminal_verdicts(comparison)])))
    print(f"\nreport: {page}")
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=path_argument, metavar="RUN", help="folder at or above results.json")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="folder for the report")
    parser.add_argument("--baseline", metavar="LABEL", help="row to compare with (default: the row of method CE)")
    parser.add_argument(
        "--allow-mixed-protocols", action="store_true", help="accept rows of several protocols; the page notes it"
    )
    parser.add_argument(
        "--chosen", metavar="KEY", action="append", default=[],
        help="config key selected separately per seed: rows that differ only in it count as seeds of one row",
    )  # fmt: skip
    parser.add_argument("--failures", type=path_argument, metavar="FILE", help="json list of stages that failed")
    parser.add_argument("--bundle", type=path_argument, metavar="FILE.zip", help="write the evidence, too (verify.py)")
    parser.add_argument("--note", metavar="TEXT", action="append", default=[], help="line to add to the page's notes")
    parser.add_argument("--primary", metavar="NAME", default="AP", help="number that decides (default %(default)s)")
    parser.add_argument(
        "--margin", type=float, default=0.005, help="largest difference that does not matter (default %(default)s)"
    )
    parser.add_argument("--seed-hours", type=float, metavar="H", help="hours per further seed of a row, for the plan")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s)")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (default %(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
