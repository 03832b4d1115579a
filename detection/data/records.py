"""What every detection data set becomes, whatever its format: pictures with boxes of numbered classes.

Boxes in files are (x, y, w, h); boxes for a network (x0, y0, x1, y1).  Both are in pixels of the
stored picture, half-open: a box that covers it wholly is (0, 0, width, height).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.pictures import read_header
from backbones.core.warnings import WarningCounter
from backbones.data.geometry import clip_boxes


@dataclass(frozen=True)
class Record:
    """One picture of n boxes.

    Attributes:
        image_id: the file format's own id (VOC: 1-based position in the split).
        bbox: (n, 4) float64 x, y, w, h.
        labels: (n,) int64, positions in the list of categories.
        iscrowd: (n,) bool; such boxes (COCO's crowds, VOC's `difficult`) are never learned, and
            detections on them count neither as right nor as wrong.
        area: (n,) float64, by which COCO calls an object small, medium or large.
    """

    image_id: int
    path: str
    width: int
    height: int
    bbox: np.ndarray
    labels: np.ndarray
    iscrowd: np.ndarray
    area: np.ndarray

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) float32 x0, y0, x1, y1."""
        return np.concatenate([self.bbox[:, :2], self.bbox[:, :2] + self.bbox[:, 2:]], axis=1).astype(np.float32)


@dataclass(frozen=True)
class DetectionData:
    """A data set: `records` sorted by image id; `categories` [{"id", "name"}] sorted by id."""

    name: str
    root: str
    annotations_path: str
    categories: list[dict[str, Any]]
    records: list[Record]
    fingerprint: str
    warnings: WarningCounter
    form: str = "coco"  # or "voc": then iscrowd is `difficult`, and VOC's own evaluation applies

    @property
    def area(self) -> str:
        """Whose area sorts objects by size: "box" (VOC, COCO files converted from it) or "segmentation" (COCO).

        The boxes decide, as no file says it: a mask fills half to three quarters of its box.
        """
        shares = np.concatenate([r.area / (r.bbox[:, 2] * r.bbox[:, 3]) for r in self.records])
        return "segmentation" if len(shares) and np.median(shares) < 0.95 else "box"

    def counts(self) -> dict[str, int]:
        """Numbers of pictures, annotations and categories, for the log and results.json."""
        present = {int(label) for record in self.records for label in record.labels}
        return {
            "images": len(self.records),
            "annotations": sum(len(record.labels) for record in self.records),
            "crowd": sum(int(record.iscrowd.sum()) for record in self.records),
            "categories": len(self.categories),
            "categories_annotated": len(present),
        }

    def to_coco(self) -> dict[str, Any]:
        """Ground truth in COCO's form.  Annotation ids start at 1: pycocotools takes 0 for "no match"."""
        ids = [category["id"] for category in self.categories]
        annotations = [
            {
                "image_id": record.image_id,
                "category_id": ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
                "ignore": int(crowd),
            }
            for record in self.records
            for box, label, area, crowd in zip(
                record.bbox.tolist(), record.labels, record.area.tolist(), record.iscrowd, strict=True
            )
        ]
        return {
            "images": [
                {"id": r.image_id, "file_name": Path(r.path).name, "width": r.width, "height": r.height}
                for r in self.records
            ],
            "annotations": [{"id": n, **annotation} for n, annotation in enumerate(annotations, start=1)],
            "categories": [dict(category) for category in self.categories],
        }


