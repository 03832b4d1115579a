"""What was read of a detection data set, right or wrong, as arrays; and the checks of its boxes, all at once.

P images, n boxes, K categories.  Nothing here stops at the first problem: the check of a data set reports all of
them, training refuses the first error (`refuse`) and counts the warnings (`count_warnings`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING, Findings, Kind, milder
from backbones.core.image_checks import StatedImage
from backbones.core.warning_counter import WarningCounter

MALFORMED = Kind(ERROR, "boxes that are not 4 numbers", "write x, y, width and height (VOC: four corners)")
NOT_FINITE = Kind(ERROR, "boxes that are not finite", "correct or remove them")
NORMALISED = Kind(ERROR, "boxes below one pixel, as of coordinates in 0..1", "multiply them by the image's size")
CORNERS = Kind(ERROR, "boxes that fit their image only as two corners", "a COCO box is x, y, width, height")
ASTRAY = Kind(ERROR, "boxes not within their image, most of all", "check that they belong to these images and sizes")
NEGATIVE = Kind(
    ERROR,
    "boxes of negative width or height",
    "a COCO box is x, y, width, height, not two corners; training drops them",
)
EMPTY = Kind(ERROR, "boxes of zero width or height", "remove them; training drops them")
OUTSIDE = Kind(ERROR, "boxes that reach out of the image", "correct them; training cuts them to the image")
BEYOND = Kind(ERROR, "boxes wholly outside of the image", "correct or remove them; training drops them")
LARGE_AREA = Kind(ERROR, "areas larger than their box", "correct them, or leave `area` out")
ZERO_AREA = Kind(WARNING, "areas of 0", "such objects count as small; correct them, or leave `area` out")
NO_AREA = Kind(WARNING, "annotations without area", "the box's own area decides between small, medium and large")
POINT = Kind(
    WARNING, "point boxes (xmin = xmax or ymin = ymax)", "they are read as one pixel wide or high, as VOC counts pixels"
)
NO_IMAGES = Kind(ERROR, "empty list of images", "list the images")
NO_OBJECTS = Kind(ERROR, "set without any usable object", "annotate the images")
UNANNOTATED = Kind(WARNING, "images without annotation", "training leaves them out; they are tested on")
UNUSED = Kind(WARNING, "categories without annotation", "they are neither learned nor in the mean AP")
NUM_CLASSES = Kind(ERROR, "MODEL.ROI_HEADS.NUM_CLASSES that differs", "set it to the number of categories")

# Training continues without such boxes, or with what is left of them, and counts them in its own words.
FIXED = (NEGATIVE, EMPTY, OUTSIDE, BEYOND)
# Pixels that a box may pass the border by: coordinates rounded to whole numbers or pixel centres.
BORDER = 0.5
# The official files have a few boxes that training drops and cuts (COCO's train2017 some of zero width or height
# among 860,001): up to this share they are a warning.
MENDED_SHARE = 1e-4
# Areas come from masks, whose pixels may stick out of the box a little: so many may, by more than a pixel a side.
LARGE_AREA_SHARE = 0.01
# From so many boxes on, "most of them" means something.
MOST_FROM = 10


@dataclass
class Scan:
    """A data set as its files state it; rows of boxes that cannot be placed have -1.

    Attributes:
        images: P, each under its first entry.
        image_ids: P, of the files (VOC: 1-based position in the split).
        categories: K names.
        category_ids: K, of the files.
        image: (n,) int64 position in `images`, or -1.
        label: (n,) int64 position in `categories`, or -1.
        bbox: (n, 4) float64 x, y, w, h; NaN where it is not a box (already found) or not finite.
        malformed: (n,) bool, already found.
        area: (n,) float64; NaN where the file has none, or a wrong one.
        iscrowd: (n,) bool, crowds or `difficult` objects.
        describe: says where row i stands.
        corners: (n, 4) xmin, ymin, xmax, ymax as VOC's files state them; None: not VOC.
    """

    images: list[StatedImage]
    image_ids: list[int]
    categories: list[str]
    category_ids: list[int]
    image: np.ndarray
    label: np.ndarray
    bbox: np.ndarray
    malformed: np.ndarray
    area: np.ndarray
    iscrowd: np.ndarray
    describe: Callable[[int], str]
    corners: np.ndarray | None = None

    def add(self, findings: Findings, kind: Kind, rows: np.ndarray) -> None:
        """Count the boxes where `rows`, (n,) bool, holds."""
        found = np.flatnonzero(rows).tolist()
        findings.add(kind, (self.describe(int(n)) for n in found), len(found))

    def usable(self) -> np.ndarray:
        """(n,) bool: a box that has an image, a category and an extent."""
        with np.errstate(invalid="ignore"):
            return (self.image >= 0) & (self.label >= 0) & (self.bbox[:, 2:] > 0).all(axis=1)


def refuse(findings: Findings, where: str) -> None:
    """`InputError` for the first error that training cannot fix; it says how many there are of the kind."""
    for kind, count in findings.of(ERROR).items():
        if kind not in FIXED:
            raise InputError(f"{where}: {count} x {kind.what}: {findings.example(kind)}; {kind.fix}")


def count_warnings(findings: Findings, warnings: WarningCounter) -> None:
    """What training reads in spite of it, for its log and results.json."""
    for found in findings.as_list():
        if found["severity"] == WARNING and found["what"] not in {kind.what for kind in FIXED}:
            first, *others = found["examples"]
            what = f"{found['what']}: {found['fix']}"
            warnings.add(what, first, found["count"] - len(others))
            for example in others:
                warnings.add(what, example)


def cut_boxes(bbox: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes cut to their images, as training learns them.

    Args:
        bbox: (n, 4) float64 x, y, w, h, finite; sizes: (n, 2) width and height of the image of each.

    Returns:
        (n, 4) x, y, w, h; (n,) bool, whether it was cut; (n,) bool, whether something is left of it.
    """
    with np.errstate(over="ignore"):
        corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
    clipped = np.clip(corners, np.zeros(4), np.tile(sizes, 2).astype(np.float64))
    # x + w may pass the border by a rounding error, which needs no warning.
    moved = np.abs(clipped - corners).max(axis=1, initial=0) > 1e-3
    # In float32, which networks compute in: a side that vanishes there would make a loss infinite.
    single = clipped.astype(np.float32)
    kept = (single[:, 2:] > single[:, :2]).all(axis=1) & (bbox[:, 2:] > 0).all(axis=1)
    cut = np.where(moved[:, None], np.concatenate([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]], axis=1), bbox)
    return cut, moved, np.asarray(kept)


