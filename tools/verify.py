"""Recompute a comparison from its evidence: `tools/compare.py ... --bundle FILE.zip`.

    python tools/verify.py FILE.zip

Needs no GPU, no images and no weights.  Prints what was compared; exit code 1 if a file was changed, or if a number, an
interval, a verdict or a sentence of the page differs from the recomputed one, each in one line.
"""

import argparse

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.entry import run_tool
from comparison.evidence.verify import verify

MOST_SHOWN = 20


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    found = verify(args.bundle)
    for problem in found.problems[:MOST_SHOWN]:
        print(problem)
    if found.problems:
        more = len(found.problems) - MOST_SHOWN
        print(f"{args.bundle}: not verified{f'; {more} more differences' if more > 0 else ''}")
        return 1
    print(f"{args.bundle}: verified, {found.numbers:,} values recomputed, {found.files} files unchanged")
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=path_argument, metavar="FILE.zip", help="written by tools/compare.py --bundle")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
