"""What a suite would do, to be read before it is started: `tools/benchmark.py --dry-run`.

Needs neither the data nor the packages that the stages need, and says which of them are not here.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from backbones.core.config import CfgNode, expand_path
from backbones.core.errors import InputError
from suites.plan import Plan, compare_stage
from suites.stages import TRAININGS, Stage

# Engines of tools/finetune_coco.py that are packages of their own.
PACKAGES = ("detectron2",)


def describe(plan: Plan, settings: Mapping[Stage, CfgNode] | None = None) -> str:
    """What `run_plan` would do: every command in order, what it reads, its folder, and whether that is complete.

    Of stages that depend on a selection, only their number.

    Args:
        settings: the complete configs of stages, for what a stage reads that is no stage (data, engine).
    """
    settings = settings or {}
    stages = [*plan.stages, compare_stage(plan, plan.stages)]
    waiting = [(stage.waits, stage) for stage in plan.stages if stage.waits]
    blocks = ["\n".join(_summary(plan, stages, settings))]
    for number, stage in enumerate(stages, 1):
        if not (stage.waits or (waiting and stage.kind == "compare")):
            blocks.append("\n".join(_block(stage, f"[{number}/{len(stages)}]", settings.get(stage), plan.output)))
    for selection in dict.fromkeys(title for title, _ in waiting):
        count = Counter(stage.title.partition(": ")[0] for title, stage in waiting if title == selection)
        rows = ", ".join(f"{label} {number}" for label, number in count.items())
        blocks.append(f"then {count.total()} more, by what {selection} chooses ({rows})")
    return "\n".join([*blocks, *(["then compare"] if waiting else [])])


def _summary(plan: Plan, stages: Sequence[Stage], settings: Mapping[Stage, CfgNode]) -> Iterator[str]:
    """How much there is to do, and what all of it reads."""
    kinds = Counter(f"{stage.kind} {stage.protocol}".strip() for stage in stages)
    complete = sum(stage.complete() for stage in stages)
    yield f"{len(stages)} stages, {complete} complete: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"
    yield f"output  {plan.output}"
    if plan.cfg.LAUNCH.NUM_GPUS > 1:
        yield f"launch  {plan.cfg.LAUNCH.NUM_GPUS} processes a training, by torchrun"
    lines = Counter(line for stage, cfg in settings.items() for line in outside(stage, cfg, plan.output))
    for line, count in lines.items():
        yield f"{line} ({count} stages)"
    if any(not _enters_a_hash(plan, path) for cfg in settings.values() for path in _read_by(cfg)):
        yield "note    a file that DATA does not name enters no hash: a change of it reruns nothing"
    if any(source.stage is None and not source.folder.is_dir() for source in plan.data.values()):
        yield "note    a data folder is missing: the names of the folders that depend on it will be others"
    for note in plan.notes:
        yield f"note    {note}"


def _block(stage: Stage, number: str, cfg: CfgNode | None, output: Path) -> Iterator[str]:
    """One stage: inputs, config, folder and command."""
    yield f"{number} {stage.title}: {'cached' if stage.complete() else 'to run'}"
    for line in outside(stage, cfg, output) if cfg else ():
        yield f"  {line}"
    titles = {item.output: item.title for item in stage.inputs}
    for path in stage.reads:
        yield f"  input   {path}" + (f" ({titles[path]})" if path in titles else "")
    if stage.config:
        yield f"  config  {stage.config}"
    yield f"  output  {stage.output}"
    yield f"  {shlex.join(stage.command)}"


def outside(stage: Stage, cfg: CfgNode, output: Path) -> Iterator[str]:
    """What a stage with these settings reads that no stage of a suite writes."""
    if stage.kind == "finetune":
        train, test = (", ".join(names) for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST))
        yield f"data    {train} -> {test} in {_place(cfg.DATASETS.ROOT, output)}"
        if (engine := cfg.get("ENGINE")) in PACKAGES:
            yield f"engine  {engine}" + ("" if find_spec(engine) else ": not installed here")
        return
    data, splits = cfg.DATA, [cfg.DATA.VAL_SPLIT]
    if stage.kind in TRAININGS:
        splits = [data.TRAIN_SPLIT, *splits]
    if stage.kind == "evaluate":
        splits += [data.SHIFTED_SPLIT, cfg.EVAL.TEMPERATURE_SPLIT]
    version = f", version {data.VERSION}" if stage.kind in TRAININGS and data.VERSION != "full" else ""
    yield f"data    {data.NAME} {' '.join(filter(None, splits))}{version} in {_place(data.ROOT, output)}"
    for name, path in (("weights", cfg.MODEL.WEIGHTS), ("teacher", cfg.TEACHER.CACHE)):
        if path and stage.kind in TRAININGS:
            yield f"{name} {_place(path, output)}"


def _read_by(cfg: CfgNode) -> list[str]:
    """The files and folders that the settings of a stage name."""
    if "DATASETS" in cfg:
        return [cfg.DATASETS.ROOT]
    return [path for path in (cfg.DATA.ROOT, cfg.MODEL.WEIGHTS, cfg.TEACHER.RUN, cfg.TEACHER.CACHE) if path]


def _enters_a_hash(plan: Plan, path: str) -> bool:
    """Whether `path` is of the suite's own output or of a folder that DATA names."""
    return any(Path(path).is_relative_to(folder) for folder in (plan.output, *(s.folder for s in plan.data.values())))


def _place(path: str, output: Path) -> str:
    """A path as it is written, and what is wrong with it here unless the suite will write it."""
    try:
        there = expand_path(path)
        missing = "" if there.exists() or there.is_relative_to(output) else ": not here"
    except InputError as error:
        missing = f": {str(error).partition(' of ')[0].removeprefix('the environment variable ')} is not set"
    return f"{path}{missing}"
