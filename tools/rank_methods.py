"""Rank methods over data sets and networks: average ranks, Friedman, Iman-Davenport, Nemenyi, Wilcoxon-Holm.

python tools/rank_methods.py --metric nll runs/cifar10 runs/cifar100 --output-dir ranks
python tools/rank_methods.py --metric CE --better lower --csv docs/paper_tables/ils_table3_ce.csv --output-dir ranks

Writes ranks.json and ranks.png (the critical-difference diagram).  Each row of the table is one protocol
and network, each column one method; seeds are averaged first, and missing ones named.  In the folder of a suite, points
of grids are not methods, and rows LABEL+TempS have their numbers after temperature scaling.
"""

import argparse

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.checks import ABOVE_0, BELOW_1, check_range
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.files import save_atomic, save_json


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    if bool(args.runs) == bool(args.csv):
        raise InputError("give either folders of runs, or one file with --csv")
    check_range("--level", args.level, ABOVE_0, BELOW_1)
    from comparison.ranking.figure import draw_ranks  # slow: imported after the arguments are checked
    from comparison.ranking.tables import collect_table, direction, load_csv, rank_table, ranks_text

    better = direction(args.metric, args.better)
    table = load_csv(args.csv) if args.csv else collect_table(args.runs, args.metric, args.chosen, args.scaled)
    found = rank_table(table, args.metric, better, args.level)
    save_json(args.output_dir / "ranks.json", found)
    save_atomic(args.output_dir / "ranks.png", lambda path: draw_ranks(found).savefig(path))
    print(ranks_text(found))
    print(f"table and diagram: {args.output_dir}")
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=path_argument, metavar="RUN", help="folder at or above results.json")
    parser.add_argument(
        "--csv", type=path_argument, help="table to use instead of runs: rows are data sets, columns methods"
    )
    parser.add_argument("--metric", required=True, help="name of a metric in results.json (with --csv, a title)")
    parser.add_argument("--better", choices=("higher", "lower"), help="needed if it does not follow from the metric")
    parser.add_argument(
        "--chosen", metavar="KEY", action="append", default=[], help="config key selected separately for each seed"
    )
    parser.add_argument(
        "--scaled", metavar="LABEL", action="append", default=[], help="also rank LABEL after temperature scaling"
    )
    parser.add_argument("--level", type=float, default=0.95, help="1 - significance level (default %(default)s)")
    parser.add_argument("--output-dir", type=path_argument, required=True, help="folder for ranks.json and ranks.png")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    run_tool(main)
