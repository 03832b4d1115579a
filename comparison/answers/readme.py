"""The answer at the head of README.md, and its figure: the suite ANSWERS in a few lines."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backbones.core.errors import InputError
from comparison.answers.claims import AS_CLAIMED, FEW_SEEDS, OPEN, OPPOSITE, UNTESTED, Claim, Outcome
from comparison.page.export import standalone
from comparison.page.figures import COLOURS, forest_panel
from comparison.tables.formats import MISSING, excludes_zero, format_difference, format_number
from comparison.tables.verdicts import verdict_text
from comparison.verdicts.words import BETTER, SEEDS_FOR_A_VERDICT, UNDECIDED

README, ANSWERS, FIGURE = "README.md", "answers_scenes", "docs/answer.svg"
BEGIN, END = "<!-- the answer, written by tools/publish.py -->", "<!-- end of the answer -->"
COLUMNS = 120
RANDOM = "random"
_PAPER = '<rect width="100%" height="100%" fill="#ffffff"/>'  # readers of README may have a dark page


def answer_text(readme: str, comparison: Mapping[str, Any] | None, judged: Sequence[tuple[Claim, Outcome]]) -> str:
    """Return the text of README.md with the answer of a comparison between its two marks; None: not published.

    Raises:
        InputError: a mark is missing.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise InputError(f"{README}: must contain '{BEGIN}' and '{END}' once; write them where the answer belongs")
    before, rest = readme.split(BEGIN)
    lines = _lines(comparison, judged) if comparison else ["No results are published yet."]
    wrapped = [line if line.startswith("![") else _wrap(line) for line in lines]
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


def _lines(comparison: Mapping[str, Any], judged: Sequence[tuple[Claim, Outcome]]) -> Iterator[str]:
    methods = _compared(comparison)
    pretrained = [one for one in methods if one["method"] != RANDOM]
    baseline, primary = comparison["baseline"], comparison["primary"]
    known = [one for one in pretrained if _word(one)]
    yield _headline(known, baseline)
    values = [row["metrics"][primary] for row in comparison["rows"] if row["label"] == baseline]
    yield (
        f"- Measured: {primary} of a Faster R-CNN on images that this project draws, with backbones that are "
        f"pretrained for minutes; hard labels ({baseline}) reach {_mean(values)}. "
        "Brackets are 95 % intervals over seeds and images; “(all)” smooths over all classes, not the wrong ones alone."
        f"{_resolution(known, primary)}"
    )
    for one in known:
        yield f"- {_named(one)}: {verdict_text(one)}; {_difference(one, primary)}."
    if waiting := [one for one in pretrained if one not in known]:
        said = ", ".join(map(_named, waiting))  # without an interval, which would leave out the spread of seeds
        yield f"- No verdict yet, with fewer than {SEEDS_FOR_A_VERDICT} seeds: {said}."
    for one in methods:
        if one["method"] == RANDOM:
            said = f"; {verdict_text(one)}" if _word(one) else ""
            if _is_open(one) and excludes_zero(one["differences"][primary]):
                said += " (0 is outside of the interval, but the verdict is corrected for the number of methods)"
            numbers = format_difference(one["differences"][primary] if said else _value(one, primary))
            yield f"- For scale, no pretraining ({one['made_of']}): {numbers} {primary} against {baseline}{said}."
    yield f"- {count_sentence(judged)} {_held_sentence(judged)}: [each claim with its limits](docs/claims.md)."
    if known:
        yield f"![Differences in {primary} to {baseline}, with 95 % intervals]({FIGURE})"
    yield (
        "All numbers, commands and hours are in [docs/results.md](docs/results.md). For an answer on your own images, "
        "follow [docs/own_data.md](docs/own_data.md), with at least three seeds"
        f"{' and, to judge by the numbers above, rather more' if any(map(_is_open, known)) else ''}."
    )


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
        f" Undecided ones reach ±{format_number(reach)} in the mean. The seeds that “would settle it” do "
        "so in half of the cases, if the true difference is the measured one; hours are of one core."
    )


def _is_open(method: Mapping[str, Any]) -> bool:
    return _word(method) == UNDECIDED


def _value(method: Mapping[str, Any], primary: str) -> dict[str, Any]:
    """Return the difference without its interval, which would leave out the spread of seeds."""
    return method["differences"][primary] | {"low": None, "high": None}


def _difference(method: Mapping[str, Any], primary: str) -> str:
    return f"{format_difference(method['differences'][primary])} {primary}"


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
    said = (
        f"Not known yet, for or against: {unknown} cannot be distinguished from hard labels ({baseline}) with the seeds"
    )
    return f"**{said} that are published{f'; not better: {decided}' if decided else ''}.**"


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
        f"{len(held) - study - exploratory} are verdicts on the number that was named before the runs",
        f"{exploratory} are on exploratory numbers, such as confidence and localisation, not corrected for the number "
        "of claims",
        *([f"{study} of the synthetic study"] if study else []),
    ]
    return f"Of those as claimed, {', '.join(parts)}"
