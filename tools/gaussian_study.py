"""Reproduce the synthetic study of instance-based label smoothing (Tables I, II, V, VI; Figures 1, 2, 4 to 8, 11).

    python tools/gaussian_study.py --output-dir runs/gaussian                   100 replicates, learning rate 1e-2
    python tools/gaussian_study.py --output-dir runs/gaussian_3e-3 --sensitivity         the same with 3e-3
    python tools/gaussian_study.py --output-dir runs/gaussian_quick --quick --replicates 2   a preview, in seconds

Writes report.html (one file), tables.md, numbers.json, table_*.csv and figure_*.png.  Run the same command again
to resume after an interruption; a larger --replicates adds to the finished ones.
"""

import argparse
from typing import TYPE_CHECKING

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.checks import ABOVE_0, check_range
from backbones.core.entry import run_tool
from backbones.core.files import load_json
from backbones.core.locking import lock_run
from backbones.core.machine import count_cores
from backbones.gaussian.families import FAMILIES, check_families

if TYPE_CHECKING:
    from backbones.gaussian.replicate import Settings

HEADLINE_LR, SENSITIVITY_LR = 1e-2, 3e-3
QUICK_EPOCHS, QUICK_POINTS = 3, (20, 20, 200)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    settings = build_settings(args)
    from backbones.gaussian.report import NUMBERS, verdict_sentence, write_report
    from backbones.gaussian.study import run_study

    with lock_run(args.output_dir):
        run_study(settings, args.output_dir, args.replicates, args.workers)
        page = write_report(settings, args.output_dir, args.replicates)
    print(verdict_sentence(load_json(args.output_dir / NUMBERS)["directions"]))
    print(f"report: {page}")
    return 0


def build_settings(args: argparse.Namespace) -> "Settings":
    """Build the settings of the study from the arguments."""
    for name in ("replicates", "workers"):
        check_range(f"--{name}", getattr(args, name), 1)
    check_range("--lr", args.lr, ABOVE_0, 1)
    check_range("--seed", args.seed, 0)
    families = check_families(args.rows)
    from backbones.gaussian.candidates import QUICK, Grids  # slow: imported after the arguments are checked
    from backbones.gaussian.replicate import Settings
    from backbones.gaussian.training import Recipe

    if args.quick:
        return Settings(Recipe(lr=args.lr, max_epochs=QUICK_EPOCHS), QUICK, families, QUICK_POINTS, args.seed)
    return Settings(Recipe(lr=args.lr), Grids(), families, seed=args.seed)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=path_argument, required=True)
    parser.add_argument("--replicates", type=int, default=100)
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--lr", type=float, default=HEADLINE_LR, help="Adam's learning rate (default: %(default)s)")
    rate.add_argument("--sensitivity", dest="lr", action="store_const", const=SENSITIVITY_LR, help="--lr 3e-3")
    parser.add_argument(
        "--rows", nargs="+", default=FAMILIES, metavar="ROW", help=f"of {', '.join(FAMILIES)}; default: all"
    )
    parser.add_argument(
        "--workers", type=int, default=count_cores(), help="single-threaded processes (default: number of cores)"
    )
    parser.add_argument("--seed", type=int, default=0, help="for data, initialisation, order (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few samples, epochs, grid points: meaningless numbers")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main, resume="run the same command again to train the missing replicates")
