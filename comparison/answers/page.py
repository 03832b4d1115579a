"""The pages of the published results: docs/results.md, docs/claims.md, and the answer in README.md with its figure."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.files import save_text
from comparison.answers.claims import UNTESTED, Claim, Outcome, Questions, judge_claim
from comparison.answers.predictors import LEVEL, correlate
from comparison.answers.readme import ANSWERS, FIGURE, README, answer_figure, answer_text, count_sentence
from comparison.answers.store import MADE, PAGE, Made, comparison_file, load_comparison, read_made
from comparison.answers.study import STUDY, judge_by_study, load_study, study_blocks
from comparison.metrics import ARROW, BY_NAME, DETECTORS
from comparison.tables.formats import MINUS, MISSING, format_difference, format_number, groups_of
from comparison.tables.markdown import markdown_table
from comparison.tables.verdicts import MEANING, NO_VERDICT, describe_variances, verdict_lines

RESULTS, CLAIMS, FOLDER, SOURCE = "docs/results.md", "docs/claims.md", "docs/results", "docs/claims.yaml"
SHOWN = (
    *("top1", "top1_shifted", "nll", "ece15", "context_top1", "context_average_confidence"),
    *("context_average_confidence_scaled", "objectness_deviation", "max_box_acc_v2_split"),
    *("AP", "AP50", "APs", "APm", "APl", "AR100", "VOC_mAP50"),
)
CHEAP = tuple(name for name in SHOWN if BY_NAME[name].group not in DETECTORS)
_RESULTS_HEAD = """\
# Results

Written by `tools/publish.py` from `docs/results/`, which holds the result files of every run. `tools/compare.py`, given
the folder of a suite there, makes its page, with all diagnoses. Everything is synthetic and small unless a suite says
otherwise: see the limits of each claim in [claims.md](claims.md).

