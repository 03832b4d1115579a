"""A detection data set in memory, independent of its format: images with boxes of numbered classes.

Boxes in files are (x, y, w, h); boxes for a network (x0, y0, x1, y1).  Both are in pixels of the
stored image, half-open: a box that covers the whole image is (0, 0, width, height).
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.warning_counter import WarningCounter
from detection.data.scan import Scan, cut_boxes


@dataclass(frozen=True)
class Record:
    """One image with n boxes.

    Attributes:
        image_id: id in the file (VOC: 1-based position in the split).
        bbox: (n, 4) float64 x, y, w, h.
        labels: (n,) int64, positions in the list of categories.
        iscrowd: (n,) bool; such boxes (COCO's crowds, VOC's `difficult`) are never trained on, and
            detections that match them are ignored.
        area: (n,) float64, pixels; COCO divides objects into small, medium and large by it.
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
    """A data set: `records` sorted by image id, `categories` [{"id", "name"}] sorted by id.

    root: the folder of the images; of VOC, the folder that holds JPEGImages.
    """

    name: str
    root: str
    annotations_path: str
    categories: list[dict[str, Any]]
    records: list[Record]
    fingerprint: str
    warnings: WarningCounter
    form: str = "coco"  # or "voc": then iscrowd is `difficult`, and VOC's own evaluation applies
    classes_from: str = ""  # source of the categories, if not the file `annotations_path`

    @property
    def area(self) -> str:
        """Kind of area that defines object sizes: "box" (VOC, COCO files converted from it) or "segmentation" (COCO).

        Inferred from the boxes, as no file states it: a mask fills half to three quarters of its box.
        """
        shares = np.concatenate([r.area / (r.bbox[:, 2] * r.bbox[:, 3]) for r in self.records])
        return "segmentation" if len(shares) and np.median(shares) < 0.95 else "box"

    def stated_categories(self) -> str:
        """Return the number of categories and its source, as a clause for a message."""
        if self.classes_from:
            return f"{self.classes_from} {len(self.categories)} classes"
        return f"{self.annotations_path} lists {len(self.categories)} categories"

    def counts(self) -> dict[str, int]:
        """Return the numbers of images, annotations and categories, for the log and results.json."""
        present = {int(label) for record in self.records for label in record.labels}
        return {
            "images": len(self.records),
            "annotations": sum(len(record.labels) for record in self.records),
            "crowd": sum(int(record.iscrowd.sum()) for record in self.records),
            "categories": len(self.categories),
            "categories_annotated": len(present),
        }

    def file_name(self, record: Record) -> str:
        """Return the path of an image below the data set's folder of images; of one outside it, the name alone."""
        path, folder = Path(record.path), Path(self.root, "JPEGImages" if self.form == "voc" else "")
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name

    def to_coco(self) -> dict[str, Any]:
        """Return the ground truth as a COCO tree.  Annotation ids start at 1: pycocotools reads 0 as "no match"."""
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
                {"id": r.image_id, "file_name": self.file_name(r), "width": r.width, "height": r.height}
                for r in self.records
            ],
            "annotations": [{"id": n, **annotation} for n, annotation in enumerate(annotations, start=1)],
            "categories": [dict(category) for category in self.categories],
        }


class RunData(NamedTuple):
    """The data sets of a fine-tuning; val: of DATASETS.VAL, None without it."""

    train: DetectionData
    test: DetectionData
    val: DetectionData | None


def build_records(scan: Scan, sizes: np.ndarray, warnings: WarningCounter) -> tuple[list[Record], str]:
    """Build the records of a scan without errors, in the order of its images, and the fingerprint of the data set.

    Boxes are clipped to their image and empty ones dropped; both are counted in `warnings`.

    Args:
        sizes: (P, 2) width and height of the images, all known.
    """
    order = np.argsort(scan.image, kind="stable")  # by image, in the file's order within each
    image, labels, iscrowd, area = (getattr(scan, name)[order] for name in ("image", "label", "iscrowd", "area"))
    stated = scan.bbox[order]
    bbox, moved, kept = cut_boxes(stated, sizes[image])
    for what, rows in (("box clipped to the image", moved & kept), ("box of zero area dropped", ~kept)):
        counts = np.bincount(image[rows], minlength=len(scan.images))
        for n in np.flatnonzero(counts).tolist():
            cut = scan.images[n]
            warnings.add(what, f"{os.path.basename(cut.path)} ({cut.key})", int(counts[n]))
    if scan.corners is not None:  # VOC has no area
        area = bbox[:, 2] * bbox[:, 3]
    # Without `area` (in COCO that of the segmentation), use the area of the box.
    with np.errstate(over="ignore"):
        own = stated[:, 2] * stated[:, 3]
    own = np.where(np.isfinite(own), own, bbox[:, 2] * bbox[:, 3])
    columns = [values[kept] for values in (bbox, labels, iscrowd, np.where(np.isnan(area), own, area))]
    counts = np.bincount(image[kept], minlength=len(scan.images))
    ends = np.cumsum(counts).tolist()
    records = [
        Record(key, image.path, width, height, *(values[first:last] for values in columns))
        for key, image, (width, height), first, last in zip(
            scan.image_ids, scan.images, sizes.tolist(), [0, *ends], ends, strict=False
        )
    ]
    lines = [f"{os.path.basename(r.path)} {r.image_id} {r.width} {r.height} {os.stat(r.path).st_size}" for r in records]
    categories = json.dumps(list_categories(scan), sort_keys=True)
    # The fingerprint covers the categories, the images (names, sizes, bytes) and every box.
    return records, fingerprint(categories, "\n".join(lines), counts, *columns)


def list_categories(scan: Scan) -> list[dict[str, Any]]:
    """Return [{"id", "name"}] sorted by id."""
    return [{"id": key, "name": name} for key, name in zip(scan.category_ids, scan.categories, strict=True)]


def shared_images(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """Return the image files that are in both lists of paths, sorted; links are resolved."""
    first, second = ({os.path.realpath(path) for path in paths if path} for paths in (one, other))
    return sorted(first & second)


def join(parts: list[DetectionData]) -> DetectionData:
    """Join several training sets (VOC 07+12); images are renumbered from 1."""
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
        classes_from=first.classes_from,
    )


def check_categories(one: DetectionData, other: DetectionData) -> None:
    """Refuse two data sets with different categories."""
    if one.categories != other.categories:
        names = [", ".join(c["name"] for c in data.categories[:3]) for data in (one, other)]
        raise InputError(
            f"the categories of {one.name} ({len(one.categories)}: {names[0]} ...) and of {other.name} "
            f"({len(other.categories)}: {names[1]} ...) differ; use data sets with the same list"
        )
