"""Greedy COCO matching of boxes, for all images and classes at once, in NumPy.

The semantics are those of `pycocotools.cocoeval.COCOeval.evaluateImg` (bbox).  Detections of one image and class are
processed by descending score; each is matched to the unmatched object of highest IoU, the last in a tie.  An ignored
object (a crowd region, or one outside the area range) is matched only if no counted object can be, and the detection
is then ignored, too.  A crowd region can be matched several times.  An unmatched detection outside the area range is
ignored.

As detections are processed by descending score, the outcome of a detection does not depend on lower-scored ones: one
matching serves every score threshold and every limit on the number of detections.

Letters: N detections, G objects of a cell, P cells (an image and a class), A area ranges, T IoU thresholds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backbones.core.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE

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
    order = np.lexsort((-detections.score, detections.image, detections.category))
    detections = detections.take(order)
    rank = _position_in_run(detections.category, detections.image)
    kept = rank < MAX_DETECTIONS[-1]
    return detections.take(kept), rank[kept], order[kept]


def counted(objects: Boxes) -> np.ndarray:
    """Return (G, A) bool: the object counts in the area range; crowd regions never do."""
    return _inside(objects.area) & ~objects.crowd[:, None]


def match(detections: Boxes, rank: np.ndarray, objects: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Match detections to objects.

    Args:
        detections, rank: from `rank_detections`.
    Returns:
        (N, A, T) int8 outcome of every detection: 1 true positive, 0 false positive, -1 ignored; and (N,) the object
        matched at the first threshold in the first area range (all areas), or -1.
    """
    free = np.where(_inside(detections.area), FALSE_POSITIVE, IGNORED).astype(np.int8)
    outcome = np.repeat(free[:, :, None], len(IOU_THRESHOLDS), axis=2)
    partner = np.full(len(detections), -1)
    for first, objects_of in _cells_by_object_count(detections, rank, objects):
        _match_cells(detections, rank, objects, first, objects_of, outcome, partner)
    return outcome, partner


def _match_cells(
    detections: Boxes,
    rank: np.ndarray,
    objects: Boxes,
    first: np.ndarray,
    objects_of: np.ndarray,
    outcome: np.ndarray,
    partner: np.ndarray,
) -> None:
    """Fill `outcome` and `partner` for P cells of G objects each.

    Args:
        first: (P,) best detection of each cell.
        objects_of: (P, G) objects of each cell."""
    cells, count = objects_of.shape
    crowd = objects.crowd[objects_of][:, None, None, :]
    counts = counted(objects)[objects_of].transpose(0, 2, 1)[:, :, None, :]  # (P, A, 1, G)
    taken = np.zeros((cells, len(AREA_RANGES), len(IOU_THRESHOLDS), count), dtype=bool)
    least = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]  # as pycocotools
    here = np.arange(cells)
    for step in range(MAX_DETECTIONS[-1]):
        here = here[_has_rank(rank, first[here] + step, step)]
        if not len(here):
            return
        index = first[here] + step
        iou = box_iou(detections.xywh[index], objects.xywh[objects_of[here]], objects.crowd[objects_of[here]])
        iou = iou[:, None, None, :]
        possible = (iou >= least) & (~taken[here] | crowd[here])  # (P, A, T, G)
        better = possible & counts[here]
        pool = np.where(better.any(-1, keepdims=True), better, possible)
        best = count - 1 - np.argmax(np.where(pool, iou, -1.0)[..., ::-1], axis=-1)[..., None]  # the last in a tie
        hit = np.take_along_axis(pool, best, -1)
        chosen = taken[here]
        np.put_along_axis(chosen, best, np.take_along_axis(chosen, best, -1) | hit, -1)
        taken[here] = chosen
        counts_here = np.take_along_axis(np.broadcast_to(counts[here], chosen.shape), best, -1)
        found = np.where(counts_here, TRUE_POSITIVE, IGNORED)[..., 0]
        outcome[index] = np.where(hit[..., 0], found, outcome[index])
        partner[index] = np.where(hit[:, 0, 0, 0], objects_of[here, best[:, 0, 0, 0]], -1)


def _cells_by_object_count(
    detections: Boxes, rank: np.ndarray, objects: Boxes
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (first detection (P,), objects (P, G)) for every G: cells of equal G need no padding."""
    order = np.lexsort((objects.image, objects.category))  # stable: file order within a cell
    start = np.flatnonzero(_position_in_run(objects.category[order], objects.image[order]) == 0)
    size = np.diff(np.append(start, len(order)))
    best = np.flatnonzero(rank == 0)
    images = 1 + max(detections.image.max(initial=0), objects.image.max(initial=0))
    key = detections.category[best] * images + detections.image[best]  # ascending, as detections are sorted
    wanted = objects.category[order[start]] * images + objects.image[order[start]]
    _, of_detection, of_object = np.intersect1d(key, wanted, assume_unique=True, return_indices=True)
    for count in np.unique(size[of_object]):
        same = size[of_object] == count
        yield best[of_detection[same]], order[start[of_object[same]][:, None] + np.arange(count)]


def _has_rank(rank: np.ndarray, index: np.ndarray, step: int) -> np.ndarray:
    """Whether `index` is still in the cell: its rank is then `step`."""
    return (index < len(rank)) & (rank[np.minimum(index, len(rank) - 1)] == step)


def _position_in_run(*keys: np.ndarray) -> np.ndarray:
    """Return the (N,) position of every row in its run of equal keys, for rows sorted by `keys`."""
    count = len(keys[0])
    new = np.ones(count, dtype=bool)
    if count > 1:
        new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.arange(count) - np.maximum.accumulate(np.where(new, np.arange(count), 0))


def _inside(area: np.ndarray) -> np.ndarray:
    """Return (N, A) bool: the area is within the range."""
    return (area[:, None] >= AREA_RANGES[:, 0]) & (area[:, None] <= AREA_RANGES[:, 1])


def box_iou(detections: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return the (P, G) IoU of (P, 4) with (P, G, 4); for crowd regions, intersection over the detection's area.

    Source: maskApi.c, bbIou."""
    a, b = detections[:, None, :], objects
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.where((sides > 0).all(-1), sides[..., 0] * sides[..., 1], 0.0)
    own = a[..., 2] * a[..., 3]
    union = np.where(crowd, own, own + b[..., 2] * b[..., 3] - inter)
    return np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
