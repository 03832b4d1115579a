"""Time `evaluate_coco` against pycocotools on a generated problem of the size of val2017, in one process and thread.

    OMP_NUM_THREADS=1 python benchmarks/coco_eval.py [--images N] [--objects N] [--detections N] [--repeats N]

The problem: 5,000 images with 36,000 objects (1 % of them crowds) of 80 classes with frequencies as in COCO, a third of
them below 32² pixels, clustered in images; 350,000 detections: jittered copies of the objects (some of a wrong class,
some duplicated), with higher scores for better fits, and false ones for the rest.

Both sides start from the same ground truth (a dict) and the same list of results in memory, and return 12 numbers:

    ours            evaluate_coco, including per-class AP and AR and the matches for the bootstrap, without writing
    pycocotools     createIndex, loadRes (reading), and evaluate, accumulate, summarize (evaluation)

`ratio` compares our total with pycocotools' evaluation only; `ratio_with_reading` compares both totals.  Target: 5
times faster, with the 12 numbers identical to 1e-9.  About 2 minutes.
"""

import argparse
import contextlib
import copy
import io
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from detection.evaluation.coco import evaluate_coco

CLASSES, CROWD_SHARE, SIDE = 80, 0.012, (640, 480)
JITTERED_PER_OBJECT = (2.5, 0.12)  # detections around one object, and the share of them of a wrong class


def main(arguments: list[str] | None = None) -> None:
    """Generate the problem, measure, and print the result as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--objects", type=int, default=36_000)
    parser.add_argument("--detections", type=int, default=350_000)
    parser.add_argument("--repeats", type=int, default=3, help="runs of our evaluation, of which the fastest counts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if min(args.images, args.objects, args.detections, args.repeats) < 1:
        raise InputError("--images, --objects, --detections and --repeats must be 1 or more")
    truth, detections = generate(args.images, args.objects, args.detections, args.seed)
    runs = [_timed(lambda: evaluate_coco(truth, detections, score_threshold=0.0)) for _ in range(args.repeats)]
    ours, metrics = min(seconds for seconds, _ in runs), runs[0][1]["metrics"]
    theirs, reference = time_pycocotools(truth, detections)
    evaluation = theirs["evaluate"] + theirs["accumulate"] + theirs["summarize"]
    ratios = {"ratio": evaluation / ours, "ratio_with_reading": sum(theirs.values()) / ours}
    difference = largest_difference(metrics, reference)
    details = {
        "seconds_ours": ours,
        "seconds_pycocotools": theirs,
        "largest_difference": difference,
        "metrics": metrics,
        "counts": runs[0][1]["counts"],
        "target": 5,
    }
    result = {"benchmark": "coco_eval", "ratios": ratios, "identical": difference <= 1e-9,
              "device": "cpu, 1 thread", "details": details}  # fmt: skip
    print(json.dumps(result))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of this process, which other processes do not affect, and the result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def time_pycocotools(truth: dict, detections: list[dict]) -> tuple[dict[str, float], list[float]]:
    """Return the seconds of every part, and the 12 numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results: Any = copy.deepcopy(detections)  # pycocotools modifies both
    seconds: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = copy.deepcopy(truth)
        seconds["createIndex"], _ = _timed(known.createIndex)
        seconds["loadRes"], found = _timed(lambda: known.loadRes(results))
        evaluation = COCOeval(known, found, "bbox")
        for part in ("evaluate", "accumulate", "summarize"):
            seconds[part], _ = _timed(getattr(evaluation, part))
    return seconds, [math.nan if value == -1 else float(value) for value in evaluation.stats]


def largest_difference(ours: dict[str, float], theirs: list[float]) -> float:
    """Return the largest difference of the 12 numbers; infinite if only one side has a number."""
    pairs = [(a, b) for a, b in zip(ours.values(), theirs, strict=True) if not (math.isnan(a) and math.isnan(b))]
    return max(math.inf if math.isnan(a) or math.isnan(b) else abs(a - b) for a, b in pairs)


