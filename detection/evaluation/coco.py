"""COCO AP and AR of boxes with pycocotools semantics, and the per-image matches that a bootstrap over images needs.

All engines use `evaluate_coco`.  It takes detections made once, at score 0: the AP metrics use those above
`score_threshold`, the AR metrics all of them.  (Greedy suppression and the limit of 100 keep the highest scores, so
the filtered list equals that of an inference at the threshold.)  A size without ground truth gives NaN, never -1.
`area` is that of the annotation (in COCO, of the segmentation).  Agreement with pycocotools to 1e-9 is tested.

Letters: I images, K classes, N detections, G objects, A area ranges, T IoU thresholds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.matches import TRUE_POSITIVE, save_matches
from detection.evaluation.box_pairs import best_partner
from detection.evaluation.matching import (
    AREA_NAMES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    Boxes,
    box_iou,
    counted,
    match,
    rank_detections,
)
from detection.evaluation.reading import GroundTruth, read_detections

RECALL_POINTS = np.linspace(0.0, 1.0, 101)


def evaluate_coco(
    ground_truth: Mapping[str, Any] | str | Path,
    detections: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Path,
    *,
    score_threshold: float,
    matches_path: str | Path | None = None,
) -> dict[str, dict]:
    """Compute the 12 COCO metrics of box detections.

    Args:
        ground_truth: COCO instances json, or its path.
        detections: COCO results list, a mapping that holds it under "annotations", or the path of either.
        score_threshold: AP counts detections scored above it; 0 counts all.  (detectron2: 0.05; the ALS paper: 0)
        matches_path: where to write matches.npz (`backbones.core.matches`).
    Returns:
        {"metrics": {AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl: fraction or NaN},
         "per_class": {class name: AP or NaN}, "per_class_AR": {class name: AR100 or NaN}, "counts": {...}}
    Raises:
        InputError: duplicate or unknown ids, boxes or scores that are not finite numbers.
    """
    truth = GroundTruth(ground_truth)
    return coco_numbers(truth, read_detections(detections, truth), score_threshold, matches_path)


def coco_numbers(
    truth: GroundTruth, detections: Boxes, score_threshold: float, matches_path: str | Path | None = None
) -> dict[str, dict]:
    """Compute the result of `evaluate_coco` from ground truth and detections in memory."""
    ranked, rank, index = rank_detections(detections)
    matches = _collect(truth, ranked, rank, score_threshold)
    if matches_path is not None:
        save_matches(matches_path, {**matches, "index": index, **nearest_objects(ranked, truth.objects)})
    metrics, precision, recall = _summarise(matches)
    return {
        "metrics": metrics,
        "per_class": dict(zip(truth.category_names, precision.tolist(), strict=True)),
        "per_class_AR": dict(zip(truth.category_names, recall.tolist(), strict=True)),
        "counts": _counts(truth, detections, score_threshold),
    }


# ---- numbers ------------------------------------------------------------------------------------------------------


def _summarise(matches: Mapping[str, np.ndarray]) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Return the 12 metrics, and AP and AR100 of every class (K,)."""
    precision = {area: _class_precision(matches, area) for area in AREA_NAMES}  # (K, T) each
    whole = precision["all"]
    metrics = {
        "AP": _mean(whole),
        "AP50": _mean(whole[:, np.isclose(IOU_THRESHOLDS, 0.50)]),
        "AP75": _mean(whole[:, np.isclose(IOU_THRESHOLDS, 0.75)]),
    }
    metrics |= {f"AP{area[0]}": _mean(precision[area]) for area in AREA_NAMES[1:]}
    recall = {most: _class_recall(matches, "all", most) for most in MAX_DETECTIONS}
    metrics |= {f"AR{most}": _mean(recall[most]) for most in MAX_DETECTIONS}
    metrics |= {f"AR{area[0]}": _mean(_class_recall(matches, area, MAX_DETECTIONS[-1])) for area in AREA_NAMES[1:]}
    return metrics, whole.mean(axis=1), recall[MAX_DETECTIONS[-1]].mean(axis=1)


def _class_precision(matches: Mapping[str, np.ndarray], area: str) -> np.ndarray:
    """Return (K, T) mean interpolated precision at 101 recall points; NaN for a class without ground truth."""
    objects = _objects_per_class(matches, area)
    above = matches["score"] > matches["score_threshold"]
    above |= matches["score_threshold"] <= 0
    result = np.full((len(objects), len(IOU_THRESHOLDS)), np.nan)
    for k in np.flatnonzero(objects):
        chosen = np.flatnonzero(above & (matches["category"] == k))
        chosen = chosen[np.argsort(-matches["score"][chosen], kind="stable")]  # ties: by image, as pycocotools
        outcome = matches["outcome"][chosen, AREA_NAMES.index(area)]
        for t in range(len(IOU_THRESHOLDS)):
            result[k, t] = _interpolated_precision(outcome[:, t], objects[k]).mean()
    return result


