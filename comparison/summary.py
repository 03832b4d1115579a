"""The comparison as data: the content of comparison.json.

{"schema_version": 1, "baseline": label or null,
 "rows": [{"label", "method", "seed", "protocol": "name@hash" or null, "metrics": {name: number or null},
           "difference_to_baseline": {name: {"value", "low", "high"}} or null,      row minus baseline
           "name": label, with the seed where labels repeat, "hash", "baseline": label of this row's baseline,
           "intervals": {name: {"value", "low", "high"}},                           of the row itself, AP and AR only
           "on_training_pictures": bool, "stages": {stage: {"protocol", "folder", "data"}}}],
 "methods": [...] mean and deviation where a method has several seeds,
 "level", "resamples", "notes": [text], "warnings": [{"row", "stage", "what", "count", "examples"}]}
"""

import statistics as moments
from collections import Counter
from collections.abc import Sequence
from typing import Any

from comparison.protocols import notes_on_protocols, protocol_name, separate_validations
from comparison.rows import BASELINE_METHOD, Row, baseline_of, check_baseline_label, family, group_rows
from comparison.statistics import Resampled, difference, interval, load_matches, resample_rows

SCHEMA_VERSION = 1


def build_comparison(
    rows: Sequence[Row], *, baseline: str | None = None, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Any]:
    """Differences and intervals of all rows; see the module for the form of the result."""
    check_baseline_label(rows, baseline)
    rows, apart = separate_validations(rows)
    groups = group_rows(rows)
    entries: list[dict[str, Any]] = []
    for group in groups:
        resampled = _resample(group, resamples, seed)
        entries += [_entry(row, baseline_of(row, group, baseline), resampled, level) for row in group]
    _name(entries)
    labels = [entry["baseline"] for entry in entries if entry["baseline"] is not None]
    return {
        "schema_version": SCHEMA_VERSION,
        "baseline": labels[0] if labels else None,
        "rows": entries,
        "methods": _methods(rows, entries),
        "level": level,
        "resamples": resamples,
        "notes": [*filter(None, [apart]), *_notes(rows, entries)],
        "warnings": [
            {"row": row.label, "stage": stage, **warning}
            for row in rows
            for stage, results in row.results.items()
            for warning in results.get("warnings", [])
        ],
    }


def _resample(group: Sequence[Row], resamples: int, seed: int) -> dict[int, Resampled]:
    """Row (by identity) -> its resampled numbers, for the rows that have matches; all on the same resamples."""
    with_matches = [(row, path) for row in group if (path := row.file("detection", "matches", "matches.npz"))]
    drawn = resample_rows([load_matches(path) for _, path in with_matches], resamples=resamples, seed=seed)
    return {id(row): one for (row, _), one in zip(with_matches, drawn, strict=True)}


def _entry(row: Row, baseline: Row | None, resampled: dict[int, Resampled], level: float) -> dict[str, Any]:
    own, metrics = resampled.get(id(row)), row.metrics
    intervals = (
        {name: _known(interval(own.value[name], own.draws[name], level, centred=True)) for name in own.value}
        if own
        else {}
    )
    return {
        "label": row.label,
        "method": row.method,
        "seed": row.seed,
        "protocol": row.protocol,
        "metrics": metrics,
        "difference_to_baseline": _differences(row, baseline, resampled, level) if baseline else None,
        "name": row.label,
        "hash": row.hash,
        "baseline": baseline.label if baseline else None,
        "is_baseline": row is baseline,
        "intervals": intervals,
        "on_training_pictures": row.on_training_pictures,
        "stages": {
            stage: {
                "protocol": protocol_name(results),
                "folder": str(row.folders[stage]),
                "data": results.get("data", {}),
            }
            for stage, results in row.results.items()
        },
    }


def _differences(row: Row, baseline: Row, resampled: dict[int, Resampled], level: float) -> dict[str, dict]:
    """Every metric: row minus baseline; with an interval where both rows have matches."""
    measured = ((name, value, baseline.metrics[name]) for name, value in row.metrics.items())
    result: dict[str, dict[str, float | None]] = {
        name: {"value": None if a is None or b is None else a - b, "low": None, "high": None} for name, a, b in measured
    }
    own, other = resampled.get(id(row)), resampled.get(id(baseline))
    if own and other:
        result |= {name: _known(difference(own, other, name, level)) for name in own.value}
    return result


