"""Pascal VOC's AP of boxes, from the same ground truth and results as `detection.evaluation.coco`.

The definition is that of the devkit as in `voc_eval.py` (py-faster-rcnn; detectron2's pascal_voc_evaluation.py).
Detections of a class are processed by descending score.  Each is compared with the object of its image and class that
it overlaps most, even if that object is already matched (COCO would try the next).  The IoU must be strictly above the
threshold.  The first detection of an object is a true positive, later ones are false positives; a detection of a
`difficult` object (iscrowd here) is ignored.
AP is the area under the monotone envelope of precision (since VOC 2010), or its mean at 11 recalls (`_11`: VOC 2007).
A class without a counted object has AP NaN and is excluded from the means.  (detectron2's mean is then NaN, and it
fails on a class without detections, whose AP is 0 here.)  Ties in the score are ordered by image, then as listed.

Pixels: VOC counts from 1 and includes the last one, so a side is xmax - xmin + 1.  Our boxes are half-open and start at
0: xmin = x + 1, ymin = y + 1, xmax = x + w, ymax = y + h, for objects and detections (as detectron2 writes them).

By default nothing is rounded.  `rounding` repeats the rounding of reference code that writes detections to text files:
    "detectron2"    PascalVOCDetectionEvaluator: scores to 3 decimals, the corners above to 1
    "yolo"          Peterisfar/YOLOV3, on which the OLS paper's detector is based: scores to 4 decimals, the corners
                    above truncated to integers (its network learns VOC's own corners, so it adds no offset)

Letters: K classes, N detections, G objects, T IoU thresholds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, save_matches
from detection.evaluation.box_pairs import best_partner
from detection.evaluation.matching import Boxes, position_in_run
from detection.evaluation.reading import GroundTruth, read_detections

IOU_THRESHOLDS = np.arange(50, 100, 5) / 100
RECALL_POINTS = np.arange(0.0, 1.1, 0.1)  # rounded as in the reference: the seventh point is above 0.6
ROUNDINGS = ("detectron2", "yolo")
_DIGITS = {"detectron2": "{:.3f}", "yolo": "{:.4f}"}  # of scores
_MEANS = (("VOC_mAP50", 0.50), ("VOC_mAP75", 0.75))


def evaluate_voc(
    ground_truth: Mapping[str, Any] | str | Path,
    detections: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Path,
    *,
    score_threshold: float = 0.0,
    rounding: str | None = None,
    matches_path: str | Path | None = None,
) -> dict[str, Any]:
    """Compute VOC's AP by both definitions.

    Args:
        ground_truth: COCO instances json whose iscrowd is VOC's `difficult`, or its path (`load_voc` builds one).
        detections: COCO results list, a mapping that holds it under "annotations", or the path of either.
        score_threshold: AP counts detections scored above it; 0 counts all.
        rounding: None, or one of `ROUNDINGS`.
        matches_path: where to write matches_voc.npz (`backbones.core.matches`).
    Returns:
        {"metrics": {VOC_mAP50, VOC_mAP50_11, VOC_mAP75, VOC_mAP75_11, VOC_mAP, VOC_mAP_11 (mean over IoU 0.50 to
        0.95): fraction or NaN}, "per_class": {the same names without the m: {class name: AP or NaN}},
        "excluded_classes": [names], "counts": {...}}
    Raises:
        InputError: as `evaluate_coco`; an unknown rounding.
    """
    truth = GroundTruth(ground_truth)
    return voc_numbers(truth, read_detections(detections, truth), score_threshold, rounding, matches_path)


def voc_numbers(
    truth: GroundTruth,
    detections: Boxes,
    score_threshold: float = 0.0,
    rounding: str | None = None,
    matches_path: str | Path | None = None,
) -> dict[str, Any]:
    """Compute the result of `evaluate_voc` from ground truth and detections in memory."""
    if rounding is not None and rounding not in ROUNDINGS:
        raise InputError(f"rounding: {rounding!r}: choices: None, {', '.join(map(repr, ROUNDINGS))}")
    if score_threshold > 0:
        detections = detections.take(detections.score > score_threshold)
    corners, score = _as_written(detections, rounding)
    order = np.lexsort((detections.image, -score, detections.category))  # stable
    ordered, score = detections.take(order), score[order]
    outcome = match_voc(ordered, corners[order], truth.objects)
    if matches_path is not None:
        save_matches(matches_path, _collect(truth, ordered, score, outcome, score_threshold))
    area, points = _class_precisions(ordered.category, outcome, truth)
    return {
        **_named(area, points, truth.category_names),
        "excluded_classes": [
            n for n, known in zip(truth.category_names, ~np.isnan(area[:, 0]), strict=True) if not known
        ],
        "counts": {
            "images": len(truth.image_ids),
            "objects": int((~truth.objects.crowd).sum()),
            "difficult": int(truth.objects.crowd.sum()),
            "detections": len(detections),
        },
    }


def _named(area: np.ndarray, points: np.ndarray, names: Sequence[str]) -> dict[str, dict]:
    """Return metrics and per-class APs by name, from (K, T) APs by area and by 11 points."""
    chosen = {}
    for name, threshold in _MEANS:
        at = int(np.argmin(np.abs(IOU_THRESHOLDS - threshold)))
        chosen |= {name: area[:, at], f"{name}_11": points[:, at]}
    chosen |= {"VOC_mAP": area.mean(1), "VOC_mAP_11": points.mean(1)}
    known = ~np.isnan(area[:, 0])
    return {
        "metrics": {name: float(ap[known].mean()) if known.any() else float("nan") for name, ap in chosen.items()},
        "per_class": {
            name.replace("mAP", "AP"): dict(zip(names, ap.tolist(), strict=True)) for name, ap in chosen.items()
        },
    }


# ---- matching -----------------------------------------------------------------------------------------------------


def match_voc(detections: Boxes, corners: np.ndarray, objects: Boxes) -> np.ndarray:
    """Return (N, T) int8 outcomes: 1 true positive, 0 false positive, -1 ignored.

    Args:
        detections: sorted by class and descending score.
        corners: (N, 4) corners of the detections, in VOC pixels.
    """
    truth = voc_corners(objects.xywh)
    images = 1 + max(detections.image.max(initial=0), objects.image.max(initial=0))
    iou, partner = best_partner(
        detections.category * images + detections.image,
        objects.category * images + objects.image,
        lambda rows, columns: voc_iou(corners[rows], truth[columns]),
    )
    outcome = np.full((len(iou), len(IOU_THRESHOLDS)), FALSE_POSITIVE, dtype=np.int8)
    difficult = np.append(objects.crowd, False)[partner]
    for t, threshold in enumerate(IOU_THRESHOLDS):
        hit = iou > threshold
        outcome[hit & difficult, t] = IGNORED
        rows = np.flatnonzero(hit & ~difficult)
        outcome[rows[np.unique(partner[rows], return_index=True)[1]], t] = TRUE_POSITIVE  # the first of each object
    return outcome


def _collect(
    truth: GroundTruth, detections: Boxes, score: np.ndarray, outcome: np.ndarray, score_threshold: float
) -> dict[str, np.ndarray]:
    """Return the arrays of matches_voc.npz; score: (N,) as it orders the detections, outcome: (N, T)."""
    order = np.lexsort((-score, detections.image, detections.category))  # stable
    detections = detections.take(order)
    rank = position_in_run(detections.category, detections.image)
    return {
        "image": detections.image,
        "category": detections.category,
        "score": score[order],
        "rank": rank.clip(max=np.iinfo(np.int16).max),  # only orders them, and the sort is stable
        "outcome": outcome[order][:, None],
        "object_image": truth.objects.image,
        "object_category": truth.objects.category,
        "object_counts": ~truth.objects.crowd[:, None],
        "image_ids": truth.image_ids,
        "category_ids": truth.category_ids,
        "category_names": np.array(truth.category_names, dtype=np.str_),
        "area_names": np.array(["all"]),
        "iou_thresholds": IOU_THRESHOLDS,
        "score_threshold": np.array(float(score_threshold)),
    }


def voc_corners(xywh: np.ndarray) -> np.ndarray:
    """Convert (N, 4) x, y, w, h to xmin, ymin, xmax, ymax, counted from 1 and inclusive."""
    return np.concatenate([xywh[:, :2] + 1, xywh[:, :2] + xywh[:, 2:]], axis=1)


def voc_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (P,) IoU of (P, 4) with (P, 4) corners in VOC pixels, in the reference's order of operations.

    NOTE: differs from the reference for two boxes without area, of which it divides 0 by 0: their IoU is 0.
    """
    sides = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1.0, 0.0)
    inter = sides[:, 0] * sides[:, 1]
    area_a, area_b = ((c[:, 2] - c[:, 0] + 1.0) * (c[:, 3] - c[:, 1] + 1.0) for c in (a, b))
    union = area_a + area_b - inter
    return np.divide(inter, union, out=np.zeros_like(union), where=union > 0)


