"""The comparison as data: the content of comparison.json.

`schemas/comparison.json` describes every key, as a JSON Schema that every comparison is checked against.

A row whose pretraining failed has no "stages", no number, "hash": "", and "method": "" if no other seed tells it.  The
protocol is "name" alone if every fine-tuning under it failed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.core.matches import MATCHES_FILE
from backbones.core.revision import describe_revision
from backbones.core.schema import find_violation
from comparison.bootstrap import Resampled, difference, interval
from comparison.classifiers import build_classifiers
from comparison.diagnosis.ahead import compute_ahead
from comparison.diagnosis.entries import build_diagnosis
from comparison.failed_rows import place_failures
from comparison.failures import Failure, detector_failure
from comparison.families import find_families
from comparison.histories import build_histories
from comparison.methods import Goal, Measured, build_methods
from comparison.notes import Compared, mark_commits, write_notes
from comparison.papers.published import scale_of
from comparison.proofs import loading_proof
from comparison.protocols import name_apart, protocol_name, separate_validations
from comparison.resampling.files import resample_group
from comparison.row import Row
from comparison.rows import baseline_of, check_baseline_label, group_rows

SCHEMA_VERSION = 1
DEFAULT_GOAL = Goal()
SCHEMA = Path(__file__).parent / "schemas" / "comparison.json"


def build_comparison(
    rows: Sequence[Row],
    *,
    baseline: str | None = None, resamples: int = 1000, seed: int = 0, level: float = 0.95,
    chosen: Sequence[str] = (), failures: Sequence[Failure] = (), goal: Goal = DEFAULT_GOAL,
) -> dict[str, Any]:  # fmt: skip
    """Compute differences and intervals of all rows; the schema describes the result.

    Args:
        chosen: config keys whose value was chosen separately for each seed, so that seeds can differ in them.
        failures: stages that failed; rows without any results because of one are added.
        goal: the number that decides, and the largest difference that does not matter.

    Raises:
        InputError: `baseline` does not name a row, or several rows could be the baseline of one.
        ValueError: the comparison contradicts its schema, which is an error of this code.
    """
    rows = name_apart(place_failures(rows, failures))
    check_baseline_label(rows, baseline)
    rows, apart = separate_validations(rows)
    compute_ahead(_matches_of(rows), resamples=resamples, seed=seed)
    compared, resampled = _compare(group_rows(rows), baseline, resamples, seed, level)
    entries = [one.entry for one in compared]
    name_entries(entries)
    mark_commits(compared)
    families = find_families([one.row for one in compared], chosen)
    labels = _baseline_labels(entries, goal.primary)
    measured = _measured(compared, resampled)
    methods, variances = build_methods(families, measured, goal, level)
    return _checked(
        {
            "schema_version": SCHEMA_VERSION,
            "baseline": labels[0] if labels else None,
            "rows": entries,
            "primary": goal.primary,
            "methods": methods,
            "variances": variances,
            "diagnosis": build_diagnosis(families, measured, level=level, resamples=resamples, seed=seed),
            "classifiers": build_classifiers(families, set(labels)),
            "training": build_histories(families),
            "published": None,
            "failures": [asdict(failure) for failure in failures],
            "score_thresholds": sorted({row.score_threshold for row in rows if row.score_threshold is not None}),
            "level": level,
            "resamples": resamples,
            "notes": [*filter(None, [apart]), *write_notes(compared, families, baseline)],
            "warnings": _warnings(rows),
        }
    )


def _compare(
    groups: Sequence[Sequence[Row]], baseline: str | None, resamples: int, seed: int, level: float
) -> tuple[list[Compared], dict[int, Resampled]]:
    """Compare every row with its baseline; also return the resampled numbers by `id(row)`."""
    compared: list[Compared] = []
    resampled: dict[int, Resampled] = {}
    for group in groups:
        resampled |= resample_group(group, resamples=resamples, seed=seed)
        for row in group:
            own = baseline_of(row, group, baseline)
            compared.append(Compared(row, own, _entry(row, own, resampled, level)))
    return compared, resampled


def _baseline_labels(entries: Sequence[Mapping[str, Any]], primary: str) -> list[str]:
    """Return the labels of the baselines of all rows, first those of rows that have the primary number."""
    compared = [entry for entry in entries if entry["baseline"] is not None]
    return [entry["baseline"] for entry in sorted(compared, key=lambda entry: entry["metrics"][primary] is None)]


def _matches_of(rows: Sequence[Row]) -> list[Path]:
    return [path for row in rows if (path := row.file("detection", "matches", MATCHES_FILE))]


def _checked(comparison: dict[str, Any]) -> dict[str, Any]:
    if problem := find_violation(comparison, SCHEMA):
        raise ValueError(f"the comparison contradicts {SCHEMA.name}: {problem}")
    return comparison


def name_data(data: Mapping[str, Any]) -> list[str]:
    """Return the names of the data that results state, each once."""
    return list({str(one["name"]): None for one in data.values() if isinstance(one, Mapping) and one.get("name")})


def _warnings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {"row": row.label, "stage": stage, "data": name_data(results["data"]), **warning}
        for row in rows
        for stage, results in row.results.items()
        for warning in results.get("warnings", [])
    ]


def _measured(compared: Sequence[Compared], resampled: Mapping[int, Resampled]) -> Measured:
    entries = {id(one.row): one.entry for one in compared}
    return Measured(entries, resampled, {id(one.row): one.baseline for one in compared})


def _entry(row: Row, baseline: Row | None, resampled: dict[int, Resampled], level: float) -> dict[str, Any]:
    own, metrics = resampled.get(id(row)), row.metrics
    names = [name for name in metrics if own and name in own.value]
    intervals = {name: _known(interval(own.value[name], own.draws[name], level, centred=True)) for name in names if own}
    return {
        "label": row.label,
        "method": row.method,
        "seed": row.seed,
        "detector_seed": row.detector_seed,
        "protocol": row.protocol,
        "metrics": metrics,
        "difference_to_baseline": _differences(row, baseline, resampled, level) if baseline else None,
        "name": row.label,
        "backbone_name": row.label,
        "hash": row.hash,
        "baseline": baseline.label if baseline else None,
        "is_baseline": row is baseline,
        "intervals": intervals,
        "on_training_images": row.on_training_images,
        "chosen_on_test_images": row.chosen_on_test_images,
        "loading": loading_proof(row),
        "from_results_file": row.foreign,
        "stages": {
            stage: {
                "protocol": protocol_name(results),
                "folder": str(row.folders[stage]),
                "data": results.get("data", {}),
                "commit": describe_revision(results.get("code")),
                "scale": scale_of(results),
            }
            for stage, results in row.results.items()
        },
        "failures": [asdict(failure) for failure in row.failures],
    }


def _differences(row: Row, baseline: Row, resampled: dict[int, Resampled], level: float) -> dict[str, dict]:
    """Return row minus baseline for every metric, with an interval if both rows have it for the same images."""
    measured = ((name, value, baseline.metrics[name]) for name, value in row.metrics.items())
    result: dict[str, dict[str, float | None]] = {
        name: {"value": None if a is None or b is None else a - b, "low": None, "high": None} for name, a, b in measured
    }
    own, other = resampled.get(id(row)), resampled.get(id(baseline))
    if own and other:
        both = own.value.keys() & other.value.keys() & result.keys()
        result |= {name: _known(difference(own, other, name, level)) for name in result if name in both}
    return result


def _known(numbers: dict[str, float]) -> dict[str, float | None]:
    """Replace NaN, which JSON lacks, by None."""
    return {key: None if value != value else value for key, value in numbers.items()}


def name_entries(entries: Sequence[dict[str, Any]]) -> None:
    """Set display names: the label, with seeds if rows share it, and the hash if that is still ambiguous.

    "name" is that of the row, "backbone_name" that of its backbone, shared by rows of several detector seeds.
    """
    backbones = Counter(label for label, _ in {(e["label"], e["hash"] or e["seed"]) for e in entries})
    tuned = [e for e in entries if not detector_failure(e)]
    rows = {(e["label"], e["hash"], e["detector_seed"]) for e in tuned}
    tunings = Counter((label, digest) for label, digest, _ in rows)
    twins = Counter((label, seed) for label, seed, _ in {(e["label"], e["seed"], e["hash"]) for e in entries})
    for e in entries:
        parts = [f"seed {e['seed']}"] if backbones[e["label"]] > 1 else []
        parts += [e["hash"]] if twins[e["label"], e["seed"]] > 1 else []
        several = tunings[e["label"], e["hash"]] > 1 and not detector_failure(e)
        detector = [f"detector seed {e['detector_seed']}"] if several else []
        e["backbone_name"], e["name"] = (_named(e["label"], some) for some in (parts, parts + detector))


def _named(label: str, parts: Sequence[str]) -> str:
    return f"{label} ({', '.join(parts)})" if parts else label
