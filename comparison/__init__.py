"""Compare backbones from their result files: statistics, tables, figures and the HTML report.

`compare` is the call for users of the library; docs/results_files.md shows it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from backbones.core.checks import ABOVE_0, BELOW_1, check_range
from backbones.core.locking import lock_run
from comparison.evidence.bundle import save_bundle
from comparison.failures import Failure
from comparison.methods import PRIMARY, read_goal
from comparison.page.images import Reader
from comparison.page.page import save_comparison
from comparison.papers.published import missing_note, read_published
from comparison.rows import collect_rows, find_other_evaluations
from comparison.summary import build_comparison
from comparison.verdicts.words import MARGIN

__all__ = ["compare"]


def compare(
    folders: Iterable[str | Path],
    output_dir: str | Path,
    *,
    baseline: str | None = None, primary: str = PRIMARY, margin: float = MARGIN, seed_hours: float | None = None,
    tuning_hours: float | None = None,
    resamples: int = 1000, level: float = 0.95, seed: int = 0, chosen: Sequence[str] = (),
    failures: Sequence[Failure] = (), notes: Sequence[str] = (), allow_mixed_protocols: bool = False,
    bundle: str | Path | None = None, paper: str = "", read_images: Reader | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare the results in folders, and write tables, figures and index.html to `output_dir`.

    Args:
        folders: run folders, or folders above them.
        baseline: label of the row that others are compared with; default: the row of method CE.
        primary: the number that decides; margin: its largest difference that does not matter.
        seed_hours: hours per further seed of a row, for the plan of what would settle a difference; tuning_hours:
            those of them that its fine-tuning takes.
        resamples, seed: of the bootstrap over images; level: coverage of the intervals.
        chosen: config keys whose value was chosen separately for each seed.
        failures: stages that failed; notes: further lines for the page.
        read_images: reader of images, to show those that move a difference (`comparison.page.images`).
        paper: published table to show beside these numbers (`comparison.papers.published`); "": none.
        bundle: zip file to write the evidence to (`comparison.evidence.bundle`).
    Returns:
        the content of comparison.json (`comparison/schemas/comparison.json`).
    Raises:
        InputError: rows that cannot be compared, or an argument out of range.
    """
    check_range("--resamples", resamples, 1)
    check_range("--level", level, ABOVE_0, BELOW_1)
    check_range("--seed", seed, 0)
    goal = read_goal(primary, margin, seed_hours, tuning_hours)
    published = read_published(paper) if paper else None
    folders = list(folders)
    rows = collect_rows(folders, allow_mixed_protocols=allow_mixed_protocols)
    options = {
        **{"baseline": baseline, "resamples": resamples, "seed": seed, "level": level},
        **{"chosen": list(chosen), "failures": list(failures), "goal": goal},
    }
    comparison = build_comparison(rows, **options)
    comparison["published"] = published
    added = [*_left_out(folders), *notes, *missing_note(paper, published)]
    comparison["notes"] += added
    with lock_run(output_dir):
        save_comparison(output_dir, comparison, rows, read_images)
    if bundle is not None:
        save_bundle(Path(bundle), Path(output_dir), rows, options, added)
    return comparison


def _left_out(folders: Sequence[str | Path]) -> list[str]:
    others = ", ".join(map(str, find_other_evaluations(folders)))
    return [f"Left out, as not given themselves: evaluations on other data sets in {others}."] if others else []
