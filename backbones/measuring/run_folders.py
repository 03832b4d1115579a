"""Find the folders of a backbone from any one of them that the user gives.

    RUN, RUN/evaluation                                                               of single runs
    OUT/runs/CE-s0-pretrain-<hash>, OUT/runs/CE-s0-evaluate-<hash>, OUT/runs, OUT     of tools/benchmark.py

The folders of a suite are side by side and are joined by the hash of the backbone; the output folder of a suite means
all rows of its reports.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.results import FILE_NAME, load_results

EVALUATION = "evaluation"  # folder of tools/evaluate_backbone.py inside a run
BACKBONE = "backbone.pth"
# In a suite's output: the folder of its stages, and the inputs of each report.
RUNS, REPORTS = "runs", "report*/inputs.json"
_STAGE = re.compile(r"-(?:pretrain|select|(?P<point>grid)|(?P<measure>evaluate))-[0-9a-f]{12}$")


@dataclass(frozen=True)
class BackboneFolders:
    """Folders of a backbone and of its measurements.

    Attributes:
        given: the path given by the user.
        runs: the folders of its pretraining (or its file); several if a selection has copied it, the copy first.
        evaluations: folders written by tools/evaluate_backbone.py.
    """

    given: Path
    runs: tuple[Path, ...]
    evaluations: tuple[Path, ...]

    def run(self, holding: str = "") -> Path:
        """Return the first of the runs with the file `holding`, else the first; raise `InputError` if there is none."""
        if not self.runs:
            raise InputError(f"{self.given}: the run of this backbone is not beside it; give the folder of the run")
        return min(self.runs, key=lambda run: not (holding and (run / holding).is_file()))  # ties: the first

    def evaluation(self) -> Path:
        """Return the evaluation; raise `InputError` unless there is exactly one."""
        first, *others = self.evaluations or (None,)
        if first is None:
            raise InputError(f"{self.given} is not evaluated; run tools/evaluate_backbone.py on it first")
        if others:
            names = " and ".join(map(str, self.evaluations))
            raise InputError(f"{self.given} has {len(self.evaluations)} evaluations, {names}; give one of them")
        return first


def find_backbones(paths: Sequence[str | Path]) -> list[BackboneFolders]:
    """Find the backbones of runs, evaluations, backbone files and suite outputs, in the order given.

    Raises:
        InputError: results cannot be read, or a suite's output holds no backbone.
    """
    return [found for path in map(Path, paths) for found in _find(path)]


def find_evaluation(path: str | Path) -> Path:
    """Return the evaluation of the only backbone at `path`."""
    found = find_backbones([path])
    if len(found) > 1:
        raise InputError(f"{path} holds {len(found)} backbones; give one of them")
    return found[0].evaluation()


def _find(path: Path) -> list[BackboneFolders]:
    output = path.parent if path.name == RUNS else path
    if (path / FILE_NAME).is_file():
        return [_of_results(path)]
    if (output / RUNS).is_dir():
        return _of_suite(path, output)
    evaluation = path / EVALUATION  # for an unfinished run, or one copied without its results
    return [BackboneFolders(path, (path,), (evaluation,) if (evaluation / FILE_NAME).is_file() else ())]


def _of_results(path: Path) -> BackboneFolders:
    results = load_results(path)
    runs, evaluations = _join(results["backbone"].get("hash"), list(_stages(path.parent)))
    if results["stage"] == "pretraining":
        own = path / EVALUATION
        evaluations = (own,) if (own / FILE_NAME).is_file() else evaluations
        return BackboneFolders(path, (path, *(run for run in runs if run != path)), evaluations)
    inside = (path.parent,) if (path.parent / BACKBONE).is_file() else runs  # RUN/evaluation
    return BackboneFolders(path, inside, (path,) if results["stage"] == "backbone" else evaluations)


def _of_suite(path: Path, output: Path) -> list[BackboneFolders]:
    """Return the folders of each backbone in the reports, or, without any report, of each existing backbone."""
    stages = list(_stages(output / RUNS))
    reported = _reported(output)
    shown = [one for one in stages if not reported or one[0].name in reported]
    rows = dict.fromkeys(results["backbone"].get("hash") for _, name, results in shown if not name["point"])
    if not rows:
        raise InputError(f"no finished pretraining in {output / RUNS}; give the output folder of a suite that has run")
    found = []
    for digest in rows:
        runs, _ = _join(digest, stages)
        evaluations = _join(digest, shown)[1]
        found.append(BackboneFolders(evaluations[0] if evaluations else runs[0], runs, evaluations))
    return found


def _reported(output: Path) -> dict[str, None]:
    """Return the names of the reports' input folders; only names, as the output might have been moved."""
    records = [load_json(path) for path in sorted(output.glob(REPORTS))]
    return dict.fromkeys(Path(run).name for record in records for run in record.get("runs", []))


def _stages(folder: Path) -> Iterator[tuple[Path, re.Match[str], dict[str, Any]]]:
    """Yield (folder, match of its name, results) of a suite's finished pretrainings, selections and evaluations."""
    for path in sorted(folder.iterdir()):
        name = _STAGE.search(path.name)
        if name and (path / FILE_NAME).is_file():
            yield path, name, load_results(path)


def _join(
    digest: str | None, stages: Sequence[tuple[Path, re.Match[str], dict[str, Any]]]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the runs (those of a grid last) and the evaluations of the backbone with this hash."""
    own = [(path, name) for path, name, results in stages if results["backbone"].get("hash") == digest]
    runs = sorted((bool(name["point"]), path) for path, name in own if not name["measure"])
    return tuple(path for _, path in runs), tuple(path for path, name in own if name["measure"])
