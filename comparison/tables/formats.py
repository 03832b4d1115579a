"""How numbers, differences and names are written in every table."""

from collections.abc import Mapping, Sequence
from typing import Any

from comparison.failures import FAILED, MARK, backbone_failure, detector_failure, is_marked
from comparison.metrics import BY_NAME, DETECTORS, METRICS, best_value

CLAIM = "A difference whose interval includes 0 is not significant; one seed cannot show which method is better."
MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
DIGITS = 3
# Whether an interval covers seeds, and images.
_COVERS = {(True, True): "over seeds and images", (True, False): "over seeds", (False, True): "over images"}
CHOSEN = "¶"  # mark of a row whose weights were chosen on test images


def format_number(value: float | None, *, signed: bool = False) -> str:
    """Format with three decimals, or as a dash for None."""
    if value is None:
        return MISSING
    text = f"{value:+.{DIGITS}f}" if signed else f"{value:.{DIGITS}f}"
    if not float(text):
        text = text.lstrip("+-")  # no sign of what is rounded away
    return text.replace("-", MINUS)


def format_metric(row: Mapping[str, Any], name: str) -> str:
    """Format a metric of a row; "failed" in place of the dash if a failed stage would have measured it."""
    failure = detector_failure(row) if BY_NAME[name].group in DETECTORS else backbone_failure(row)
    value = row["metrics"][name]
    return FAILED if failure and value is None else format_number(value)


def format_difference(difference: Mapping[str, float | None] | None) -> str:
    """Format as "+0.031 [+0.012, +0.049]", without brackets if the interval is missing.

    Where other methods have several seeds, "(images only)" marks an interval that leaves out the spread of seeds.
    """
    if difference is None or difference["value"] is None:
        return MISSING
    text = format_number(difference["value"], signed=True)
    if difference["low"] is None or difference["high"] is None:
        return text
    low, high = (format_number(difference[end], signed=True) for end in ("low", "high"))
    return f"{text} [{low}, {high}]" + " (images only)" * (difference.get("over_seeds") is False)


def describe_cover(covered: Mapping[str, tuple[bool, bool]]) -> str:
    """Say what intervals cover: "over seeds and images".

    Args:
        covered: label of a method -> whether its interval covers seeds, and images.
    """
    found: dict[str, list[str]] = {}
    for label, kind in covered.items():
        found.setdefault(_COVERS[kind], []).append(label)
    usual = next((text for text in _COVERS.values() if text in found), _COVERS[True, True])
    if usual == _COVERS[False, True]:
        return f"{usual}, for these networks"
    others = [f"{', '.join(labels)}: {text} only" for text, labels in found.items() if text != usual]
    return usual + (f" ({'; '.join(others)})" if others else "")


def excludes_zero(difference: Mapping[str, float | None]) -> bool:
    """Whether the interval of a difference excludes 0."""
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def display_name(row: Mapping[str, Any]) -> str:
    """Return the row's name with its marks, which the notes explain."""
    return row["name"] + marks(row)


def short_name(row: Mapping[str, Any], letters: int) -> str:
    """Shorten the row's name to at most `letters` characters: the label is cut, seeds and hash are kept."""
    name = row["name"]
    if len(name) > letters:
        label, seeds = row["label"], name.removeprefix(row["label"])
        seeds = seeds.replace(" (", " ").replace("detector seed ", "d").replace("seed ", "s").replace(", ", " ")
        seeds = seeds.removesuffix(")")
        name = label + seeds
        if len(name) > letters:
            name = label[: max(1, letters - len(seeds) - 1)] + "…" + seeds
    return name


def marks(row: Mapping[str, Any]) -> str:
    """Return the marks of a row, which the notes explain."""
    failed = any(is_marked(row, failure["protocol"]) for failure in row["failures"])
    found = {
        "†": row["on_training_images"], CHOSEN: row["chosen_on_test_images"], "‡": row["other_commit"], MARK: failed
    }  # fmt: skip
    return "".join(f" {mark}" for mark, holds in found.items() if holds)


def groups_of(comparison: Mapping[str, Any]) -> list[tuple[str | None, list[dict[str, Any]]]]:
    """Group rows as (protocol or None, rows); several groups only if protocols are mixed."""
    rows = comparison["rows"]
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    known = [protocol for protocol in protocols if protocol is not None]
    if len(known) <= 1:
        return [(known[0] if known else None, list(rows))]
    return [(protocol, [row for row in rows if row["protocol"] == protocol]) for protocol in protocols]


def rows_with_difference(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that are compared with another row, except those whose detector failed."""
    return [r for r in rows if r["difference_to_baseline"] and not r["is_baseline"] and not detector_failure(r)]


def best_of(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """Return the best number of a column as printed; equally printed numbers are all marked."""
    best = best_value(name, [row["metrics"][name] for row in rows])
    return None if best is None else format_number(best)


def measured_names(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> list[str]:
    """Return the metrics that at least one row has, in the order of the table."""
    names = [metric.name for metric in METRICS] if names is None else names
    return [name for name in names if any(row["metrics"][name] is not None for row in rows)]
