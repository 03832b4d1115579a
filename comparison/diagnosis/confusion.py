"""Confusion matrix of a detector at IoU 0.5 and a score threshold, on resampled images.

Only detections scored above the threshold exist.  Those of one image are matched by descending score, whatever their
class: each to the object of highest IoU, of at least 0.5, that is still free.  A detection without an object counts in
the row "background", an object without a detection in the column "background".  A detection whose only match is a
crowd region of its class does not count.  The rule is that of FiftyOne (`classwise=False`), which counts the latter;
Ultralytics matches the pairs by descending IoU instead, whatever their scores.

Letters: R resamples, I images, K classes, C cells that are not empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backbones.core.matches import Matches
from comparison.diagnosis.variants import add_up, class_weights, image_weights

SCORE_THRESHOLD = 0.25  # that of Ultralytics


@dataclass(frozen=True)
class Confusion:
    """Weighted counts of a confusion matrix (K + 1, K + 1), whose last row and column are the background.

    row, column: (C,) class of the object, and of the detection, of each cell that is not empty on all images.
    counts: (R, C) weight of its pairs.
    classes: K; score_threshold, iou: the settings.
    """

    row: np.ndarray
    column: np.ndarray
    counts: np.ndarray
    classes: int
    score_threshold: float
    iou: float = 0.5

    def table(self, resample: int = 0) -> np.ndarray:
        """Return the matrix (K + 1, K + 1) of one resample."""
        table = np.zeros((self.classes + 1, self.classes + 1))
        table[self.row, self.column] = self.counts[resample]
        return table

    def shares(self) -> np.ndarray:
        """Return (R, C) counts divided by the sum of their row; NaN where a row is empty in a resample."""
        total = np.zeros((self.classes + 1, len(self.counts)))
        np.add.at(total, self.row, self.counts.T)
        below = total[self.row].T
        return np.divide(self.counts, below, out=np.full_like(self.counts, np.nan), where=below > 0)


def confusion(
    matches: Matches, weights: np.ndarray | None = None, score_threshold: float = SCORE_THRESHOLD
) -> Confusion:
    """Count the matrix.

    Args:
        weights: (R, I) of the images; None: every image once (R = 1).
        score_threshold: detections scored above it exist.

    Raises:
        InputError: the file was written by a version that did not match across classes.
    """
    classes = len(matches.category_ids)
    row, column, image = _pairs(matches, score_threshold)
    cells, group = np.unique(row * (classes + 1) + column, return_inverse=True)
    counts = add_up(group, image, len(cells), image_weights(matches, weights)).T
    return Confusion(*np.divmod(cells, classes + 1), counts, classes, score_threshold)


def frequent_confusions(
    runs: Sequence[Matches], most: int, score_threshold: float = SCORE_THRESHOLD
) -> list[tuple[int, int]]:
    """Return the `most` cells of two different classes that hold the most pairs of all runs, the fullest first."""
    classes = len(runs[0].category_ids)
    found = [_pairs(matches, score_threshold)[:2] for matches in runs]
    row, column = (np.concatenate([one[at] for one in found]) for at in (0, 1))
    two = (row != column) & (row < classes) & (column < classes)
    cells, counts = np.unique(row[two] * classes + column[two], return_counts=True)
    chosen = cells[np.argsort(-counts, kind="stable")[:most]]
    return [(int(cell) // classes, int(cell) % classes) for cell in chosen]


def confusion_shares(
    matches: Matches, cells: Sequence[tuple[int, int]], weights: np.ndarray | None = None,
    score_threshold: float = SCORE_THRESHOLD,
) -> np.ndarray:  # fmt: skip
    """Return (R, C) `Confusion.shares` of some cells of classes alone: 0 if empty, NaN without objects in a resample.

    It takes little memory, whatever the number of classes.
    """
    drawn, size = image_weights(matches, weights), len(matches.category_ids) + 1
    row, column, image = _pairs(matches, score_threshold)
    wanted = np.array([of * size + as_what for of, as_what in cells], dtype=np.int64)
    order = np.argsort(wanted)
    code = row * size + column
    at = np.searchsorted(wanted, code, sorter=order).clip(max=len(cells) - 1)
    kept = wanted[order[at]] == code
    counts = add_up(order[at[kept]], image[kept], len(cells), drawn)
    total = class_weights(matches, matches.object_counts[:, 0], drawn)[[of for of, _ in cells]]
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0).T


def _pairs(matches: Matches, score_threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and image of every pair of an object and a detection, and of those that have none."""
    classes, counted = len(matches.category_ids), matches.object_counts[:, 0]
    partner = np.where(matches.score > score_threshold, matches.detail("any_partner"), -1)
    crowd = (partner >= 0) & ~np.append(counted, False)[partner]
    kept = np.flatnonzero((matches.score > score_threshold) & ~crowd)
    missed = np.setdiff1d(np.flatnonzero(counted), partner)
    found = np.append(matches.object_category, classes)[partner[kept]]  # -1 is the background
    row = np.concatenate([found, matches.object_category[missed]])
    column = np.concatenate([matches.category[kept], np.full(len(missed), classes)])
    image = np.concatenate([matches.image[kept], matches.object_image[missed]])
    return row, column, image
