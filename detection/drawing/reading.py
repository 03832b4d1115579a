"""Images of a test set with the detections of a run, or of a results file, and the truth, for drawing."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import FALSE_POSITIVE, TRUE_POSITIVE, Matches, load_matches
from backbones.core.results import load_results
from detection.data.records import DetectionData
from detection.evaluation.matching import Boxes, rank_detections
from detection.evaluation.reading import GroundTruth, read_detections
from detection.exchange.detections import load_test_set

MATCHED, WRONG, IGNORED, MISSED, CROWD = "matched", "wrong", "ignored", "missed", "crowd"
FOUND = "found"  # a detection without truth


@dataclass(frozen=True)
class Box:
    """A detection or an object: x, y, width and height in pixels, and how COCO matches it at IoU 0.5.

    outcome: of a detection MATCHED, WRONG or IGNORED, without truth FOUND; of an object MATCHED, MISSED or CROWD.
    error: its kind of error, if the caller knows it.
    """

    xywh: tuple[float, ...]
    label: str
    outcome: str
    score: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Scene:
    """One image; detections are sorted by descending score.  width, height: 0 if the truth does not state them."""

    image_id: int
    path: Path
    width: int
    height: int
    truth: tuple[Box, ...]
    detections: tuple[Box, ...]


class TestedImages:
    """A test set with detections and their matches.

    Attributes:
        images: [(path, width, height)] in the order of `truth.image_ids`; 0 for an unknown size.
        detections: in the order of `matches`, which leaves out all but the 100 best of each image and class.
    """

    __test__ = False  # for pytest

    def __init__(
        self, images: list[tuple[Path, int, int]], truth: GroundTruth, detections: Boxes, matches: Matches, where: str
    ) -> None:
        """Raise `InputError` if the matches are not of this truth and these detections; where: names them."""
        self.images, self.truth, self.matches, self.where = images, truth, matches, where
        self.detections = rank_detections(detections)[0]
        self._order = np.lexsort((truth.objects.image, truth.objects.category))  # of the objects in `matches`
        objects = truth.objects.take(self._order)
        pairs = [
            (truth.image_ids, matches.image_ids),
            *((getattr(self.detections, name), getattr(matches, name)) for name in ("image", "category", "score")),
            *((getattr(objects, name), getattr(matches, f"object_{name}")) for name in ("image", "category")),
        ]
        if not all(np.array_equal(one, other) for one, other in pairs):
            raise InputError(f"{matches.where} is not of the detections in {where} and their truth; evaluate again")

    @cached_property
    def outcome(self) -> np.ndarray:
        """(N,) outcome of the detections at IoU 0.5 and any area."""
        return self.matches.outcome[:, self.matches.area("all"), 0]

    def scenes(
        self, image_ids: Iterable[int] | None = None, *, least_score: float = 0.0,
        errors: np.ndarray | None = None, misses: np.ndarray | None = None,
    ) -> dict[int, Scene]:  # fmt: skip
        """Return image id -> scene, in the order of the ids.

        Args:
            image_ids: None: all images.
            least_score: detections scored below it are left out; objects that only these match count as missed.
            errors: (N,) kind of error of each detection of `matches`, "" without.
            misses: (G,) bool, the objects of `matches` whose error is "Miss".
        Raises:
            InputError: an id is not in the test set.
        """
        known = {int(key): n for n, key in enumerate(self.truth.image_ids)}
        wanted = list(known) if image_ids is None else list(image_ids)
        if unknown := set(wanted) - known.keys():
            raise InputError(f"{self.where}: its test set has no image id {min(unknown)}")
        chosen = np.isin(np.arange(len(self.images)), [known[key] for key in wanted])
        kept = (self.detections.score >= least_score) & chosen[self.detections.image]
        found = self._boxes_of_detections(np.flatnonzero(kept), errors)
        truth = self._boxes_of_objects(kept, misses)
        return {
            key: Scene(key, *self.images[known[key]], tuple(truth[known[key]]), tuple(found[known[key]]))
            for key in wanted
        }

    def _boxes_of_detections(self, rows: np.ndarray, errors: np.ndarray | None) -> list[list[Box]]:
        boxes, names = self.detections, self.truth.category_names
        said = {TRUE_POSITIVE: MATCHED, FALSE_POSITIVE: WRONG}
        result: list[list[Box]] = [[] for _ in self.images]
        for n in rows[np.argsort(-boxes.score[rows], kind="stable")].tolist():
            outcome = said.get(int(self.outcome[n]), IGNORED)
            error = "" if errors is None else str(errors[n])
            xywh = tuple(boxes.xywh[n].tolist())
            result[boxes.image[n]].append(Box(xywh, names[boxes.category[n]], outcome, float(boxes.score[n]), error))
        return result

    def _boxes_of_objects(self, kept: np.ndarray, misses: np.ndarray | None) -> list[list[Box]]:
        objects, names = self.truth.objects, self.truth.category_names
        found = np.zeros(len(objects), dtype=bool)
        partner = self.matches.detail("partner")[kept & (self.outcome == TRUE_POSITIVE)]
        found[self._order[partner]] = True
        missed = np.zeros(len(objects), dtype=bool)
        missed[self._order] = False if misses is None else misses
        result: list[list[Box]] = [[] for _ in self.images]
        for n, (image, xywh) in enumerate(zip(objects.image.tolist(), objects.xywh.tolist(), strict=True)):
            outcome = CROWD if objects.crowd[n] else MATCHED if found[n] else MISSED
            error = "Miss" if missed[n] else ""
            result[image].append(Box(tuple(xywh), names[objects.category[n]], outcome, error=error))
        return result


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
        """Return image id -> scene of a finished fine-tuning; arguments: as `open` and `TestedImages.scenes`."""
        return self.open(run).scenes(image_ids, least_score=least_score)

    def open(self, run: str | Path) -> TestedImages:
        """Read a finished fine-tuning.

        Args:
            run: folder with results.json, config.yaml, predictions.json and matches.npz.

        Raises:
            InputError: a file is missing or of another run, or the test set is not that of the run.
        """
        folder = Path(run)
        results = load_results(folder)
        if "results_file" in results["details"]:
            raise InputError(
                f"{folder} is of a results file; give the file itself with --truth, --results and --images FOLDER to "
                "show its images"
            )
        if results["stage"] != "detection" or not {"predictions", "matches"} <= results["files"].keys():
            raise InputError(f"{folder}: no predictions to draw; give the folder of a finished fine-tuning")
        matches = load_matches(folder / results["files"]["matches"])
        test, truth = self._test_set(folder, str(results["data"].get("test", {}).get("fingerprint")))
        detections = read_detections(folder / results["files"]["predictions"], truth)
        images = [(Path(record.path), record.width, record.height) for record in test.records]
        return TestedImages(images, truth, detections, matches, str(folder))

    def _test_set(self, folder: Path, fingerprint: str) -> tuple[DetectionData, GroundTruth]:
        if fingerprint not in self.tests:
            test = load_test_set(folder, self.root)
            self.tests[fingerprint] = test, GroundTruth(test.to_coco())
        return self.tests[fingerprint]
