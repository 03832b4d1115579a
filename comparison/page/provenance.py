"""Where the numbers come from: protocol, data and folder of every result, and the proofs of the loaded backbones."""

from collections.abc import Mapping, Sequence
from typing import Any

from comparison.tables.formats import MISSING


def describe_stages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return protocol, data and folder per row and stage."""
    return [
        {"name": row["name"], "hash": row["hash"], "stage": name, **stage, "data": _flat(stage["data"])}
        for row in rows
        for name, stage in row["stages"].items()
    ]


def _flat(data: Any, prefix: str = "") -> str:
    """Format a nested description as one line: "val: name scenes, images 500"."""
    if isinstance(data, bool):
        data = "yes" if data else "no"
    if not isinstance(data, Mapping):
        return f"{prefix} {data}".strip()
    inner = [_flat(value, str(key).replace("_", " ")) for key, value in data.items() if value is not None]
    return f"{prefix}: {', '.join(inner)}" if prefix else "; ".join(inner)


def describe_loading(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the proof of every row that has one, or lacks one, with texts for its numbers."""
    found = []
    for row in rows:
        if proof := row["loading"]:
            known = proof["largest_difference"]
            not_loaded = ", ".join(f"{name} ({count})" for name, count in proof["not_loaded"].items())
            texts = {"difference": MISSING if known is None else f"{known:.1e}", "not_loaded": not_loaded or MISSING}
            found.append({**proof, **texts, "name": row["name"], "protocol": row["protocol"]})
    return found
