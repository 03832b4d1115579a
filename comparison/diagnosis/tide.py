"""TIDE: what each kind of error costs in AP at IoU 0.5 (Bolya et al., ECCV 2020), on resampled images.

dAP of an error is AP50 once all errors of this kind are corrected, and no other, minus AP50:

    Loc, Cls    the detection becomes a match of the object it is near, of that object's class, if the object has none
                and no such detection of higher score; otherwise it is removed
    Both, Dupe, Bkg     the detection is removed
    Miss        the object is removed, unless a correction of Loc or Cls finds it
    FP          all detections without a match are removed
    FN          all objects without a match are removed

dAP of a size range corrects only the errors of this size: that of the object concerned for Loc, Cls, Dupe, Miss and FN;
that of the detection's box for Both and Bkg, which concern no object; FP follows the error of the detection.  All are
differences of AP50 of all sizes.

The numbers are those of the authors' tidecv 1.0.1, with four differences.
NOTE: differs from tidecv: the mean covers the classes with objects.  tidecv also counts classes with detections only,
as AP 0, until a correction removes their last detection: its dAP is then partly a change of the number of classes.
NOTE: differs from tidecv: negative values are kept, as setting them to 0 shifts the mean of resamples.
NOTE: differs from tidecv: recalls are compared with those of COCO (multiples of 0.01 in floating point), and at most
100 detections count per image and class, not per image.
NOTE: differs from tidecv: of equal scores, the first in matches is first; tidecv places errors before matches once
anything is corrected.

Letters: R resamples, I images, K classes, N detections, G objects, V variants.
"""

import numpy as np

from backbones.core.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, Matches
from comparison.diagnosis.errors import DETECTION_ERRORS, NOT_COUNTED, Errors, find_errors
from comparison.diagnosis.variants import (
    Detections,
    add_up,
    class_precision,
    class_weights,
    image_weights,
    mean_over_classes,
)

ERRORS: tuple[str, ...] = (*DETECTION_ERRORS, "Miss", "FP", "FN")
CLS = ERRORS.index("Cls")
_NUMBERS = 2**22  # computed at a time, for all classes and variants: bounds the memory
MISS, FP, FN = (ERRORS.index(name) for name in ("Miss", "FP", "FN"))


def tide(matches: Matches, weights: np.ndarray | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Return area range -> error -> dAP (R,), and "AP50" under "all"; NaN without any object.

    Args:
        weights: (R, I) of the images, whose sums are exact; None: every image once (R = 1).

    Raises:
        InputError: the file was written by a version that did not keep what detections are near.
    """
    drawn, errors = image_weights(matches, weights), find_errors(matches)
    areas = len(matches.area_names)
    corrected = _correct(matches, errors, areas)
    step = max(1, _NUMBERS // (len(matches.category_ids) * corrected.outcomes.shape[1]))

    def mean_of(part: np.ndarray) -> np.ndarray:
        objects = class_weights(matches, matches.object_counts[:, 0], part)
        return mean_over_classes(class_precision(corrected, _remaining(matches, errors, areas, part), part), objects)

    mean = np.concatenate([mean_of(drawn[first : first + step]) for first in range(0, len(drawn), step)], axis=1)
    gain = (mean[1:] - mean[0]).reshape(areas, len(ERRORS), -1)
    result = {area: dict(zip(ERRORS, own, strict=True)) for area, own in zip(matches.area_names, gain, strict=True)}
    result[matches.area_names[0]] |= {"AP50": mean[0]}
    return result


def count_errors(matches: Matches, weights: np.ndarray | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Return area range -> error -> number of detections or objects (R,), as `tide`; ignored detections excluded."""
    drawn, errors = image_weights(matches, weights), find_errors(matches)
    wrong = np.flatnonzero(errors.outcome == FALSE_POSITIVE)
    missed, without = np.flatnonzero(errors.missed), np.flatnonzero(matches.object_counts[:, 0] & ~errors.found)
    kinds = [
        errors.kind[wrong],
        *(np.full(len(rows), kind) for rows, kind in ((missed, MISS), (wrong, FP), (without, FN))),
    ]
    sizes = [errors.size[wrong], errors.object_size[missed], errors.size[wrong], errors.object_size[without]]
    images = [matches.image[wrong], matches.object_image[missed], matches.image[wrong], matches.object_image[without]]
    kind, size, image = (np.concatenate(parts) for parts in (kinds, sizes, images))
    areas = len(matches.area_names)
    found = add_up(size * len(ERRORS) + kind, image, areas * len(ERRORS), drawn).reshape(areas, len(ERRORS), -1)
    found[0] = found.sum(0)
    return {area: dict(zip(ERRORS, own, strict=True)) for area, own in zip(matches.area_names, found, strict=True)}


def _variants(areas: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the area range and the error that each variant corrects (V,); the first corrects none: -1."""
    area, error = np.divmod(np.arange(areas * len(ERRORS)), len(ERRORS))
    return np.append(-1, area), np.append(-1, error)


def _correct(matches: Matches, errors: Errors, areas: int) -> Detections:
    """Return the detections with their outcomes under every correction."""
    area, error = _variants(areas)
    rows = np.flatnonzero((errors.outcome >= 0) | (errors.fixable & (errors.kind != NOT_COUNTED)))
    moved = np.flatnonzero(errors.fixable & (errors.kind == CLS))  # counted in the class of the object
    detection = np.append(rows, moved)
    again = np.arange(len(detection)) >= len(rows)
    category = matches.category[detection]
    category[again] = matches.object_category[errors.target[moved]]
    # Detections with equal values of these have equal outcomes.
    values = [
        again,
        errors.fixable[detection],
        errors.outcome[detection] + 1,
        errors.kind[detection] + 2,
        errors.size[detection],
    ]
    code = np.ravel_multi_index([np.asarray(v, dtype=np.int64) for v in values], (2, 2, 3, 8, areas))
    _, first, pattern = np.unique(code, return_index=True, return_inverse=True)
    again, fixable, outcome, kind, size = (np.asarray(value)[first, None] for value in values)
    outcome, kind = outcome - 1, kind - 2
    wrong = outcome == FALSE_POSITIVE
    here = (area == 0) | (area == size)
    corrected = here & (error == kind)
    outcomes = np.where(again, IGNORED, outcome)
    outcomes = np.where(here & wrong & (error == FP), IGNORED, outcomes)
    outcomes = np.where(corrected & (outcome != TRUE_POSITIVE), IGNORED, outcomes)
    outcomes = np.where(corrected & fixable & (again | (kind != CLS)), TRUE_POSITIVE, outcomes)
    return Detections(matches.image[detection], category, matches.score[detection], pattern, outcomes.astype(np.int8))


def _remaining(matches: Matches, errors: Errors, areas: int, weights: np.ndarray) -> np.ndarray:
    """Return (K, V, R), the weight of the objects under every correction."""
    area, error = _variants(areas)
    counts = matches.object_counts[:, 0]
    result = np.repeat(class_weights(matches, counts, weights)[:, None], len(area), axis=1)
    for v in np.flatnonzero(np.isin(error, (MISS, FN))):
        gone = errors.missed if error[v] == MISS else counts & ~errors.found
        result[:, v] -= class_weights(matches, gone & ((area[v] == 0) | (area[v] == errors.object_size)), weights)
    return result
