"""The verdicts on methods over seeds and images, as lines of text for every output."""

from collections.abc import Mapping
from typing import Any

from comparison.tables.formats import MISSING, excludes_zero, format_difference, format_number
from comparison.verdicts.planner import MOST_SEEDS
from comparison.verdicts.words import IDENTICAL, SEEDS_FOR_A_VERDICT, UNDECIDED

MEANING = (
    "Verdicts: intervals cover the sampling of images and the variation between training seeds; better and worse are "
    "corrected for the number of methods (Holm). “About n seeds each” includes the baseline; it "
    "promises only an interval narrow enough for a verdict if the difference comes out exactly as measured. If the "
    "true difference equals the measured one, that many seeds give a verdict in about half of the cases (a power of "
    "50 %); for 80 %, plan about twice as many. All numbers but {primary} are exploratory."
)


NO_VERDICT = f"no verdict with fewer than {SEEDS_FOR_A_VERDICT} seeds"

SOURCES = {
    "seeds": "between seeds", "fine_tuning": "between fine-tunings of one backbone", "interaction": "seed x image",
    "images": "images", "method_images": "method x image",
}  # fmt: skip


def describe_variances(comparison: Mapping[str, Any]) -> list[str]:
    """Say how much each source contributes to the primary number, one sentence per protocol.

    It is the number of one run, or of one seed where all seeds have several fine-tunings.
    """
    several = len(comparison["variances"]) > 1
    found = []
    for entry in comparison["variances"]:
        parts = [f"{said} {format_deviation(entry[name])}" for name, said in SOURCES.items() if entry[name] is not None]
        under = f" under {entry['protocol']}" if several else ""
        found.append(f"Standard deviations of {entry['metric']} {unit_of(entry)}{under}: {', '.join(parts)}.")
    return found


def unit_of(entry: Mapping[str, Any]) -> str:
    """Return what the components of an entry of "variances" are about."""
    averaged = entry["seeds"] is not None and entry["fine_tuning"] is not None
    return "of one seed, the mean of its fine-tunings," if averaged else "of one run"


def format_deviation(variance: float) -> str:
    """Format a standard deviation; estimated variances are cut at 0, which does not mean that there is none."""
    return f"{variance**0.5:.4f}" if variance > 0 else "too small to measure"


def judged_protocols(comparison: Mapping[str, Any]) -> list[str | None]:
    """Return the protocols whose methods have verdicts."""
    judged = [method["protocol"] for method in comparison["methods"] if method["verdict"]]
    return list(dict.fromkeys(judged))


def verdict_lines(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Return [name, mean, difference with interval, verdict] of every method under a protocol with verdicts."""
    return [line for protocol in judged_protocols(comparison) for line in _lines(comparison, protocol)]


def _lines(comparison: Mapping[str, Any], protocol: str | None) -> list[list[str]]:
    methods = [method for method in comparison["methods"] if method["protocol"] == protocol]
    several = f", {protocol}" if len(judged_protocols(comparison)) > 1 else ""
    return [_line(method, several, comparison) for method in methods]


def _line(method: Mapping[str, Any], several: str, comparison: Mapping[str, Any]) -> list[str]:
    primary = comparison["primary"]
    mean = method["metrics"][primary]
    value = format_number(mean["mean"]) + (f" ± {format_number(mean['deviation'])}" if mean["deviation"] else "")
    name = f"{method['label']} ({method['made_of']}{several})"
    return [name, value, interval_of(method, comparison), verdict_of(method)]


def interval_of(method: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Return the difference of the primary number to the baseline, with its interval over seeds and images."""
    difference = (method["differences"] or {}).get(comparison["primary"])
    return format_difference(difference) if difference else MISSING


def verdict_of(method: Mapping[str, Any]) -> str:
    """Return the verdict in words, "baseline" for the baseline of other methods."""
    if method["label"] == method["baseline"] and method["verdict"] is None:
        return "baseline"
    return verdict_text(method)


def verdict_text(method: Mapping[str, Any]) -> str:
    """Return the verdict in words: "not distinguishable from CE; 9 seeds would settle it"; "" for none."""
    found, baseline = method["verdict"], method["baseline"]
    if found is None or baseline is None:
        return ""
    if found["word"] == IDENTICAL:
        return f"identical: the detections are those of {baseline}"
    if not found["word"]:
        return NO_VERDICT
    if found["word"] == UNDECIDED:
        alone = excludes_zero(method["differences"][found["metric"]])
        corrected = " after the correction for several methods" * alone
        return f"{UNDECIDED} from {baseline}{corrected}; {_needs(found['needs'])}"
    if found["p"] < found["level"]:
        return f"{found['word']} than {baseline}"
    return f"{found['word']} to {baseline} within {found['margin']:g}"


def _needs(needs: Mapping[str, Any] | None) -> str:
    if needs is None:
        return f"a difference this small would take more than {MOST_SEEDS} seeds each"
    images = f" on {needs['images']:.1f} times as many images" if needs["images"] > 1 else ""
    hours = f" (another {hours_text(needs['hours'])})" if needs["hours"] is not None else ""
    return f"about {needs['seeds']} seeds each{images}{hours} would settle it"


def hours_text(hours: float) -> str:
    """Format hours of runs: "40 min of runs", "2.5 h of runs"."""
    if hours < 1:
        return f"{max(60 * hours, 1):.0f} min of runs"
    return f"{hours:.1f} h of runs" if hours < 10 else f"{hours:,.0f} h of runs"
