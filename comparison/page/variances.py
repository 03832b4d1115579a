"""The page's section on what makes the primary number vary, and how narrow an interval more runs would give."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from comparison.tables.formats import format_number
from comparison.tables.verdicts import SOURCES, format_deviation, unit_of
from comparison.verdicts.nested import Components
from comparison.verdicts.planner import half_width

# Source of variation -> what averages it out of a difference.
REMEDIES = {
    "seeds": "more seeds",
    "fine_tuning": "more seeds, or more fine-tunings of each backbone",
    "interaction": "more seeds, or more images",
    "images": "nothing needed: all methods are tested on the same images",
    "method_images": "more images",
}
SEEDS, MORE_IMAGES = (3, 5, 10, 20, 50), 4


def variances_section(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, per protocol, standard deviations by source with how well they are known, and half-widths by seeds.

    Half-widths are of a difference of two methods, at the level of the comparison, on the same images and on
    MORE_IMAGES times as many; none where the components are unknown.
    """
    found = []
    for entry in comparison["variances"]:
        known = {"seeds": _factor(_freedom_of_seeds(comparison, entry))}
        known["fine_tuning"] = _factor(_freedom_of_tunings(comparison, entry))
        sources = [
            (said, format_deviation(entry[name]), known.get(name, ""), REMEDIES[name])
            for name, said in SOURCES.items()
            if entry[name] is not None
        ]
        if sources:
            widths = _half_widths(entry, comparison["level"])
            part = {"protocol": entry["protocol"], "unit": unit_of(entry), "sources": sources, "widths": widths}
            found.append(part | {"shared": entry["shared_backbones"]})
    return found


def _half_widths(entry: Mapping[str, Any], level: float) -> Sequence[tuple[str, list[str]]]:
    """Return lines of half-widths; none for methods on the same backbones, whose differences vary less."""
    values = {field.name: entry[field.name] for field in fields(Components)}
    if None in values.values() or entry["shared_backbones"]:
        return ()
    parts = Components(**values)
    return [
        (said, [f"±{format_number(half_width(parts, seeds, images, level))}" for seeds in SEEDS])
        for said, images in (("these images", 1.0), (f"{MORE_IMAGES} times as many images", float(MORE_IMAGES)))
    ]


def _freedom_of_seeds(comparison: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    """Return the degrees of freedom of the variance between seeds, pooled over the methods with several."""
    counts = [
        method["metrics"][entry["metric"]]["count"]
        for method in comparison["methods"]
        if method["protocol"] == entry["protocol"]
    ]
    return sum(count - 1 for count in counts if count > 1)


def _freedom_of_tunings(comparison: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    """Return the degrees of freedom of the variance between fine-tunings, pooled over the backbones with several."""
    measured = [row for row in comparison["rows"] if row["metrics"][entry["metric"]] is not None]
    counts = Counter((row["label"], row["hash"]) for row in measured if row["protocol"] == entry["protocol"])
    return sum(count - 1 for count in counts.values())


def _factor(freedom: int) -> str:
    """Return the 95 % interval of a standard deviation of so many degrees of freedom, relative to its estimate."""
    from scipy import special  # slow

    if not freedom:
        return ""
    low, high = ((freedom / special.chdtri(freedom, above)) ** 0.5 for above in (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"