def build_record(
    image_id: int,
    path: Path,
    size: tuple[int, int],
    bbox: np.ndarray,
    labels: Iterable[int],
    iscrowd: Iterable[bool],
    area: Iterable[float] | None,
    warnings: WarningCounter,
) -> Record:
    """A record with boxes cut to the picture and empty ones dropped, both counted in `warnings`.

    Args:
        bbox: (n, 4) x, y, w, h as read.
        area: None: the area of the (cut) box.
    """
    bbox = np.asarray(bbox, np.float64).reshape(-1, 4)
    corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
    clipped = clip_boxes(corners, *size)
    # x + w may pass the border by a rounding error, which is no box to warn about.
    moved = np.abs(clipped - corners).max(axis=1, initial=0) > 1e-3
    # In float32, which networks compute in: a side that vanishes there would make a loss infinite.
    single = clipped.astype(np.float32)
    kept = (single[:, 2:] > single[:, :2]).all(axis=1) & (bbox[:, 2:] > 0).all(axis=1)
    where = f"{path.name} (image id {image_id})"
    for what, boxes in (("box clipped to the picture", moved & kept), ("box of zero area dropped", ~kept)):
        if boxes.any():
            warnings.add(what, where, int(boxes.sum()))
    bbox = np.where(moved[:, None], np.concatenate([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]], axis=1), bbox)
    areas = bbox[:, 2] * bbox[:, 3] if area is None else np.asarray(list(area), np.float64)
    labels, crowd = np.asarray(list(labels), np.int64), np.asarray(list(iscrowd), bool)
    return Record(image_id, str(path), *size, bbox[kept], labels[kept], crowd[kept], areas[kept])


def build_data(
    name: str,
    root: Path,
    annotations_path: Path,
    categories: list[dict[str, Any]],
    records: list[Record],
    warnings: WarningCounter,
    form: str = "coco",
) -> DetectionData:
    """A data set whose pictures were looked at: each exists, has the stated size, and counts if not RGB."""
    if not records:
        raise InputError(f"{annotations_path}: no pictures; check the file")
    lines = []
    for record in records:
        width, height, mode, _ = read_header(record.path)
        if (width, height) != (record.width, record.height):
            raise InputError(
                f"{annotations_path}: image id {record.image_id} is stated as {record.width}x{record.height}, "
                f"{record.path} is {width}x{height}; correct one of them"
            )
        if mode != "RGB":
            warnings.add(f"{'grey' if mode in ('L', '1') else mode} picture converted to RGB", record.path)
        size = Path(record.path).stat().st_size
        lines.append(f"{Path(record.path).name} {record.image_id} {width} {height} {size}")
    return DetectionData(
        name=name,
        root=str(root),
        annotations_path=str(annotations_path),
        categories=categories,
        records=records,
        fingerprint=_fingerprint(categories, lines, records),
        warnings=warnings,
        form=form,
    )


def join(parts: list[DetectionData]) -> DetectionData:
    """Several training sets as one (VOC 07+12); image ids are given anew, from 1."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        check_categories(first, part)
    records = [record for part in parts for record in part.records]
    records = [Record(**{**vars(record), "image_id": n}) for n, record in enumerate(records, start=1)]
    return DetectionData(
        name="+".join(part.name for part in parts),
        root=first.root,
        annotations_path=first.annotations_path,
        categories=first.categories,
        records=records,
        fingerprint=fingerprint(*(part.fingerprint for part in parts)),
        warnings=first.warnings,
        form=first.form if all(part.form == first.form for part in parts) else "coco",
    )


def check_categories(one: DetectionData, other: DetectionData) -> None:
    """Refuses two data sets that number different categories."""
    if one.categories != other.categories:
        names = [", ".join(c["name"] for c in data.categories[:3]) for data in (one, other)]
        raise InputError(
            f"the categories of {one.name} ({len(one.categories)}: {names[0]} ...) and of {other.name} "
            f"({len(other.categories)}: {names[1]} ...) differ; use sets of the same list"
        )


def _fingerprint(categories: list[dict], lines: list[str], records: list[Record]) -> str:
    """Names the content: the categories, the pictures (names, sizes, bytes), every box."""
    fields = [
        np.concatenate([getattr(record, field) for record in records])
        for field in ("bbox", "labels", "iscrowd", "area")
    ]
    boxes_per_image = np.array([len(record.labels) for record in records])
    return fingerprint(json.dumps(categories, sort_keys=True), "\n".join(lines), boxes_per_image, *fields)