def _known(numbers: dict[str, float]) -> dict[str, float | None]:
    """NaN as None, as JSON has none."""
    return {key: None if value != value else value for key, value in numbers.items()}


def _name(entries: Sequence[dict[str, Any]]) -> None:
    """Display names: the label, with the seed where several backbones share it."""
    count = Counter(label for label, _ in {(entry["label"], entry["hash"]) for entry in entries})
    for entry in entries:
        if count[entry["label"]] > 1:
            entry["name"] = f"{entry['label']} (seed {entry['seed']})"


def _methods(rows: Sequence[Row], entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over seeds; empty unless some method has several."""
    members: dict[tuple, list[dict[str, Any]]] = {}
    for row, entry in zip((row for group in group_rows(rows) for row in group), entries, strict=True):
        members.setdefault((row.protocol, row.method, family(row)), []).append(entry)
    if all(len(group) < 2 for group in members.values()):
        return []
    return [
        {
            "label": label,
            "method": method,
            "protocol": protocol,
            "seeds": sorted(entry["seed"] for entry in group),
            "metrics": {name: _spread([e["metrics"][name] for e in group]) for name in group[0]["metrics"]},
            "difference_to_baseline": {
                "AP": _spread([(e["difference_to_baseline"] or {}).get("AP", {}).get("value") for e in group])
            },
        }
        for (protocol, method, label), group in members.items()
    ]


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    known = [value for value in values if value is not None]
    return {
        "mean": moments.fmean(known) if known else None,
        "deviation": moments.stdev(known) if len(known) > 1 else None,
        "count": len(known),
    }


def _notes(rows: Sequence[Row], entries: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know before comparing two numbers of this table."""
    notes = [*notes_on_protocols(rows), *_area_notes(rows)]
    alone = [entry["name"] for entry in entries if entry["baseline"] is None]
    if alone:
        notes.append(f"No baseline (a row of method {BASELINE_METHOD}) for {', '.join(alone)}: no differences there.")
    other_seed = [e["name"] for e in entries if e["baseline"] is not None and not _same_seed(e, entries)]
    if other_seed:
        notes.append(f"Compared with a baseline of another seed: {', '.join(other_seed)}.")
    training = [entry["name"] for entry in entries if entry["on_training_pictures"]]
    if training:
        notes.append(f"Detection evaluated on its own TRAINING pictures (†): {', '.join(training)}.")
    unmatched = [e["name"] for e in entries if e["metrics"]["AP"] is not None and not e["intervals"]]
    if unmatched:
        notes.append(f"No matches.npz, hence no intervals: {', '.join(unmatched)}.")
    seeds = Counter((row.protocol, row.method, family(row)) for row in rows)
    single = {row.label for row in rows if seeds[row.protocol, row.method, family(row)] < 2}
    if single:
        which = (
            "per method" if len(single) == len({row.label for row in rows}) else f"only: {', '.join(sorted(single))}"
        )
        notes.append(
            f"One seed {which}. The intervals speak of the choice of test images, not of the luck of training: "
            "one seed cannot decide between methods."
        )
    return notes


def _area_notes(rows: Sequence[Row]) -> list[str]:
    """Where the sizes of some rows go by the box and of others by the segmentation (other protocols, if mixed)."""
    tests = [row.results.get("detection", {}).get("data", {}).get("test", {}) for row in rows]
    known = {str(test["area"]): str(test.get("name", "?")) for test in tests if "area" in test}
    if len(known) < 2:
        return []
    which = ", ".join(f"the {area} ({name})" for area, name in sorted(known.items()))
    return [f"Small, medium and large (APs to ARl) go by the area of {which}: not comparable by size."]


def _same_seed(entry: dict[str, Any], entries: Sequence[dict[str, Any]]) -> bool:
    return any(
        other["label"] == entry["baseline"]
        and other["seed"] == entry["seed"]
        and other["protocol"] == entry["protocol"]
        for other in entries
    )
