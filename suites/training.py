"""Plans the stages that train the rows of a suite: a pretraining, or a grid of them and the choice among its points."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from backbones.core.config import IMPORTS, expand_path, load_yaml
from suites.config import SEED, Row, Suite, size_of
from suites.fingerprints.sources import class_source
from suites.grid import Grid
from suites.references import CHOSEN, RUN, fill, find, parse
from suites.stages import KINDS, GridPoint, Import, Pretrain, Select
from suites.stages.adoption import CLASSES, OWN, SOURCE, find_source
from suites.stages.factory import Factory, Source, as_overrides, sorted_overrides, without_imports
from suites.stages.naming import Run
from suites.stages.options import by_content
from suites.stages.results import ResultStage

ROOT = Path(__file__).resolve().parent.parent
P = TypeVar("P", bound=Pretrain)


@dataclass(frozen=True)
class Trained:
    """The training of a row with one seed.

    stages: all of them; the last one writes the run's folder.
    trainings: hashes, independent of the label, of the trainings whose weights that run can hold: one once it is
        decided.
    selection: set if the row has a grid; chosen: its values, those of the first point until it has chosen.
    undecided: title of the row's own selection until it has chosen.
    """

    stages: tuple[ResultStage, ...]
    trainings: frozenset[str]
    selection: Select | None = None
    chosen: Mapping[str, str] | None = None
    undecided: str = ""

    @property
    def run(self) -> ResultStage:
        """The stage that writes the backbone."""
        return self.stages[-1]


class Training:
    """Planner of the rows in order; keeps those that it has planned."""

    def __init__(self, suite: Suite, output: Path, tools: Path, data: Mapping[str, Source]) -> None:
        self.suite, self.output, self.tools, self.data = suite, output, tools, data
        self.done: dict[tuple[str, int], Trained] = {}
        self.points: dict[str, GridPoint] = {}  # points of all grids by hash: each is trained once
        self.source_of, self.tree_of = cache(class_source), cache(load_yaml)  # one plan uses one state of the files

    def add(self, row: Row, run: Run) -> tuple[Trained, str, str]:
        """Plan a row.

        Returns:
            its training; label of the earlier row with the same weights, whose run is then used, or ""; title of the
            selection that must first decide the run's folder or its twin, or "".
        """
        trained = self._grid(row, row.grid, run) if row.grid else self._plain(row, run)
        twin, waits = self._twin(trained, run)
        if twin and isinstance(trained.run, Pretrain):  # not trained again
            trained = replace(trained, stages=(*trained.stages[:-1], self.done[twin, run.seed].run))
        self.done[run.label, run.seed] = trained
        return trained, twin, waits

    def adopt(self, row: Row, run: Run) -> Trained:
        """Plan the import of the row's BACKBONE file."""
        own, where = not row.import_ or _is_own(row.import_), f"ROWS {run.label}"
        source = find_source(row.backbone.replace(SEED, str(run.seed)), where, own=own)
        config = config_file(row.config) if row.config else None
        how = [*(row.import_ or ("--source", OWN)), "--label", run.label, "--seed", str(run.seed)]
        measured = ["--config-file", str(config)] if config else []
        overrides = [*self._overrides(row), *run.overrides] if config else []
        stage = self.factory(run).make(
            Import, run, run.name, overrides, config=config, source_file=source, own=own, compared=False,
            options=["--checkpoint", str(source.path), *how, *measured, "--overwrite"],
            arguments=[source.hash, *by_content(how, (CLASSES,), f"{where}: IMPORT"), *without_imports(overrides)],
        )  # fmt: skip
        return Trained((stage,), frozenset())

    def factory(self, run: Run) -> Factory:
        """Return a factory of stages that read the data and the runs of the same seed."""
        runs = {
            f"{{run:{label}}}": Source(trained.run.output, trained.run.hash, trained.run)
            for (label, seed), trained in self.done.items()
            if seed == run.seed
        }
        sources, processes = {**self.data, **runs}, self.suite.launch.num_gpus
        resources = {kind: self.suite.resources_of(kind) for kind in KINDS}
        return Factory(
            self.output, self.tools, sources, processes, resources, self.source_of, self.tree_of, self.suite.keep
        )

    def _twin(self, trained: Trained, run: Run) -> tuple[str, str]:
        if trained.run.waits:
            return "", trained.run.waits
        for (label, seed), other in self.done.items():
            if seed == run.seed and not other.run.waits and trained.trainings & other.trainings:
                undecided = trained.undecided or other.undecided
                return ("", undecided) if undecided else (label, "")
        return "", ""

    # ---- a row -----------------------------------------------------------------------------------

    def _plain(self, row: Row, run: Run) -> Trained:
        filled = self._fill(self._overrides(row), run)
        stage = self._pretrain(row, run, filled)
        return Trained((stage,), frozenset([self._unlabelled(row, run, filled.texts).hash]))

    def _grid(self, row: Row, grid: Grid, run: Run) -> Trained:
        own = self._fill(self._overrides(row), run)
        filled = own.join(self._fill(list(grid.texts()), run))
        shorter = self._fill(grid.overrides, run).texts
        values = grid.points(lambda text: self._fill([text], run).texts[0], f"ROWS {run.label}: GRID")
        stages = [
            self._point(
                row, run, filled._replace(texts=[*own.texts, *as_overrides(value), *shorter]), number, len(values)
            )
            for number, value in enumerate(values, 1)
        ]
        choice = self._select(grid, run, stages, filled.waits)
        number = choice.choice()
        undecided = choice.title if number is None else ""
        chosen = values[number or 0]
        if not shorter:
            candidates = stages if number is None else [stages[number]]
            trainings = frozenset(stage.hash for stage in candidates)
            return Trained((*stages, choice), trainings, choice, chosen, undecided)
        overrides = [*own.texts, *as_overrides(chosen)]
        final = self._pretrain(row, run, filled.join(_Filled(overrides, undecided, (choice,))))
        trainings = frozenset([self._unlabelled(row, run, overrides).hash])
        return Trained((*stages, replace(choice, compared=False), final), trainings, choice, chosen, undecided)

    def _overrides(self, row: Row) -> list[str]:
        imports = [IMPORTS, json.dumps(row.imports)] if row.imports else []
        return [*self.suite.pretrain.overrides, *imports, *row.overrides]

    # ---- a stage ---------------------------------------------------------------------------------

    def _pretrain(self, row: Row, run: Run, filled: "_Filled") -> Pretrain:
        overrides = [*filled.texts, *run.overrides]
        return self._stage(Pretrain, row, run, run.name, overrides, waits=filled.waits, choices=filled.choices)

    def _point(self, row: Row, run: Run, filled: "_Filled", number: int, of: int) -> GridPoint:
        """Return one training of a grid; reuses that of another row with the same settings."""
        stage = self._unlabelled(row, run, filled.texts, waits=filled.waits, choices=filled.choices)
        stage = replace(stage, title=f"{stage.title} {number} of {of}")
        return stage if filled.waits else self.points.setdefault(stage.hash, stage)

    def _unlabelled(self, row: Row, run: Run, overrides: Sequence[str], **others: Any) -> GridPoint:
        """Return a training whose folder and hash do not depend on the row's label."""
        settings = sorted_overrides([*overrides, *run.seeds])
        name = ["point", f"s{run.seed}"]
        return self._stage(GridPoint, row, run, name, settings, compared=False, **others)

    def _stage(
        self, cls: type[P], row: Row, run: Run, name: Sequence[str], overrides: Sequence[str], **others: Any
    ) -> P:
        config = config_file(row.config or self.suite.pretrain.config)
        options = ["--config-file", str(config), "--resume"]
        return self.factory(run).make(
            cls, run, name, overrides, options=options, config=config, cost=self.suite.pretrain.cost,
            disk=size_of(self.suite.pretrain), **others,
        )  # fmt: skip

    def _select(self, grid: Grid, run: Run, points: Sequence[GridPoint], waits: str) -> Select:
        keys = [text for key in grid.keys for text in ("--key", key)]
        options = ["--by", grid.select, "--label", run.label, *keys]
        stage = self.factory(run).make(
            Select, run, run.name, options=options, inputs=points, arguments=options, waits=waits,
            folder=[str(point.output) for point in points],
        )  # fmt: skip
        return replace(stage, config=points[0].config, overrides=points[0].overrides, places=points[0].places)

    def _fill(self, overrides: Sequence[str], run: Run) -> "_Filled":
        """Replace every `{chosen:...}` in `overrides`."""
        values, filled = {}, _Filled([], "", ())
        for text in find(overrides, RUN, CHOSEN):
            _, label, key = parse(text)
            source = self.done[label, run.seed]
            if key and source.selection:
                values[text] = (source.chosen or {})[key]
                filled = filled.join(_Filled([], source.undecided, (source.selection,)))
            filled = filled.join(_Filled([], source.run.waits, ()))
        return filled._replace(texts=[fill(text, values) for text in overrides])


class _Filled(NamedTuple):
    """Overrides whose references to choices are replaced.

    waits: title of a selection that they still need; choices: all selections that they refer to.
    """

    texts: list[str]
    waits: str
    choices: tuple[Select, ...]

    def join(self, other: "_Filled") -> "_Filled":
        """Return the texts of `other` with the selections of both."""
        return _Filled(other.texts, self.waits or other.waits, (*self.choices, *other.choices))


def _is_own(options: Sequence[str]) -> bool:
    return bool({OWN, f"{SOURCE}={OWN}"}.intersection(options))


def config_file(path: str) -> Path:
    """Return the path of a CONFIG of a suite, relative to the repository root."""
    return ROOT / expand_path(path)
