"""The answer at the head of README.md, and its figure: the suite ANSWERS in a few lines."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backbones.core.errors import InputError
from comparison.answers.claims import AS_CLAIMED, FEW_SEEDS, OPEN, OPPOSITE, UNTESTED, Claim, Outcome
from comparison.metrics import BY_NAME
from comparison.page.export import standalone
from comparison.page.figures import COLOURS, forest_panel
from comparison.tables.formats import MISSING, excludes_zero, format_difference, format_number
from comparison.tables.markdown import markdown_table
from comparison.tables.verdicts import NO_VERDICT, verdict_text
from comparison.verdicts.words import BETTER, SEEDS_FOR_A_VERDICT, UNDECIDED

README, ANSWERS, FIGURE = "README.md", "answers_scenes", "docs/answer.svg"
BEGIN, END = "<!-- the answer, written by tools/publish.py -->", "<!-- end of the answer -->"
COLUMNS = 120
RANDOM = "random"
_PAPER = '<rect width="100%" height="100%" fill="#ffffff"/>'  # readers of README may have a dark page


def answer_text(
    readme: str, comparison: Mapping[str, Any] | None, judged: Sequence[tuple[Claim, Outcome]],
    others: Mapping[str, Mapping[str, Any]],
) -> str:  # fmt: skip
    """Return the text of README.md with the answer of a comparison between its two marks; None: not published.

    others: beginning of a line -> the comparison of another suite.

    Raises:
        InputError: a mark is missing.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise InputError(f"{README}: must contain '{BEGIN}' and '{END}' once; write them where the answer belongs")
    before, rest = readme.split(BEGIN)
    lines = _lines(comparison, judged, others) if comparison else ["No results are published yet."]
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


def _lines(
    comparison: Mapping[str, Any], judged: Sequence[tuple[Claim, Outcome]], others: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    methods = _compared(comparison)
    known = [one for one in methods if one["method"] != RANDOM and _word(one)]
    baseline, primary = comparison["baseline"], comparison["primary"]
    yield _headline(known, baseline)
    if known:
        yield f"![Differences in {primary} to {baseline}, with 95 % intervals]({FIGURE})"
    yield _table(methods, comparison)
    yield _explanation(known, comparison)
    yield from (f"- {said}, {_in_short(other)}." for said, other in others.items() if _compared(other))
    yield f"- {count_sentence(judged)} {_held_sentence(judged)} See [each claim with its limits](docs/claims.md)."
    yield (
        "All numbers, commands and hours are in [docs/results.md](docs/results.md), which links to a page with all "
        "diagnoses. For an answer on your own images, "
        "follow [docs/own_data.md](docs/own_data.md), with at least three seeds"
        f"{'; the numbers above suggest that you need more' if any(map(_is_open, known)) else ''}."
    )


def _table(methods: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]) -> str:
    """Return the table of methods, no pretraining last; too few seeds have no interval, which would be too short."""
    baseline, primary = comparison["baseline"], comparison["primary"]
    lines = []
    for one in sorted(methods, key=lambda one: one["method"] == RANDOM):
        name = f"no pretraining ({one['made_of']})" if one["method"] == RANDOM else _named(one)
        shown = format_difference(one["differences"][primary] if _word(one) else _value(one, primary))
        verdict, _, needs = verdict_text(one).partition("; ")
        if _is_open(one) and excludes_zero(one["differences"][primary]):
            verdict += " after the correction for several methods"
        needs = needs.removeprefix("a difference this small would take ").removesuffix(" would settle it")
        lines.append([name, shown, verdict, needs])
    head = ["pretrained with", f"{primary} minus that of {baseline}", "verdict", "would be settled by"]
    return markdown_table(head, lines).replace("---:", "---")


def _explanation(known: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]) -> str:
    baseline, primary = comparison["baseline"], comparison["primary"]
    values = [row["metrics"][primary] for row in comparison["rows"] if row["label"] == baseline]
    return (
        f"{primary} of a Faster R-CNN on images that this project draws, with backbones that are pretrained for "
        f"minutes; hard labels ({baseline}) reach {_mean(values)}. “(all)” smooths over all classes, not only wrong "
        f"ones. Brackets are 95 % intervals over seeds and images.{_resolution(known, primary)}"
    )


def _in_short(comparison: Mapping[str, Any]) -> str:
    """Return the verdicts of another suite in a line; too few seeds have none."""
    primary = comparison["primary"]
    parts = []
    for one in _compared(comparison):
        shown = format_difference(one["differences"][primary] if _word(one) else _value(one, primary))
        parts.append(f"{one['label']} {_word(one) or NO_VERDICT} ({shown})")
    return f"{BY_NAME[primary].title} against {comparison['baseline']}: {'; '.join(parts)}"


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
        f" Those of undecided methods reach ±{format_number(reach)} on average. What would settle a difference does so "
        "in about half of the cases if the true difference equals the measured one; hours are of one core."
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
    advice = f"Pretrain with hard labels ({baseline}) until then: no smoothing has shown a better detector."
    if not unknown:
        return f"**Not at our scale: none of {decided} is better than hard labels ({baseline}).**"
    said = f"Not known yet: {unknown} cannot be distinguished from hard labels with the seeds published so far"
    return f"**{said}{f'; not better: {decided}' if decided else ''}. {advice}**"


def count_sentence(judged: Sequence[tuple[Claim, Outcome]]) -> str:
    """Say how many claims of the papers have results, and how they came out; then those of our own questions."""
    outcomes: dict[bool, list[Outcome]] = {False: [], True: []}
    for claim, outcome in judged:
        outcomes[claim.own].append(outcome)
    said = f"Of {len(outcomes[False])} claims of the papers, {_counts(outcomes[False], 'as claimed')}."
    if outcomes[True]:
        asked = "question" if len(outcomes[True]) == 1 else "questions"
        said += f" Of {len(outcomes[True])} {asked} of our own, {_counts(outcomes[True], 'as expected')}."
    return said


def _counts(outcomes: Sequence[Outcome], said: str) -> str:
    count = Counter(outcome.answer for outcome in outcomes)
    few = sum(outcome.word == FEW_SEEDS for outcome in outcomes)
    return (
        f"{len(outcomes) - count[UNTESTED]} have results: {count[AS_CLAIMED]} came out {said}, {count[OPPOSITE]} "
        f"opposite, {count[OPEN]} not decided" + (f" ({few} with {FEW_SEEDS})" if few else "")
    )


def _held_sentence(judged: Sequence[tuple[Claim, Outcome]]) -> str:
    """Say on what kinds of numbers the claims came out as claimed; not of our own questions."""
    held = [(claim, outcome) for claim, outcome in judged if outcome.answer == AS_CLAIMED and not claim.own]
    study = sum(bool(claim.study) for claim, _ in held)
    exploratory = sum(outcome.exploratory for claim, outcome in held if not claim.study)
    parts = [
        f"{len(held) - study - exploratory} rest on the number that was named before the runs",
        f"{exploratory} on exploratory ones, such as confidence and localisation, not corrected for the number of "
        "claims",
        *([f"{study} on the synthetic study"] if study else []),
    ]
    return f"Of the claims that came out as claimed, {', '.join(parts)}."
