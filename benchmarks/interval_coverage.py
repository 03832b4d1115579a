"""Count how often the interval of a verdict covers the true difference, and how often its words are wrong.

    OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py --output-dir DIR [--jobs N] [--quick]

Detectors of known quality (`simulated_detectors`) are measured by the evaluator, resampled by the bootstrap and
compared by the verdict: AP50 on 200 images, 300 resamples, 600 simulations in each of 16 cells (`interval_trials`):

    small_S, large_S    S = 2, 3, 5 or 10 seeds per method, with small or large noise of seeds
    unequal             2 seeds against 5
    interaction         a large interaction of method and image
    shared              a method against itself, 3 seeds: all effects of images are shared, C = 0
    same_S              two methods of equal mean quality on different images, 3, 5 or 10 seeds
    margin_S            a true difference that equals the margin of equivalence, 3 or 5 seeds

The true difference is the mean over --estimates differences of single runs on other images, as the expected difference
does not depend on the number of seeds.  It is exactly 0 for `shared` and `same_S`, where the methods can be exchanged;
the mean is only checked to be within 4 of its standard errors.

Beside the coverage of the verdict's 95 % interval (with its 99 % Wilson interval) are those of the percentile interval
over images only, of Welch's t over seeds, and of hotcoco for the first seeds, if it is installed.  A cell passes if the
Wilson interval meets 93 to 98 % (91 to 98 % for 2 seeds), if at a true difference of 0 at most 6.8 % are called better
or worse, and if at a true difference of the margin at most 6.8 % are called equivalent.  Exit code 1: a cell does not.
(`equivalence_test` of the result is the share of two one-sided tests at 5 %: some of these have the word better.)

Finished blocks stay in DIR; the same command resumes after an interruption, with the same result.  About 15 minutes on
one core.  --quick runs the cell small_3 with fewer simulations, in 15 seconds.
"""

import argparse
import json
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from interval_trials import BLOCKS, CELLS, COLUMNS, Block, Cell, as_difference, compute_block, read_block

from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from comparison.verdicts.nested import Difference, t_quantile
from comparison.verdicts.words import BETTER, EQUIVALENT, LEVEL, MARGIN, WORSE, judge

COVERED, COVERED_BY_TWO = (0.93, 0.98), (0.91, 0.98)
MOST_WRONG = 0.068  # of words: 5 % and two standard errors of 600 simulations
QUICK = {"simulations": 200, "estimates": 2_000, "cells": ("small_3",)}


def main(arguments: list[str] | None = None) -> int:
    """Simulate, and print a table and the result as one JSON line; return 1 if a cell does not pass."""
    args = parse_arguments(arguments)
    cells = [cell for cell in CELLS if cell.name in args.cells]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.output_dir or temporary)
        compute_missing(plan(folder, cells, args.simulations, args.estimates), args.jobs)
        rows = [summarise(cell, *read_cell(folder, cell, args.simulations, args.estimates)) for cell in cells]
    print(format_table(rows))
    passed = not any(row["failures"] for row in rows)
    result = {"benchmark": "interval_coverage", "passed": passed, "device": f"cpu, {args.jobs} process(es)",
              "details": {"simulations": args.simulations, "estimates": args.estimates, "cells": rows}}  # fmt: skip
    print(json.dumps(result, allow_nan=False))
    return 0 if passed else 1


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    names = [cell.name for cell in CELLS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", help="where finished blocks are kept; default: nowhere")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--simulations", type=int, default=600, help="per cell")
    parser.add_argument("--estimates", type=int, default=10_000, help="single differences behind the true difference")
    parser.add_argument("--cells", nargs="+", default=names, choices=names, metavar="CELL", help="default: all")
    parser.add_argument("--quick", action="store_true", help="one cell with fewer simulations")
    args = parser.parse_args(arguments)
    if args.quick:
        vars(args).update(QUICK)
    if min(args.jobs, args.simulations) < 1 or args.estimates < 2:
        raise InputError("--jobs and --simulations must be 1 or more, --estimates 2 or more")
    return args


def plan(folder: Path, cells: Sequence[Cell], simulations: int, estimates: int) -> list[Block]:
    """Return the blocks of the cells; cells with the same effects have blocks of `truth` in common."""
    blocks = [block for cell in cells for block in _blocks(folder, "truth", cell, estimates)]
    blocks += [block for cell in cells for block in _blocks(folder, "trials", cell, simulations)]
    return list({block.path: block for block in blocks}.values())


def _blocks(folder: Path, kind: str, cell: Cell, count: int) -> list[Block]:
    return [Block(folder, kind, cell, number) for number in range(math.ceil(count / BLOCKS[kind]))]


def compute_missing(blocks: Sequence[Block], jobs: int) -> None:
    """Compute the blocks without a valid file, in `jobs` processes, and say on standard error how many are done."""
    missing = [block for block in blocks if read_block(block) is None]
    if jobs == 1:
        for number, block in enumerate(missing):
            compute_block(block)
            _report(number, missing)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as processes:
        for number, _ in enumerate(processes.imap_unordered(compute_block, missing)):
            _report(number, missing)


def _report(number: int, missing: Sequence[Block]) -> None:
    print(f"{number + 1} of {len(missing)} blocks", file=sys.stderr, flush=True)