def check_boxes(scan: Scan, sizes: np.ndarray, findings: Findings) -> None:
    """Boxes that are not finite, in other units, empty or outside, and their areas.

    Args:
        sizes: (P, 2) width and height of the images; 0 where unknown.
    """
    finite = np.asarray(np.isfinite(scan.bbox).all(axis=1))
    scan.add(findings, MALFORMED, scan.malformed)
    scan.add(findings, NOT_FINITE, ~finite & ~scan.malformed)
    bbox = np.where(finite[:, None], scan.bbox, 0)
    size = sizes[scan.image].astype(np.float64) if len(sizes) else np.zeros((len(bbox), 2))
    negative = finite & (bbox[:, 2:] < 0).any(axis=1)
    empty = finite & ~negative & (bbox[:, 2:] == 0).any(axis=1)
    known = finite & (scan.image >= 0) & (size > 0).all(axis=1)
    placed = known & ~negative & ~empty
    with np.errstate(over="ignore"):
        low, high = bbox[:, :2], bbox[:, :2] + bbox[:, 2:]
    beyond = placed & ((high <= 0) | (low >= size)).any(axis=1)
    outside = placed & ~beyond & ((low < -BORDER) | (high > size + BORDER)).any(axis=1)
    empty |= placed & ~beyond & ~cut_boxes(bbox, size)[2]  # its sides vanish in float32
    outside &= ~empty
    _check_units(scan, bbox, size, known, negative | beyond | outside, findings)
    scan.add(findings, POINT, finite & _point_boxes(scan))
    for kind, rows in ((NEGATIVE, negative), (EMPTY, empty), (BEYOND, beyond), (OUTSIDE, outside)):
        _add_few(scan, findings, kind, rows, MENDED_SHARE if kind in (EMPTY, OUTSIDE) else 0)
    if scan.corners is None:
        with np.errstate(invalid="ignore", over="ignore"):
            large = finite & (bbox[:, 2:] > 0).all(axis=1) & (scan.area > (bbox[:, 2:] + 1).prod(axis=1))
        _add_few(scan, findings, LARGE_AREA, large, LARGE_AREA_SHARE)


