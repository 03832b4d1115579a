"""The kind of error of every detection and object, as TIDE defines them (Bolya et al., ECCV 2020).

Matches are those of COCO at IoU 0.5.  A detection without a match, which AP counts, has the first error that applies;
IoUs are those with objects that are not crowd regions:

    Loc     IoU with an object of its class from 0.1 to 0.5
    Cls     IoU of at least 0.5 with an object of another class
    Dupe    IoU above 0.5 with an object of its class, which has a match of higher score
    Bkg     IoU of at most 0.1 with every object
    Both    none of these: IoU from 0.1 to 0.5 with an object of another class only

An object without a match is Miss unless it is the nearest object of a detection with Loc or Cls.  Of several such
detections, correcting the one of highest score finds the object, whichever of both errors it has; the others vanish.
A detection that COCO ignores, as it lies in a crowd region, has no error; but if its Loc or Cls finds an object, it is
corrected like others, as in TIDE's code.

Letters: N detections, G objects.
"""

from dataclasses import dataclass

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, Matches
from comparison.diagnosis.variants import above_threshold

DETECTION_ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg")
CLS, LOC, BOTH, DUPE, BKG = range(5)
NO_ERROR, NOT_COUNTED = -1, -2
# Compared in the type in which matches.npz keeps IoUs.
FOREGROUND, BACKGROUND = np.float32(0.5), np.float32(0.1)


@dataclass(frozen=True)
class Errors:
    """Errors of a detector.

    kind: (N,) position in DETECTION_ERRORS, NO_ERROR (matched), or NOT_COUNTED (below AP's score threshold).
    outcome: (N,) int8 outcome at IoU 0.5, as in matches.
    target: (N,) object that a detection with Loc, Cls or Dupe is near, or -1.
    fixable: (N,) bool, correcting a Loc or Cls finds `target`.
    found, missed: (G,) bool, the object has a match, is a Miss; neither is an object that a correction finds.
    size, object_size: (N,), (G,) position in `area_names` of the first size range that contains the area, or 0.  For
        a detection it is that of `target`, or else that of its own box.
    """

    kind: np.ndarray
    outcome: np.ndarray
    target: np.ndarray
    fixable: np.ndarray
    found: np.ndarray
    missed: np.ndarray
    size: np.ndarray
    object_size: np.ndarray


def find_errors(matches: Matches) -> Errors:
    """Return the errors; raise `InputError` if the file lacks what detections are near, or IoU 0.5."""
    if not np.isclose(matches.iou_thresholds[:1], 0.5).all():
        raise InputError(f"{matches.where}: the first IoU threshold is not 0.5, which errors need; evaluate again")
    outcome = np.where(above_threshold(matches), matches.outcome[:, 0, 0], IGNORED)
    counts = matches.object_counts[:, 0]
    found = np.zeros(len(counts), dtype=bool)
    found[matches.detail("partner")[outcome == TRUE_POSITIVE]] = True
    kind, target = _find_kinds(matches, outcome)
    fixable = _find_fixable(matches, kind, target, found)
    usable = np.zeros(len(counts), dtype=bool)
    usable[target[fixable]] = True
    object_size = _first_true(matches.object_counts[:, 1:])
    own_size = _first_true(matches.outcome[:, 1:, 0] == FALSE_POSITIVE)  # a match excludes Bkg and Both
    size = np.where(target >= 0, np.append(object_size, 0)[target], own_size)
    return Errors(kind, outcome, target, fixable, found, counts & ~found & ~usable, size, object_size)


def _find_kinds(matches: Matches, outcome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `kind` and `target` of Errors."""
    own, other = matches.detail("own_iou"), matches.detail("other_iou")
    rules = (
        ~above_threshold(matches),
        outcome == TRUE_POSITIVE,
        (own >= BACKGROUND) & (own <= FOREGROUND),
        other >= FOREGROUND,
        own > FOREGROUND,
        np.maximum(own, other) <= BACKGROUND,
    )
    kind = np.select(rules, (NOT_COUNTED, NO_ERROR, LOC, CLS, DUPE, BKG), BOTH)
    near = np.select(
        (np.isin(kind, (LOC, DUPE)), kind == CLS), (matches.detail("own_object"), matches.detail("other_object")), -1
    )
    return kind, near


def _find_fixable(matches: Matches, kind: np.ndarray, target: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return (N,) bool: the detection of highest score, of those with Loc or Cls, near an object without a match."""
    near = np.flatnonzero(np.isin(kind, (CLS, LOC)) & ~np.append(found, False)[target])
    near = near[np.lexsort((-matches.score[near], target[near]))]
    fixable = np.zeros(len(kind), dtype=bool)
    fixable[near[np.unique(target[near], return_index=True)[1]]] = True
    return fixable


def _first_true(table: np.ndarray) -> np.ndarray:
    """Return 1 + the position of the first true value of every row, 0 without any."""
    return np.where(table.any(1), table.argmax(1) + 1, 0) if table.shape[1] else np.zeros(len(table), dtype=int)
