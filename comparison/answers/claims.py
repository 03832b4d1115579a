"""The claims of the papers, and what the published results say of each.

docs/claims.yaml:
    suites     NAME of a file in configs/suites -> the question that it answers
    readme     NAME of a further suite in README -> how its line begins
    note       sentences of README on the scale of the runs
    papers     short name -> full title
    claims     a list of
        paper, place   short name, and table or section
        own            true: a question of ours about the paper, which does not claim it
        claim          one sentence, with the published numbers
        test           {suite, row, against, metric, expect}: the difference of two rows in one number; expect: higher
                       or lower.  `against` is the usual baseline unless stated.
        limits         one sentence: what our scale cannot say
        study          instead of test: a direction of the synthetic study, as its numbers.json states it
        untested       instead of test and limits: the reason, and the command that tests it where there is one

The number that a suite names before its runs has a verdict; all others are exploratory, and are called higher or lower
where their interval excludes 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.core.checks import check_choice
from backbones.core.config import load_yaml
from backbones.core.errors import InputError, suggestion
from comparison.metrics import BY_NAME
from comparison.verdicts.words import BETTER, IDENTICAL, SEEDS_FOR_A_VERDICT, UNDECIDED, WORSE

HIGHER, LOWER = "higher", "lower"
FEW_SEEDS = f"fewer than {SEEDS_FOR_A_VERDICT} seeds"
AS_CLAIMED, OPPOSITE, OPEN, UNTESTED = "as claimed", "opposite", "not decided", "not tested"
_KINDS = ("test", "study", "untested")
_KEYS = {"paper", "place", "own", "claim", "limits", *_KINDS}
_TEST_KEYS = {"suite", "row", "against", "metric", "expect"}


@dataclass(frozen=True)
class Trial:
    """The difference of two rows of a suite in one number."""

    suite: str
    row: str
    metric: str
    expect: str
    against: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, with a test, a direction of the synthetic study, or the reason why there is neither.

    own: whether the question is ours, and the paper does not claim it.
    """

    paper: str
    place: str
    claim: str
    test: Trial | None
    limits: str = ""
    untested: str = ""
    study: str = ""
    own: bool = False

    @property
    def origin(self) -> str:
        """Return the place in the paper, and whether the question is ours."""
        return f"{self.place}, own question" if self.own else self.place


@dataclass(frozen=True)
class Outcome:
    """What the results say of a claim.

    word: the verdict, or higher, lower, not distinguishable, FEW_SEEDS; of the study, that on its direction.
    answer: as claimed, opposite, not decided, not tested.
    difference: with its interval, as comparison.json states it; None if not tested.
    exploratory: whether the number was not named before the runs.
    """

    answer: str
    word: str = ""
    difference: Mapping[str, Any] | None = None
    exploratory: bool = False


@dataclass(frozen=True)
class Questions:
    """The content of docs/claims.yaml."""

    suites: Mapping[str, str]
    papers: Mapping[str, str]
    claims: Sequence[Claim]
    readme: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def baselines(self, suite: str) -> list[str]:
        """Return the rows that the claims compare with in a suite; "" is the usual baseline and comes first."""
        named = (one.test.against for one in self.claims if one.test and one.test.suite == suite)
        return list(dict.fromkeys(["", *named]))


def read_claims(path: Path) -> Questions:
    """Read docs/claims.yaml.

    Raises:
        InputError: an unknown key, paper, suite, metric or expectation, or a claim without test and reason.
    """
    tree = load_yaml(path)
    required = ("suites", "papers", "claims")
    _check_keys(tree, {*required, "readme", "note"}, f"{path}", required=required)
    for name in tree.get("readme") or {}:
        check_choice("suite", name, tree["suites"], f"{path}: readme")
    claims = [_read_claim(one, f"{path}: claim {number}", tree) for number, one in enumerate(tree["claims"], start=1)]
    return Questions(tree["suites"], tree["papers"], claims, tree.get("readme") or {}, tree.get("note") or "")


