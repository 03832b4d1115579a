"""Time the diagnosis of one row against the verdict's bootstrap on the same resamples, in one process and thread.

    OMP_NUM_THREADS=1 python benchmarks/diagnosis.py [--images N] [--objects N] [--detections N] [--resamples N]

The problem is that of `bootstrap.py`, of the size of val2017.  `ratio` is the time of the diagnosis (errors, classes,
curves, confusion matrix, calibration, object share) over that of the bootstrap's 12 numbers; the target is at most 1.
`influence` is the time of leaving out every image once; the target is 15 seconds.  `identical` compares AP50 of TIDE
and mean AP of the classes with the bootstrap, to 1e-9.  Seconds are those of the processor.  Half a minute.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from bootstrap import FILE, separate_scores, timed
from coco_eval import generate

from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.matches import Matches, load_matches
from comparison.bootstrap import summary
from comparison.diagnosis.calibration import calibration
from comparison.diagnosis.confusion import confusion
from comparison.diagnosis.curves import precision_curves
from comparison.diagnosis.influence import influence_on_row
from comparison.diagnosis.intervals import weights_of
from comparison.diagnosis.per_class import per_class
from comparison.diagnosis.shares import recall_by_share
from comparison.diagnosis.tide import tide
from detection.evaluation.coco import evaluate_coco

DIAGNOSES = (tide, per_class, precision_curves, confusion, calibration, recall_by_share)


def main(arguments: list[str] | None = None) -> None:
    """Generate the problem, measure, and print the result as one JSON line."""
    args = parse_arguments(arguments)
    truth, detections = generate(args.images, args.objects, args.detections, args.seed)
    separate_scores(detections)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        evaluate_coco(truth, detections, score_threshold=0.0, matches_path=path)
        matches = load_matches(path)
    measure(matches, weights_of(matches, resamples=1, seed=args.seed))  # compiles
    seconds, largest = measure(matches, weights_of(matches, resamples=args.resamples, seed=args.seed))
    bootstrap = seconds.pop("summary")
    details = {
        "seconds": seconds,
        "bootstrap": bootstrap,
        "influence": timed(lambda: influence_on_row(matches))[0],
        "resamples": args.resamples,
        "largest_difference": largest,
        "target": {"ratio": 1, "influence": 15},
    }
    ratio = sum(seconds.values()) / bootstrap
    result = {"benchmark": "diagnosis", "ratios": {"ratio": ratio}, "identical": largest <= 1e-9,
              "device": "cpu, 1 thread", "details": details}  # fmt: skip
    print(json.dumps(result))


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--objects", type=int, default=36_000)
    parser.add_argument("--detections", type=int, default=350_000)
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    names = ("images", "objects", "detections", "resamples")
    if min(getattr(args, name) for name in names) < 1:
        raise InputError(f"{', '.join('--' + name for name in names)} must be 1 or more")
    return args


def measure(matches: Matches, weights: np.ndarray) -> tuple[dict[str, float], float]:
    """Return the seconds of every diagnosis and of the bootstrap, and the largest difference of their AP."""
    seconds, results = {}, {}
    for work in (*DIAGNOSES, summary):
        name = work.__name__
        seconds[name], _, results[name] = timed(lambda work=work: work(matches, weights))
    expected = results["summary"]
    gaps = [
        results["tide"]["all"]["AP50"] - expected["AP50"],
        np.nanmean(results["per_class"]["AP"], axis=1) - expected["AP"],
    ]
    return seconds, float(np.abs(gaps).max())


if __name__ == "__main__":
    run_tool(main)
