"""The page's sections on errors: TIDE, curves, calibration, object share, classes and confusions, per protocol."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from comparison.page.answers import FEW_OBJECTS, Cell
from comparison.page.curves import Curve, curve_panel
from comparison.page.figures import Figure
from comparison.tables.formats import MISSING, describe_cover, format_difference, format_number

ERRORS = {
    "Cls": "the class is wrong, the box is right", "Loc": "the class is right, the box is not (IoU 0.1 to 0.5)",
    "Both": "class and box are wrong", "Dupe": "the object has a better detection already",
    "Bkg": "nothing is there", "Miss": "the object has no detection", "FP": "all false positives",
    "FN": "all missed objects",
}  # fmt: skip
SIZES = ("small", "medium", "large")
CONFUSIONS = 20  # shown
RECALLS = (10, 30, 50, 70, 90)  # of the table of a curve, in percent


class Table(NamedTuple):
    """A table with differences: columns are (title, meaning); lines are (name, note, colour or "", cells)."""

    title: str
    first: str
    columns: list[tuple[str, str]]
    lines: list[tuple[str, str, str, list[Cell]]]


def diagnosis_section(entry: Mapping[str, Any], colours: Mapping[str, str]) -> dict[str, Any]:
    """Return tables and figures of one protocol.

    Args:
        entry: of "diagnosis" in comparison.json; colours: by label.
    """
    methods = _marked(entry["methods"])
    entry = {**entry, "methods": methods}
    kind = "differences" if any(one["differences"] for one in methods) else "values"
    covered = {one["label"]: (one["over_seeds"][kind], True) for one in methods if one[kind]}
    return {
        "protocol": entry["protocol"] or "",
        "cover": describe_cover(covered),
        "objects": sum(entry["objects_of_class"]),
        "errors": _errors(methods, "all", "all sizes", colours),
        "errors_by_size": [_errors(methods, size, size, colours) for size in SIZES],
        "calibration": _calibration(methods, colours),
        "shares": _shares(entry, colours),
        "curves": _curves(methods, colours),
        "classes": _classes(entry),
        "confusions": _confusions(entry),
        "together": _together(methods, colours),
        "figures": _figures(entry, colours),
        "settings": entry["settings"],
        "methods": len(methods),
    }


def _marked(methods: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add "marked": whether differences cover images only although another method has several seeds."""
    several = any(method["over_seeds"]["values"] for method in methods)
    return [{**method, "marked": several and not method["over_seeds"]["differences"]} for method in methods]


def _cell(
    method: Mapping[str, Any], name: str, tip: str, *, lower_is_better: bool = False, few: int | None = None
) -> Cell:
    value, low, high = method["values"].get(name, (None, None, None))
    difference = method["differences"].get(name)
    state = ""
    tip = f"{tip}: {_interval(value, low, high)}"
    if difference is not None:
        tip += f"; minus baseline {format_difference(_limits(difference) | {'over_seeds': not method['marked']})}"
        if difference[1] is not None and (difference[1] > 0 or difference[2] < 0):
            state = "better" if (difference[0] > 0) != lower_is_better else "worse"
    if few is not None and few < FEW_OBJECTS:
        state, tip = "few", f"{tip}; only {few} objects"
    signed = format_number(difference[0], signed=True) if difference is not None else ""
    return Cell(format_number(value), "", signed, state, tip, value)


def _limits(values: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip(("value", "low", "high"), values, strict=True))


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None:
        return format_number(value)
    return f"{format_number(value)} [{format_number(low)}, {format_number(high)}]"


def _has(methods: Sequence[Mapping[str, Any]], prefix: str) -> bool:
    return any(name.startswith(prefix) for method in methods for name in method["values"])


