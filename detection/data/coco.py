"""COCO instances json -> DetectionData, checked: duplicate ids, unknown ids, missing files."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.warnings import WarningCounter
from detection.data.records import DetectionData, Record, build_data, build_record


def load_coco(annotations: Path, images: Path, name: str, warnings: WarningCounter) -> DetectionData:
    """Read a COCO instances json.

    The categories are those that the file lists, annotated or not.  Annotations with `iscrowd` stay,
    for the evaluation; the loader leaves them out of training.

    Args:
        annotations: the json file.
        images: folder that its `file_name`s are below.
        warnings: counts boxes clipped or dropped, pictures converted.

    Raises:
        InputError: names file, key and id of what is wrong.
    """
    tree = load_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(tree, Mapping) or not isinstance(tree.get(key), list):
            raise InputError(f"{annotations}: no list '{key}'; give a COCO instances file")
    if not images.is_dir():
        raise InputError(f"{name}: no picture folder {images}; check DATASETS.ROOT")
    categories = _read_categories(tree["categories"], annotations)
    entries = _by_id(tree["images"], f"{annotations}: images")
    boxes = _group_by_image(tree["annotations"], entries, {c["id"] for c in categories}, annotations)
    label_of = {category["id"]: n for n, category in enumerate(categories)}
    records = [
        _build_record(entries[image_id], boxes[image_id], label_of, images, annotations, warnings)
        for image_id in sorted(entries)
    ]
    return build_data(name, images, annotations, categories, records, warnings)


def _build_record(
    entry: Mapping, boxes: list[Mapping], label_of: dict[int, int], images: Path, where: Path, warnings: WarningCounter
) -> Record:
    for key in ("file_name", "width", "height"):
        if key not in entry:
            raise InputError(f"{where}: images: id {entry['id']} has no '{key}'; add it")
    bbox = np.array([_read_box(box, where) for box in boxes], np.float64).reshape(-1, 4)
    return build_record(
        entry["id"],
        images / entry["file_name"],
        (entry["width"], entry["height"]),
        bbox,
        [label_of[box["category_id"]] for box in boxes],
        [bool(box.get("iscrowd", 0)) for box in boxes],
        # Without `area` (COCO: of the segmentation) the box's own area stands in.
        [_read_area(box, area, where) for box, area in zip(boxes, bbox[:, 2] * bbox[:, 3], strict=True)],
        warnings,
    )


def _read_categories(items: list[Mapping], where: Path) -> list[dict[str, Any]]:
    by_id = _by_id(items, f"{where}: categories")
    names = [str(by_id[i].get("name", i)) for i in sorted(by_id)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: categories: the name '{name}' stands twice; rename one")
    return [{"id": i, "name": name} for i, name in zip(sorted(by_id), names, strict=True)]


def _by_id(items: Iterable[Mapping], where: str) -> dict[int, Mapping]:
    found: dict[int, Mapping] = {}
    for item in items:
        if not isinstance(item, Mapping):
            raise InputError(f"{where}: the entry {item!r} is no object; correct it")
        key = item.get("id")
        if not isinstance(key, int):
            raise InputError(f"{where}: id {key!r} is no integer; number the entries")
        if key in found:
            raise InputError(f"{where}: duplicate id {key}; ids must be unique")
        found[key] = item
    return found


def _group_by_image(
    items: list[Mapping], images: Mapping[int, Mapping], categories: set[int], where: Path
) -> dict[int, list[Mapping]]:
    groups: dict[int, list[Mapping]] = defaultdict(list)
    for key, item in _by_id(items, f"{where}: annotations").items():
        for field, known in (("image_id", images), ("category_id", categories)):
            if not isinstance(item.get(field), int) or item[field] not in known:
                raise InputError(
                    f"{where}: annotations: id {key} has the unknown {field} {item.get(field)!r}; "
                    f"list it under '{'images' if field == 'image_id' else 'categories'}' or remove the annotation"
                )
        groups[item["image_id"]].append(item)
    return groups


def _read_area(item: Mapping, box_area: float, where: Path) -> float:
    area = item.get("area", box_area)
    if not isinstance(area, (int, float)) or not 0 <= area <= sys.float_info.max:
        raise InputError(f"{where}: annotations: id {item['id']}: area must be a number, not {area!r}; correct it")
    return float(area)


def _read_box(item: Mapping, where: Path) -> list[float]:
    box = item.get("bbox")
    try:
        values = np.asarray(box, np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.empty(0)
    if values.shape != (4,) or not np.isfinite(values).all():
        raise InputError(f"{where}: annotations: id {item['id']}: bbox must be 4 numbers, not {box!r}; correct it")
    return values.tolist()
