"""The graph of a plan's stages: what each one needs, the longest chain, and how long all take in a number of slots."""

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping

from suites.stages import Stage
from suites.stages.base import Key

Seconds = Callable[[Stage], float]


class Graph:
    """Stages and what they need.

    Args:
        stages: each after those that it needs; what is not among them counts as complete.

    Attributes:
        needs, followers: stages that must be complete before a stage, and those that need it.
        deciding: the selections by title.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages = {stage.key: stage for stage in stages}
        self.deciding = {stage.title: stage.key for stage in self.stages.values() if stage.decides}
        self.needs: dict[Key, list[Key]] = {}
        self.followers: dict[Key, list[Key]] = {key: [] for key in self.stages}
        for key, stage in self.stages.items():
            wanted = [item.key for item in (*stage.inputs, *stage.choices)]
            wanted += filter(None, [self.deciding.get(stage.waits)])
            self.needs[key] = [item for item in dict.fromkeys(wanted) if item in self.stages]
            for needed in self.needs[key]:
                self.followers[needed].append(key)

    def lengths(self, seconds: Seconds) -> dict[Key, float]:
        """Return for every stage the seconds of the longest chain of stages that begins with it."""
        lengths: dict[Key, float] = {}
        for key, stage in reversed(self.stages.items()):
            lengths[key] = seconds(stage) + max((lengths[other] for other in self.followers[key]), default=0.0)
        return lengths

    def critical_path(self, seconds: Seconds) -> list[Stage]:
        """Return the longest chain; no number of slots makes the suite faster than that."""
        lengths, path = self.lengths(seconds), []
        following: Collection[Key] = self.stages
        while following:
            key = max(following, key=lengths.__getitem__)
            path.append(self.stages[key])
            following = self.followers[key]
        return path

    def makespan(
        self, seconds: Seconds, slots: int, complete: Collection[Key] = (), running: Mapping[Key, float] | None = None
    ) -> float:
        """Return the seconds until all stages have ended, if the longest chain always goes first.

        Args:
            seconds: expected duration of a stage.
            complete: stages that need not run.
            running: stages that have started -> seconds that they still need.
        """
        lengths = self.lengths(seconds)
        ends = [(left, key) for key, left in (running or {}).items()]
        heapq.heapify(ends)
        missing = {
            key: sum(item not in complete for item in needed)
            for key, needed in self.needs.items()
            if key not in complete and key not in (running or {})
        }
        ready = [(-lengths[key], number, key) for number, (key, count) in enumerate(missing.items()) if not count]
        heapq.heapify(ready)
        now, numbers = 0.0, {key: number for number, key in enumerate(self.stages)}
        while ready or ends:
            while ready and len(ends) < slots:
                _, _, key = heapq.heappop(ready)
                heapq.heappush(ends, (now + seconds(self.stages[key]), key))
            now, ended = heapq.heappop(ends)
            for key in missing.keys() & self.followers.get(ended, ()):
                missing[key] -= 1
                if not missing[key]:
                    heapq.heappush(ready, (-lengths[key], numbers[key], key))
        return now
