"""A detection data set as read from its files, valid or not, as arrays; and vectorised checks of its boxes.

P images, n boxes, K categories.  The checks do not stop at the first problem: the check of a data set reports all of
them, training refuses the first error (`refuse`) and counts the warnings (`count_warnings`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING, Findings, Kind, milder
from backbones.core.image_checks import StatedImage
from backbones.core.warning_counter import WarningCounter

MALFORMED = Kind(ERROR, "boxes that are not 4 numbers", "write x, y, width and height (VOC: four corners)")
NOT_FINITE = Kind(ERROR, "boxes that are not finite", "correct or remove them")
NORMALISED = Kind(ERROR, "boxes below one pixel, as with coordinates in 0..1", "multiply them by the image's size")
CORNERS = Kind(ERROR, "boxes that fit their image only as two corners", "a COCO box is x, y, width, height")
ASTRAY = Kind(ERROR, "most boxes are not within their image", "check that they belong to these images and sizes")
NEGATIVE = Kind(
    ERROR,
    "boxes of negative width or height",
    "a COCO box is x, y, width, height, not two corners; training drops them",
)
EMPTY = Kind(ERROR, "boxes of zero width or height", "remove them; training drops them")
OUTSIDE = Kind(ERROR, "boxes that extend beyond the image", "correct them; training clips them to the image")
BEYOND = Kind(ERROR, "boxes completely outside the image", "correct or remove them; training drops them")
LARGE_AREA = Kind(ERROR, "areas larger than their box", "correct them, or leave `area` out")
ZERO_AREA = Kind(WARNING, "areas of 0", "such objects count as small; correct them, or leave `area` out")
NO_AREA = Kind(WARNING, "annotations without area", "the box's own area decides between small, medium and large")
POINT = Kind(WARNING, "point boxes (xmin = xmax or ymin = ymax)", "they are read as one pixel wide or high, as in VOC")
NO_IMAGES = Kind(ERROR, "empty list of images", "list the images")
NO_OBJECTS = Kind(ERROR, "data set without any usable object", "annotate the images")
UNANNOTATED = Kind(WARNING, "images without annotation", "training skips them; evaluation includes them")
UNUSED = Kind(WARNING, "categories without annotation", "they are neither trained on nor part of the mean AP")
NUM_CLASSES = Kind(ERROR, "NUM_CLASSES that differs", "set it to the number of categories, or to 0")

# Training drops or clips such boxes and counts them with its own messages.
FIXED = (NEGATIVE, EMPTY, OUTSIDE, BEYOND)
# Pixels by which a box may exceed the border: coordinates rounded to integers or pixel centres.
BORDER = 0.5
# Pixels beyond that by which corners counted from 0 in place of 1, or from 1 in place of 0, exceed the border.
SHIFTED = 1
# The official files have a few boxes that training drops or clips (COCO's train2017 some of zero width or height
# among 860,001): up to this share of all boxes they are a warning.
FIXED_SHARE = 1e-4
# Areas come from masks, which can extend slightly beyond the box: this share may, by more than a pixel per side.
LARGE_AREA_SHARE = 0.01
# Smallest number of boxes for which "most of them" is meaningful.
MOST_FROM = 10


@dataclass
class Scan:
    """A data set as its files state it; -1 marks boxes of an unknown image or category.

    Attributes:
        images: P images, the first entry of each id.
        image_ids: P ids in the file (VOC: 1-based position in the split).
        categories: K names.
        category_ids: K ids in the file.
        image: (n,) int64 position in `images`, or -1.
        label: (n,) int64 position in `categories`, or -1.
        bbox: (n, 4) float64 x, y, w, h; NaN where malformed; can be infinite or NaN.
        malformed: (n,) bool, not 4 numbers.
        area: (n,) float64; NaN if missing or invalid.
        iscrowd: (n,) bool, crowds or `difficult` objects.
        describe: returns a description of box i for messages.
        corners: (n, 4) xmin, ymin, xmax, ymax as in VOC files; None: not VOC.
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
        """Add the boxes selected by `rows`, (n,) bool, to the findings."""
        found = np.flatnonzero(rows).tolist()
        findings.add(kind, (self.describe(int(n)) for n in found), len(found))

    def usable(self) -> np.ndarray:
        """Return (n,) bool: the box has an image, a category, and positive width and height."""
        with np.errstate(invalid="ignore"):
            return (self.image >= 0) & (self.label >= 0) & (self.bbox[:, 2:] > 0).all(axis=1)


def refuse(findings: Findings, where: str) -> None:
    """Raise `InputError` for the first error that training cannot fix; the message counts the errors of its kind."""
    for kind, count in findings.of(ERROR).items():
        if kind not in FIXED:
            raise InputError(f"{where}: {count} x {kind.what}: {findings.example(kind)}; {kind.fix}")