def _check_units(
    scan: Scan, bbox: np.ndarray, size: np.ndarray, known: np.ndarray, astray: np.ndarray, findings: Findings
) -> None:
    """Boxes of another meaning: in 0..1, as two corners, or of other images; training on them learns nothing."""
    ends = scan.corners
    if ends is None:
        with np.errstate(over="ignore"):
            ends = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
    stated = bbox if scan.corners is None else scan.corners
    with np.errstate(invalid="ignore"):
        normal = known & ((ends >= 0) & (ends <= 1 + 1e-6)).all(axis=1) & (size > 1).any(axis=1)
        whole = (stated == np.floor(stated)).all(axis=1)
    if not normal[known].all():
        normal &= ~whole  # a box of the first pixel
    _add_few(scan, findings, NORMALISED, normal, MENDED_SHARE)
    number, count = int(known.sum()), int(astray[known].sum())
    if scan.corners is None and number > 1 and 2 * count > number:
        as_corners = known & (bbox[:, 2:] > bbox[:, :2]).all(axis=1) & (bbox[:, :2] >= -BORDER).all(axis=1)
        as_corners &= (bbox[:, 2:] <= size + BORDER).all(axis=1)
        if as_corners.sum() >= 0.9 * number:
            scan.add(findings, CORNERS, astray & as_corners)
            return
    if number >= MOST_FROM and 2 * count > number:
        scan.add(findings, ASTRAY, astray)


def _point_boxes(scan: Scan) -> np.ndarray:
    if scan.corners is None:
        return np.zeros(len(scan.bbox), bool)
    with np.errstate(invalid="ignore"):
        return (scan.corners[:, :2] == scan.corners[:, 2:]).any(axis=1)


def _add_few(scan: Scan, findings: Findings, kind: Kind, rows: np.ndarray, share: float) -> None:
    """Count the boxes; a warning where there are few of them among all."""
    few = rows.sum() <= share * len(rows)
    scan.add(findings, milder(kind) if few else kind, rows)


def check_use(scan: Scan, num_classes: int | None, findings: Findings) -> None:
    """Images and categories without annotation, and NUM_CLASSES (None: not checked)."""
    if not scan.images:
        return
    usable = scan.usable()
    if not (usable & ~scan.iscrowd).any():
        findings.add(NO_OBJECTS, f"0 of {len(usable)} annotations")
    bare = np.flatnonzero(np.bincount(scan.image[scan.image >= 0], minlength=len(scan.images)) == 0)
    findings.add(UNANNOTATED, (scan.images[n].key for n in bare), len(bare))
    counts = np.bincount(scan.label[usable], minlength=len(scan.categories))
    findings.add(UNUSED, [name for name, n in zip(scan.categories, counts, strict=True) if n == 0])
    if num_classes is not None and num_classes != len(scan.categories):
        findings.add(NUM_CLASSES, f"{num_classes}, the data have {len(scan.categories)}")
