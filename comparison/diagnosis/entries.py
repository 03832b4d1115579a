"""The diagnosis of all methods of a comparison, as "diagnosis" of comparison.json; its schema describes every key.

A number of a method is the mean over its seeds, fine-tunings averaged first.  Its interval, and that of its difference
to the baseline, cover seeds and images as those of the verdict do (`comparison.verdicts.nested`); of a single seed,
images.  All are exploratory.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from comparison.diagnosis.calibration import SCORE_THRESHOLD as CALIBRATED
from comparison.diagnosis.confusion import SCORE_THRESHOLD as CONFUSED
from comparison.diagnosis.influential import find_influential, matches_of
from comparison.diagnosis.of_run import diagnose, frequent_confusions_of
from comparison.diagnosis.shares import EDGES
from comparison.families import Family
from comparison.methods import Measured, baseline_of_group
from comparison.verdicts.nested import Difference, Sample, difference

Numbers = Mapping[str, np.ndarray]


def build_diagnosis(
    families: Sequence[Family], measured: Measured, *, level: float, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Return one entry per protocol that has detections with per-image data."""
    found = []
    for protocol in dict.fromkeys(family.protocol for family in families):
        group = [family for family in families if family.protocol == protocol and matches_of(family, measured)]
        if group:
            numbers = _numbers(group, measured, resamples=resamples, seed=seed)
            baseline = baseline_of_group(group, measured)
            found.append(_entry(protocol, group, baseline, measured, numbers, level))
    return found


def _numbers(group: Sequence[Family], measured: Measured, *, resamples: int, seed: int) -> dict[int, Numbers]:
    """Return the numbers of every run with matches, by the id of its row."""
    runs = {
        id(row): one.matches
        for family in group for row in family.rows
        if (one := measured.resampled.get(id(row))) and one.matches
    }  # fmt: skip
    confusions = frequent_confusions_of([*runs.values()], resamples=resamples, seed=seed)
    return {
        key: diagnose(matches, resamples=resamples, seed=seed) | own
        for (key, matches), own in zip(runs.items(), confusions, strict=True)
    }


def _entry(
    protocol: str | None, group: Sequence[Family], baseline: Family | None, measured: Measured,
    numbers: Mapping[int, Numbers], level: float,
) -> dict[str, Any]:  # fmt: skip
    samples = {id(family): _samples(family, numbers) for family in group}
    never = _never(samples.values())
    samples = {key: {n: one for n, one in own.items() if n not in never} for key, own in samples.items()}
    against = samples[id(baseline)] if baseline else {}
    first = matches_of(group[0], measured)[0]
    return {
        "protocol": protocol,
        "classes": [str(name) for name in first.details.get("category_names", first.category_ids)],
        "objects_of_class": np.bincount(
            first.object_category[first.object_counts[:, 0]], minlength=len(first.category_ids)
        ).tolist(),
        "share_edges": list(EDGES),
        "settings": {"iou": 0.5, "score_of_calibration": CALIBRATED, "score_of_confusion": CONFUSED},
        "methods": [
            {
                "label": family.label,
                "is_baseline": family is baseline,
                "over_seeds": _over_seeds(samples[id(family)], against if family is not baseline else {}),
                "values": {name: _mean(sample, level) for name, sample in samples[id(family)].items()},
                "differences": _differences(samples[id(family)], against, level) if family is not baseline else {},
                "influence": find_influential(family, baseline, measured)
                if baseline and family is not baseline
                else None,
            }
            for family in group
        ],
    }


def _samples(family: Family, numbers: Mapping[int, Numbers]) -> dict[str, Sample]:
    """Return the numbers of a method that all its runs have, per seed."""
    known = {name: [numbers[id(row)] for row in rows if id(row) in numbers] for name, rows in family.backbones.items()}
    known = {name: own for name, own in known.items() if own}
    runs, backbones = [*known.values()], tuple(known)
    names = [name for name in runs[0][0] if all(name in one for own in runs for one in own)]
    found = {}
    for name in names:
        values = np.array([np.mean([one[name] for one in own], axis=0) for own in runs])
        if np.isfinite(values[:, 0]).all():
            found[name] = Sample(values[:, 0], values[:, 1:], backbones=backbones)
    return found


def _never(samples: Collection[Mapping[str, Sample]]) -> set[str]:
    """Return the confusions that no method makes, which would fill the file."""
    made = {name for own in samples for name, sample in own.items() if sample.mean}
    return {name for own in samples for name in own if name.startswith("confusion/") and name not in made}


def _mean(sample: Sample, level: float) -> list[float | None]:
    """Return [mean, low, high]."""
    draws = sample.draws[:, np.isfinite(sample.draws).all(0)]
    zero = Sample(np.zeros(sample.seeds), np.zeros_like(draws))
    one = difference(Sample(sample.values, draws), zero) if draws.shape[1] > 1 or sample.seeds > 1 else None
    return _limits(one, sample.mean, level)


def _differences(samples: Mapping[str, Sample], against: Mapping[str, Sample], level: float) -> dict[str, list]:
    return {
        name: _limits(difference(sample, against[name]), sample.mean - against[name].mean, level)
        for name, sample in samples.items()
        if name in against
    }


def _over_seeds(samples: Mapping[str, Sample], against: Mapping[str, Sample]) -> dict[str, bool]:
    """Return whether the intervals of a method cover seeds; every number of a method is of the same runs."""
    seeds, others = (max((one.seeds for one in own.values()), default=0) for own in (samples, against))
    return {"values": seeds > 1, "differences": min(seeds, others) > 1}


def _limits(one: Difference | None, value: float, level: float) -> list[float | None]:
    if one is None or not math.isfinite(one.error):
        return [value, None, None]
    return [value, *one.interval(level)]
