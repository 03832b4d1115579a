"""Images of a run's test set with its detections and the truth, for drawing."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import FALSE_POSITIVE, TRUE_POSITIVE
from backbones.core.results import load_results
from detection.data.records import DetectionData
from detection.evaluation.matching import Boxes
from detection.evaluation.reading import GroundTruth, read_detections
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


class SceneReader:
    """Reads scenes of several runs; each test set is read once.

    root: replaces DATASETS.ROOT.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = root
        self.tests: dict[str, tuple[DetectionData, GroundTruth]] = {}

    def read(
        self, run: str | Path, image_ids: Iterable[int] | None = None, *, least_score: float = 0.0
    ) -> dict[int, Scene]:
        """Return image id -> scene of a finished fine-tuning, in the order of the ids.

        Args:
            run: folder with results.json, predictions.json and matches.npz.
            image_ids: None: all images of the test set.
            least_score: detections scored below it are left out; objects that only these match count as missed.

        Raises:
            InputError: a file is missing, or the test set is not that of the run.
        """
        folder = Path(run)
        results = load_results(folder)
        if results["stage"] != "detection" or not {"predictions", "matches"} <= results["files"].keys():
            raise InputError(f"{folder}: no predictions to draw; give the folder of a finished fine-tuning")
        test, truth = self._test_set(folder, str(results["data"].get("test", {}).get("fingerprint")))
        boxes = read_detections(folder / results["files"]["predictions"], truth)
        outcome, partner = _outcomes(folder / results["files"]["matches"], len(boxes))
        wanted = truth.image_ids.tolist() if image_ids is None else list(image_ids)
        at = {image_id: n for n, image_id in enumerate(truth.image_ids.tolist())}
        if unknown := set(wanted) - at.keys():
            raise InputError(f"{folder}: its test set has no image id {min(unknown)}")
        order = np.lexsort((-boxes.score, boxes.image))
        order = order[boxes.score[order] >= least_score]
        ends = np.searchsorted(boxes.image[order], np.arange(len(at) + 1))
        objects = np.cumsum([0, *(len(record.labels) for record in test.records)])
        scenes = {}
        for image_id in wanted:
            n = at[image_id]
            rows = order[ends[n] : ends[n + 1]]
            scenes[image_id] = _scene(test, n, int(objects[n]), boxes, rows, outcome[rows], partner[rows])
        return scenes

    def _test_set(self, folder: Path, fingerprint: str) -> tuple[DetectionData, GroundTruth]:
        if fingerprint not in self.tests:
            test = load_test_set(folder, self.root)
            self.tests[fingerprint] = test, GroundTruth(test.to_coco())
        return self.tests[fingerprint]


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
    test: DetectionData, at: int, first: int, boxes: Boxes, rows: np.ndarray, outcome: np.ndarray, partner: np.ndarray
) -> Scene:
    """Return scene number `at` of a test set.

    first: position of its first object in the ground truth; rows: its detections, by descending score.
    """
    record, names = test.records[at], [str(category["name"]) for category in test.categories]
    said = {TRUE_POSITIVE: MATCHED, FALSE_POSITIVE: WRONG}
    found = set(partner[outcome == TRUE_POSITIVE].tolist())
    drawn = tuple(
        Box(tuple(boxes.xywh[n].tolist()), names[boxes.category[n]], said.get(state, IGNORED), float(boxes.score[n]))
        for n, state in zip(rows.tolist(), outcome.tolist(), strict=True)
    )
    objects = zip(record.bbox.tolist(), record.labels.tolist(), record.iscrowd.tolist(), strict=True)
    truth = tuple(
        Box(tuple(box), names[label], CROWD if crowd else MATCHED if first + n in found else MISSED)
        for n, (box, label, crowd) in enumerate(objects)
    )
    return Scene(record.image_id, Path(record.path), record.width, record.height, truth, drawn)


read_scenes = SceneReader().read  # for callers that read several runs of a test set
