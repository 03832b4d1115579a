"""Time `evaluate_coco` against other evaluators on a generated problem of the size of val2017, in one thread.

    OMP_NUM_THREADS=1 python benchmarks/coco_eval.py [--images N] [--objects N] [--detections N] [--repeats N]

The problem: 5,000 images with 36,000 objects (1 % of them crowds) of 80 classes with frequencies as in COCO, a third of
them below 32² pixels, clustered in images; 350,000 detections: jittered copies of the objects (some of a wrong class,
some duplicated), with higher scores for better fits, and false ones for the rest.

Every side starts from the same two json files and returns 12 numbers:

    ours                with AP and AR per class, and the matches per image in memory
    ours, matches.npz   also with the nearest objects of every detection, and the file written
    ours, reading       the part of the above that reads the two files
    pycocotools, and faster-coco-eval and hotcoco if they are installed (`pip install faster-coco-eval hotcoco`)

After one call on a small problem, the sides take turns in one process, and the fastest of its turns counts for each; a
side that takes longer than 5 seconds has one turn.  All figures are CPU seconds of this process.  `ratios` is our time
over that of each other evaluator.  Target: at most 1.25 times hotcoco, and the 12 numbers equal to those of pycocotools
to 1e-9.  About 2 minutes.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.reading import GroundTruth, read_detections

CLASSES, CROWD_SHARE, SIDE = 80, 0.012, (640, 480)
JITTERED_PER_OBJECT = (2.5, 0.12)  # detections around one object, and the share of them of a wrong class
SLOW = 5  # seconds
WARM_UP = (20, 100, 1_000)  # images, objects and detections of the first call


def main(arguments: list[str] | None = None) -> None:
    """Generate the problem, measure, and print the result as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--objects", type=int, default=36_000)
    parser.add_argument("--detections", type=int, default=350_000)
    parser.add_argument("--repeats", type=int, default=3, help="turns of every side, of which the fastest counts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if min(args.images, args.objects, args.detections, args.repeats) < 1:
        raise InputError("--images, --objects, --detections and --repeats must be 1 or more")
    os.environ["RAYON_NUM_THREADS"] = "1"  # of hotcoco
    peers = {name: work for name, work in PEERS.items() if _version(name)}
    with tempfile.TemporaryDirectory() as folder:
        small = _write(Path(folder) / "small", *generate(*WARM_UP, args.seed))
        files = _write(Path(folder) / "large", *generate(args.images, args.objects, args.detections, args.seed))
        seconds, found = measure({**OURS, **peers}, small, files, args.repeats)
    ours = found["ours"]["metrics"]
    differences = {name: largest_difference(ours, found[name]) for name in peers}
    details = {
        "seconds": seconds,
        "largest_difference": differences,
        "versions": {name: _version(name) for name in peers},
        "metrics": ours,
        "counts": found["ours"]["counts"],
        "target": {"hotcoco": 1.25},
    }
    ratios = {name: seconds["ours"] / seconds[name] for name in peers}
    result = {"benchmark": "coco_eval", "ratios": ratios, "identical": differences["pycocotools"] <= 1e-9,
              "device": "cpu, 1 thread", "details": details}  # fmt: skip
    print(json.dumps(result))


def measure(
    sides: dict[str, Callable[[Path, Path], Any]], small: tuple[Path, Path], files: tuple[Path, Path], repeats: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the CPU seconds of the fastest call and the result of every side."""
    for work in sides.values():
        work(*small)
    seconds, found = dict.fromkeys(sides, math.inf), {}
    for _ in range(repeats):
        for name, work in sides.items():
            if SLOW < seconds[name] < math.inf:
                continue
            started = time.process_time()
            found[name] = work(*files)
            seconds[name] = min(seconds[name], time.process_time() - started)
    return seconds, found


def _write(folder: Path, truth: dict, detections: list[dict]) -> tuple[Path, Path]:
    folder.mkdir()
    for name, tree in (("truth", truth), ("detections", detections)):
        (folder / f"{name}.json").write_text(json.dumps(tree))
    return folder / "truth.json", folder / "detections.json"


def _version(name: str) -> str:
    """Return the version of an installed package; empty if it is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


# ---- the sides ----------------------------------------------------------------------------------------------------


def _evaluate(truth: Path, detections: Path) -> dict[str, dict]:
    return evaluate_coco(truth, detections, score_threshold=0.0)


def _evaluate_and_save(truth: Path, detections: Path) -> None:
    evaluate_coco(truth, detections, score_threshold=0.0, matches_path=truth.parent / "matches.npz")


def _read(truth: Path, detections: Path) -> None:
    read_detections(detections, GroundTruth(truth))


def _run_pycocotools(truth: Path, detections: Path) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        return _numbers(COCOeval(known, known.loadRes(str(detections)), "bbox"))


def _run_faster(truth: Path, detections: Path) -> list[float]:
    from faster_coco_eval import COCO, COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        return _numbers(COCOeval_faster(known, known.loadRes(str(detections)), "bbox"))


def _run_hotcoco(truth: Path, detections: Path) -> list[float]:
    from hotcoco import COCO, COCOeval

    known = COCO(str(truth))
    return _numbers(COCOeval(known, known.load_res(str(detections)), "bbox"))


def _numbers(evaluation: Any) -> list[float]:
    """Evaluate, and return the 12 numbers with NaN for -1."""
    evaluation.evaluate()
    evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return [math.nan if value == -1 else float(value) for value in evaluation.stats][:12]


OURS = {"ours": _evaluate, "ours, matches.npz": _evaluate_and_save, "ours, reading": _read}
PEERS = {"pycocotools": _run_pycocotools, "faster-coco-eval": _run_faster, "hotcoco": _run_hotcoco}


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
