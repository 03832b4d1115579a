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

from backbones.core.matches import save_matches
from detection.evaluation.matching import (
    AREA_NAMES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    Boxes,
    counted,
    iou_with,
    match,
    match_across_classes,
    narrow,
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
        near = nearest_objects(ranked, truth.objects) | _details(ranked, truth, matches["partner"])
        save_matches(matches_path, {**matches, "index": index, **near})
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
    precision, recall = _precision_and_recall(matches)
    whole = precision[:, 0]
    metrics = {
        "AP": _mean(whole),
        "AP50": _mean(whole[:, np.isclose(IOU_THRESHOLDS, 0.50)]),
        "AP75": _mean(whole[:, np.isclose(IOU_THRESHOLDS, 0.75)]),
    }
    metrics |= {f"AP{area[0]}": _mean(precision[:, a]) for a, area in enumerate(AREA_NAMES) if a}
    metrics |= {f"AR{most}": _mean(recall[:, m, 0]) for m, most in enumerate(MAX_DETECTIONS)}
    metrics |= {f"AR{area[0]}": _mean(recall[:, -1, a]) for a, area in enumerate(AREA_NAMES) if a}
    return metrics, whole.mean(axis=1), recall[:, -1, 0].mean(axis=1)


def _precision_and_recall(matches: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (K, A, T) mean interpolated precision, and (K, M, A, T) recall; NaN for a class without counted objects.

    M: limits on the detections of an image and class.
    """
    from detection.evaluation import kernels

    classes, areas = len(matches["category_ids"]), len(AREA_NAMES)
    objects = np.stack(
        [np.bincount(matches["object_category"][row], minlength=classes) for row in matches["object_counts"].T], axis=1
    )
    order = np.lexsort((-matches["score"], narrow(matches["category"])))  # ties: by image, as pycocotools
    bounds = np.searchsorted(matches["category"], np.arange(classes + 1))  # detections are sorted by class
    above = (matches["score"] > matches["score_threshold"]) | (matches["score_threshold"] <= 0)
    precision = np.zeros((classes, areas, len(IOU_THRESHOLDS), len(RECALL_POINTS)))
    hits = np.zeros((classes, len(MAX_DETECTIONS), areas, len(IOU_THRESHOLDS)))
    limits = np.array(MAX_DETECTIONS)
    kernels.accumulate(
        *(order, bounds, matches["outcome"], matches["rank"], above, objects, limits, RECALL_POINTS, precision, hits)
    )
    known = np.where(objects, objects, np.nan)
    return np.where(objects[..., None], precision.mean(axis=-1), np.nan), hits / known[:, None, :, None]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


# ---- matches and counts -------------------------------------------------------------------------------------------


def _collect(truth: GroundTruth, detections: Boxes, rank: np.ndarray, score_threshold: float) -> dict[str, np.ndarray]:
    objects = truth.objects
    outcome, partner = match(detections, objects)
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


def _details(detections: Boxes, truth: GroundTruth, partner: np.ndarray) -> dict[str, np.ndarray]:
    """Return the optional arrays of matches.npz; the areas of images only if all are known."""
    known = not np.isnan(truth.image_area).any()
    return {
        "partner_iou": iou_with(detections, truth.objects, partner),
        "any_partner": match_across_classes(detections, truth.objects),
        "object_area": truth.objects.area,
    } | ({"image_area": truth.image_area} if known else {})


def nearest_objects(detections: Boxes, objects: Boxes) -> dict[str, np.ndarray]:
    """Find for each detection the nearest object of its class and of any other class.

    Returns:
        {"own_iou", "own_object", "other_iou", "other_object"}, (N,) each; IoU 0 and object -1 without overlap."""
    from detection.evaluation import kernels

    kept = np.flatnonzero(~objects.crowd)
    kept = kept[np.argsort(objects.image[kept], kind="stable")]
    objects = objects.take(kept)
    images = 1 + max(detections.image.max(initial=0), objects.image.max(initial=0))
    first = np.searchsorted(objects.image, np.arange(images + 1))
    iou, nearest = np.zeros((2, len(detections))), np.full((2, len(detections)), -1)
    kernels.find_nearest(
        *(detections.image, detections.category, detections.xywh, first, objects.category, objects.xywh, iou, nearest)
    )
    found = np.append(kept, -1)[nearest]
    return {"own_iou": iou[0], "own_object": found[0], "other_iou": iou[1], "other_object": found[1]}


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
