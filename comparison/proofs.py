"""What the results of a detector prove about the loading of its backbone (`detection.exchange`).

A backbone that was not loaded still trains, and its AP looks plausible.  A run therefore compares every tensor after
loading, bit for bit, and the features of detector and backbone on the same image, and keeps the account in "details".
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from comparison.row import Row

PROVEN, FAILED, ABSENT = "proven", "failed", "not proven"
RANDOM = "random"
_COUNTER = "num_batches_tracked"  # batch norm's counter of steps, without effect on the features


def loading_proof(row: Row) -> dict[str, Any] | None:
    """Return the proof of a row as `comparison.json` holds it; None without a detector of ours or without a backbone.

    "state" is one of PROVEN, FAILED (contradicts itself, or features differ) and ABSENT; "reason" says why not PROVEN.
    """
    if "detection" not in row.results or row.foreign or row.method == RANDOM:
        return None
    found = row.results["detection"]["details"].get("backbone_loading")
    account = found if isinstance(found, Mapping) else {}
    proof, names = _mapping(account, "proof"), _names(account, "loaded")
    compared = _mapping(account, "counts").get("loaded", len(names))
    differences = _mapping(proof, "largest_difference")
    known = [value for value in differences.values() if _is_number(value)]
    tolerance = proof.get("tolerance") if _is_number(proof.get("tolerance")) else None
    state, reason = _judge(account, names, compared, differences, tolerance)
    return {
        "state": state,
        "reason": reason,
        "compared": compared if isinstance(compared, int) else len(names),
        "equal": len(names),
        "not_loaded": _grouped(_names(account, "dropped")),
        "new": len(_names(account, "new")),
        "largest_difference": max(known) if known else None,
        "tolerance": tolerance,
        "weights": row.weights,
    }


def _judge(
    account: Mapping[str, Any], names: list[str], compared: Any, differences: Mapping[str, Any], tolerance: Any
) -> tuple[str, str]:
    if not account:
        return ABSENT, "its results have no account of the loading"
    if not names:
        return FAILED, "no tensor was loaded"
    if compared != len(names):
        return FAILED, f"{compared} tensors are counted as loaded, {len(names)} are named"
    if not differences or tolerance is None:
        return ABSENT, "the features of detector and backbone were not compared"
    for stage, value in differences.items():
        if not _is_number(value) or not value <= tolerance:
            return FAILED, f"the features of {stage} differ by {value} of the largest, more than {tolerance:g}"
    return PROVEN, ""


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, Mapping) else {}


def _names(tree: Mapping[str, Any], key: str) -> list[str]:
    value = tree.get(key)
    return [str(name) for name in value] if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value == value


def _grouped(names: Iterable[str]) -> dict[str, int]:
    """Count tensors by module: {"fc.*": 2, "*.num_batches_tracked": 53}."""
    last = f"*.{_COUNTER}"
    groups = (last if name.endswith(_COUNTER) else f"{name.partition('.')[0]}.*" for name in names)
    return dict(sorted(Counter(groups).items()))
