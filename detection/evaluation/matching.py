"""Greedy COCO matching of boxes, for all images and classes at once.

The semantics are those of `pycocotools.cocoeval.COCOeval.evaluateImg` (bbox).  Detections of one image and class are
processed by descending score; each is matched to the unmatched object of highest IoU, the last in a tie.  An ignored
object (a crowd region, or one outside the area range) is matched only if no counted object can be, and the detection
is then ignored, too.  A crowd region can be matched several times.  An unmatched detection outside the area range is
ignored.

As detections are processed by descending score, the outcome of a detection does not depend on lower-scored ones: one
matching serves every score threshold and every limit on the number of detections.

Letters: N detections, G objects, A area ranges, T IoU thresholds.
"""

from dataclasses import dataclass

import numpy as np

from backbones.core.matches import FALSE_POSITIVE, IGNORED

AREA_NAMES = ("all", "small", "medium", "large")
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # square pixels, bounds inclusive
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100)  # per image and class


@dataclass
class Boxes:
    """Boxes of a whole data set; detections have a score, objects an area and a crowd flag.

    image, category: (N,) int64 positions in the sorted lists of ids; xywh: (N, 4) float64 pixels;
    area: (N,) square pixels; score: (N,); crowd: (N,) bool.
    """

    image: np.ndarray
    category: np.ndarray
    xywh: np.ndarray
    area: np.ndarray
    score: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def take(self, index: np.ndarray) -> "Boxes":
        """Return the boxes at `index`, positions or a mask (N,)."""
        return Boxes(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def rank_detections(detections: Boxes) -> tuple[Boxes, np.ndarray, np.ndarray]:
    """Return the 100 best detections of every cell, their ranks (N,) in the cell and their input positions (N,).

    The result is sorted by class, image and descending score (stable)."""
    order = np.lexsort((-detections.score, narrow(detections.image), narrow(detections.category)))
    detections = detections.take(order)
    rank = position_in_run(detections.category, detections.image)
    kept = rank < MAX_DETECTIONS[-1]
    return detections.take(kept), rank[kept], order[kept]


def narrow(values: np.ndarray) -> np.ndarray:
    """Return integers from 0 in their narrowest type: NumPy sorts those of at most 16 bits in linear time."""
    return values.astype(np.min_scalar_type(values.max(initial=0)))


def counted(objects: Boxes) -> np.ndarray:
    """Return (G, A) bool: the object counts in the area range; crowd regions never do."""
    return _inside(objects.area) & ~objects.crowd[:, None]


def match(detections: Boxes, objects: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Match detections to objects.

    Args:
        detections: from `rank_detections`.
    Returns:
        (N, A, T) int8 outcome of every detection: 1 true positive, 0 false positive, -1 ignored; and (N,) the object
        matched at the first threshold in the first area range (all areas), or -1.
    """
    from detection.evaluation import kernels

    free = np.where(_inside(detections.area), FALSE_POSITIVE, IGNORED).astype(np.int8)
    outcome = np.repeat(free[:, :, None], len(IOU_THRESHOLDS), axis=2)
    partner = np.full(len(detections), -1)
    images = 1 + max(detections.image.max(initial=0), objects.image.max(initial=0))
    cell, cell_of_object = (boxes.category * images + boxes.image for boxes in (detections, objects))
    order = np.argsort(cell_of_object, kind="stable")
    cells = np.stack([np.searchsorted(cell_of_object[order], cell, side) for side in ("left", "right")], axis=1)
    objects = objects.take(order)
    least = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # as pycocotools
    kernels.match_greedily(
        detections.xywh, cells, objects.xywh, objects.crowd, counted(objects), least, outcome, partner
    )
    return outcome, np.append(order, -1)[partner]


def match_across_classes(detections: Boxes, objects: Boxes) -> np.ndarray:
    """Match detections to objects of any class at IoU 0.5; return (N,) the object of each, or -1.

    Detections of one image are processed by descending score, those of equal score in their order; each is matched to
    the free object of highest IoU.  A crowd region of the same class is matched if no object can be, several times.
    This is the rule of FiftyOne (classwise=False).
    """
    from detection.evaluation import kernels

    order = np.lexsort((-detections.score, narrow(detections.image)))
    of_objects = np.argsort(narrow(objects.image), kind="stable")
    sorted_detections, sorted_objects = detections.take(order), objects.take(of_objects)
    cells = [np.searchsorted(sorted_objects.image, sorted_detections.image, side) for side in ("left", "right")]
    found = np.full(len(order), -1)
    kernels.match_across_classes(
        *(sorted_detections.xywh, sorted_detections.category, np.stack(cells, axis=1)),
        *(sorted_objects.xywh, sorted_objects.category, sorted_objects.crowd, IOU_THRESHOLDS[0], found),
    )
    partner = np.empty(len(order), dtype=np.int64)
    partner[order] = np.append(of_objects, -1)[found]
    return partner


def iou_with(detections: Boxes, objects: Boxes, partner: np.ndarray) -> np.ndarray:
    """Return (N,) IoU of every detection with its object `partner`, as of matching; 0 where it is -1."""
    matched = np.flatnonzero(partner >= 0)
    a, b, crowd = detections.xywh[matched], objects.xywh[partner[matched]], objects.crowd[partner[matched]]
    overlap = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    inside, own = overlap.prod(1), a[:, 2:].prod(1)
    iou = np.zeros(len(partner))
    iou[matched] = inside / np.where(crowd, own, own + b[:, 2:].prod(1) - inside)
    return iou


def position_in_run(*keys: np.ndarray) -> np.ndarray:
    """Return the (N,) position of every row in its run of equal keys, for rows sorted by `keys`."""
    count = len(keys[0])
    new = np.ones(count, dtype=bool)
    if count > 1:
        new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.arange(count) - np.maximum.accumulate(np.where(new, np.arange(count), 0))


def _inside(area: np.ndarray) -> np.ndarray:
    """Return (N, A) bool: the area is within the range."""
    return (area[:, None] >= AREA_RANGES[:, 0]) & (area[:, None] <= AREA_RANGES[:, 1])
