"""The images that move the difference of a method to the baseline most, as "influence" in comparison.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backbones.core.matches import Matches
from comparison.diagnosis.influence import joint_influence
from comparison.diagnosis.of_run import influence_of_images
from comparison.families import Family
from comparison.methods import Measured

LISTED = 12  # images for, and against, a difference
STRONGEST = 10  # images that are left out together, whichever method they favour
Single = tuple[str, str, np.ndarray]  # a run, the one that it is compared with, influences (I,) on their difference


def find_influential(family: Family, baseline: Family, measured: Measured) -> dict[str, Any]:
    """Return the images that favour the method, and the baseline, and what leaving out many of them together does.

    The influence is that on the means over the runs.  An image also names the pair of runs whose own difference it
    moves most in the same direction.
    """
    groups = [matches_of(one, measured) for one in (family, baseline)]
    moved = [np.mean([influence_of_images(matches) for matches in group], axis=0) for group in groups]
    total = moved[0] - moved[1]
    order = [int(at) for at in np.argsort(-total, kind="stable") if np.isfinite(total[at])]
    sets = {
        "for": [at for at in order[:LISTED] if total[at] > 0],
        "against": [at for at in order[::-1][:LISTED] if total[at] < 0],
        "strongest": sorted((at for at in order if total[at]), key=lambda at: -abs(total[at]))[:STRONGEST],
    }
    singles, ids = _singles(family, measured), groups[0][0].image_ids

    def listed(chosen: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {"image_id": int(ids[at]), "influence": float(total[at]), "run": _run(singles, at, total[at] > 0)}
            for at in chosen
        ]

    joint = joint_influence(groups[0], groups[1], list(sets.values()))
    together = {
        name: {
            "images": len(chosen),
            "influence": float(value) if np.isfinite(value) else None,
            "sum": float(total[chosen].sum()),
        }
        for (name, chosen), value in zip(sets.items(), joint, strict=True)
    }
    return {"for": listed(sets["for"]), "against": listed(sets["against"]), "together": together}


def matches_of(family: Family, measured: Measured) -> list[Matches]:
    """Return the matches of the runs of a method that have them."""
    found = [measured.resampled.get(id(row)) for row in family.rows]
    return [one.matches for one in found if one and one.matches]


def _singles(family: Family, measured: Measured) -> list[Single]:
    """Return the runs of a method that are compared with a single run."""
    found = []
    for row in family.rows:
        other = measured.baselines[id(row)]
        pair = [measured.resampled.get(id(one)) for one in (row, other)]
        matches = [one.matches for one in pair if one and one.matches]
        if other is not None and len(matches) == 2:
            names = [measured.entries[id(one)]["name"] for one in (row, other)]
            found.append((*names, influence_of_images(matches[0]) - influence_of_images(matches[1])))
    return found


def _run(singles: Sequence[Single], at: int, favours: bool) -> dict[str, Any] | None:
    """Return the pair of runs that an image moves most, towards the method or the baseline; None without any."""
    known = [one for one in singles if np.isfinite(one[2][at])]
    if not known:
        return None
    name, baseline, moved = max(known, key=lambda one: one[2][at] if favours else -one[2][at])
    return {"name": name, "baseline": baseline, "influence": float(moved[at])}
