"""KEEP results: delete weights that no stage needs any more, and train again what a later stage needs.

The names of deleted files are in the record of their stage, written before they are deleted: without them, the stage is
complete for as long as every stage that reads it is complete, too.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache, cached_property

from backbones.core.errors import InputError
from suites.cleaning import names_of_others, open_name
from suites.execution.graph import Graph
from suites.plan import Plan
from suites.stages import Stage
from suites.stages import record as records
from suites.stages.base import Key
from suites.stages.resources import KEEP_RESULTS


class Keeper:
    """Deletes the weights of a plan's stages as soon as no stage needs them.

    Until every selection has chosen, nothing is deleted: what it decides can read any of them.  Stages that another
    suite of the output folder also names are left alone, since its plan is not known.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.graph = plan, Graph(plan.stages)
        self.acts = plan.suite.keep == KEEP_RESULTS and not any(stage.waits for stage in plan.stages)
        self.passed: set[Key] = set()

    def release(self, complete: Collection[Key]) -> None:
        """Delete the weights of the complete stages whose followers are all complete.

        Raises:
            InputError: a file cannot be deleted, or a record cannot be written.
        """
        if not self.acts:
            return
        for key, stage in self.graph.stages.items():
            needed = any(follower not in complete for follower in self.graph.followers[key])
            if key in complete and key not in self.passed and stage.weight_files and not needed:
                self.passed.add(key)
                self._delete(stage)

    def _delete(self, stage: Stage) -> None:
        files = [path for name in stage.weight_files if (path := stage.output / name).is_file()]
        name = stage.own_folder.relative_to(self.plan.output).as_posix()
        if not files or {name, open_name(name)} & self.others or not records.has_record(stage.own_folder):
            return
        records.note_deleted(stage.own_folder, [path.name for path in files])
        for path in files:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(f"cannot delete {path}: {error.strerror}") from None

    @cached_property
    def others(self) -> set[str]:
        """Folders that other suites of the output folder need."""
        return names_of_others(self.plan)


def find_lacking(stages: Iterable[Stage]) -> set[Key]:
    """Return the complete stages whose weights were deleted and are needed again by a stage that is not complete."""
    graph, lacking = Graph(stages), set()
    readers: dict[Key, list[Key]] = {key: [] for key in graph.stages}  # not those that only need its choice
    for key, stage in graph.stages.items():
        for item in stage.inputs:
            readers.get(item.key, []).append(key)
    complete = cache(lambda key: key not in lacking and graph.stages[key].complete())  # slow: reads data sets
    for key, stage in reversed(graph.stages.items()):  # followers come first
        if stage.weight_files and _is_without(stage) and not all(map(complete, readers[key])) and stage.complete():
            lacking.add(key)
    return lacking


def _is_without(stage: Stage) -> bool:
    with suppress(InputError):
        return any(not (stage.output / name).exists() for name in records.deleted(stage.own_folder))
    return False


def revive(stages: Iterable[Stage]) -> None:
    """Let the stages of `find_lacking` run again, from their beginning."""
    stages = list(stages)
    lacking = find_lacking(stages)
    for stage in stages:
        if stage.key in lacking:
            stage.forget()
