"""The listing of a suite's stages before it is started: `tools/benchmark.py --dry-run`.

Needs neither the data nor the packages that the stages need, and reports which of them are missing.
"""

import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from backbones.core.config import CfgNode, expand_path
from backbones.core.errors import InputError
from suites.config import SLURM
from suites.execution.disk import estimate_disk
from suites.execution.graph import Graph
from suites.execution.keeping import find_lacking
from suites.execution.progress import minutes
from suites.execution.slots import make_slots, this_machine
from suites.execution.timings import Timings
from suites.plan import Plan, compare_stage
from suites.stages import Stage
from suites.stages.base import External, Key


def describe(plan: Plan, settings: Mapping[Stage, CfgNode] | None = None, *, commands: bool = False) -> str:
    """Describe what `run_plan` would do: every stage in order, and whether it is complete.

    Stages that depend on a selection are only counted.

    Args:
        settings: the complete configs of stages, to list what a stage needs besides other stages (data, engine).
        commands: whether to list the inputs, the folder and the command of every stage.
    """
    settings = settings or {}
    timings = Timings(plan.output / f"timings{plan.suffix}.json")
    last = compare_stage(plan, plan.stages, price=timings.price(plan.stages))
    stages = [*plan.stages, last]
    done = {stage.key for stage in stages if stage.complete()} - find_lacking(plan.stages)
    waiting = [(stage.waits, stage) for stage in plan.stages if stage.waits]
    blocks = ["\n".join(_summary(plan, stages, settings, timings, done))]
    for number, stage in enumerate(stages, 1):
        if not (stage.waits or (waiting and stage is last)):
            place = f"[{number}/{len(stages)}]"
            blocks.append(f"{place} {stage.title}: {'cached' if stage.key in done else 'to run'}")
            if commands:
                blocks.extend(_details(stage, settings.get(stage), plan.output))
    for selection in dict.fromkeys(title for title, _ in waiting):
        count = Counter(stage.title.partition(": ")[0] for title, stage in waiting if title == selection)
        rows = ", ".join(f"{label} {number}" for label, number in count.items())
        blocks.append(f"then {count.total()} more, by what {selection} chooses ({rows})")
    return "\n".join([*blocks, *(["then compare"] if waiting else [])])


def _summary(
    plan: Plan, stages: Sequence[Stage], settings: Mapping[Stage, CfgNode], timings: Timings, done: Collection[Key]
) -> Iterator[str]:
    """Summarise the stages, and everything that they read."""
    kinds = Counter(stage.timing_key for stage in stages)
    yield f"{len(stages)} stages, {len(done)} complete: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"
    yield f"output  {plan.output}"
    yield f"report  {plan.report}"
    yield from _estimates(plan, [stage for stage in stages if stage.key not in done], len(stages), timings)
    lines = Counter(line for stage, cfg in settings.items() for line in outside(stage, cfg, plan.output))
    for line, count in lines.items():
        yield f"{line} ({count} stages)"
    if any(not _enters_a_hash(plan, path) for stage, cfg in settings.items() for path in stage.paths(cfg)):
        yield "note    files that DATA does not name enter no hash: if they change, nothing is rerun"
    if any(source.stage is None and not source.folder.is_dir() for source in plan.data.values()):
        yield "note    a data folder is missing: the folders that depend on it will get other names"
    for note in plan.notes:
        yield f"note    {note}"


def _estimates(plan: Plan, rest: Sequence[Stage], number: int, timings: Timings) -> Iterator[str]:
    """Estimate time and disk of the stages that are not complete, `rest` of a number of stages."""
    on_cluster = plan.suite.launch.executor == SLURM
    numbers = sorted({stage.processes for stage in plan.stages if stage.trains})
    processes = " or ".join(map(str, numbers or [plan.suite.launch.num_gpus]))
    if on_cluster:
        slots = plan.suite.launch.jobs or number
        yield f"jobs    {slots} at once on a cluster (LAUNCH.JOBS), {processes} processes per training"
    else:
        slots = plan.suite.launch.jobs or len(make_slots(this_machine(), plan.stages))
        yield f"slots   {slots} (LAUNCH.JOBS), {processes} processes per training"
    unknown = Counter(stage.timing_key for stage in rest if timings.estimate(stage) is None)
    if rest and unknown.total() == len(rest):
        yield "time    unknown until the first stages have run (COST of the suite states it)"
    elif rest:
        graph = Graph(rest)
        path = graph.critical_path(timings.seconds)
        whole, chain = (minutes(sum(map(timings.seconds, some))) for some in (rest, path))
        elapsed = minutes(graph.makespan(timings.seconds, slots))
        yield f"time    about {elapsed} for {whole} of stages{_except(unknown)}"
        yield f"chain   {chain} at least, however many slots: {' > '.join(stage.title for stage in path)}"
        gpu_hours = sum(timings.seconds(stage) * stage.processes * stage.resources.gpus for stage in rest) / 3600
        if on_cluster and gpu_hours:
            yield f"cost    about {gpu_hours:,.0f} GPU hours{_except(unknown)}"
    yield from estimate_disk(plan, rest, timings)


def _except(unknown: Mapping[str, int]) -> str:
    kinds = ", ".join(f"{number} {kind}" for kind, number in unknown.items())
    return f", without {kinds}, whose COST is unknown" if kinds else ""


def _details(stage: Stage, cfg: CfgNode | None, output: Path) -> Iterator[str]:
    """List a stage's inputs, config, folder and command."""
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
    """List what a stage with these settings reads and no stage of the suite writes."""
    for external in stage.externals(cfg):
        yield f"{external.what:<8}{external.text}{_state(external, output)}"


def _state(external: External, output: Path) -> str:
    if external.path:
        return _place(external.path, output)
    return "" if find_spec(external.text) else ": not installed here"


def _enters_a_hash(plan: Plan, path: str) -> bool:
    """Whether `path` is in the suite's own output or in a folder that DATA names."""
    return any(Path(path).is_relative_to(folder) for folder in (plan.output, *(s.folder for s in plan.data.values())))


def _place(path: str, output: Path) -> str:
    """Return a path as it is written, and what is wrong with it on this machine, unless the suite will write it."""
    try:
        there = expand_path(path)
        missing = "" if there.exists() or there.is_relative_to(output) else ": not here"
    except InputError as error:
        missing = f": {str(error).partition(' of ')[0].removeprefix('the environment variable ')} is not set"
    return f"{path}{missing}"
