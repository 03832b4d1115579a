"""The answer at the head of README.md, and its figure: the suite ANSWERS in a few lines."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backbones.core.errors import InputError
from comparison.answers.claims import Claim, Outcome
from comparison.answers.counts import count_sentence, held_sentence
from comparison.metrics import BY_NAME
from comparison.page.export import standalone
from comparison.page.figures import COLOURS, forest_panel
from comparison.tables.formats import MISSING, format_difference, format_number
from comparison.tables.markdown import markdown_table
from comparison.tables.verdicts import NO_VERDICT, verdict_text
from comparison.verdicts.words import BETTER, SEEDS_FOR_A_VERDICT, UNDECIDED

README, ANSWERS, FIGURE = "README.md", "answers_scenes", "docs/answer.svg"
BEGIN, END = "<!-- the answer, written by tools/publish.py -->", "<!-- end of the answer -->"
COLUMNS = 120
RANDOM = "random"
_PAPER = '<rect width="100%" height="100%" fill="#ffffff"/>'  # readers of README may have a dark page


@dataclass(frozen=True)
class Beside:
    """What stands beside the answer.

    others: beginning of a line -> the comparison of another suite, None if it is not published.
    note: sentences on the scale of the runs; spread: a sentence on what makes them vary.
    """

    others: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    note: str = ""
    spread: str = ""


def answer_text(
    readme: str, comparison: Mapping[str, Any] | None, judged: Sequence[tuple[Claim, Outcome]], beside: Beside
) -> str:
    """Return the text of README.md with the answer of a comparison between its two marks; None: not published.

    Raises:
        InputError: a mark is missing.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise InputError(f"{README}: must contain '{BEGIN}' and '{END}' once; write them where the answer belongs")
    before, rest = readme.split(BEGIN)
    lines = _lines(comparison, judged, beside) if comparison else ["No results are published yet."]
    wrapped = [line if line.startswith(("![", "| ")) else _wrap(line) for line in lines]
    return before + "\n\n".join([BEGIN, _join(wrapped), END]) + rest.split(END)[1]


def _wrap(line: str) -> str:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _join(blocks: Sequence[str]) -> str:
    """Join paragraphs by an empty line, the points of a list by none."""
    text = ""
    for before, block in zip(["", *blocks], blocks, strict=False):
        text += ("\n" if before.startswith("- ") and block.startswith("- ") else "\n\n" if text else "") + block
    return text


def answer_figure(comparison: Mapping[str, Any] | None) -> str:
    """Return the differences of the methods with a verdict to the baseline, with intervals, as SVG; "" for none."""
    if comparison is None:
        return ""
    methods = [one for one in _compared(comparison) if one["method"] != RANDOM and _word(one)]
    if not methods:
        return ""
    names = [{"name": _named(one), "label": _named(one)} for one in methods]
    rows = [
        {**name, "method": one["method"], "difference_to_baseline": one["differences"]}
        for name, one in zip(names, methods, strict=True)
    ]
    colours = {row["name"]: COLOURS[n % len(COLOURS)] for n, row in enumerate(rows)}
    panel = forest_panel(rows, comparison["primary"], colours)
    drawing = standalone(panel.replace("row minus baseline", f"minus that of {comparison['baseline']}"))
    return drawing.replace("</style>", f"</style>{_PAPER}", 1) + "\n"


