"""Checked reading of COCO's two files: the ground truth (instances json) and the results of a detector.

Every evaluator of boxes starts from here.  Letters: I images, K classes, N detections, G objects.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_json
from detection.coco_matching import Boxes


class GroundTruth:
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

    def _list(self, content: Any, key: str) -> list[Mapping]:
        value = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(value, list):
            raise InputError(f"{self.where}: no list '{key}'; give a COCO instances json")
        return _objects(value, f"{self.where}: {key}")

    def positions(self, items: Sequence[Mapping], where: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) image and class positions; `InputError` names the first unknown id."""
        result = []
        for key, ids in (("image_id", self.image_ids), ("category_id", self.category_ids)):
            position = {value: n for n, value in enumerate(ids.tolist())}
            named = (item.get(key) for item in items)
            found = [position.get(value, -1) if isinstance(value, int) else -1 for value in named]
            if -1 in found:
                n = found.index(-1)
                raise InputError(
                    f"{where(n)}: {key} {items[n].get(key)!r} is not in the ground truth; use one json for both"
                )
            result.append(np.array(found, dtype=np.int64))
        return result[0], result[1]


def read_detections(source: Sequence | Mapping | str | Path, truth: GroundTruth) -> Boxes:
    """COCO results, checked, in their order; `InputError` names the first that is no detection of the ground truth."""
    name = str(source) if isinstance(source, str | Path) else "detections"
    items = load_json(source) if isinstance(source, str | Path) else source
    if isinstance(items, Mapping):
        items = items.get("annotations")
    if not isinstance(items, Sequence):
        raise InputError(f"{name}: not a list of detections; give COCO results (image_id, category_id, bbox, score)")
    items = _objects(items, name)

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


def _objects(items: Sequence[Any], where: str) -> list[Mapping]:
    for n, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise InputError(f"{where}[{n}] is {item!r}, no object with keys; correct it")
    return list(items)


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
