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


def gather_warnings(warnings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every warning once per data set, with the runs that gave it, as "runs".

    Runs on the same data find the same, in count and examples; "data" names the data that all of them read.
    """
    found: list[dict[str, Any]] = []
    for warning in warnings:
        said, names = {key: warning[key] for key in ("what", "count", "examples")}, warning.get("data", [])
        same = (one for one in found if said.items() <= one.items() and (not names or {*one["data"]} & {*names}))
        once = next(same, None)
        if once is None:
            once = {**said, "data": names, "stages": {}}
            found.append(once)
        once["data"] = [name for name in once["data"] if name in names]
        once["stages"].setdefault(warning["stage"], {})[warning["row"]] = None
    return [{**one, "data": ", ".join(one["data"]), "runs": _of_stages(one["stages"])} for one in found]


def _of_stages(rows: Mapping[str, Mapping[str, None]]) -> str:
    """Format the rows of each stage: "backbone and localization of CE, LS; detection of CE"."""
    stages: dict[tuple[str, ...], list[str]] = {}
    for stage, labels in rows.items():
        stages.setdefault(tuple(labels), []).append(stage)
    return "; ".join(f"{' and '.join(names)} of {', '.join(labels)}" for labels, names in stages.items())


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
