"""Selection among finished pretrainings by validation, as the papers choose hyper-parameters.

Maher & Kull 2021, Sec. IV: every grid point is a separate training, and the one with the lowest validation
cross-entropy is kept; rows "+TempS" choose by the cross-entropy after temperature scaling.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.core.config import flatten, load_yaml
from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.results import load_results

# Metrics of a pretraining's results.json; the lowest is the best.
CRITERIA = ("nll", "nll_fitted")
FILE_NAME = "selection.json"
# Written by the suite into the folder of a training that diverged: {"reason": text}.
DIVERGED = "diverged.json"


def select(runs: Sequence[str | Path], keys: Sequence[str], by: str) -> dict[str, Any]:
    """Compare the pretrainings in the folders `runs` and choose one; of equal ones the first.

    Args:
        keys: config keys in which they differ.
        by: one of CRITERIA.

    Returns:
        {"by", "chosen": {"candidate": number, "run": name, "values", by},
         "candidates": [{"run", "values": {key: value}, by: number or None, "reason": text, "backbone": hash}],
         "warnings": [...]}, the warnings as in results.json; "backbone" only where the run has one.

    Raises:
        InputError: a run without results, no run with a finite `by`, or runs that were validated on different images.
    """
    _check_one_validation([Path(run) for run in runs])
    candidates = [_candidate(Path(run), keys, by) for run in runs]
    values = [item[by] for item in candidates]
    finite = [value for value in values if value is not None]
    if not finite:
        reason = next((item["reason"] for item in candidates if item["reason"]), f"{by} is not finite")
        what = f"all {len(candidates)} candidates diverged, one with: {reason}"
        raise InputError(f"{what}; lower SOLVER.BASE_LR, or clip gradients")
    number = values.index(min(finite))
    chosen = {"candidate": number} | {k: v for k, v in candidates[number].items() if k != "reason"}
    warnings = [*_edges(candidates, number, keys), *_diverged(candidates)]
    return {"by": by, "chosen": chosen, "candidates": candidates, "warnings": warnings}


def describe(values: Mapping[str, Any]) -> str:
    """Format values as "METHOD.ILS.shift 0.9, METHOD.ILS.coefficient 1"."""
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _check_one_validation(runs: Sequence[Path]) -> None:
    """Raise `InputError` if the runs were validated on different images."""
    seen: dict[str, Path] = {}
    for run in runs:
        if not (run / DIVERGED).exists():
            data = list(load_results(run)["data"].items())  # the training data, which may differ, comes first
            seen.setdefault(str(data[-1:]), run)
    if len(seen) > 1:
        first, second, *_ = seen.values()
        raise InputError(
            f"{first} and {second} were validated on different images; choose among runs with the same DATA.VAL_SPLIT"
        )


def _candidate(run: Path, keys: Sequence[str], by: str) -> dict[str, Any]:
    config = dict(flatten(load_yaml(run / "config.yaml"))) if (run / "config.yaml").exists() else {}
    missing = [key for key in keys if key not in config]
    if missing:
        raise InputError(f"{run / 'config.yaml'}: {missing[0]} is missing; name the folder of a pretraining run")
    found: dict[str, Any] = {"run": run.name, "values": {key: config[key] for key in keys}, by: None, "reason": ""}
    if (run / DIVERGED).exists():
        return found | {"reason": load_json(run / DIVERGED)["reason"]}
    results = load_results(run)
    metrics, found["backbone"] = results["metrics"], results["backbone"].get("hash")
    if by not in metrics:
        raise InputError(f"{run}: its results do not hold {by}; pretrain again with this version")
    if metrics[by] is None or not math.isfinite(metrics[by]):
        return found | {"reason": f"{by} is not finite"}
    return found | {by: metrics[by]}


def _edges(candidates: Sequence[Mapping], number: int, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Warn for every key whose chosen value is the smallest or largest: the best value may be outside the grid."""
    warnings = []
    for key in keys:
        tried = {item["values"][key] for item in candidates if isinstance(item["values"][key], (int, float))}
        value = candidates[number]["values"][key]
        if len(tried) >= 3 and value in (min(tried), max(tried)):  # with two values, each is at an edge
            what = f"{key}: the chosen value {value} is at the edge of its grid, {min(tried)} to {max(tried)}"
            warnings.append({"what": what, "count": 1, "examples": []})
    return warnings


def _diverged(candidates: Sequence[Mapping]) -> list[dict[str, Any]]:
    names = [describe(item["values"]) for item in candidates if item["reason"]]
    what = "points of the grid that diverged"
    return [{"what": what, "count": len(names), "examples": names[:5]}] if names else []
