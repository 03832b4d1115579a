"""The plan of a suite: its stages, each with its command, folder and dependencies.

    data -> for every row and seed: pretrain -> evaluate, localize, attack, finetune (each protocol) -> compare all
                                    grid ... -> select (-> pretrain) -> ...          if the row has a GRID
                                    import -> ...                                    if its BACKBONE is a file

A stage can depend on what an earlier selection chooses (`{chosen:LABEL:KEY}`).  Until then the plan holds a sketch of
it with the first value of that grid, which counts as a stage to come and is checked like all others; the same call of
`build_plan` after the selection makes it final.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backbones.core.config import expand_path
from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.results import FILE_NAME
from suites.config import RANDOM, Comparing, DataEntry, Row, Suite, size_of
from suites.fingerprints.data import Known, load_known, tree_fingerprint
from suites.folder import find_suffix
from suites.stages import KINDS, Compare, Finetune, Prepare, Stage
from suites.stages.factory import Source
from suites.stages.measures import Measure
from suites.stages.naming import Run, find_tool, slug, stage_hash
from suites.stages.options import BUNDLE, READ_BY_COMPARE, by_content, locate
from suites.stages.resources import Resources, Size
from suites.stages.results import ResultStage
from suites.training import ROOT, Trained, Training, config_file

TOOLS = ROOT / "tools"
TRUTHS = "ground_truth"  # folder of the test sets' ground truths; as an option of a tool, it enters no hash


@dataclass(frozen=True)
class Plan:
    """The stages of a suite in the order in which they run; the comparison (`compare_stage`) comes last.

    notes: rows without stages of their own, because they have the same backbone as another row.
    known: digests of data folders, kept for the next call.
    name: name of the suite, from its file; suffix: added to the names of its own files (suites/folder.py).
    """

    suite: Suite
    output: Path
    tools: Path
    stages: tuple[Stage, ...]
    notes: tuple[str, ...]
    data: Mapping[str, Source]  # by reference
    known: Known
    name: str = ""
    suffix: str = ""

    @property
    def report(self) -> Path:
        """Folder of the comparison."""
        return self.output / f"report{self.suffix}"

    def changed_data(self, stage: Stage) -> list[Path]:
        """Return the data folders that `stage` reads and whose content has changed since the plan was made."""
        there = [source for source in self.data.values() if source.stage is None and source.folder in stage.reads]
        return [source.folder for source in there if tree_fingerprint(source.folder, self.known) != source.hash]


def build_plan(
    suite: Suite, output_dir: str | Path, *, tools: Path = TOOLS, without_data: bool = False, name: str = "suite"
) -> Plan:
    """Lay out the stages of a suite (from `load_suite`); reads configs, data and selections, writes nothing.

    Args:
        name: name of the suite, which distinguishes its report from those of other suites in the same folder.
        without_data: for a dry run: a missing data folder is kept as it is written, and the folder names (hashes) of
            the stages that read it are not final.

    Raises:
        InputError: a config file or a data folder that cannot be read, an environment variable that is not set.
    """
    output = Path(output_dir).resolve()
    known = load_known(output)
    resources = suite.resources_of(Prepare.kind)
    data = {
        f"{{data:{entry.name}}}": _data(entry, output, tools, known, without_data, resources) for entry in suite.data
    }
    plan = _Builder(suite, output, tools, data).build()
    return replace(plan, known=known, name=name, suffix=find_suffix(output, name))


def plan_again(plan: Plan) -> Plan:
    """Return the plan updated by the selections made since; the data is assumed to be unchanged."""
    again = _Builder(plan.suite, plan.output, plan.tools, plan.data).build()
    return replace(again, known=plan.known, name=plan.name, suffix=plan.suffix)


def _told(plan: Plan) -> list[str]:
    """Return the options of a comparison that the suite determines."""
    mixed = ["--allow-mixed-protocols"] if len(plan.suite.finetune) > 1 else []
    notes = [text for note in plan.notes for text in ("--note", note)]
    several = any(len(plan.suite.seeds_of(row)) > 1 for row in plan.suite.rows)
    chosen = [text for key in chosen_keys(plan.suite.rows) if several for text in ("--chosen", key)]
    block, usual = plan.suite.compare, Comparing()
    goal = [] if block.primary == usual.primary else ["--primary", block.primary]
    goal += [] if block.margin == usual.margin else ["--margin", str(block.margin)]
    return [*mixed, *chosen, *goal, *notes]


def compare_stage(
    plan: Plan, runs: Sequence[Stage], failures: Path | None = None, price: Sequence[str] = ()
) -> Compare:
    """Return the comparison of what `runs` measured; its hash covers the content of the results and of files that
    COMPARE.ARGUMENTS names.

    Args:
        failures: file with the failures to show.
        price: options that price another seed; no part of the hash, as they differ with every measurement.

    Raises:
        InputError: a file that COMPARE.ARGUMENTS names cannot be read.
    """
    runs = [run for run in runs if run.compared]
    results = [run.output / FILE_NAME for run in runs]
    contents = [fingerprint(path.read_bytes()) if path.is_file() else "" for path in results]
    failed = ["--failures", str(failures)] if failures else []
    told, where = _told(plan), "COMPARE: ARGUMENTS"
    # Of a command line: relative to it.
    files = [*locate(plan.suite.compare.arguments, (*READ_BY_COMPARE, BUNDLE), Path.cwd())]
    arguments = [*told, *by_content(files, READ_BY_COMPARE, where, plan.known)]
    contents += [fingerprint(failures.read_bytes())] if failures else []
    output, tool = plan.report, find_tool(plan.tools, Compare.default_tool)
    return Compare(
        title=Compare.kind,
        # The files, not their folders: a run may have been measured again into a folder below it.
        command=(
            sys.executable,
            str(tool),
            "--output-dir",
            str(output),
            *failed,
            *price,
            *told,
            *files,
            *map(str, results),
        ),
        output=output,
        hash=stage_hash(tool, arguments, None, [*(run.hash for run in runs), *contents]),
        inputs=tuple(runs),
        reads=tuple(run.output for run in runs),
        cost=plan.suite.compare.cost,
        disk=Size(plan.suite.compare.disk),
        tool=tool.stem,
        suite=plan.name,
        root=plan.output,
        resources=plan.suite.resources_of(Compare.kind),
    )


def chosen_keys(rows: Sequence[Row]) -> list[str]:
    """Return the config keys whose value is chosen per seed, sorted."""
    return sorted({key for row in rows for key in row.chosen_keys()})


class _Builder:
    """Builder of the stages, row by row."""

    def __init__(self, suite: Suite, output: Path, tools: Path, data: Mapping[str, Source]) -> None:
        self.suite, self.output, self.tools, self.data = suite, output, tools, data
        self.training = Training(suite, output, tools, data)
        self.stages: dict[tuple[Path, str], Stage] = {}  # by folder: points of grids are shared
        self.notes: list[str] = []

    def build(self) -> Plan:
        """Return the plan, without the fields that the caller knows."""
        self._add(source.stage for source in self.data.values() if source.stage)
        for row in self.suite.rows:
            seeds = self.suite.backbone_seeds_of(row)
            for seed in seeds:
                self._row(row, Run(row.label, seed, len(seeds) > 1, row.seed_offset))
        return Plan(self.suite, self.output, self.tools, tuple(self.stages.values()), tuple(self.notes), self.data, {})

    def _add(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            self.stages.setdefault((stage.output, stage.waits), stage)

    def _row(self, row: Row, run: Run) -> None:
        if row.backbone == RANDOM:
            self._add(self._finetune(row, run, None, ""))
            return
        if row.adopted:
            adopted = self.training.adopt(row, run)
            self._add(adopted.stages)
            self._add(self._measure(run, adopted, "") if row.config else ())
            self._add(self._finetune(row, run, adopted.run, ""))
            return
        trained, twin, waits = self.training.add(row, run)
        if twin:
            self.notes.append(f"{run.title} has the same backbone as {twin}: both came to the same training")
            self._add(replace(stage, compared=False) for stage in trained.stages)
            return
        if row.seed_offset:  # a teacher
            self._add(replace(stage, compared=False) for stage in trained.stages)
            return
        self._add(trained.stages)
        self._add(self._measure(run, trained, waits))
        self._add(self._finetune(row, run, trained.run, waits))

    def _measure(self, run: Run, trained: Trained, waits: str) -> Iterator[Stage]:
        for cls in [cls for cls in KINDS.values() if issubclass(cls, Measure)]:
            block = self.suite.measuring(cls.kind)
            if block.enabled:
                yield self.training.factory(run).make(
                    cls, run, run.name, block.overrides, backbone=trained.run, folder=[str(trained.run.output)],
                    cost=block.cost, disk=Size(block.disk), waits=waits, selection=trained.selection,
                )  # fmt: skip

    def _finetune(self, row: Row, run: Run, backbone: ResultStage | None, waits: str) -> Iterator[Stage]:
        for entry in self.suite.finetune:
            config, source = config_file(entry.config), str(backbone.output) if backbone else "random"
            options = ["--config-file", str(config), "--backbone", source, "--resume"]
            options += ["--truth-dir", str(self.output / TRUTHS)]
            for seed in self.suite.finetune_seeds_of(row):
                stage = self.training.factory(run).make(
                    Finetune, run, run.name, [*entry.overrides, *run.overrides_with(seed)], tool=entry.tool,
                    options=options, config=config, protocol=entry.name, cost=entry.cost, disk=size_of(entry),
                    backbone=backbone, detector_seed=seed, waits=waits,
                )  # fmt: skip
                yield stage if seed is None else replace(stage, title=f"{stage.title} detector seed {seed}")


def _data(entry: DataEntry, output: Path, tools: Path, known: Known, without: bool, resources: Resources) -> Source:
    if not entry.prepare:
        return _existing_folder(entry, output, known, without)
    tool, arguments = find_tool(tools, Prepare.default_tool), entry.prepare
    key = stage_hash(tool, arguments, None, [])
    folder = output / "data" / f"{slug(entry.name)}-{key}" / slug(entry.name)
    # The folder is ours and incomplete whenever the tool is called, so it can replace what a killed call left.
    command = (sys.executable, str(tool), *arguments, "--overwrite", "--output-dir", str(folder))
    stage = Prepare(
        title=f"data {entry.name}: {Prepare.kind}", command=command, output=folder, hash=key, tool=tool.stem,
        marker=f"{arguments[0]}.json", cost=entry.cost, disk=Size(entry.disk), compared=False,
        resources=resources,
    )  # fmt: skip
    return Source(folder, key, stage)


def _existing_folder(entry: DataEntry, output: Path, known: Known, without: bool) -> Source:
    where = f"DATA {entry.name}: FOLDER"
    try:
        folder = expand_path(entry.folder).absolute()
        if not folder.is_dir():
            raise InputError(f"folder {folder} does not exist; check {entry.folder}")
    except InputError as error:
        if without:
            return Source(Path(entry.folder), "", None)
        raise InputError(f"{where}: {error}") from None
    if output.is_relative_to(folder.resolve()):  # the suite would read its own output
        raise InputError(f"{where}: the output folder {output} is inside {folder}; choose another --output-dir")
    return Source(folder, tree_fingerprint(folder, known), None)