def _by_method(
    title: str, columns: Sequence[tuple[str, str]], names: Sequence[str], methods: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str], *, lower_is_better: bool,
) -> Table:  # fmt: skip
    """Return a table with a line per method and a column per number."""
    lines = []
    for method in methods:
        pairs = zip(names, columns, strict=True)
        cells = [_cell(method, name, column[0], lower_is_better=lower_is_better) for name, column in pairs]
        note = "baseline" if method["is_baseline"] else ""
        lines.append((method["label"], note, colours[method["label"]], cells))
    return Table(title, "Method", list(columns), lines)


def _errors(methods: Sequence[Mapping[str, Any]], area: str, said: str, colours: Mapping[str, str]) -> Table | None:
    if not _has(methods, f"error/{area}/"):
        return None
    names = [f"error/{area}/{kind}" for kind in ERRORS]
    title = f"AP50 that would be gained without the errors of a kind, {said}"
    return _by_method(
        title, [(f"{kind} ↓", said) for kind, said in ERRORS.items()], names, methods, colours, lower_is_better=True
    )


def _calibration(methods: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> Table | None:
    if not _has(methods, "D-ECE"):
        return None
    columns = [
        ("D-ECE ↓", "mean gap between precision and confidence"),
        ("LaECE ↓", "the same for precision times IoU, class by class"),
    ]
    title = "Calibration of the detections"
    return _by_method(title, columns, ["D-ECE", "LaECE"], methods, colours, lower_is_better=True)


def _shares(entry: Mapping[str, Any], colours: Mapping[str, str]) -> Table | None:
    methods = entry["methods"]
    if not _has(methods, "share/"):
        return None
    bins = [n for n in range(len(entry["share_edges"]) + 1) if _has(methods, f"share/{n}")]
    columns = [(f"{_share_name(entry['share_edges'], n)} ↑", "of the image") for n in bins]
    names = [f"share/{n}" for n in bins]
    title = "Recall at IoU 0.5 of all detections, by the share of the image that the object covers"
    return _by_method(title, columns, names, methods, colours, lower_is_better=False)


def _share_name(edges: Sequence[float], at: int) -> str:
    low = f"{edges[at - 1]:.1%}" if at else "0 %"
    high = f"{edges[at]:.1%}" if at < len(edges) else "100 %"
    return f"{low} to {high}".replace("%", " %").replace("  ", " ")


def _curves(methods: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> list[Table]:
    return [
        _by_method(
            f"Precision at IoU {iou}", [(f"recall {recall} % ↑", "mean over classes") for recall in RECALLS],
            [f"curve/{iou}/{recall}" for recall in RECALLS], methods, colours, lower_is_better=False,
        )
        for iou in ("0.5", "0.75")
        if _has(methods, f"curve/{iou}/")
    ]  # fmt: skip


def _classes(entry: Mapping[str, Any]) -> Table:
    """Return AP of every class and method; classes with the largest differences first."""
    methods, counts = entry["methods"], entry["objects_of_class"]

    def largest(at: int) -> float:
        found = [method["differences"].get(f"class/AP/{at}") for method in methods]
        return max((abs(one[0]) for one in found if one), default=0.0)

    order = sorted((at for at in range(len(counts)) if counts[at]), key=largest, reverse=True)
    columns = [
        (method["label"], "baseline" if method["is_baseline"] else "AP, and difference to the baseline")
        for method in methods
    ]
    lines = [
        (
            entry["classes"][at], f"{counts[at]:,} objects", "",
            [_cell(method, f"class/AP/{at}", entry["classes"][at], few=counts[at]) for method in methods],
        )
        for at in order
    ]  # fmt: skip
    return Table("AP by class ↑", "Class", columns, lines)


def _confusions(entry: Mapping[str, Any]) -> Table | None:
    """Return the most frequent confusions of two classes, as shares of the objects of the first."""
    methods, classes = entry["methods"], entry["classes"]
    names = {name for method in methods for name in method["values"] if name.startswith("confusion/")}
    pairs = [(int(row), int(column), name) for name in names for _, row, column in [name.split("/")]]
    pairs = [(row, column, name) for row, column, name in pairs if row != column and max(row, column) < len(classes)]
    if not pairs:
        return None

    def rank(pair: tuple[int, int, str]) -> tuple[float, str]:
        share = max(method["values"].get(pair[2], (0.0,))[0] or 0.0 for method in methods)
        return -share * entry["objects_of_class"][pair[0]], pair[2]

    columns = [(method["label"], "share of the objects") for method in methods]
    lines = []
    for row, column, name in sorted(pairs, key=rank)[:CONFUSIONS]:
        said, few = f"{classes[row]} taken for {classes[column]}", entry["objects_of_class"][row]
        cells = [_cell(method, name, said, lower_is_better=True, few=few) for method in methods]
        lines.append((said, f"{few:,} objects", "", cells))
    return Table("Most frequent confusions ↓", "Confusion", columns, lines)


def _together(methods: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> Table | None:
    """Return how the difference in AP changes without the most influential images, all at once, and one by one."""
    known = [method for method in methods if method["influence"]]
    if not known:
        return None
    columns = [
        ("those for the method", "the images that favour the method most"),
        ("those for the baseline", "the images that favour the baseline most"),
        ("the strongest of both", "the images of the largest influence on either side"),
    ]
    lines = []
    for method in known:
        sets = method["influence"]["together"]
        cells = [_joint(sets[name]) for name in ("for", "against", "strongest")]
        lines.append((method["label"], "", colours[method["label"]], cells))
    return Table("Change of the difference in AP without the most influential images", "Method", columns, lines)


def _joint(one: Mapping[str, Any]) -> Cell:
    """Return what leaving out several images together does, and how far that is from the sum of their influences."""
    if not one["images"] or one["influence"] is None:
        return Cell(MISSING, "", "", "", "no such images" if not one["images"] else "no object is left", None)
    value, total = -one["influence"], -one["sum"]
    shown = abs(total) >= 0.0005  # not 0.000: a share of less means nothing
    off = f", {abs(value - total) / abs(total):.0%} off".replace("%", "\N{NO-BREAK SPACE}%") if shown else ""
    summed = f"{format_number(total, signed=True)}{off}"
    images = f"{one['images']} image{'' if one['images'] == 1 else 's'}"
    tip = (
        f"Removing these {images} together moves the difference by {format_number(value, signed=True)} "
        f"(sum of their single influences {summed})"
    )
    return Cell(format_number(value, signed=True), "", f"{images}, sum {summed}", "", tip, value)


# ---- figures ------------------------------------------------------------------------------------------------------


def _figures(entry: Mapping[str, Any], colours: Mapping[str, str]) -> list[Figure]:
    methods = entry["methods"]

    def lines(x: Callable[[Mapping[str, Any], int], float | None], prefix: str, count: int) -> list[Curve]:
        found = []
        for method in methods:
            points = [(x(method, n), method["values"].get(f"{prefix}{n}", (None, None, None))) for n in range(count)]
            known = [(a, b[0]) for a, b in points if a is not None and b[0] is not None]
            band = [(a, *b[1:]) for a, b in points if a is not None and b[1] is not None]
            found.append(Curve(method["label"], colours[method["label"]], known, band, method["is_baseline"]))
        return [curve for curve in found if curve.points]

    figures = []
    for iou in ("0.5", "0.75"):
        curves = lines(lambda _, n: n / 100, f"curve/{iou}/", 101)
        if curves:
            panel = curve_panel(f"Precision and recall at IoU {iou}", "recall", "precision", curves)
            figures.append(Figure(f"precision-recall-{iou}", panel))
    curves = lines(lambda method, n: method["values"].get(f"bin/confidence/{n}", (None,))[0], "bin/precision/", 10)
    if curves:
        panel = curve_panel("Reliability of the detections", "confidence", "precision", curves, diagonal=True)
        figures.append(Figure("reliability", panel))
    return figures
