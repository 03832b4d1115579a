"""The scheduler: which stages are complete, failed, running or ready; it knows nothing of where a stage runs."""

import time
from collections.abc import Iterator, Sequence

from suites.execution.failures import Failed
from suites.execution.graph import Graph, Seconds
from suites.stages import Stage
from suites.stages.base import Key


class Scheduler:
    """The state of the stages of a plan.

    Attributes:
        complete: stages that need not run, or have run in this call.
        failures: stages that failed, and those that need one of them.
        running: stages that have been started -> when, by `time.monotonic`.
        waiting: all others.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.complete: set[Key] = set()
        self.failures: dict[Key, Failed] = {}
        self.running: dict[Key, float] = {}
        self._ran: set[Key] = set()  # in this call
        self._found: dict[Key, bool] = {}  # whether a stage was complete when it was last looked at
        self.replan(stages)

    def replan(self, stages: Sequence[Stage]) -> None:
        """Take over the stages of a new plan; those that were reached keep their state, those that it lacks lose it."""
        self.graph = Graph(stages)
        self.complete &= self.graph.stages.keys()
        left = self.failures.keys() & self.graph.stages.keys()
        self.failures = {key: failed for key, failed in self.failures.items() if {key, failed.cause.key} <= left}
        for key, stage in self.graph.stages.items():
            if key not in self._found:
                self._found[key] = stage.complete()

    @property
    def stages(self) -> list[Stage]:
        """All stages, in the order of the plan."""
        return list(self.graph.stages.values())

    @property
    def waiting(self) -> list[Stage]:
        """Stages that are neither complete nor failed nor running."""
        return [stage for key, stage in self.graph.stages.items() if not self._reached(key)]

    def active(self) -> list[Stage]:
        """Return the stages that are running now: of those that share a process, the first."""
        firsts: dict[object, Stage] = {}
        for stage in (self.graph.stages[key] for key in self.running if key in self.graph.stages):
            firsts.setdefault(stage.process_key or stage.key, stage)
        return list(firsts.values())

    def unfinished(self) -> list[Stage]:
        """Return the stages that are running or still have to run, as far as is known."""
        running = [self.graph.stages[key] for key in self.running if key in self.graph.stages]
        return [*running, *(stage for stage in self.waiting if not self._found[stage.key])]

    def settle(self) -> Iterator[Stage]:
        """Settle the stages that need not run, or cannot because of a failure, in the plan's order; yield each.

        A sketch fails only with its selection; otherwise, what the selection makes of it would fail once more.
        """
        for key, stage in self.graph.stages.items():
            choice = self.graph.deciding.get(stage.waits)
            if self._reached(key) or (choice and choice not in self.failures):
                continue
            if failed := self._failed_need(stage):
                self.failures[key] = Failed(stage, f"not run: it needs {failed.stage.title}", failed.cause)
                yield stage
            elif self._ready(key) and not stage.waits and self.is_complete(stage):
                self.complete.add(key)
                yield stage

    def is_complete(self, stage: Stage) -> bool:
        """Whether a stage whose needs are settled is complete; its folder is read again if one of them has run."""
        if not self._ran.isdisjoint(self.graph.needs[stage.key]):
            self._found[stage.key] = stage.complete()
        return self._found[stage.key]

    def next(self, seconds: Seconds) -> list[Stage]:
        """Return the stages to start next in one process, after `settle`; empty if none is ready.

        Of the stages that are ready, the one that begins the longest chain comes first: it is on the critical path.
        """
        ready = [stage for stage in self.waiting if self._ready(stage.key) and not stage.waits]
        if not ready:
            return []
        lengths = self.graph.lengths(seconds)
        first = max(ready, key=lambda stage: lengths[stage.key])
        together = first.process_key
        return [stage for stage in ready if stage is first or (together and stage.process_key == together)]

    def start(self, stage: Stage) -> None:
        """Count a stage as running."""
        self.running[stage.key] = time.monotonic()

    def end(self, stage: Stage) -> None:
        """Count a stage that was running as complete."""
        self._leave(stage)
        self._ran.add(stage.key)
        self.complete.add(stage.key)

    def again(self, stage: Stage) -> None:
        """Count a stage that was running as ready again."""
        self._leave(stage)

    def fail(self, stage: Stage, reason: str) -> None:
        """Count a stage that was running as failed; those that need it will not run."""
        self._leave(stage)
        self.failures[stage.key] = Failed(stage, reason, stage)

    def fail_sketches(self, selection: Stage, reason: str) -> list[Stage]:
        """Count the sketches that wait for a selection as failed, together; return them."""
        lost = [stage for stage in self.waiting if stage.waits and stage.waits == selection.title]
        for stage in lost:
            self.failures[stage.key] = Failed(stage, reason, lost[0])
        return lost

    def _leave(self, stage: Stage) -> None:
        del self.running[stage.key]
        for following in self.active():
            if following.process_key and following.process_key == stage.process_key:
                self.running[following.key] = time.monotonic()  # it begins now, in the same process

    def seconds_left(self, seconds: Seconds, slots: int) -> float:
        """Return the seconds until all stages have ended, by the durations `seconds` in so many slots."""
        left = {stage.key for stage in self.unfinished()}
        rest = {
            key: max(seconds(self.graph.stages[key]) - self.seconds_of(key), 0.0) for key in self.running if key in left
        }
        return self.graph.makespan(seconds, slots, self.graph.stages.keys() - left, rest)

    def seconds_of(self, key: Key) -> float:
        """Return how long a stage has been running."""
        return time.monotonic() - self.running[key]

    def _reached(self, key: Key) -> bool:
        return key in self.complete or key in self.failures or key in self.running

    def _ready(self, key: Key) -> bool:
        return all(needed in self.complete for needed in self.graph.needs[key])

    def _failed_need(self, stage: Stage) -> Failed | None:
        needed = [self.failures[key] for key in self.graph.needs[stage.key] if key in self.failures]
        return needed[0] if needed else None