# ---- the problem --------------------------------------------------------------------------------------------------


def generate(images: int, objects: int, detections: int, seed: int = 0) -> tuple[dict, list[dict]]:
    """Generate COCO ground truth and COCO results; a pure function of the arguments."""
    rng = np.random.default_rng(seed)
    image, category, boxes = _objects(rng, images, objects)
    area = boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 0.95, objects)  # area of the segmentation
    crowd = rng.random(objects) < CROWD_SHARE
    truth = {
        "images": [{"id": n + 1, "width": SIDE[0], "height": SIDE[1]} for n in range(images)],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)],
        "annotations": [
            {"id": n + 1, "image_id": i + 1, "category_id": k + 1, "bbox": box, "area": a, "iscrowd": int(c)}
            for n, (i, k, box, a, c) in enumerate(
                zip(image.tolist(), category.tolist(), boxes.round(2).tolist(), area.tolist(), crowd, strict=True)
            )
        ],
    }
    columns = _detections(rng, images, detections, image, category, boxes)
    found = zip(*(column.tolist() for column in columns), strict=True)
    keys = ("image_id", "category_id", "bbox", "score")
    return truth, [dict(zip(keys, (i + 1, k + 1, box, score), strict=True)) for i, k, box, score in found]


def _objects(rng: np.random.Generator, images: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw image, class and box of every object; images hold few classes with several objects each."""
    share = 1 / np.arange(2, CLASSES + 2)
    share[0] = 0.4 * share.sum()  # persons
    groups = -(-count // 2)
    image, category = rng.integers(images, size=groups), rng.choice(CLASSES, groups, p=share / share.sum())
    size = np.minimum(rng.geometric(0.4, groups), 14)
    return np.repeat(image, size)[:count], np.repeat(category, size)[:count], _boxes(rng, count)


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw boxes (count, 4) x, y, w, h inside the image; geometric mean of the sides between 5 and 400 pixels."""
    side = np.exp(rng.uniform(np.log(8), np.log(330), count))
    stretch = np.exp(rng.normal(0, 0.4, count))
    sides = np.minimum(np.stack([side * stretch, side / stretch], 1), SIDE)
    return np.concatenate([rng.random((count, 2)) * (SIDE - sides), sides], 1)


def _detections(
    rng: np.random.Generator, images: int, count: int, image: np.ndarray, category: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw image, class, box and score of every detection, sorted by image."""
    around, wrong = JITTERED_PER_OBJECT
    source = rng.permutation(np.repeat(np.arange(len(boxes)), rng.poisson(around, len(boxes))))[:count]
    jitter = np.abs(rng.normal(0, 0.13, len(source)))
    sides = boxes[source, 2:]
    near = np.concatenate(
        [
            boxes[source, :2] + rng.normal(size=sides.shape) * jitter[:, None] * sides,
            sides * np.exp(rng.normal(size=sides.shape) * jitter[:, None]),
        ],
        1,
    )
    confused = rng.random(len(source)) < wrong
    label = np.where(confused, rng.integers(CLASSES, size=len(source)), category[source])
    score = np.clip(np.exp(-4 * jitter) * rng.beta(4, 2, len(source)) * np.where(confused, 0.5, 1), 0, 1)
    rest = count - len(source)
    where = rng.integers(images, size=rest)
    columns = (
        np.concatenate([image[source], where]),
        np.concatenate([label, rng.choice(category, rest)]),  # errors of a detector follow the class frequencies
        np.concatenate([near, _boxes(rng, rest)]).round(2),
        np.concatenate([score, rng.beta(0.7, 9, rest)]).round(5),  # five digits, for some ties
    )
    order = np.argsort(columns[0], kind="stable")
    return columns[0][order], columns[1][order], columns[2][order], columns[3][order]


if __name__ == "__main__":
    run_tool(main)
