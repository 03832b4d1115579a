"""What `tools/benchmark.py` does where LAUNCH.EXECUTOR is slurm: submit, `--wait`, `--status`, `--cancel`."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from suites.cluster import claims
from suites.cluster.driver import FOLLOWING, Driver, Found, prepare_folder
from suites.cluster.executor import ClusterExecutor
from suites.cluster.jobs import Cluster, ClusterError
from suites.cluster.ledger import folder_of, key_of
from suites.cluster.slurm import Slurm
from suites.cluster.states import (
    CANCELLED,
    COMPLETE,
    FAILED,
    GRACE,
    LIVE,
    NEW,
    QUEUED,
    RUNNING,
    SETTLE,
    UNSURE,
    State,
)
from suites.execution.graph import Graph
from suites.execution.progress import minutes
from suites.execution.timings import Timings
from suites.plan import Plan
from suites.stages import Stage
from suites.stages.comparison import PAGE
from suites.stages.log import last_line

# Seconds between two looks of --wait.
_LOOK = 30.0
_TITLES = {NEW: "waiting", UNSURE: "not sure"}
_ORDER = (COMPLETE, RUNNING, QUEUED, FAILED, CANCELLED, UNSURE, NEW)


def run_on_cluster(
    plan: Plan, command: Sequence[str], stream: IO[str] | None = None, *, wait: bool = False,
    cluster: Cluster | None = None, sleep: Callable[[float], None] = time.sleep,
) -> int:  # fmt: skip
    """Submit what is missing, print the states of all stages, and return; wait: stay until all have ended.

    Args:
        command: calls the suite again.

    Returns:
        exit code: 0, or 1 if a stage failed.

    Raises:
        InputError: SLURM is missing, or refused a job.
        ClusterError: it did not answer; nothing was submitted.
    """
    out, following = stream or sys.stdout, FOLLOWING in os.environ
    executor = ClusterExecutor(plan, cluster or Slurm(plan.suite.cluster))
    driver = Driver(prepare_folder(plan), executor, command)
    found, before, waited, anew = None, Counter[str](), 0.0, not following
    while True:
        try:
            found, anew = driver.advance(anew=anew), False
        except ClusterError as error:
            if not wait:
                raise
            print(f"warning: {error}", file=sys.stderr)
        if found and (found.ended or not (wait or _settles(found, waited, following))):
            break
        if wait and found and (now := _count(found.states)) != before:
            print(_summary(found.states), file=out, flush=True)
            before = now
        sleep(pause := _LOOK if wait else SETTLE)
        waited += pause
    stages = [*driver.plan.stages, *([found.comparison] if found.comparison else [])]
    print("\n".join(_describe(driver.plan, stages, found)), file=out)
    return 1 if found.failures else 0


def describe_jobs(plan: Plan, cluster: Cluster | None = None) -> str:
    """Describe the stages and their jobs; nothing is submitted or written."""
    executor = ClusterExecutor(plan, cluster or Slurm(plan.suite.cluster))
    return "\n".join(_describe(plan, plan.stages, Found(executor.look(plan.stages, executor.ask(), keep=False))))


def cancel_jobs(plan: Plan, cluster: Cluster | None = None) -> str:
    """Cancel all jobs of the output folder, and say how many."""
    jobs = ClusterExecutor(plan, cluster or Slurm(plan.suite.cluster)).cancel()
    return f"cancelled {len(jobs)} job{'s' * (len(jobs) != 1)} of {plan.output}; the plain command submits them again"


def _settles(found: Found, waited: float, following: bool) -> bool:
    """Whether a look in a moment will know more; a call by a job waits longer, as no other may follow."""
    if following:
        return bool(found.count(UNSURE)) and waited < 2 * GRACE
    return any(state.waits_for_files for state in found.states.values()) and waited < 2 * SETTLE


def _count(states: Mapping[str, State]) -> Counter[str]:
    return Counter(state.what for state in states.values())


def _summary(states: Mapping[str, State]) -> str:
    counts = _count(states)
    listed = ", ".join(f"{counts[what]} {_TITLES.get(what, what)}" for what in _ORDER if counts[what])
    return f"{len(states)} stages: {listed}"


def _describe(plan: Plan, stages: Sequence[Stage], found: Found) -> Iterator[str]:
    """Describe the states: which run, since when and where; which failed, and why; what is left."""
    states = found.states
    yield _summary(states)
    for what in (RUNNING, FAILED, CANCELLED, UNSURE):
        for stage in stages:
            if (state := states.get(key_of(stage))) and state.what == what:
                yield from _block(plan, stage, state)
    for what in (QUEUED, NEW):
        rest = [stage for stage in stages if (state := states.get(key_of(stage))) and state.what == what]
        if rest:
            kinds = Counter(stage.timing_key for stage in rest)
            reasons = Counter(states[key_of(stage)].reason for stage in rest if states[key_of(stage)].reason)
            why = f"; most for {reasons.most_common(1)[0][0]}" if reasons else ""
            listed = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
            yield f"{_TITLES.get(what, what)}: {len(rest)} ({listed}){why}"
    yield from dict.fromkeys(found.notes)
    left = [stage for stage in stages if (state := states.get(key_of(stage))) and state.what in (*LIVE, NEW, UNSURE)]
    if left:
        yield from _estimate(plan, left)
    if found.ended and (page := plan.report / PAGE).is_file():
        yield f"report: {page}"


def _block(plan: Plan, stage: Stage, state: State) -> Iterator[str]:
    job = f", job {state.job.id} on {state.job.node}" if state.job and state.what == RUNNING else ""
    claim = claims.load_last(folder_of(plan.output, key_of(stage))) if state.what == RUNNING else None
    since = f", for {minutes(time.time() - claim.begun)}" if claim and claim.state == claims.HELD else ""
    said = last_line(stage.log) if state.what == RUNNING else state.reason
    yield f"{_TITLES.get(state.what, state.what)}: {stage.title}{job}{since}{f': {said}' if said else ''}"
    if stage.log.exists():
        yield f"  log {stage.log}"


def _estimate(plan: Plan, left: Sequence[Stage]) -> Iterator[str]:
    timings = Timings(plan.output / f"timings{plan.suffix}.json")
    graph = Graph(left)
    seconds = graph.makespan(timings.seconds, plan.suite.launch.jobs or len(left))
    unknown = sum(timings.estimate(stage) is None for stage in left)
    if unknown < len(left) and seconds:
        yield f"{'at least' if unknown else 'about'} {minutes(seconds)} left, once the jobs run"
