"""The methods of a comparison over their seeds: means, differences to the baseline, and the verdict.

An entry of "methods" in comparison.json:

{"label", "method", "protocol", "seeds", "runs", "planned", "made_of",
 "baseline": label of the method that those of its protocol are compared with, or null,
 "metrics": {name: {"mean", "deviation", "count"}},                     over seeds; fine-tunings are averaged first
 "difference_to_baseline": {"AP": {"mean", "deviation", "count"}},      of the rows' own differences
 "differences": {name: {"value", "low", "high", "error", "df", "p", "over_seeds", "over_images"}} or null,
                method minus baseline, over seeds and images (`comparison.verdicts.nested`); "df": null: infinite; of
                identical detections the value alone, 0
 "verdict": {"metric", "word", "p", "p_equivalent", "margin", "level", "needs"} or null,
                "needs": {"seeds", "images", "hours"} or null}

"p" of the verdict is adjusted for the methods of one protocol (Holm); those of "differences" are not.  Only the number
named by `primary` has a verdict, all others are exploratory.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from backbones.core.checks import check_choice, check_range
from backbones.core.errors import InputError
from comparison.bootstrap import Resampled
from comparison.families import Family, spread_over_backbones
from comparison.metrics import BY_NAME, DETECTORS, DIRECTED, METRICS
from comparison.protocols import DETECTION
from comparison.row import Row
from comparison.verdicts.entries import (
    NO_PRICE,
    Price,
    difference_entry,
    needs_entry,
    variance_entry,
    verdict_entry,
)
from comparison.verdicts.nested import (
    Components,
    Difference,
    Sample,
    components,
    components_of_pair,
    difference,
    fine_tuning_variance,
    share_backbones,
)
from comparison.verdicts.planner import what_settles
from comparison.verdicts.words import MARGIN, UNDECIDED, judge, judged_together

PRIMARY = "AP"
# Numbers of the detections, which are not tested where these are identical.
_DETECTED = tuple(metric.name for metric in METRICS if metric.group in DETECTORS)


@dataclass(frozen=True)
class Goal:
    """What the verdict is about, decided before the runs.

    primary: name of the number; margin: largest difference that does not matter, in its units.
    price: of more seeds, for what would settle a difference.
    """

    primary: str = PRIMARY
    margin: float = MARGIN
    price: Price = NO_PRICE


def read_goal(primary: str, margin: float, seed_hours: float | None, tuning_hours: float | None) -> Goal:
    """Return the goal of the options of these names; raise `InputError` for an unknown number, or one out of range."""
    if seed_hours is not None:
        check_range("--seed-hours", seed_hours, 0)
    if tuning_hours is not None:
        if seed_hours is None:
            raise InputError("--tuning-hours is a part of --seed-hours; give that, too")
        check_range("--tuning-hours", tuning_hours, 0, seed_hours)
    price = Price(seed_hours, tuning_hours)
    return Goal(check_choice("--primary", primary, DIRECTED), check_range("--margin", margin, 0), price)


@dataclass(frozen=True)
class Measured:
    """What was measured of each row, by `id(row)`: entry of comparison.json, resampled numbers, row compared with."""

    entries: Mapping[int, dict[str, Any]]
    resampled: Mapping[int, Resampled]
    baselines: Mapping[int, Row | None]


def build_methods(
    families: Sequence[Family], measured: Measured, goal: Goal, level: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the entries of all methods, and of the components of variance.

    Both are empty unless a method has several rows, or is known by results files only.
    """
    foreign = any(row.foreign for family in families for row in family.rows)
    if not foreign and all(len(family.rows) + len(family.failed) < 2 for family in families):
        return [], []
    entries, variances = {id(family): _entry(family, measured) for family in families}, []
    for protocol in dict.fromkeys(family.protocol for family in families):
        group = [family for family in families if family.protocol == protocol]
        samples = {id(family): one for family in group if (one := _sample(family, goal.primary, measured))}
        parts, fine_tuning = components([*samples.values()]), fine_tuning_variance(samples.values())
        if parts or fine_tuning is not None:
            shared = any(share_backbones(one, two) for one, two in combinations(samples.values(), 2))
            variances.append(variance_entry(protocol, goal.primary, parts, fine_tuning, shared=shared))
        for baseline, others in _compared(group, measured):
            for family in (baseline, *others):
                entries[id(family)]["baseline"] = baseline.label
            found = {id(family): _differences(family, baseline, measured) for family in others}
            for key, differences in found.items():
                entries[key]["differences"] = {name: difference_entry(one, level) for name, one in differences.items()}
            judged = {key: known[goal.primary] for key, known in found.items() if goal.primary in known}
            pairs = [(samples[key], samples[id(baseline)]) for key in judged]
            verdicts = _verdicts([*judged.values()], pairs, parts, goal)
            for key, verdict in zip(judged, verdicts, strict=True):
                entries[key]["verdict"] = verdict
    return list(entries.values()), variances


def _entry(family: Family, measured: Measured) -> dict[str, Any]:
    members = [[measured.entries[id(row)] for row in rows] for rows in family.backbones.values()]
    differences = [[(e["difference_to_baseline"] or {}).get("AP", {}).get("value") for e in own] for own in members]
    return {
        "label": family.label,
        "method": family.method,
        "protocol": family.protocol,
        "seeds": family.seeds,
        "runs": len(family.rows),
        "planned": len(family.backbones) + len(family.failed),
        "made_of": family.size(),
        "baseline": None,
        "metrics": {n: spread_over_backbones([[e["metrics"][n] for e in own] for own in members]) for n in BY_NAME},
        "difference_to_baseline": {"AP": spread_over_backbones(differences)},
        "differences": None,
        "verdict": None,
    }


