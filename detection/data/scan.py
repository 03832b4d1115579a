"""What was read of a detection data set, right or wrong, as arrays; and the checks of its boxes, all at once.

P pictures, n boxes, K categories.  Unlike the readers that train, nothing here stops at the first problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backbones.core.findings import ERROR, WARNING, Findings, Kind, milder
from backbones.core.picture_checks import Picture

MALFORMED = Kind(ERROR, "boxes that are not 4 numbers", "write x, y, width and height (VOC: four corners)")
NOT_FINITE = Kind(ERROR, "boxes that are not finite", "correct or remove them")
NEGATIVE = Kind(ERROR, "boxes of negative width or height", "a COCO box is x, y, width, height, not two corners")
EMPTY = Kind(ERROR, "boxes of zero width or height", "remove them; training drops them")
OUTSIDE = Kind(ERROR, "boxes that reach out of the picture", "correct them; training cuts them to the picture")
BEYOND = Kind(ERROR, "boxes wholly outside of the picture", "correct or remove them")
BAD_AREA = Kind(ERROR, "areas that are no number of at least 0", "correct them, or leave `area` out")
ZERO_AREA = Kind(WARNING, "areas of 0", "such objects count as small; correct them, or leave `area` out")
NO_AREA = Kind(WARNING, "annotations without area", "the box's own area decides between small, medium and large")
NO_PICTURES = Kind(ERROR, "empty list of pictures", "list the pictures")
NO_OBJECTS = Kind(ERROR, "set without any usable object", "annotate the pictures")
UNANNOTATED = Kind(WARNING, "pictures without annotation", "training leaves them out; they are tested on")
UNUSED = Kind(WARNING, "categories without annotation", "they are neither learned nor in the mean AP")
NUM_CLASSES = Kind(ERROR, "MODEL.ROI_HEADS.NUM_CLASSES that differs", "set it to the number of categories listed")

# Pixels that a box may pass the border by: coordinates rounded to whole numbers or pixel centres.
BORDER = 0.5
LARGEST_SIDE = 2**31 - 1  # of a picture; beyond, it is a slip
# Training drops and cuts such boxes.  The official files have a few (COCO's train2017 some of zero width or height
# among 860,001): up to this share they are a warning.
MENDED_SHARE = 1e-4


@dataclass
class Scan:
    """A data set as its files state it; rows of boxes that cannot be placed have -1.

    Attributes:
        pictures: P, each under its first entry.
        categories: K names.
        category_ids: K, of the files.
        image: (n,) int64 position in `pictures`, or -1.
        label: (n,) int64 position in `categories`, or -1.
        bbox: (n, 4) float64 x, y, w, h; NaN where it is no box (already found) or not finite.
        malformed: (n,) bool, already found.
        area: (n,) float64; NaN where the file has none, or a wrong one.
        iscrowd: (n,) bool, crowds or `difficult` objects.
        describe: says where row i stands.
    """

    pictures: list[Picture]
    categories: list[str]
    category_ids: list[int]
    image: np.ndarray
    label: np.ndarray
    bbox: np.ndarray
    malformed: np.ndarray
    area: np.ndarray
    iscrowd: np.ndarray
    describe: Callable[[int], str]

    def add(self, findings: Findings, kind: Kind, rows: np.ndarray) -> None:
        """Count the boxes where `rows`, (n,) bool, holds."""
        found = np.flatnonzero(rows).tolist()
        findings.add(kind, (self.describe(int(n)) for n in found), len(found))

    def usable(self) -> np.ndarray:
        """(n,) bool: a box that has a picture, a category and an extent."""
        with np.errstate(invalid="ignore"):
            return (self.image >= 0) & (self.label >= 0) & (self.bbox[:, 2:] > 0).all(axis=1)


def check_boxes(scan: Scan, sizes: np.ndarray, findings: Findings) -> None:
    """Boxes that are not finite, empty or outside.

    Args:
        sizes: (P, 2) width and height of the pictures; 0 where unknown.
    """
    finite = np.asarray(np.isfinite(scan.bbox).all(axis=1))
    scan.add(findings, MALFORMED, scan.malformed)
    scan.add(findings, NOT_FINITE, ~finite & ~scan.malformed)
    with np.errstate(invalid="ignore"):
        negative = finite & (scan.bbox[:, 2:] < 0).any(axis=1)
        empty = finite & ~negative & (scan.bbox[:, 2:] == 0).any(axis=1)
    scan.add(findings, NEGATIVE, negative)
    _add_mended(scan, findings, EMPTY, empty)
    if not len(scan.pictures):
        return
    size = sizes[scan.image].astype(np.float64)
    placed = finite & ~negative & ~empty & (scan.image >= 0) & (size > 0).all(axis=1)
    low, high = scan.bbox[:, :2], scan.bbox[:, :2] + scan.bbox[:, 2:]
    with np.errstate(invalid="ignore"):
        beyond = placed & ((high <= 0) | (low >= size)).any(axis=1)
        outside = placed & ~beyond & ((low < -BORDER) | (high > size + BORDER)).any(axis=1)
    scan.add(findings, BEYOND, beyond)
    _add_mended(scan, findings, OUTSIDE, outside)


def _add_mended(scan: Scan, findings: Findings, kind: Kind, rows: np.ndarray) -> None:
    few = rows.sum() <= MENDED_SHARE * len(rows)
    scan.add(findings, milder(kind) if few else kind, rows)


def check_use(scan: Scan, num_classes: int | None, findings: Findings) -> None:
    """Pictures and categories without annotation, and NUM_CLASSES (None: not checked)."""
    if not scan.pictures:
        findings.add(NO_PICTURES, "0 pictures")
        return
    usable = scan.usable()
    if not (usable & ~scan.iscrowd).any():
        findings.add(NO_OBJECTS, f"0 of {len(usable)} annotations")
    bare = np.flatnonzero(np.bincount(scan.image[scan.image >= 0], minlength=len(scan.pictures)) == 0)
    findings.add(UNANNOTATED, (scan.pictures[n].key for n in bare), len(bare))
    counts = np.bincount(scan.label[usable], minlength=len(scan.categories))
    findings.add(UNUSED, [name for name, n in zip(scan.categories, counts, strict=True) if n == 0])
    if num_classes is not None and num_classes != len(scan.categories):
        findings.add(NUM_CLASSES, f"{num_classes}, the data list {len(scan.categories)}")