def _interpolated_precision(outcome: np.ndarray, objects: int) -> np.ndarray:
    """Return the (101,) precision envelope at the recall points; 0 beyond the last recall.

    Args:
        outcome: (N,) of the detections, by descending score."""
    hits, misses = np.cumsum(outcome == TRUE_POSITIVE), np.cumsum(outcome == 0)
    precision = hits / (hits + misses + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    position = np.searchsorted(hits / objects, RECALL_POINTS, side="left")
    return np.append(envelope, 0.0)[position]


def _class_recall(matches: Mapping[str, np.ndarray], area: str, most: int) -> np.ndarray:
    """Return (K, T) recall of the `most` best detections per image and class; NaN for a class without ground truth."""
    objects = _objects_per_class(matches, area)
    hits = matches["outcome"][:, AREA_NAMES.index(area)] == TRUE_POSITIVE
    hits &= (matches["rank"] < most)[:, None]
    found = np.zeros((len(objects), len(IOU_THRESHOLDS)))
    np.add.at(found, matches["category"][hits.any(1)], hits[hits.any(1)])
    return found / np.where(objects, objects, np.nan)[:, None]


def _objects_per_class(matches: Mapping[str, np.ndarray], area: str) -> np.ndarray:
    """Return the (K,) number of counted objects."""
    counts = matches["object_counts"][:, AREA_NAMES.index(area)]
    return np.bincount(matches["object_category"][counts], minlength=len(matches["category_ids"]))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


# ---- matches and counts -------------------------------------------------------------------------------------------


def _collect(truth: GroundTruth, detections: Boxes, rank: np.ndarray, score_threshold: float) -> dict[str, np.ndarray]:
    objects = truth.objects
    outcome, partner = match(detections, rank, objects)
    return {
        "image": detections.image,
        "category": detections.category,
        "score": detections.score,
        "rank": rank,
        "outcome": outcome,
        "partner": partner,
        "object_image": objects.image,
        "object_category": objects.category,
        "object_counts": counted(objects),
        "image_ids": truth.image_ids,
        "category_ids": truth.category_ids,
        "category_names": np.array(truth.category_names, dtype=np.str_),
        "area_names": np.array(AREA_NAMES),
        "iou_thresholds": IOU_THRESHOLDS,
        "max_detections": np.array(MAX_DETECTIONS),
        "score_threshold": np.array(float(score_threshold)),
    }


def nearest_objects(detections: Boxes, objects: Boxes) -> dict[str, np.ndarray]:
    """Find for each detection the nearest object of its class and of any other class.

    Returns:
        {"own_iou", "own_object", "other_iou", "other_object"}, (N,) each; IoU 0 and object -1 without overlap."""
    kept = np.flatnonzero(~objects.crowd)
    objects = objects.take(kept)
    classes = 1 + max(detections.category.max(initial=0), objects.category.max(initial=0))

    def overlap(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return box_iou(detections.xywh[rows], objects.xywh[columns, None], np.zeros((len(rows), 1), dtype=bool))[:, 0]

    def overlap_of_others(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.where(detections.category[rows] == objects.category[columns], -1.0, overlap(rows, columns))

    keys = [boxes.image * classes + boxes.category for boxes in (detections, objects)]
    result = {}
    for name, (best, partner) in {
        "own": best_partner(keys[0], keys[1], overlap),
        "other": best_partner(detections.image, objects.image, overlap_of_others),
    }.items():
        near = best > 0
        result[f"{name}_iou"] = np.where(near, best, 0)
        result[f"{name}_object"] = np.where(near, np.append(kept, -1)[partner], -1)
    return result


def _counts(truth: GroundTruth, detections: Boxes, score_threshold: float) -> dict[str, int]:
    per_area = counted(truth.objects).sum(0).tolist()
    above = len(detections) if score_threshold <= 0 else int((detections.score > score_threshold).sum())
    return {
        "images": len(truth.image_ids),
        "objects": per_area[0],
        **dict(zip(AREA_NAMES[1:], per_area[1:], strict=True)),
        "crowd": int(truth.objects.crowd.sum()),
        "detections": len(detections),
        "detections_for_ap": above,
    }