def _read_claim(tree: Mapping[str, Any], where: str, whole: Mapping[str, Any]) -> Claim:
    _check_keys(tree, _KEYS, where, required=("paper", "place", "claim"))
    if sum(kind in tree for kind in _KINDS) != 1:
        raise InputError(f"{where}: give `test` or `study`, or `untested` with the reason why there is neither")
    check_choice("paper", tree["paper"], whole["papers"], where)
    told, own = (tree["paper"], tree["place"], tree["claim"]), tree.get("own", False)
    if not isinstance(own, bool):
        raise InputError(f"{where}: `own` is {own!r}; it must be true or false")
    if "untested" in tree:
        return Claim(*told, None, untested=tree["untested"], own=own)
    if not tree.get("limits"):
        raise InputError(f"{where}: `limits` is missing: say what our scale cannot say")
    if "study" in tree:
        return Claim(*told, None, limits=tree["limits"], study=tree["study"], own=own)
    test = tree["test"]
    _check_keys(test, _TEST_KEYS, f"{where}: test", required=("suite", "row", "metric", "expect"))
    for key, choices in (("suite", whole["suites"]), ("metric", BY_NAME), ("expect", (HIGHER, LOWER))):
        check_choice(key, test[key], choices, f"{where}: test")
    return Claim(*told, Trial(**test), limits=tree["limits"], own=own)


def _check_keys(tree: Any, known: set[str], where: str, required: Sequence[str]) -> None:
    if not isinstance(tree, Mapping):
        raise InputError(f"{where}: this is not a mapping; give {', '.join(required)}")
    for key in tree:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'{suggestion(key, known)}")
    for key in required:
        if not tree.get(key):
            raise InputError(f"{where}: `{key}` is missing")


def judge_claim(claim: Claim, comparison: Mapping[str, Any] | None) -> Outcome:
    """Return what a comparison, made with the claim's baseline, says of the claim.

    Nothing is decided with fewer seeds of the number than a verdict needs, on either side.

    Raises:
        InputError: the comparison lacks the row, or its number.
    """
    test = claim.test
    if test is None or comparison is None:
        return Outcome(UNTESTED)
    if not comparison["methods"]:  # one seed
        return Outcome(OPEN, FEW_SEEDS)
    found = [method for method in comparison["methods"] if method["label"] == test.row]
    if not found:
        labels = [method["label"] for method in comparison["methods"]]
        raise InputError(f"{test.suite} has no row '{test.row}'{suggestion(test.row, labels)}")
    difference = (found[0]["differences"] or {}).get(test.metric)
    if difference is None:
        raise InputError(f"{test.suite}: {test.row} has no interval for {test.metric}")
    verdict = found[0]["verdict"]
    exploratory = test.metric != comparison["primary"]
    if difference["low"] is None:
        return Outcome(OPEN, IDENTICAL, difference, exploratory)
    sides = [method for method in comparison["methods"] if method["label"] in (test.row, found[0]["baseline"])]
    seeds = min(method["metrics"][test.metric]["count"] for method in sides)
    if not difference["over_seeds"] or seeds < SEEDS_FOR_A_VERDICT:
        return Outcome(OPEN, FEW_SEEDS)  # an interval would leave out the spread of seeds
    word = _direction(difference) if exploratory or not verdict else verdict["word"]
    return Outcome(_answer(word, test), word, difference, exploratory)


def _direction(difference: Mapping[str, Any]) -> str:
    if difference["low"] > 0:
        return HIGHER
    return LOWER if difference["high"] < 0 else UNDECIDED


def _answer(word: str, test: Trial) -> str:
    gain = BY_NAME[test.metric].better or 1
    named = {BETTER: HIGHER if gain > 0 else LOWER, WORSE: LOWER if gain > 0 else HIGHER}.get(word, word)
    if named not in (HIGHER, LOWER):
        return OPEN
    return AS_CLAIMED if named == test.expect else OPPOSITE