def count_warnings(findings: Findings, warnings: WarningCounter) -> None:
    """Count the problems that training tolerates, for its log and results.json."""
    for found in findings.as_list():
        if found["severity"] == WARNING and found["what"] not in {kind.what for kind in FIXED}:
            first, *others = found["examples"]
            what = f"{found['what']}: {found['fix']}"
            warnings.add(what, first, found["count"] - len(others))
            for example in others:
                warnings.add(what, example)


def cut_boxes(bbox: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clip boxes to their images, as training uses them.

    Args:
        bbox: (n, 4) float64 x, y, w, h, finite; sizes: (n, 2) width and height of each box's image.

    Returns:
        (n, 4) x, y, w, h; (n,) bool, the box was clipped; (n,) bool, the clipped box is not empty.
    """
    with np.errstate(over="ignore"):
        corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
    clipped = np.clip(corners, np.zeros(4), np.tile(sizes, 2).astype(np.float64))
    # x + w can exceed the border by a rounding error, which needs no warning.
    moved = np.abs(clipped - corners).max(axis=1, initial=0) > 1e-3
    # Networks compute in float32: a side that vanishes there would make a loss infinite.
    single = clipped.astype(np.float32)
    kept = (single[:, 2:] > single[:, :2]).all(axis=1) & (bbox[:, 2:] > 0).all(axis=1)
    cut = np.where(moved[:, None], np.concatenate([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]], axis=1), bbox)
    return cut, moved, np.asarray(kept)


def check_boxes(scan: Scan, sizes: np.ndarray, findings: Findings) -> None:
    """Find boxes that are malformed, not finite, in other units, empty or outside, and areas larger than their box.

    Args:
        sizes: (P, 2) width and height of the images; 0 if unknown.
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
    far = placed & ~empty & ((low < -BORDER - SHIFTED) | (high > size + BORDER + SHIFTED)).any(axis=1)
    _check_units(scan, bbox, size, known, negative | beyond | outside, negative | far, findings)
    scan.add(findings, POINT, finite & _point_boxes(scan))
    for kind, rows in ((NEGATIVE, negative), (EMPTY, empty), (BEYOND, beyond), (OUTSIDE, outside)):
        _add_few(scan, findings, kind, rows, FIXED_SHARE if kind in (EMPTY, OUTSIDE) else 0)
    if scan.corners is None:
        with np.errstate(invalid="ignore", over="ignore"):
            large = finite & (bbox[:, 2:] > 0).all(axis=1) & (scan.area > (bbox[:, 2:] + 1).prod(axis=1))
        _add_few(scan, findings, LARGE_AREA, large, LARGE_AREA_SHARE)


def _check_units(
    scan: Scan,
    bbox: np.ndarray,
    size: np.ndarray,
    known: np.ndarray,
    astray: np.ndarray,
    far: np.ndarray,
    findings: Findings,
) -> None:
    """Find boxes in 0..1, boxes given as two corners, and boxes of other images; training on them is useless.

    Args:
        astray: (n,) bool, boxes not within their image; far: (n,) bool, those by more than a shift of one pixel.
    """
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
    _add_few(scan, findings, NORMALISED, normal, FIXED_SHARE)
    number, count = int(known.sum()), int(astray[known].sum())
    if scan.corners is None and number > 1 and 2 * count > number:
        as_corners = known & (bbox[:, 2:] > bbox[:, :2]).all(axis=1) & (bbox[:, :2] >= -BORDER).all(axis=1)
        as_corners &= (bbox[:, 2:] <= size + BORDER).all(axis=1)
        if as_corners.sum() >= 0.9 * number:
            scan.add(findings, CORNERS, astray & as_corners)
            return
    if number >= MOST_FROM and 2 * int(far[known].sum()) > number:
        scan.add(findings, ASTRAY, far)


def _point_boxes(scan: Scan) -> np.ndarray:
    if scan.corners is None:
        return np.zeros(len(scan.bbox), bool)
    with np.errstate(invalid="ignore"):
        return (scan.corners[:, :2] == scan.corners[:, 2:]).any(axis=1)


def _add_few(scan: Scan, findings: Findings, kind: Kind, rows: np.ndarray, share: float) -> None:
    """Add the boxes to the findings, as a warning if they are at most `share` of all."""
    few = rows.sum() <= share * len(rows)
    scan.add(findings, milder(kind) if few else kind, rows)


def check_use(scan: Scan, num_classes: int | None, findings: Findings) -> None:
    """Find images and categories without annotations, and check NUM_CLASSES (None: not checked)."""
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