def read_cell(folder: Path, cell: Cell, simulations: int, estimates: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the simulations of a cell (N, COLUMNS) and the single differences (E,)."""
    rows, single = (
        np.concatenate([_known(read_block(block)) for block in _blocks(folder, kind, cell, count)])[:count]
        for kind, count in (("trials", simulations), ("truth", estimates))
    )
    return rows, single


def _known(rows: np.ndarray | None) -> np.ndarray:
    assert rows is not None
    return rows


# ---- the result ---------------------------------------------------------------------------------------------------


def summarise(cell: Cell, rows: np.ndarray, single: np.ndarray) -> dict[str, Any]:
    """Return the shares of a cell and what it fails in, from simulations (N, COLUMNS) and single differences (E,)."""
    mean, error = float(single.mean()), float(single.std(ddof=1) / math.sqrt(len(single)))
    truth = 0.0 if cell.same else mean
    column = dict(zip(COLUMNS, rows.T, strict=True))
    ours = [as_difference(row) for row in rows]
    low, high = np.array([one.interval() for one in ours]).T
    covered = int(((low <= truth) & (truth <= high)).sum())
    margin = truth if cell.at_margin else MARGIN
    words = [_word(one, margin, min(cell.seeds)) for one in ours]
    half = column["welch_error"] * np.array([t_quantile(0.975, df) for df in column["welch_df"].tolist()])
    row = {
        "cell": cell.name,
        "seeds": list(cell.seeds),
        "truth": truth,
        "mean": mean,
        "error": error,
        "simulations": len(rows),
        "coverage": covered / len(rows),
        "wilson": list(wilson(covered, len(rows))),
        "half_width": float((high - low).mean() / 2),
        "margin": margin,
        "better_or_worse": words.count(BETTER) / len(words) + words.count(WORSE) / len(words),
        "equivalent": words.count(EQUIVALENT) / len(words),
        "equivalence_test": sum(one.p_equivalent(margin) < LEVEL for one in ours) / len(ours),
        "images_only": share_covered(column["images_low"], truth, column["images_high"]),
        "welch": share_covered(column["value"] - half, truth, column["value"] + half),
        "hotcoco": share_covered(column["hotcoco_low"], truth, column["hotcoco_high"]),
    }
    return row | {"failures": find_failures(cell, row)}


def _word(one: Difference, margin: float, seeds: int) -> str:
    return judge([one], margin=margin, seeds=[seeds])[0].word


def wilson(count: int, total: int, level: float = 0.99) -> tuple[float, float]:
    """Return the interval of a share of `total` (Wilson 1927)."""
    z = t_quantile((1 + level) / 2, math.inf)
    centre, spread = count + z**2 / 2, z * math.sqrt(count * (total - count) / total + z**2 / 4)
    return (centre - spread) / (total + z**2), (centre + spread) / (total + z**2)


def share_covered(low: np.ndarray, truth: float, high: np.ndarray) -> float | None:
    """Return the share of intervals with the truth, None if there are no intervals."""
    return None if np.isnan(low).any() else float(((low <= truth) & (truth <= high)).mean())


def find_failures(cell: Cell, row: dict[str, Any]) -> list[str]:
    """Return what the numbers of a cell fail in, empty if it passes."""
    least, most = COVERED_BY_TWO if cell.seeds == (2, 2) else COVERED
    wrong = {
        f"coverage: the Wilson interval does not meet {least:.0%} to {most:.0%}": row["wilson"][1] < least
        or row["wilson"][0] > most,
        f"better or worse: more than {MOST_WRONG:.1%}": cell.same and row["better_or_worse"] > MOST_WRONG,
        f"equivalent: more than {MOST_WRONG:.1%}": cell.at_margin and row["equivalent"] > MOST_WRONG,
        "true difference: the mean is not 0": cell.same and abs(row["mean"]) > 4 * row["error"],
    }
    return [text for text, applies in wrong.items() if applies]


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the shares in per cent; differences, margins and half-widths in AP50 points."""
    head = f"{'cell':<12} {'seeds':>6} {'truth':>6} {'+-':>5} {'coverage':>8} {'99 % Wilson':>13}"
    lines = [f"{head} {'better/worse':>12} {'equivalent':>10} {'margin':>6} {'images':>6} {'Welch':>6} {'hotcoco':>7}"]
    for row in rows:
        low, high = (f"{100 * value:.1f}" for value in row["wilson"])
        line = f"{row['cell']:<12} {'{} / {}'.format(*row['seeds']):>6} {_percent(row['truth'], 2):>6}"
        line += f" {_percent(row['half_width'], 2):>5} {_percent(row['coverage']):>8} {f'{low} to {high}':>13}"
        line += f" {_percent(row['better_or_worse']):>12} {_percent(row['equivalent']):>10}"
        line += f" {_percent(row['margin'], 2):>6} {_percent(row['images_only']):>6} {_percent(row['welch']):>6}"
        lines.append(f"{line} {_percent(row['hotcoco']):>7} {'; '.join(row['failures'])}".rstrip())
    return "\n".join(lines)


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f}"


if __name__ == "__main__":
    run_tool(main, resume="run the same command again to resume")