def _compared(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the methods with a difference to the baseline."""
    return [one for one in comparison["methods"] if (one["differences"] or {}).get(comparison["primary"])]


def _word(method: Mapping[str, Any]) -> str:
    """Return the word of the verdict, "" with too few seeds."""
    return (method["verdict"] or {}).get("word") or ""


def _named(method: Mapping[str, Any]) -> str:
    return f"{method['label']} ({method['made_of']})"


def _lines(comparison: Mapping[str, Any], judged: Sequence[tuple[Claim, Outcome]], beside: Beside) -> Iterator[str]:
    methods = _compared(comparison)
    known = [one for one in methods if one["method"] != RANDOM and _word(one)]
    baseline, primary = comparison["baseline"], comparison["primary"]
    yield _headline(known, baseline)
    if known:
        yield f"![Differences in {primary} to {baseline}, with 95 % intervals]({FIGURE})"
    yield _table(methods, comparison)
    yield " ".join(filter(None, [_explanation(known, comparison), beside.note, _control(methods), beside.spread]))
    yield from (f"- {said}{_in_short(other)}." for said, other in beside.others.items())
    yield f"- {count_sentence(judged)} {held_sentence(judged)} See [each claim with its limits](docs/claims.md)."
    yield (
        "All numbers, commands and hours are in [docs/results.md](docs/results.md), which links to a page with all "
        "diagnoses. For an answer on your own images, follow [docs/own_data.md](docs/own_data.md), with at least three "
        f"seeds{'; the numbers above suggest that you need more' if any(map(_is_open, known)) else ''}."
    )


def _table(methods: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]) -> str:
    """Return the table of methods, no pretraining last; too few seeds have no interval, which would be too short."""
    baseline, primary = comparison["baseline"], comparison["primary"]
    made_of = {one["made_of"] for one in methods}
    lines = []
    for one in sorted(methods, key=lambda one: one["method"] == RANDOM):
        name = "no pretraining" if one["method"] == RANDOM else one["label"]
        shown = format_difference(one["differences"][primary] if _word(one) else _value(one, primary))
        verdict, _, needs = verdict_text(one).partition("; ")
        needs = needs.removeprefix("a difference this small would take ").removesuffix(" would settle it")
        name += "" if len(made_of) == 1 else f" ({one['made_of']})"
        lines.append([name, shown, verdict.replace(f" from {baseline}", "").replace(f" than {baseline}", ""), needs])
    each = f" ({made_of.pop()} each)" if len(made_of) == 1 else ""
    head = [f"pretrained with{each}", f"{primary} minus that of {baseline}", "verdict", f"settled by ({baseline} too)"]
    return markdown_table(head, lines).replace("---:", "---")


def _explanation(known: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]) -> str:
    baseline, primary = comparison["baseline"], comparison["primary"]
    values = [row["metrics"][primary] for row in comparison["rows"] if row["label"] == baseline]
    return (
        f"Hard labels ({baseline}) reach {_mean(values)} {primary}. Brackets are 95 % intervals over seeds and images."
        f"{_resolution(known, primary)}"
    )


def _control(methods: Sequence[Mapping[str, Any]]) -> str:
    """Say it where the runs do not even tell pretraining from none."""
    if any(one["method"] == RANDOM and _is_open(one) for one in methods):
        return "Even no pretraining is not told from hard labels yet, so these runs cannot rank what lies closer."
    return ""


def spread_sentence(comparison: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> str:
    """Say how much of the spread is the fine-tuning's, where another suite repeated it; "" if that is unknown."""
    for entry in comparison["variances"]:
        for found in (one for other in others for one in other["variances"]):
            tuning = found["fine_tuning"]
            same = all(found[key] == entry[key] for key in ("protocol", "metric"))
            if same and tuning is not None and entry["fine_tuning"] is None and entry["seeds"] is not None:
                most = "Most of the spread" if 2 * tuning > entry["seeds"] else "Less than half of the spread"
                return (
                    f"{most} comes from the fine-tuning: its standard deviation is {format_number(tuning**0.5)} on one "
                    f"backbone, and {format_number(entry['seeds'] ** 0.5)} between seeds, which are fine-tuned once."
                )
    return ""


def _in_short(comparison: Mapping[str, Any] | None) -> str:
    """Return the verdicts of another suite in a line; too few seeds have none."""
    if comparison is None:
        return ": not run yet"
    primary, baseline, methods = comparison["primary"], comparison["baseline"], _compared(comparison)
    shared = f"{baseline.partition(', ')[0]}, "  # the backbone, where all methods have the same one
    cut = shared if all(one["label"].startswith(shared) for one in methods) else ""
    parts = []
    for one in methods:
        shown = format_difference(one["differences"][primary] if _word(one) else _value(one, primary))
        parts.append(f"{one['label'].removeprefix(cut)} {_word(one) or NO_VERDICT} ({shown})")
    only = "" if any(one["differences"][primary]["over_images"] for one in methods) else ", intervals over seeds only"
    return f", {BY_NAME[primary].title} against {baseline.removeprefix(cut)}{only}: {'; '.join(parts)}"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return format_number(sum(known) / len(known)) if known else MISSING


def _resolution(known: Sequence[Mapping[str, Any]], primary: str) -> str:
    """Say how far the intervals of undecided methods reach, and what would settle them; "" if all are decided."""
    found = [one["differences"][primary] for one in known if _is_open(one)]
    if not found:
        return ""
    reach = sum((one["high"] - one["low"]) / 2 for one in found) / len(found)
    return (
        f" Those of undecided methods extend ±{format_number(reach)} on average. The seeds that settle a difference "
        "are computed from the measured one, which is uncertain itself, and do so in about half of the cases if it is "
        "the true one; hours are of one core."
    )


def _is_open(method: Mapping[str, Any]) -> bool:
    return _word(method) == UNDECIDED


def _value(method: Mapping[str, Any], primary: str) -> dict[str, Any]:
    """Return the difference without its interval, which would leave out the spread of seeds."""
    return method["differences"][primary] | {"low": None, "high": None}


def _headline(known: Sequence[Mapping[str, Any]], baseline: str) -> str:
    if not known:
        return f"**Not known yet: no method has {SEEDS_FOR_A_VERDICT} published seeds.**"
    better = [one["label"] for one in known if one["verdict"]["word"] == BETTER]
    if better:
        return f"**Yes, with {', '.join(better)}: the detector is better than with hard labels ({baseline}).**"
    unknown, decided = (
        ", ".join(one["label"] for one in known if (one["verdict"]["word"] == UNDECIDED) == undecided)
        for undecided in (True, False)
    )
    if not unknown:
        return f"**Not at our scale: none of {decided} is better than hard labels ({baseline}).**"
    said = f"Not known yet: {unknown} cannot be distinguished from hard labels on the drawn images measured here"
    advice = f"Hard labels ({baseline}) stay the cheap default: no other method has shown a better detector here."
    return f"**{said}{f'; not better: {decided}' if decided else ''}. {advice}**"
