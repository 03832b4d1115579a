"""COCO AP and AR of boxes on pycocotools semantics, and the per-image matches that a bootstrap over images needs.

`evaluate_coco` is the one evaluator of every engine.  It works from detections made once, at score 0: the AP family
uses those above `score_threshold`, the AR family all of them.  (Greedy suppression and the limit of 100 keep the best,
so the filtered list equals that of an inference at the threshold.)  A size without ground truth gives NaN, never -1.
`area` is the annotation's own (COCO: of the segmentation).  Agreement with pycocotools to 1e-9 is tested.

matches.npz, all arrays sorted by class, image, falling score (positions index the sorted ids):
    image, category (N,) int32; score (N,) float64; rank (N,) int16 within image and class; outcome (N, A, T) int8:
        1 true positive, 0 false positive, -1 does not count       -- detections
    object_image, object_category (G,) int32; object_counts (G, A) bool       -- ground truth that counts per area
    image_ids (I,), category_ids (K,) int64; category_names (K,); area_names (A,); iou_thresholds (T,);
    max_detections (3,); score_threshold (); format_version ()

Letters: I images, K classes, N detections, G objects, A area ranges, T IoU thresholds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_atomic
from detection.coco_matching import (
    AREA_NAMES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    TRUE_POSITIVE,
    Boxes,
    counted,
    match,
    rank_detections,
)

FORMAT_VERSION = 1
RECALL_POINTS = np.linspace(0.0, 1.0, 101)


def evaluate_coco(
    ground_truth: Mapping[str, Any] | str | Path,
    detections: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Path,
    *,
    score_threshold: float,
    matches_path: str | Path | None = None,
) -> dict[str, dict]:
    """The 12 COCO numbers of box detections.

    Args:
        ground_truth: COCO instances json, or its path.
        detections: COCO results list, a mapping that holds it under "annotations", or the path of either.
        score_threshold: AP counts detections scored above it; 0 counts all.  (detectron2: 0.05; the ALS paper: 0)
        matches_path: where to write matches.npz.
    Returns:
        {"metrics": {AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl: fraction or NaN},
         "per_class": {class name: AP or NaN}, "counts": {...}}
    Raises:
        InputError: duplicate or unknown ids, boxes or scores that are no finite numbers.
    """
    truth = _Truth(ground_truth)
    found = _read_detections(detections, truth)
    ranked, rank = rank_detections(found)
    matches = _collect(truth, ranked, rank, score_threshold)
    if matches_path is not None:
        save_atomic(matches_path, lambda path: _save_arrays(path, matches))
    metrics, per_class = _summarise(matches)
    return {
        "metrics": metrics,
        "per_class": dict(zip(truth.category_names, per_class.tolist(), strict=True)),
        "counts": _counts(truth, found, score_threshold),
    }


# ---- numbers ------------------------------------------------------------------------------------------------------


def _summarise(matches: Mapping[str, np.ndarray]) -> tuple[dict[str, float], np.ndarray]:
    """The 12 numbers, and the AP of every class (K,)."""
    precision = {area: _class_precision(matches, area) for area in AREA_NAMES}  # (K, T) each
    whole = precision["all"]
    metrics = {
        "AP": _mean(whole),
        "AP50": _mean(whole[:, np.isclose(IOU_THRESHOLDS, 0.50)]),
        "AP75": _mean(whole[:, np.isclose(IOU_THRESHOLDS, 0.75)]),
    }
    metrics |= {f"AP{area[0]}": _mean(precision[area]) for area in AREA_NAMES[1:]}
    metrics |= {f"AR{most}": _mean(_class_recall(matches, "all", most)) for most in MAX_DETECTIONS}
    metrics |= {f"AR{area[0]}": _mean(_class_recall(matches, area, MAX_DETECTIONS[-1])) for area in AREA_NAMES[1:]}
    return metrics, whole.mean(axis=1)


def _class_precision(matches: Mapping[str, np.ndarray], area: str) -> np.ndarray:
    """(K, T) mean interpolated precision at 101 recall points; NaN for a class without ground truth."""
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
    """(101,) precision envelope of detections by falling score, read at the recall points; 0 beyond the last recall."""
    hits, misses = np.cumsum(outcome == TRUE_POSITIVE), np.cumsum(outcome == 0)
    precision = hits / (hits + misses + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    position = np.searchsorted(hits / objects, RECALL_POINTS, side="left")
    return np.append(envelope, 0.0)[position]


def _class_recall(matches: Mapping[str, np.ndarray], area: str, most: int) -> np.ndarray:
    """(K, T) recall of the `most` best detections per image and class; NaN for a class without ground truth."""
    objects = _objects_per_class(matches, area)
    hits = matches["outcome"][:, AREA_NAMES.index(area)] == TRUE_POSITIVE
    hits &= (matches["rank"] < most)[:, None]
    found = np.zeros((len(objects), len(IOU_THRESHOLDS)))
    np.add.at(found, matches["category"][hits.any(1)], hits[hits.any(1)])
    return found / np.where(objects, objects, np.nan)[:, None]


def _objects_per_class(matches: Mapping[str, np.ndarray], area: str) -> np.ndarray:
    """(K,) number of objects that count."""
    counts = matches["object_counts"][:, AREA_NAMES.index(area)]
    return np.bincount(matches["object_category"][counts], minlength=len(matches["category_ids"]))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


# ---- matches and counts -------------------------------------------------------------------------------------------


def _collect(truth: "_Truth", detections: Boxes, rank: np.ndarray, score_threshold: float) -> dict[str, np.ndarray]:
    objects = truth.objects
    return {
        "format_version": np.array(FORMAT_VERSION),
        "image": detections.image.astype(np.int32),
        "category": detections.category.astype(np.int32),
        "score": detections.score,
        "rank": rank.astype(np.int16),
        "outcome": match(detections, rank, objects),
        "object_image": objects.image.astype(np.int32),
        "object_category": objects.category.astype(np.int32),
        "object_counts": counted(objects),
        "image_ids": truth.image_ids,
        "category_ids": truth.category_ids,
        "category_names": np.array(truth.category_names, dtype=np.str_),
        "area_names": np.array(AREA_NAMES),
        "iou_thresholds": IOU_THRESHOLDS,
        "max_detections": np.array(MAX_DETECTIONS),
        "score_threshold": np.array(float(score_threshold)),
    }


def _save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _counts(truth: "_Truth", detections: Boxes, score_threshold: float) -> dict[str, int]:
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


# ---- reading ------------------------------------------------------------------------------------------------------


class _Truth:
    """Checked ground truth: sorted ids, and the objects in file order."""

    def __init__(self, source: Mapping[str, Any] | str | Path) -> None:
        self.where = str(source) if isinstance(source, str | Path) else "ground truth"
        content = load_json(source) if isinstance(source, str | Path) else source
        images, categories, annotations = (self._list(content, key) for key in ("images", "categories", "annotations"))
        self.image_ids = _sorted_ids(images, f"{self.where}: image")
        self.category_ids = _sorted_ids(categories, f"{self.where}: category")
        names = {c["id"]: str(c.get("name", c["id"])) for c in categories}
        self.category_names = _distinct([names[i] for i in self.category_ids.tolist()])
        _sorted_ids(annotations, f"{self.where}: annotation")

        def where(n: int) -> str:
            return f"{self.where}: annotation {annotations[n]['id']}"

        image, category = self.positions(annotations, where)
        self.objects = Boxes(
            image=image,
            category=category,
            xywh=_numbers(annotations, "bbox", 4, where),
            area=_numbers(annotations, "area", 1, where)[:, 0],
            score=np.zeros(len(annotations)),
            crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
        )

    def _list(self, content: Any, key: str) -> list[dict[str, Any]]:
        value = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(value, list):
            raise InputError(f"{self.where}: no list '{key}'; give a COCO instances json")
        return value

    def positions(self, items: Sequence[Mapping], where: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) image and class positions; `InputError` names the first unknown id."""
        result = []
        for key, ids in (("image_id", self.image_ids), ("category_id", self.category_ids)):
            position = {value: n for n, value in enumerate(ids.tolist())}
            found = [position.get(item.get(key), -1) for item in items]
            if -1 in found:
                n = found.index(-1)
                raise InputError(
                    f"{where(n)}: {key} {items[n].get(key)!r} is not in the ground truth; use one json for both"
                )
            result.append(np.array(found, dtype=np.int64))
        return result[0], result[1]


