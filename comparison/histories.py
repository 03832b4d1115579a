"""Training curves of all methods, as "training" of comparison.json, from the metrics.jsonl of their runs.

A file has one JSON object per line: "iteration" (from 0) and the numbers that the run logs.  The iterations of a group
are divided into POINTS intervals; the value of a run is the mean of its lines in an interval.  A point of a method is
the mean over its runs, with the lowest and the highest; intervals that one of its runs does not have are left out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comparison.classifiers import backbones_of
from comparison.families import Family
from comparison.protocols import DETECTION, PRETRAINING, name_images, validated_on
from comparison.row import Row

POINTS = 100  # of a curve
LONGEST_LINE, PARSED = 1 << 16, 1 << 24  # bytes of a line; of a file beyond that, lines are skipped evenly
LARGEST = 10**15  # iteration, and absolute value of a number; larger ones are not plausible
_DIGITS = 5  # of a number
# Stage -> key of metrics.jsonl -> title.
QUANTITIES: Mapping[str, Mapping[str, str]] = {
    PRETRAINING: {
        "loss": "Training loss", "val_nll": "Validation NLL", "train_top1": "Training top-1",
        "val_top1": "Validation top-1",
    },
    DETECTION: {
        "loss": "Training loss", "val_loss": "Validation loss", "AP": "AP during the training",
        "val_AP": "Validation AP during the training",
    },
}  # fmt: skip
Series = Mapping[str, np.ndarray]  # key -> (lines, 2): iteration, value


def build_histories(families: Sequence[Family]) -> list[dict[str, Any]]:
    """Return one entry per stage and protocol (of pretrainings: validation data) with at least one curve."""
    groups: dict[tuple[str, str], dict[int, tuple[Family, list[Series]]]] = {}
    runs = list(_runs(families))
    names = name_images(validated_on(row) for stage, _, row in runs if stage == PRETRAINING)
    for stage, family, row in runs:
        path = row.file(stage, "metrics")
        series = read_series(path, QUANTITIES[stage]) if path else {}
        if series:
            name = names[validated_on(row)] if stage == PRETRAINING else family.protocol or ""
            groups.setdefault((stage, name), {}).setdefault(id(family), (family, []))[1].append(series)
    return [
        {
            "stage": stage,
            "name": name,
            "curves": [
                {"quantity": key, "title": title, "methods": methods}
                for key, title in QUANTITIES[stage].items()
                if (methods := _methods(list(group.values()), key))
            ],
        }
        for (stage, name), group in groups.items()
    ]


def read_series(path: Path, keys: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read the numbers of these keys; a line that is not complete ends the file, as in a run that was killed.

    Of a file larger than PARSED bytes only every n-th line is read, so that time and memory are bounded.
    """
    found: dict[str, list[tuple[int, float]]] = {key: [] for key in keys}
    step = path.stat().st_size // PARSED + 1
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b"")):
            if number % step and b'"val_' not in line:  # validations are rare
                continue
            entry = _parse(line)
            if entry is None:
                break
            for key in keys:
                if _is_number(entry.get(key)):
                    found[key].append((entry["iteration"], float(entry[key])))
    return {key: np.array(values) for key, values in found.items() if values}


def average_curves(runs: Sequence[np.ndarray], last: float) -> list[list[float]]:
    """Return [iteration, mean, lowest, highest] for every interval of iterations that all runs have.

    Args:
        runs: (lines, 2) iteration, value; last: the last iteration of the group.
    """
    sums = np.zeros((3, len(runs), POINTS))  # lines, iterations, values
    for sum_of_run, run in zip(sums.swapaxes(0, 1), runs, strict=True):
        at = np.minimum((run[:, 0] * POINTS / (last + 1)).astype(int), POINTS - 1)
        for total, weights in zip(sum_of_run, (np.ones(len(run)), *run.T), strict=True):
            total += np.bincount(at, weights=weights, minlength=POINTS)
    sums = sums[:, :, (sums[0] > 0).all(axis=0)]
    values = sums[2] / sums[0]
    where = sums[1].sum(axis=0) / sums[0].sum(axis=0)
    return [
        [_short(number) for number in point]
        for point in zip(where, values.mean(axis=0), values.min(axis=0), values.max(axis=0), strict=True)
    ]


def _runs(families: Sequence[Family]) -> Iterator[tuple[str, Family, Row]]:
    for family, rows in backbones_of(families, PRETRAINING):
        yield from ((PRETRAINING, family, row) for row in rows)
    for family in families:
        yield from ((DETECTION, family, row) for row in family.rows)


def _methods(members: Sequence[tuple[Family, Sequence[Series]]], key: str) -> list[dict[str, Any]]:
    """Return the curve of one number for every method that logs it."""
    known = [(family, [series[key] for series in runs if key in series]) for family, runs in members]
    last = max((run[:, 0].max() for _, runs in known for run in runs), default=0.0)
    curves = [(family.label, len(runs), average_curves(runs, last)) for family, runs in known if runs]
    return [{"label": label, "runs": count, "points": points} for label, count, points in curves if points]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    at = entry.get("iteration") if isinstance(entry, dict) else None
    return entry if isinstance(at, int) and 0 <= at <= LARGEST else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST  # false for NaN


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
