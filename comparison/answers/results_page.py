"""docs/results.md: every published suite with its verdicts, means, commands and hours, and the synthetic study."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison.answers.claims import Questions
from comparison.answers.predictors import LEVEL, correlate
from comparison.answers.store import FOLDER, MADE, PAGE, Made, load_comparison, published_suites, read_made
from comparison.answers.study import STUDY, load_study, study_blocks
from comparison.metrics import ARROW, BY_NAME, DETECTORS
from comparison.tables.formats import MINUS, MISSING, format_number, groups_of
from comparison.tables.markdown import left_aligned, markdown_table
from comparison.tables.verdicts import MEANING, NO_VERDICT, describe_variances, verdict_lines

SHOWN = (
    *("top1", "top1_shifted", "nll", "ece15", "context_top1", "context_average_confidence"),
    *("context_average_confidence_scaled", "objectness_deviation", "max_box_acc_v2_split"),
    *("AP", "AP50", "APs", "APm", "APl", "AR100", "VOC_mAP50"),
)
CHEAP = tuple(name for name in SHOWN if BY_NAME[name].group not in DETECTORS)
_HEAD = """\
# Results

Written by `tools/publish.py` from `docs/results/`, which holds the result files of every run. `tools/compare.py`, given
the folder of a suite there, makes its page, with all diagnoses. Everything is synthetic and small unless a suite says
otherwise: see the limits of each claim in [claims.md](claims.md).

The number that decides and the largest difference that does not matter (`COMPARE` of the suite) were committed before
the first run. Nothing is tuned on what is reported. Hours are of one core: median duration of each kind of stage times
the number of stages. A part of a suite is run with `SEEDS "[0]"` or `ROWS "[...]"` appended to its command.
"""


def results_text(root: Path, questions: Questions) -> str:
    """Return the content of docs/results.md."""
    blocks = [_HEAD, MEANING.format(primary="the number that decides")]
    seeds = _seed_deviations(root, questions)
    for suite in published_suites(root, questions.suites):
        blocks += [f"## {suite}", questions.suites[suite], *_suite_blocks(root / FOLDER / suite, seeds)]
    if numbers := load_study(root / FOLDER / STUDY):
        blocks += [f"## {STUDY}", *study_blocks(numbers)]
    waiting = [suite for suite in questions.suites if suite not in published_suites(root, questions.suites)]
    blocks += ["Not published yet: " + ", ".join(f"`{suite}`" for suite in waiting) + "."] if waiting else []
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def _seed_deviations(root: Path, questions: Questions) -> dict[str, str]:
    """Return, by protocol, the standard deviation between seeds that are fine-tuned once, and the suite that has it."""
    found = {}
    for suite in published_suites(root, questions.suites):
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
    differences = [one["differences"] for one in comparison["methods"] if one["differences"]]
    if differences and not any(own[primary]["over_images"] for own in differences if primary in own):
        yield "Published without values per image: intervals are over seeds only, not the images that all share."
    variances = describe_variances(comparison)
    if lines := [_without_few_seeds(line) for line in verdict_lines(comparison)]:
        yield markdown_table(["", f"{primary} over seeds", "difference to the baseline", "verdict"], lines)
    for entry in comparison["variances"]:
        if entry["seeds"] is None and entry["protocol"] in seeds:
            said = f"Between seeds, each with its pretraining and one fine-tuning, under {entry['protocol']}"
            variances.append(f"{said}: {seeds[entry['protocol']]}.")
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
    said = f"Total: {sum(one.hours for one in parts):.1f} core hours (`{MADE}`)."
    if len({(one.device, one.torch) for one in parts}) > 1:
        said += (
            " Rounding differs between kinds of processors, which changes a run as a further seed of fine-tuning does; "
            "it repeats bit for bit on its own kind only."
        )
    return f"{left_aligned(markdown_table(header, lines))}\n\n{said}"
