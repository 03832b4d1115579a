"""The page's section of published numbers beside ours, each with its scale; nothing else of the page holds them."""

from collections.abc import Mapping, Sequence
from typing import Any

from comparison.tables.formats import MISSING

# Key of a data set in results.json -> what it counts.
_COUNTS = {"images": "images", "samples": "samples", "annotations": "objects"}


def published_section(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the table; None without a published table, or if none of its rows has a number that we have, too."""
    published = comparison["published"]
    if not published:
        return None
    rows = comparison["rows"]
    columns = [one for one in published["columns"] if _measured(rows, published, one)]
    lines = []
    for printed in published["rows"]:
        own = [row for row in rows if row["label"] == printed["label"]]
        for protocol in dict.fromkeys(row["protocol"] for row in own):
            under = [row for row in own if row["protocol"] == protocol]
            texts = [_ours(under, column) for column in columns]
            if any(text != MISSING for text in texts):
                theirs = [printed["texts"].get(column["name"], MISSING) for column in columns]
                lines.append(
                    {**printed, "theirs": theirs, "ours": texts, "our_scale": _scale(under), "protocol": protocol}
                )
    return {"title": published["title"], "columns": columns, "lines": lines} if columns and lines else None


def _measured(rows: Sequence[Mapping[str, Any]], published: Mapping[str, Any], column: Mapping[str, Any]) -> bool:
    labels = {row["label"] for row in published["rows"] if column["name"] in row["texts"]}
    return any(row["label"] in labels and row["metrics"][column["metric"]] is not None for row in rows)


def _ours(rows: Sequence[Mapping[str, Any]], column: Mapping[str, Any]) -> str:
    """Return the mean over the runs of a method in the units of the paper."""
    known = [row["metrics"][column["metric"]] for row in rows]
    known = [value for value in known if value is not None]
    if not known:
        return MISSING
    mean = sum(known) / len(known)
    value = column["times"] * (1 - mean if column["complement"] else mean)
    return f"{value:.2f}" if column["times"] == 100 else f"{value:.3f}"


def _scale(rows: Sequence[Mapping[str, Any]]) -> str:
    """Describe the data, the schedule and the seeds of a method."""
    stages: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        stages = {**row["stages"], **stages}
    parts = [_trained(stages[name]) for name in ("pretraining", "detection") if name in stages]
    test = next((stages[n]["data"]["test"] for n in ("detection",) if "test" in stages.get(n, {}).get("data", {})), {})
    if "images" in test:
        parts.append(f"tested on {test['images']:,} images, {test.get('objects', 0):,} objects")
    seeds = len({row["seed"] for row in rows})
    return "; ".join([*filter(None, parts), f"{seeds} seed{'' if seeds == 1 else 's'}"])


def _trained(stage: Mapping[str, Any]) -> str:
    """Return such as "scenes 500 images, 800 objects, resnet18, 10 epochs"."""
    scale = stage["scale"]
    splits = [one for name, one in stage["data"].items() if isinstance(one, Mapping) and name != "test"]
    first = splits[0] if splits else {}
    counts = [f"{first[key]:,} {said}" for key, said in _COUNTS.items() if isinstance(first.get(key), int)]
    parts = [" ".join([str(first.get("name", "")), ", ".join(counts)]).strip(), str(scale["network"] or "")]
    parts += [f"{scale[key]:,} {key}" for key in ("epochs", "iterations") if isinstance(scale[key], int)]
    return ", ".join(filter(None, parts))