def _compared(group: Sequence[Family], measured: Measured) -> Iterator[tuple[Family, list[Family]]]:
    """Yield a baseline and the families compared with it; one each for detectors and other classifiers if they differ.

    They do where all detectors learned soft class labels: their baseline is one of them.
    """
    for part in parts_of(group, measured.baselines):
        if baseline := baseline_of_group(part, measured):
            yield baseline, [family for family in part if family is not baseline and family.rows]


def parts_of(group: Sequence[Family], baselines: Mapping[int, Row | None]) -> list[Sequence[Family]]:
    """Return the families of a protocol, those with detectors apart from the others if they have other baselines."""
    if len(baselines_of(group, baselines)) == 1:
        return [group]
    tuned = [any(DETECTION in row.results for row in family.rows) for family in group]
    return [[one for one, has in zip(group, tuned, strict=True) if has == kind] for kind in (True, False)]


def baselines_of(group: Sequence[Family], baselines: Mapping[int, Row | None]) -> list[Family]:
    """Return the families of the rows that those of the group are compared with."""
    rows = [baseline for family in group for row in family.rows if (baseline := baselines[id(row)])]
    return [family for family in group if any(one is row for one in family.rows for row in rows)]


def baseline_of_group(group: Sequence[Family], measured: Measured) -> Family | None:
    """Return the family of the rows that the others are compared with; None if there is none, or several."""
    found = baselines_of(group, measured.baselines)
    return found[0] if len(found) == 1 else None


def _differences(family: Family, baseline: Family, measured: Measured) -> dict[str, Difference | None]:
    """Return every known difference to the baseline by name; None for the numbers of identical detections."""
    same = _DETECTED if same_detections(family, baseline, measured) else ()
    found = {name: _difference(family, baseline, name, measured) for name in BY_NAME}
    return {name: None if name in same else one for name, one in found.items() if one is not None}


def _verdicts(
    differences: Sequence[Difference | None],
    pairs: Sequence[tuple[Sample, Sample]],
    parts: Components | None,
    goal: Goal,
) -> list[dict[str, Any]]:
    """Return the verdicts on the methods of a protocol from their differences in the primary number.

    Args:
        pairs: numbers of the method, and of the baseline.
        parts: components of variance of the number, pooled over all methods; None: unknown.
    """
    present = [(method.seeds, baseline.seeds) for method, baseline in pairs]
    seeds, higher = list(map(min, present)), BY_NAME[goal.primary].better > 0
    found, tests = [], len(judged_together(differences, seeds))
    judged = judge(differences, seeds=seeds, higher_is_better=higher, margin=goal.margin)
    for one, verdict, pair, own in zip(differences, judged, pairs, present, strict=True):
        need, shared = None, share_backbones(*pair)
        if verdict.word == UNDECIDED and one:
            own_parts = components_of_pair(*pair) if shared or parts is None else parts
            need = what_settles(own_parts, one.value, goal.margin, min(own), tests, paired=shared)
        needs = needs_entry(need, own, goal.price, shared=shared)
        found.append(verdict_entry(verdict, needs, goal.primary, goal.margin))
    return found


def same_detections(a: Family, b: Family, measured: Measured) -> bool:
    """Whether two methods have the same detections, seed by seed."""
    if not a.rows or len(a.rows) != len(b.rows) or a.seeds != b.seeds:
        return False
    ordered = [sorted(family.rows, key=lambda row: (row.seed, row.detector_seed or 0)) for family in (a, b)]
    pairs = [[measured.resampled.get(id(row)) for row in pair] for pair in zip(*ordered, strict=True)]
    matches = [[one.matches if one else None for one in pair] for pair in pairs]
    return all(one and other and one.same_detections(other) for one, other in matches)


def _sample(family: Family, name: str, measured: Measured) -> Sample | None:
    """Return a number of a method per seed; None if no row has it."""
    draws, tunings, images, backbones = [], [], set(), []
    for backbone, rows in family.backbones.items():
        own = [row for row in rows if measured.entries[id(row)]["metrics"][name] is not None]
        if own:
            backbones.append(backbone)
            tunings.append(np.array([measured.entries[id(row)]["metrics"][name] for row in own]))
            known = [one for row in own if (one := measured.resampled.get(id(row))) and name in one.draws]
            draws.append([one.draws[name] for one in known] if len(known) == len(own) else [])
            images |= {one.images[name] for one in known}
    if not tunings:
        return None
    values = np.array([own.mean() for own in tunings])
    if not all(draws) or len(images) != 1:
        return Sample(values, tunings=tunings, backbones=tuple(backbones))
    means = np.array([np.mean(own, axis=0) for own in draws])
    return Sample(values, means, images.pop(), tunings, tuple(backbones))


def _difference(a: Family, b: Family, name: str, measured: Measured) -> Difference | None:
    """Return method minus baseline; None if a number is missing, or nothing is known about its error."""
    samples = [_sample(family, name, measured) for family in (a, b)]
    if samples[0] is None or samples[1] is None:
        return None
    found = difference(samples[0], samples[1])
    return found if math.isfinite(found.error) else None
