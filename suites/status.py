"""The state of a suite's stages, read from their folders, also while it runs: `tools/benchmark.py --status`."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from suites.execution import attempts
from suites.execution.attempts import Attempt
from suites.execution.graph import Graph
from suites.execution.keeping import find_lacking
from suites.execution.progress import minutes
from suites.plan import Plan
from suites.stages import Stage
from suites.stages.log import last_line

# States in the order of the listing; those of an attempt, then those of stages without one.
RUNNING, FAILED, INTERRUPTED = "running", "failed", "interrupted"
READY, WAITING, COMPLETE = "ready", "waiting", "complete"
STATES = (COMPLETE, RUNNING, FAILED, INTERRUPTED, READY, WAITING)


def describe_status(plan: Plan) -> str:
    """Describe the stages: how many are in which state; which run, since when and where; which failed, and why."""
    states = find_states(plan)
    counts = Counter(state for state, _ in states.values())
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    lines = [f"{len(states)} stages: {summary}"]
    for wanted in (RUNNING, FAILED, INTERRUPTED):
        for stage, (state, attempt) in states.items():
            if state == wanted and attempt:
                lines += _block(stage, attempt)
    for wanted in (READY, WAITING):
        rest = [stage for stage, (state, _) in states.items() if state == wanted]
        if rest:
            lines.append(f"{wanted}: {_listed(rest)}")
    return "\n".join(lines)


def find_states(plan: Plan) -> dict[Stage, tuple[str, Attempt | None]]:
    """Return the state of every stage, with its last attempt if it is not complete."""
    graph, complete, states = Graph(plan.stages), set(), {}
    lacking = find_lacking(plan.stages)
    for key, stage in graph.stages.items():
        attempt = None if stage.waits else attempts.load(stage)
        state = attempt.state if attempt else ""
        if stage.complete() and key not in lacking:
            complete.add(key)
            state, attempt = COMPLETE, None
        ready = not stage.waits and all(needed in complete for needed in graph.needs[key])
        states[stage] = (state or (READY if ready else WAITING), attempt)
    return states


def _block(stage: Stage, attempt: Attempt) -> Iterator[str]:
    since = minutes(time.time() - (attempt.ended or attempt.begun))
    said = attempt.reason or last_line(stage.log)
    when = f"for {since}" if attempt.state == RUNNING else f"{since} ago"
    where = f", process {attempt.pid} on {attempt.host}" if attempt.state == RUNNING else ""
    yield f"{attempt.state}: {stage.title}, {when}{where}{f': {said}' if said else ''}"
    yield f"  log {stage.log}"


def _listed(stages: Sequence[Stage]) -> str:
    kinds = Counter(stage.timing_key for stage in stages)
    return f"{len(stages)} ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})"
