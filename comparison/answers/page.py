"""The pages of the published results: docs/results.md, docs/claims.md, and the answer in README.md with its figure."""

from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import save_text
from comparison.answers.claims import UNTESTED, Claim, Outcome, Questions, judge_claim
from comparison.answers.counts import count_sentence
from comparison.answers.readme import ANSWERS, FIGURE, README, Beside, answer_figure, answer_text, spread_sentence
from comparison.answers.results_page import results_text
from comparison.answers.store import FOLDER, load_comparison, published_suites
from comparison.answers.study import STUDY, judge_by_study, load_study
from comparison.metrics import BY_NAME
from comparison.tables.formats import format_difference
from comparison.tables.markdown import left_aligned, markdown_table

RESULTS, CLAIMS, SOURCE = "docs/results.md", "docs/claims.md", "docs/claims.yaml"
_CLAIMS_HEAD = """\
# What the papers claim, and what we measured

Written by `tools/publish.py`. Claims, tests and limits come from `docs/claims.yaml`; differences, verdicts and answers
are computed from the comparisons in `docs/results/`, never written by hand. A verdict
(*better*, *worse*, *equivalent*, *not distinguishable*) is on the number that the suite named before its runs. All
other numbers are exploratory: *higher* or *lower* means that the 95 % interval over seeds and images excludes 0. It
is not corrected for the number of claims: about one claim in twenty looks decided by chance alone. The column *answer*
is *as claimed* or *opposite* where a difference is decided, *not decided* where it is not, and *not tested* with the
reason. Our networks are small, trained for minutes on drawn images; a claim that is not seen here can hold at the
papers' scale.
"""


def pages(root: Path, questions: Questions) -> dict[str, str]:
    """Return path in the repository -> content of every page."""
    there = {name: load_comparison(root / FOLDER / name) for name in published_suites(root, questions.suites)}
    comparison = there.get(ANSWERS)
    others = {said: there.get(name) for name, said in questions.readme.items()}
    spread = spread_sentence(comparison, there.values()) if comparison else ""
    beside = Beside(others, questions.note, spread)
    readme = answer_text((root / README).read_text(encoding="utf-8"), comparison, judge_all(root, questions), beside)
    found = {RESULTS: results_text(root, questions), CLAIMS: claims_text(root, questions), README: readme}
    figure = answer_figure(comparison)
    return {**found, FIGURE: figure} if figure else found


def write_pages(root: Path, questions: Questions, *, check: bool = False) -> list[str]:
    """Write every page and return their paths in the repository.

    Args:
        check: compare only.

    Raises:
        InputError: with `check`, a page is not up to date.
    """
    written = pages(root, questions)
    for name, text in written.items():
        path = root / name
        if not check:
            save_text(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise InputError(f"{name} is not up to date; run python tools/publish.py")
    return list(written)


def judge_all(root: Path, questions: Questions) -> list[tuple[Claim, Outcome]]:
    """Return every claim with its outcome; a claim whose suite is not published is not tested."""
    published, study = published_suites(root, questions.suites), load_study(root / FOLDER / STUDY)

    def judge(claim: Claim) -> Outcome:
        if claim.study:
            return judge_by_study(claim, study)
        test = claim.test
        there = test is not None and test.suite in published
        return judge_claim(claim, load_comparison(root / FOLDER / test.suite, test.against) if test and there else None)

    return [(claim, judge(claim)) for claim in questions.claims]


def claims_text(root: Path, questions: Questions) -> str:
    """Return the content of docs/claims.md."""
    judged = judge_all(root, questions)
    blocks = [_CLAIMS_HEAD, count_sentence(judged)]
    for paper, title in questions.papers.items():
        lines = [_claim_line(claim, outcome) for claim, outcome in judged if claim.paper == paper]
        header = ["claim", "place", "test", "difference", "here", "answer", "limits"]
        blocks += [f"## {paper}: {title}", left_aligned(markdown_table(header, lines))]
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def _claim_line(claim: Claim, outcome: Outcome) -> list[str]:
    test = claim.test
    if outcome.answer == UNTESTED:
        waits = claim.untested or f"Not run yet: `{test.suite if test else STUDY}`. {claim.limits}"
        return [claim.claim, claim.origin, "", "", "", UNTESTED, waits]
    if test is None:
        asked, shown = f"`{STUDY}`: {claim.study}", format_difference(outcome.difference)
        return [claim.claim, claim.origin, asked, shown, outcome.word, outcome.answer, claim.limits]
    against = test.against or "the baseline"
    asked = f"`{test.suite}`: {BY_NAME[test.metric].title} of {test.row} against {against}, expected {test.expect}"
    word = f"{outcome.word} (exploratory)" if outcome.exploratory else outcome.word
    return [claim.claim, claim.origin, asked, format_difference(outcome.difference), word, outcome.answer, claim.limits]
