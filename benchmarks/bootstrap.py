"""Time the bootstrap of one row against pycocotools on the same resamples of images, in one process and thread.

    OMP_NUM_THREADS=1 python benchmarks/bootstrap.py [--images N] [--objects N] [--detections N] [--resamples N]

The problem is that of `coco_eval.py`, of the size of val2017.  Both sides know which detection matches which object:

    ours            `resample_rows`, the 12 numbers of every resample from matches.npz, without a file of earlier draws
    pycocotools     accumulate and summarize, with the matches of every drawn image repeated as often as it was drawn
                    (evaluate runs once, before the clock starts)

`ratio` compares the seconds of one resample; pycocotools computes the first --peer-resamples only.  Seconds are those
of the processor, which other processes do not affect; `details` has wall time, too.  `first_call` is the time of two
resamples in a new process: importing numba, and compiling on the first run on a machine.  `peak_gib` is the memory of a
process that only computes the row.  Targets: at most 10 seconds and 1 GiB for a row of 1,000 resamples, with the 12
numbers identical to 1e-9.  About 3 minutes.
"""

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from coco_eval import generate

from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.matches import Matches, load_matches
from comparison.bootstrap import resample_images, resample_rows
from detection.evaluation.coco import evaluate_coco

FILE = "benchmark.npz"  # not matches.npz, beside which draws are kept


def main(arguments: list[str] | None = None) -> None:
    """Generate the problem, measure, and print the result as one JSON line."""
    args = parse_arguments(arguments)
    truth, detections = generate(args.images, args.objects, args.detections, args.seed)
    separate_scores(detections)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        evaluate_coco(truth, detections, score_threshold=0.0, matches_path=path)
        with multiprocessing.get_context("spawn").Pool(1) as process:  # a process that has held nothing else
            ours = process.apply(time_ours, (path, args.resamples, args.seed))
    weights = resample_images(args.images, resamples=args.resamples, seed=args.seed)[: args.peer_resamples]
    theirs, numbers = time_pycocotools(truth, detections, weights)
    difference = largest_difference(np.stack(list(ours.pop("draws").values()), 1)[: len(weights)], numbers)
    details = {
        **ours,
        "seconds_per_resample": {"ours": ours["seconds_per_row"] / args.resamples, "pycocotools": theirs},
        "resamples": args.resamples,
        "largest_difference": difference,
        "target": {"seconds_per_row": 10, "peak_gib": 1},
    }
    ratio = theirs / details["seconds_per_resample"]["ours"]
    result = {"benchmark": "bootstrap", "ratios": {"ratio": ratio}, "identical": difference <= 1e-9,
              "device": "cpu, 1 thread", "details": details}  # fmt: skip
    print(json.dumps(result))


def separate_scores(detections: list[dict]) -> None:
    """Leave ties between images only: within one, repeated images alternate, where a weight counts at once."""
    seen: dict[int, int] = {}
    for one in detections:
        seen[one["image_id"]] = place = seen.get(one["image_id"], 0) + 1
        one["score"] += 1e-8 * place


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--objects", type=int, default=36_000)
    parser.add_argument("--detections", type=int, default=350_000)
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--peer-resamples", type=int, default=3, help="resamples of pycocotools")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    names = ("images", "objects", "detections", "resamples", "peer_resamples")
    if min(getattr(args, name) for name in names) < 1:
        raise InputError(f"{', '.join('--' + name.replace('_', '-') for name in names)} must be 1 or more")
    return args


def time_ours(path: Path, resamples: int, seed: int) -> dict[str, Any]:
    """Return the seconds of the first call and of a row, the peak of this process's memory, and the draws."""
    matches = load_matches(path)
    first, _, _ = timed(lambda: draw(matches, 2, seed))
    seconds, wall, draws = timed(lambda: draw(matches, resamples, seed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return {
        "seconds_per_row": seconds,
        "wall_seconds_per_row": wall,
        "first_call": first,
        "peak_gib": peak,
        "draws": draws,
    }


def draw(matches: Matches, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Return the 12 numbers of every resample (R,)."""
    return resample_rows([matches], resamples=resamples, seed=seed)[0].draws


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the seconds of the processor and of the clock, and the result."""
    started, clock = time.process_time(), time.perf_counter()
    result = work()
    return time.process_time() - started, time.perf_counter() - clock, result


def time_pycocotools(truth: dict, detections: list[dict], weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the seconds of one resample, and the 12 numbers of each (R, 12), NaN where there are none."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = truth
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(detections), "bbox")  # changes detections
        evaluation.evaluate()
        images = len(evaluation.params.imgIds)  # sorted, as those of matches
        matched = np.array(evaluation.evalImgs, dtype=object).reshape(-1, images)  # (classes x area ranges, images)
        seconds, numbers = 0.0, []
        for row in weights:
            evaluation.evalImgs = matched[:, np.repeat(np.arange(images), row.astype(int))].ravel().tolist()
            evaluation.params.imgIds = evaluation._paramsEval.imgIds = list(range(images))  # as many are drawn
            seconds += timed(evaluation.accumulate)[0] + timed(evaluation.summarize)[0]
            numbers.append([math.nan if value == -1 else float(value) for value in evaluation.stats])
    return seconds / len(weights), np.array(numbers)


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference of two arrays of numbers; infinite if only one has a number somewhere."""
    if not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return math.inf
    return float(np.nanmax(np.abs(ours - theirs), initial=0))


if __name__ == "__main__":
    run_tool(main)
