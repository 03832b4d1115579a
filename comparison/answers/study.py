"""The published synthetic study: the numbers.json of tools/gaussian_study.py, and what it says of a claim."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError, suggestion
from backbones.core.files import load_json, save_text
from comparison.answers.claims import AS_CLAIMED, OPEN, OPPOSITE, UNTESTED, Claim, Outcome
from comparison.tables.formats import format_difference, format_number
from comparison.tables.markdown import markdown_table

STUDY, NUMBERS = "gaussian_study", "numbers.json"
_ANSWERS = {"appeared": AS_CLAIMED, "opposite": OPPOSITE, "not decided": OPEN}
_ERRORS = 2  # standard errors from zero from which tools/gaussian_study.py decides a direction


def publish_study(folder: Path, output_dir: Path) -> None:
    """Copy the numbers of a study to `folder`, without the name of its own folder, which is of one machine.

    Raises:
        InputError: there are none, or they are of a preview.
    """
    source = output_dir / NUMBERS
    if not source.is_file():
        raise InputError(f"{source} does not exist; run tools/gaussian_study.py --output-dir {output_dir}")
    if "--quick" in load_json(source)["environment"]["command"]:
        raise InputError(f"{source} is a preview (--quick), whose numbers mean nothing")
    folder.mkdir(parents=True, exist_ok=True)
    text = source.read_text(encoding="utf-8").replace(str(output_dir.resolve()), "OUTPUT_DIR")
    save_text(folder / NUMBERS, text)


def load_study(folder: Path) -> dict[str, Any] | None:
    """Return the published numbers, None if there are none."""
    return load_json(folder / NUMBERS) if (folder / NUMBERS).is_file() else None


def judge_by_study(claim: Claim, numbers: Mapping[str, Any] | None) -> Outcome:
    """Return what the study says of a claim that names one of its directions.

    Raises:
        InputError: the study has no such direction.
    """
    if numbers is None:
        return Outcome(UNTESTED)
    directions = {one["statement"]: one for one in numbers["directions"]}
    if claim.study not in directions:
        raise InputError(f"{STUDY} has no direction '{claim.study}'{suggestion(claim.study, directions)}")
    found = directions[claim.study]
    return Outcome(_ANSWERS[found["verdict"]], found["verdict"], _difference(found))


def _difference(direction: Mapping[str, Any]) -> dict[str, float | None]:
    value, error = direction["difference"], direction["se"]
    low, high = (None, None) if error is None else (value - _ERRORS * error, value + _ERRORS * error)
    return {"value": value, "low": low, "high": high}


def study_blocks(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Return the paragraphs of docs/results.md on the study."""
    count = Counter(one["verdict"] for one in numbers["directions"])
    yield (
        f"The paper of ILS compares its methods on a synthetic task. We repeated its study with "
        f"{numbers['replicates']} replicates (`tools/gaussian_study.py`) and looked for {len(numbers['directions'])} "
        f"published differences: {count['appeared']} appeared, {count['opposite']} are opposite, "
        f"{count['not decided']} could not be decided. A direction is decided if the difference, paired over the "
        f"replicates, is at least {_ERRORS} standard errors from zero, which one in twenty is by chance."
    )
    lines = [
        [
            one["statement"],
            one["verdict"],
            format_difference(_difference(one)),
            format_number(one["published"], signed=True),
        ]
        for one in numbers["directions"]
    ]
    head, line, *rest = markdown_table(["published direction", "here", "difference", "published"], lines).splitlines()
    yield "\n".join([head, line.replace("---:", "---", 2), *rest])
