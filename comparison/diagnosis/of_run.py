"""All diagnoses of one run as named numbers on the same resamples, kept beside its matches.npz.

    error/AREA/KIND          dAP of TIDE, AREA: all, small, medium, large
    AP50, D-ECE, LaECE       as of `tide` and `calibration`
    class/AP/NAME, class/AR100/NAME
    share/BIN                recall of the objects in a bin of `shares`
    curve/IOU/POINT          precision at recall POINT / 100
    bin/precision/BIN, bin/confidence/BIN, bin/count/BIN      of `calibration`
    confusion/ROW/COLUMN     share of the objects of a class that were given another one; of more than MOST_CLASSES
                             classes only the most frequent ones of all runs of a comparison, which are not kept

A file of an earlier version lacks what some of them need; these are left out.  Letters: R resamples, I images.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from backbones.core.matches import Matches
from comparison.diagnosis.calibration import calibration
from comparison.diagnosis.confusion import confusion, confusion_shares, frequent_confusions
from comparison.diagnosis.curves import precision_curves
from comparison.diagnosis.influence import influence_on_row
from comparison.diagnosis.intervals import weights_of
from comparison.diagnosis.per_class import per_class
from comparison.diagnosis.shares import recall_by_share
from comparison.diagnosis.tide import tide
from comparison.resampling.draws import keep, key_of

NUMBERS_FILE, INFLUENCE_FILE = "diagnosis.npz", "influence.npz"
MOST_CLASSES = 20  # of a confusion matrix all of whose cells have intervals
MOST_CONFUSIONS = 20  # that have intervals, of more classes
VERSION = 1  # of the numbers: raise it when one changes


def diagnose(matches: Matches, *, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Return name -> (1 + R,): the number on the original images, then on the verdict's resamples."""

    def compute() -> dict[str, np.ndarray]:
        return dict(_numbers(matches, weights_of(matches, resamples=resamples, seed=seed)))

    def key() -> str:
        return key_of(matches, f"diagnosis {VERSION}", resamples, seed, with_details=True)

    return keep(_beside(matches, NUMBERS_FILE), key, compute, 1 + resamples)


def frequent_confusions_of(runs: Sequence[Matches], *, resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Return the shares of the most frequent confusions per run, by name as above; none up to MOST_CLASSES classes."""
    known = all("any_partner" in matches.details for matches in runs)
    cells = []
    if known and len(runs[0].category_ids) > MOST_CLASSES:
        cells = frequent_confusions(runs, MOST_CONFUSIONS)
    if not cells:
        return [{} for _ in runs]
    weights = weights_of(runs[0], resamples=resamples, seed=seed)
    names = [f"confusion/{row}/{column}" for row, column in cells]
    return [dict(zip(names, confusion_shares(matches, cells, weights).T, strict=True)) for matches in runs]


def influence_of_images(matches: Matches) -> np.ndarray:
    """Return (I,) what every image adds to AP (`comparison.diagnosis.influence`)."""

    def key() -> str:
        return key_of(matches, f"influence {VERSION}", 0, 0)

    found = keep(
        _beside(matches, INFLUENCE_FILE), key, lambda: {"AP": influence_on_row(matches)}, len(matches.image_ids)
    )
    return found["AP"]


def _beside(matches: Matches, name: str) -> Path | None:
    path = Path(matches.where)
    return path.with_name(name) if path.is_file() else None


def _numbers(matches: Matches, weights: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    known = matches.details.keys()
    if "own_iou" in known:
        for area, errors in tide(matches, weights).items():
            yield from ((name if name == "AP50" else f"error/{area}/{name}", values) for name, values in errors.items())
    for name, values in per_class(matches, weights).items():
        if name in ("AP", "AR100"):
            yield from ((f"class/{name}/{k}", values[:, k]) for k in range(values.shape[1]))
    for iou, curve in precision_curves(matches, weights).items():
        yield from ((f"curve/{iou}/{point}", curve[:, point]) for point in range(curve.shape[1]))
    if "partner_iou" in known:
        found = calibration(matches, weights)
        yield from (("D-ECE", found.d_ece), ("LaECE", found.la_ece))
        for name in ("precision", "confidence", "count"):
            values = getattr(found, name)
            yield from ((f"bin/{name}/{at}", values[:, at]) for at in range(values.shape[1]))
    if {"object_area", "image_area"} <= known:
        recall = recall_by_share(matches, weights).recall
        yield from ((f"share/{at}", recall[:, at]) for at in range(recall.shape[1]))
    if "any_partner" in known and len(matches.category_ids) <= MOST_CLASSES:
        yield from _confusions(matches, weights)


def _confusions(matches: Matches, weights: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the share of every cell of two classes, 0 where a class with objects is never taken for the other."""
    cells, classes = confusion(matches, weights), np.unique(matches.object_category[matches.object_counts[:, 0]])
    known = {(row, column): share for row, column, share in zip(cells.row, cells.column, cells.shares().T, strict=True)}
    for row in classes:
        own = next(share for (of, _), share in known.items() if of == row)
        never = np.where(np.isnan(own), np.nan, 0.0)
        for column in range(cells.classes + 1):
            yield f"confusion/{row}/{column}", known.get((row, column), never)
