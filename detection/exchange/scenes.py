"""Images of a run's test set with its detections and the truth, for drawing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import FALSE_POSITIVE, MATCHES_FILE, TRUE_POSITIVE
from backbones.core.results import load_results
from detection.data.records import DetectionData, Record
from detection.evaluation.reading import load_detections
from detection.exchange.detections import load_test_set

MATCHED, WRONG, IGNORED, MISSED, CROWD = "matched", "wrong", "ignored", "missed", "crowd"


@dataclass(frozen=True)
class Box:
    """A detection or an object: x, y, width and height in pixels, and how COCO matches it at IoU 0.5.

    outcome: of a detection MATCHED, WRONG or IGNORED; of an object MATCHED, MISSED or CROWD.
    """

    xywh: tuple[float, ...]
    label: str
    outcome: str
    score: float | None = None


@dataclass(frozen=True)
class Scene:
    """One image; boxes are sorted by descending score."""

    image_id: int
    path: Path
    width: int
    height: int
    truth: tuple[Box, ...]
    detections: tuple[Box, ...]


def load_scenes(
    run: str | Path, image_ids: Iterable[int] | None = None, *, root: str | None = None, least_score: float = 0.0
) -> dict[int, Scene]:
    """Return image id -> scene of a finished fine-tuning, in the order of the ids.

    Args:
        run: folder with results.json, predictions.json and matches.npz.
        image_ids: None: all images of the test set.
        root: replaces DATASETS.ROOT.
        least_score: detections scored below it are left out; objects that only these match count as missed.

    Raises:
        InputError: a file is missing, or the test set is not that of the run.
    """
    folder = Path(run)
    results = load_results(folder)
    if results["stage"] != "detection" or not {"predictions", "matches"} <= results["files"].keys():
        raise InputError(f"{folder}: no predictions to draw; give the folder of a finished fine-tuning")
    test = load_test_set(folder, root)
    detections = load_detections(folder / results["files"]["predictions"])
    outcome, partner = _outcomes(folder / results["files"].get("matches", MATCHES_FILE), len(detections))
    wanted = [record.image_id for record in test.records] if image_ids is None else list(image_ids)
    by_image: dict[int, list[int]] = {image_id: [] for image_id in wanted}
    for number, detection in enumerate(detections):
        if detection["image_id"] in by_image and detection["score"] >= least_score:
            by_image[detection["image_id"]].append(number)
    records = {record.image_id: record for record in test.records}
    first = dict(zip(records, np.cumsum([0, *(len(record.labels) for record in test.records)]).tolist(), strict=False))
    if unknown := by_image.keys() - records.keys():
        raise InputError(f"{folder}: its test set has no image id {min(unknown)}")
    names = {category["id"]: str(category["name"]) for category in test.categories}
    return {
        image_id: _scene(records[image_id], first[image_id], numbers, detections, outcome, partner, names, test)
        for image_id, numbers in by_image.items()
    }


def _outcomes(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcome (count,) of every detection of predictions.json at IoU 0.5, and its object or -1."""
    outcome, partner = np.full(count, -1), np.full(count, -1)
    with np.load(path, allow_pickle=False) as file:
        index = file["index"]
        if len(index) != count:
            raise InputError(f"{path} is not of the predictions beside it; evaluate them again")
        outcome[index], partner[index] = file["outcome"][:, 0, 0], file["partner"]
    return outcome, partner


def _scene(
    record: Record, first: int, numbers: Sequence[int], detections: Sequence[Mapping[str, Any]], outcome: np.ndarray,
    partner: np.ndarray, names: Mapping[int, str], test: DetectionData,
) -> Scene:  # fmt: skip
    """Return the scene of an image; first: position of its first object in the ground truth."""
    said = {TRUE_POSITIVE: MATCHED, FALSE_POSITIVE: WRONG}
    shown = sorted(numbers, key=lambda n: -detections[n]["score"])
    found = {int(partner[n]) for n in shown if outcome[n] == TRUE_POSITIVE}
    drawn = tuple(
        Box(
            tuple(map(float, detections[n]["bbox"])), names[detections[n]["category_id"]],
            said.get(int(outcome[n]), IGNORED), float(detections[n]["score"]),
        )
        for n in shown
    )  # fmt: skip
    objects = zip(record.bbox.tolist(), record.labels.tolist(), record.iscrowd.tolist(), strict=True)
    truth = tuple(
        Box(
            tuple(box), str(test.categories[label]["name"]),
            CROWD if crowd else MATCHED if first + n in found else MISSED,
        )
        for n, (box, label, crowd) in enumerate(objects)
    )  # fmt: skip
    return Scene(record.image_id, Path(record.path), record.width, record.height, truth, drawn)
