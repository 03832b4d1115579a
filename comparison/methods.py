"""The methods of a comparison over their seeds: means, differences to the baseline, and the verdict.

An entry of "methods" in comparison.json:

{"label", "method", "protocol", "seeds", "runs", "planned", "made_of",
 "metrics": {name: {"mean", "deviation", "count"}},                     over seeds; fine-tunings are averaged first
 "difference_to_baseline": {"AP": {"mean", "deviation", "count"}},      of the rows' own differences
 "differences": {name: {"value", "low", "high", "error", "df", "p", "over_seeds", "over_images"}} or null,
                method minus baseline, over seeds and images (`comparison.verdicts.nested`); "df": null: infinite; of
                identical detections the value alone, 0
 "verdict": {"metric", "word", "p", "p_equivalent", "margin", "level", "needs": {"seeds", "images"} or null} or null}

"p" of the verdict is adjusted for the methods of one protocol (Holm); those of "differences" are not.  Only the number
named by `primary` has a verdict, all others are exploratory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comparison.bootstrap import Resampled
from comparison.families import Family, spread_over_backbones
from comparison.metrics import BY_NAME, DETECTORS, METRICS
from comparison.row import Row
from comparison.verdicts.nested import Components, Difference, Sample, components, difference
from comparison.verdicts.planner import MOST_SEEDS, what_settles
from comparison.verdicts.words import IDENTICAL, MARGIN, SEEDS_FOR_A_VERDICT, UNDECIDED, Verdict, judge

PRIMARY = "AP"
# Numbers of the detections, which are not tested where these are identical.
_DETECTED = tuple(metric.name for metric in METRICS if metric.group in DETECTORS)
_IDENTICAL = {
    "value": 0.0, **dict.fromkeys(("low", "high", "error", "df", "p")), "over_seeds": False, "over_images": False,
}  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """What the verdict is about, decided before the runs.

    primary: name of the number; margin: largest difference that does not matter, in its units.
    """

    primary: str = PRIMARY
    margin: float = MARGIN


@dataclass(frozen=True)
class Measured:
    """What was measured of each row, by `id(row)`: entry of comparison.json, resampled numbers, row compared with."""

    entries: Mapping[int, dict[str, Any]]
    resampled: Mapping[int, Resampled]
    baselines: Mapping[int, Row | None]


def build_methods(families: Sequence[Family], measured: Measured, goal: Goal, level: float) -> list[dict[str, Any]]:
    """Return the entries of all methods; empty unless a method has several rows."""
    if all(len(family.rows) + len(family.failed) < 2 for family in families):
        return []
    entries = {id(family): _entry(family, measured) for family in families}
    for protocol in dict.fromkeys(family.protocol for family in families):
        group = [family for family in families if family.protocol == protocol]
        _add_verdicts(group, _baseline_of(group, measured), measured, entries, goal, level)
    return list(entries.values())


def verdict_text(method: Mapping[str, Any], baseline: str | None) -> str:
    """Return the verdict in words: "not distinguishable from CE; 9 seeds would settle it"; "" for none."""
    found = method["verdict"]
    if found is None or baseline is None:
        return ""
    if found["word"] == IDENTICAL:
        return f"identical: the detections are those of {baseline}"
    if not found["word"]:
        return f"no verdict with fewer than {SEEDS_FOR_A_VERDICT} seeds"
    if found["word"] == UNDECIDED:
        return f"{UNDECIDED} from {baseline}; {_needs(found['needs'])}"
    if found["p"] < found["level"]:
        return f"{found['word']} than {baseline}"
    return f"{found['word']} to {baseline} within {found['margin']:g}"


def _needs(needs: Mapping[str, Any] | None) -> str:
    if needs is None:
        return f"more than {MOST_SEEDS} seeds each would be needed"
    images = f" on {needs['images']:.1f} times as many images" if needs["images"] > 1 else ""
    return f"about {needs['seeds']} seeds each{images} would settle it"


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
        "metrics": {n: spread_over_backbones([[e["metrics"][n] for e in own] for own in members]) for n in BY_NAME},
        "difference_to_baseline": {"AP": spread_over_backbones(differences)},
        "differences": None,
        "verdict": None,
    }


def _baseline_of(group: Sequence[Family], measured: Measured) -> Family | None:
    """Return the family of the rows that the others are compared with; None if there is none, or several."""
    rows = [baseline for family in group for row in family.rows if (baseline := measured.baselines[id(row)])]
    found = [family for family in group if any(one is row for one in family.rows for row in rows)]
    return found[0] if len(found) == 1 else None


def _add_verdicts(
    group: Sequence[Family], baseline: Family | None, measured: Measured,
    entries: Mapping[int, dict[str, Any]], goal: Goal, level: float,
) -> None:  # fmt: skip
    """Set "differences" and "verdict" of the methods that are compared with `baseline`."""
    others = [family for family in group if baseline and family is not baseline and family.rows]
    primary: list[tuple[Family, Difference | None]] = []
    for family in others:
        assert baseline is not None
        found = {name: _difference(family, baseline, name, measured) for name in BY_NAME}
        known = {name: one for name, one in found.items() if one is not None}
        same = _DETECTED if same_detections(family, baseline, measured) else ()
        entries[id(family)]["differences"] = {
            name: _IDENTICAL if name in same else _describe(one, level) for name, one in known.items()
        }
        if goal.primary in known:
            primary.append((family, None if goal.primary in same else known[goal.primary]))
    if not primary or baseline is None:
        return
    samples = {id(family): _sample(family, goal.primary, measured) for family in group}
    counts = {key: sample.seeds for key, sample in samples.items() if sample is not None}
    seeds = [min(counts[id(family)], counts[id(baseline)]) for family, _ in primary]
    higher = BY_NAME[goal.primary].better > 0
    verdicts = judge([one for _, one in primary], seeds=seeds, higher_is_better=higher, margin=goal.margin)
    parts = components([sample for sample in samples.values() if sample is not None])
    for (family, one), verdict, count in zip(primary, verdicts, seeds, strict=True):
        entries[id(family)]["verdict"] = _describe_verdict(verdict, one, parts, goal, count)


def same_detections(a: Family, b: Family, measured: Measured) -> bool:
    """Whether two methods have the same detections, seed by seed."""
    if not a.rows or len(a.rows) != len(b.rows) or a.seeds != b.seeds:
        return False
    ordered = [sorted(family.rows, key=lambda row: (row.seed, row.detector_seed or 0)) for family in (a, b)]
    pairs = [[measured.resampled.get(id(row)) for row in pair] for pair in zip(*ordered, strict=True)]
    return all(one and other and one.matches.same_detections(other.matches) for one, other in pairs)


def _sample(family: Family, name: str, measured: Measured) -> Sample | None:
    """Return a number of a method per seed; None if no row has it."""
    values, draws = [], []
    for rows in family.backbones.values():
        own = [row for row in rows if measured.entries[id(row)]["metrics"][name] is not None]
        if own:
            values.append(np.mean([measured.entries[id(row)]["metrics"][name] for row in own]))
            known = [measured.resampled[id(row)].draws.get(name) for row in own if id(row) in measured.resampled]
            draws.append([one for one in known if one is not None] if len(known) == len(own) else [])
    if not values:
        return None
    complete = all(draws)
    return Sample(np.array(values), np.array([np.mean(own, axis=0) for own in draws]) if complete else np.empty((0, 0)))


def _difference(a: Family, b: Family, name: str, measured: Measured) -> Difference | None:
    """Return method minus baseline; None if a number is missing, or nothing is known about its error."""
    samples = [_sample(family, name, measured) for family in (a, b)]
    if samples[0] is None or samples[1] is None:
        return None
    found = difference(samples[0], samples[1])
    return found if math.isfinite(found.error) else None


def _describe(one: Difference, level: float) -> dict[str, Any]:
    low, high = one.interval(level)
    df = one.df if math.isfinite(one.df) else None
    return {
        "value": one.value, "low": low, "high": high, "error": one.error, "df": df,
        "p": one.p_value(), "over_seeds": one.over_seeds, "over_images": one.over_images,
    }  # fmt: skip


def _describe_verdict(
    verdict: Verdict, one: Difference | None, parts: Components | None, goal: Goal, seeds: int
) -> dict[str, Any]:
    needs = None
    if verdict.word == UNDECIDED and one and parts:
        needs = what_settles(parts, one.value, goal.margin, seeds)
    return {
        "metric": goal.primary, "word": verdict.word, "p": verdict.adjusted, "p_equivalent": verdict.equivalent,
        "margin": goal.margin, "level": verdict.level,
        "needs": {"seeds": needs.seeds, "images": needs.images} if needs else None,
    }  # fmt: skip