def _as_written(detections: Boxes, rounding: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 4) corners and (N,) scores as read back from the reference's text files."""
    corners = voc_corners(detections.xywh)
    if rounding is None:
        return corners, detections.score
    # Round through text, which rounds the exact decimal value; np.round would scale first.
    score = np.array([float(_DIGITS[rounding].format(s)) for s in detections.score.tolist()], dtype=np.float64)
    if rounding == "yolo":
        return np.trunc(corners), score
    flat = [float(f"{c:.1f}") for c in corners.ravel().tolist()]
    return np.array(flat, dtype=np.float64).reshape(-1, 4), score


# ---- precision ----------------------------------------------------------------------------------------------------


def _class_precisions(category: np.ndarray, outcome: np.ndarray, truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """Return (K, T) AP by area and by 11 points; NaN for a class without counted objects."""
    classes = len(truth.category_ids)
    objects = np.bincount(truth.objects.category[~truth.objects.crowd], minlength=classes)
    bounds = np.searchsorted(category, np.arange(classes + 1))
    area, points = np.full((2, classes, len(IOU_THRESHOLDS)), np.nan)
    for k in np.flatnonzero(objects):
        area[k], points[k] = average_precision(outcome[bounds[k] : bounds[k + 1]], int(objects[k]))
    return area, points


def average_precision(outcome: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (T,) area under the envelope of precision, and its (T,) mean at 11 recalls.

    Args:
        outcome: (N, T) outcomes of one class's detections, by descending score.
        objects: number of counted objects of the class, at least 1.
    """
    hits, misses = np.cumsum(outcome == TRUE_POSITIVE, axis=0), np.cumsum(outcome == FALSE_POSITIVE, axis=0)
    recall = hits / objects
    precision = hits / np.maximum(hits + misses, np.finfo(np.float64).eps)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    area = (np.diff(recall, axis=0, prepend=0.0) * envelope).sum(0)
    reached = np.stack([(recall < point).sum(0) for point in RECALL_POINTS])  # (11, T): first position at that recall
    padded = np.concatenate([envelope, np.zeros((1, envelope.shape[1]))])
    return area, np.take_along_axis(padded, reached, axis=0).mean(0)