The number that decides and the largest difference that does not matter (`COMPARE` of the suite) were committed before
the first run. Nothing is tuned on what is reported. Hours are of one core: median duration of each kind of stage times
the number of stages. A part of a suite is run with `SEEDS "[0]"` or `ROWS "[...]"` appended to its command.
"""
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
    there = {name: load_comparison(root / FOLDER / name) for name in published_suites(root, questions)}
    comparison = there.get(ANSWERS)
    others = {said: there[name] for name, said in questions.readme.items() if name in there}
    readme = answer_text((root / README).read_text(encoding="utf-8"), comparison, judge_all(root, questions), others)
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


def published_suites(root: Path, questions: Questions) -> list[str]:
    """Return the suites of docs/claims.yaml with published results, in its order."""
    return [suite for suite in questions.suites if comparison_file(root / FOLDER / suite).is_file()]


def judge_all(root: Path, questions: Questions) -> list[tuple[Claim, Outcome]]:
    """Return every claim with its outcome; a claim whose suite is not published is not tested."""
    published, study = published_suites(root, questions), load_study(root / FOLDER / STUDY)

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
        blocks += [f"## {paper}: {title}", _left(markdown_table(header, lines))]
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


def _left(table: str) -> str:
    """Return a table of texts with all columns on the left."""
    head, line, *rest = table.splitlines()
    return "\n".join([head, line.replace("---:", "---"), *rest])


def results_text(root: Path, questions: Questions) -> str:
    """Return the content of docs/results.md."""
    blocks = [_RESULTS_HEAD, MEANING.format(primary="the number that decides")]
    seeds = _seed_deviations(root, questions)
    for suite in published_suites(root, questions):
        blocks += [f"## {suite}", questions.suites[suite], *_suite_blocks(root / FOLDER / suite, seeds)]
    if numbers := load_study(root / FOLDER / STUDY):
        blocks += [f"## {STUDY}", *study_blocks(numbers)]
    waiting = [suite for suite in questions.suites if suite not in published_suites(root, questions)]
    blocks += ["Not published yet: " + ", ".join(f"`{suite}`" for suite in waiting) + "."] if waiting else []
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def _seed_deviations(root: Path, questions: Questions) -> dict[str, str]:
    """Return, by protocol, the standard deviation between seeds that are fine-tuned once, and the suite that has it."""
    found = {}
    for suite in published_suites(root, questions):
        for entry in load_comparison(root / FOLDER / suite)["variances"]:
            if entry["seeds"] is not None and entry["fine_tuning"] is None:
                found.setdefault(entry["protocol"], f"{entry['seeds'] ** 0.5:.4f} in {suite}")
    return found


def _suite_blocks(folder: Path, seeds: Mapping[str, str]) -> Iterator[str]:
    """Yield the blocks of a suite.

    seeds: by protocol, the spread of seeds where another suite measured it.
    """
    comparison = load_comparison(folder)
    primary = comparison["primary"]
    if (folder / PAGE).is_file():
        yield f"All diagnoses: [{PAGE}](results/{folder.name}/{PAGE}), to be opened in a browser."
    variances = describe_variances(comparison)
    if lines := [_without_few_seeds(line) for line in verdict_lines(comparison)]:
        yield markdown_table(["", f"{primary} over seeds", "difference to the baseline", "verdict"], lines)
    for entry in comparison["variances"]:
        if entry["seeds"] is None and entry["protocol"] in seeds:
            said = f"Between seeds of the pretraining, under {entry['protocol']}: {seeds[entry['protocol']]}"
            variances.append(f"{said}, where each seed is fine-tuned once and so includes the spread of fine-tunings.")
    if variances:
        yield " ".join(variances)
    yield _means(comparison)
    yield from _predictions(comparison)
    yield _made(read_made(folder))


def _without_few_seeds(line: list[str]) -> list[str]:
    """Return a line of verdicts, without the interval of too few seeds, which would leave out their spread."""
    return [*line[:2], MISSING, line[3]] if line[3] == NO_VERDICT else line


def _means(comparison: Mapping[str, Any]) -> str:
    """Return the table of means and deviations over seeds; of single runs without any."""
    entries = comparison["methods"] or comparison["rows"]
    means = [{name: _mean(one["metrics"].get(name)) for name in SHOWN} for one in entries]
    names = [name for name in SHOWN if any(mean[name] for mean in means)]
    several = len({entry["protocol"] for entry in entries}) > 1
    labels = [f"{entry['label']}, {entry['protocol']}" if several else entry["label"] for entry in entries]
    header = ["mean ± standard deviation over seeds", *labels]
    body = [[f"{BY_NAME[n].title} {ARROW[BY_NAME[n].better]}".strip(), *(mean[n] for mean in means)] for n in names]
    return markdown_table(header, body)


def _mean(number: Any) -> str:
    if not isinstance(number, Mapping):
        return "" if number is None else format_number(number)
    if number["mean"] is None:
        return ""
    return format_number(number["mean"]) + (f" ± {format_number(number['deviation'])}" if number["deviation"] else "")


def _predictions(comparison: Mapping[str, Any]) -> Iterator[str]:
    for protocol, rows in groups_of(comparison):
        found = correlate(rows, CHEAP)
        if found:
            lines = [
                [
                    BY_NAME[one.metric].title,
                    f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]".replace("-", MINUS),
                    str(one.backbones),
                ]
                for one in found
            ]
            yield (
                f"Rank correlation of the numbers of a classifier with AP under {protocol}, {100 * LEVEL:.0f} % "
                f"interval by a bootstrap of methods and then of backbones ({found[0].methods} methods; exploratory, "
                f"{len(found)} numbers, not corrected; a single outlying method can cause one):"
            )
            yield markdown_table(["", "Spearman's correlation with AP", "backbones"], lines)


def _made(parts: Sequence[Made]) -> str:
    header = ["command", "rows and seeds", "stages", "core hours", "processor", "torch", "commit"]
    lines = [
        [
            f"`python {o.command} --output-dir FOLDER`",
            o.rows,
            str(o.stages),
            f"{o.hours:.1f}",
            o.device,
            o.torch,
            o.commit,
        ]
        for o in parts
    ]
    total = f"Total: {sum(one.hours for one in parts):.1f} core hours (`{MADE}`)."
    return f"{_left(markdown_table(header, lines))}\n\n{total}"