def _read_detections(source: Sequence | Mapping | str | Path, truth: _Truth) -> Boxes:
    name = str(source) if isinstance(source, str | Path) else "detections"
    items = load_json(source) if isinstance(source, str | Path) else source
    if isinstance(items, Mapping):
        items = items.get("annotations")
    if not isinstance(items, list):
        raise InputError(f"{name}: not a list of detections; give COCO results (image_id, category_id, bbox, score)")

    def where(n: int) -> str:
        return f"{name}: detection {n}"

    image, category = truth.positions(items, where)
    xywh = _numbers(items, "bbox", 4, where)
    return Boxes(
        image=image,
        category=category,
        xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        score=_numbers(items, "score", 1, where)[:, 0],
        crowd=np.zeros(len(items), dtype=bool),
    )


def _numbers(items: Sequence[Mapping], key: str, size: int, where: Callable[[int], str]) -> np.ndarray:
    """(N, size) float64 of `key`; `InputError` names the first item whose values are missing or not finite."""
    try:
        values = np.array([item[key] for item in items], dtype=np.float64).reshape(len(items), size)
        bad = np.flatnonzero(~np.isfinite(values).all(1))
    except (KeyError, TypeError, ValueError):
        bad = np.array([n for n, item in enumerate(items) if not _is_numeric(item.get(key), size)])
    if len(bad):
        raise InputError(f"{where(bad[0])}: '{key}' must be {size} finite number(s), is {items[bad[0]].get(key)!r}")
    return values


def _is_numeric(value: Any, size: int) -> bool:
    values = [value] if size == 1 else value
    return isinstance(values, list | tuple) and len(values) == size and all(isinstance(v, int | float) for v in values)


def _sorted_ids(items: Iterable[Mapping], what: str) -> np.ndarray:
    """(n,) sorted ids; `InputError` names a missing or repeated one."""
    seen: set[int] = set()
    for value in (item.get("id") for item in items):
        if not isinstance(value, int) or value in seen:
            raise InputError(f"{what} id {value!r} is {'repeated' if value in seen else 'no integer'}; ids are unique")
        seen.add(value)
    return np.array(sorted(seen), dtype=np.int64)


def _distinct(names: Sequence[str]) -> list[str]:
    """Class names, made distinct by a number where a file repeats one."""
    return [f"{name} ({n})" if name in names[:n] else name for n, name in enumerate(names)]
