"""The page's section on what makes the primary number vary, and how narrow an interval more runs would give."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from comparison.tables.formats import format_number
from comparison.tables.verdicts import SOURCES, format_deviation
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
    """Return, per protocol, the standard deviation of one run by source, and half-widths by number of seeds.

    Half-widths are of a difference of two methods, at the level of the comparison, on the same images and on
    MORE_IMAGES times as many; none where the components are unknown.
    """
    found = []
    for entry in comparison["variances"]:
        sources = [
            (said, format_deviation(entry[name]), REMEDIES[name])
            for name, said in SOURCES.items()
            if entry[name] is not None
        ]
        if sources:
            widths = _half_widths(entry, comparison["level"])
            found.append({"protocol": entry["protocol"], "sources": sources, "widths": widths})
    return found


def _half_widths(entry: Mapping[str, Any], level: float) -> Sequence[tuple[str, list[str]]]:
    values = {field.name: entry[field.name] for field in fields(Components)}
    if None in values.values():
        return ()
    parts = Components(**values)
    return [
        (said, [f"±{format_number(half_width(parts, seeds, images, level))}" for seeds in SEEDS])
        for said, images in (("these images", 1.0), (f"{MORE_IMAGES} times as many images", float(MORE_IMAGES)))
    ]
