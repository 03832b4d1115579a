"""Evaluate detections by every definition of AP that applies to a test set; ground truth and detections are read once.

To add an evaluator, write a class like those below and list it in `OF_FORM`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from backbones.core.matches import VOC_MATCHES_FILE
from detection.data.records import DetectionData
from detection.evaluation.coco import coco_numbers
from detection.evaluation.matching import Boxes
from detection.evaluation.reading import GroundTruth, read_detections
from detection.evaluation.voc import voc_numbers


@dataclass(frozen=True)
class Measured:
    """The numbers of one evaluator, or of several.

    metrics: name -> fraction or NaN.
    details: further entries of results.json.
    counts: numbers of images, objects and detections.
    files: entries of "files" in results.json.
    """

    metrics: dict[str, float]
    details: dict[str, Any]
    counts: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class Evaluator(Protocol):
    """One definition of AP."""

    def evaluate(self, truth: GroundTruth, detections: Boxes) -> Measured:
        """Return metrics and details under unique names; must not modify the arguments, which all evaluators share."""
        ...


@dataclass(frozen=True)
class CocoEvaluator:
    """The 12 COCO metrics, and AP and AR of every class; writes matches.npz."""

    score_threshold: float
    matches_path: Path

    def evaluate(self, truth: GroundTruth, detections: Boxes) -> Measured:
        """Details: per_class_AP and per_class_AR, {class: number}."""
        found = coco_numbers(truth, detections, self.score_threshold, self.matches_path)
        details = {"per_class_AP": found["per_class"], "per_class_AR": found["per_class_AR"]}
        return Measured(found["metrics"], details, found["counts"], {"matches": self.matches_path.name})


@dataclass(frozen=True)
class VocEvaluator:
    """Pascal VOC's AP; writes matches_voc.npz.

    Returns no counts: they would repeat those of COCO under another definition.
    """

    score_threshold: float
    folder: Path

    def evaluate(self, truth: GroundTruth, detections: Boxes) -> Measured:
        """Details: voc, {"per_class": {name: {class: number}}, "excluded_classes": [names without an object]}."""
        found = voc_numbers(truth, detections, self.score_threshold, matches_path=self.folder / VOC_MATCHES_FILE)
        details = {"voc": {key: found[key] for key in ("per_class", "excluded_classes")}}
        return Measured(found["metrics"], details, files={"matches_voc": VOC_MATCHES_FILE})


# Form of a test set (`DetectionData.form`) -> its evaluators in addition to COCO's, which applies to every form; built
# from the score threshold and the folder of the results.
OF_FORM: Mapping[str, Sequence[Callable[[float, Path], Evaluator]]] = {"coco": (), "voc": (VocEvaluator,)}


def build_evaluators(form: str, score_threshold: float, matches_path: Path) -> list[Evaluator]:
    """Return the evaluators of a form of test set, COCO's first."""
    more = [build(score_threshold, matches_path.parent) for build in OF_FORM[form]]
    return [CocoEvaluator(score_threshold, matches_path), *more]


def measure(
    test: DetectionData, predictions: Sequence[Mapping[str, Any]], score_threshold: float, matches_path: Path
) -> Measured:
    """Evaluate the predictions on a test set with all its evaluators; write their files beside matches.npz.

    Args:
        predictions: COCO results.
        score_threshold: AP counts detections scored above it; 0 counts all.
    Raises:
        InputError: as `evaluate_coco`.
    """
    truth = GroundTruth(test.to_coco())
    return measure_boxes(truth, read_detections(predictions, truth), test.form, score_threshold, matches_path)


def measure_boxes(
    truth: GroundTruth, detections: Boxes, form: str, score_threshold: float, matches_path: Path
) -> Measured:
    """Evaluate detections in memory with all evaluators of a form of test set; write matches.npz."""
    result = Measured({}, {})
    for evaluator in build_evaluators(form, score_threshold, matches_path):
        found = evaluator.evaluate(truth, detections)
        result.metrics.update(found.metrics)
        result.details.update(found.details)
        result.counts.update(found.counts)
        result.files.update(found.files)
    return result
