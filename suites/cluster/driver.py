"""Run a plan on a cluster without a process that stays: every call submits what is missing, and returns.

What a selection decides and the comparison are submitted by a later call: by the user's, by one with `--wait`, or by a
small job that calls the same command when what it waits for has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from backbones.core.errors import InputError
from backbones.core.files import fingerprint, save_json, save_text
from suites.cleaning import save_folders
from suites.cluster import ledger
from suites.cluster.executor import ClusterExecutor
from suites.cluster.jobs import NEVER, ClusterError, RefusedError, Request
from suites.cluster.ledger import Attempt, folder_of, key_of
from suites.cluster.slurm import FULL
from suites.cluster.stage_job import FollowUp
from suites.cluster.states import CANCELLED, COMPLETE, FAILED, GRACE, LIVE, NEW, UNSURE, State, View
from suites.execution.failures import Failed, describe_failures
from suites.execution.graph import Graph
from suites.execution.keeping import Keeper, revive
from suites.execution.timings import Timings
from suites.fingerprints.data import save_known
from suites.folder import claim_suffix
from suites.plan import Plan, compare_stage, plan_again
from suites.stages import Compare, Stage
from suites.stages.base import Key
from suites.stages.resources import Resources
from suites.training import ROOT

FOLLOWING = "SMOOTH2DET_FOLLOW_UP"  # environment variable that is set where a job calls the suite
_ERRORS = 3  # submissions without an answer after which a call submits no more


@dataclass
class Found:
    """What one pass over the plan found and did.

    states: by key of the stage; failures: stages that failed, and those that need one of them.
    submitted: jobs of stages; later: stages that a later pass submits; notes: for the user.
    comparison: the last stage, once all others are complete or have failed.
    """

    states: dict[str, State] = field(default_factory=dict)
    failures: dict[Key, Failed] = field(default_factory=dict)
    submitted: int = 0
    later: int = 0
    notes: list[str] = field(default_factory=list)
    comparison: Stage | None = None

    def count(self, *states: str) -> int:
        """Return how many stages are in one of these states."""
        return sum(state.what in states for state in self.states.values())

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do: all that can be complete is, the comparison too."""
        return self.comparison is not None and not self.count(UNSURE, *LIVE) and not self.later


def prepare_folder(plan: Plan) -> Plan:
    """Write what an output folder holds of every suite; return the plan with the suffix of its file names."""
    plan = replace(plan, suffix=claim_suffix(plan.output, plan.name))
    save_text(plan.output / f"config{plan.suffix}.yaml", plan.suite.dump())
    save_known(plan.output, plan.known)
    return plan


class Driver:
    """Passes over a plan.

    Args:
        plan: from `prepare_folder`.
        command: calls the suite again; empty: no job does.
    """

    def __init__(self, plan: Plan, executor: ClusterExecutor, command: Sequence[str] = ()) -> None:
        self.plan, self.executor, self.command = plan, executor, command

    def advance(self, *, anew: bool) -> Found:
        """Look at all stages once, and submit what is missing.

        Args:
            anew: the user calls, so that what failed or was cancelled is tried again.

        Raises:
            ClusterError: the scheduler did not answer; nothing was submitted.
            InputError: it refused a job for a reason that does not pass by itself.
        """
        revive(self.plan.stages)
        if any(stage.waits for stage in self.plan.stages):
            self.plan = plan_again(self.plan)
            revive(self.plan.stages)  # what a choice has just made definite
        save_folders(self.plan)
        view = self.executor.ask()
        found = Found(self.executor.look(self.plan.stages, view))
        _Submission(self, found, view, anew).run(Graph(self.plan.stages))
        complete = {stage.key for stage in self.plan.stages if found.states[key_of(stage)].what == COMPLETE}
        Keeper(self.plan).release(complete)
        if not found.later and not found.count(UNSURE, *LIVE):
            self.compare(found, view, anew)
        return found

    def compare(self, found: Found, view: View, anew: bool) -> None:
        """Compare what was measured, once all stages have ended; the page shows what failed."""
        failures, suffix = found.failures, self.plan.suffix
        compared = [stage for stage in self.plan.stages if stage.key not in failures]
        path = self.plan.output / f"failures{suffix}.json"
        shown = describe_failures(failures, self.plan.stages)
        save_json(path, shown) if shown else path.unlink(missing_ok=True)
        timings = Timings(self.plan.output / f"timings{suffix}.json")
        timings.replace(self.executor.durations(self.plan.stages))
        price = timings.price(self.plan.stages)
        last = compare_stage(self.plan, compared, path if shown else None, price)
        found.comparison = last
        if last.inputs:
            found.states |= self.executor.look([last], view)
            _Submission(self, found, view, anew).run(Graph([last]))


class _Submission:
    """The submission of what is missing in one pass."""

    def __init__(self, driver: Driver, found: Found, view: View, anew: bool) -> None:
        self.plan, self.executor, self.command = driver.plan, driver.executor, driver.command
        self.found, self.view, self.anew = found, view, anew
        self.lanes: dict[str, list[str]] = {}
        self.errors, self.full = 0, False

    def run(self, graph: Graph) -> None:
        """Submit the stages of `graph` that can be, then the job that calls again."""
        for key, stage in graph.stages.items():
            self.settle(graph, key, stage)
        stuck = [state.job.id for state in self.found.states.values() if state.job and state.job.reason == NEVER]
        if stuck:  # where the cluster does not do it itself
            self.executor.cluster.cancel(stuck)
        if self.command and self.plan.suite.cluster.follow_up:
            self.follow_up(graph)

    def settle(self, graph: Graph, key: Key, stage: Stage) -> None:
        """Submit a stage, or count it as failed, or leave it to a later pass."""
        state = self.found.states[key_of(stage)]
        if state.what in LIVE and state.job:
            self.lanes.setdefault(stage.kind, []).append(state.job.id)
        again = self.anew and state.what in (FAILED, CANCELLED)
        if state.what in (FAILED, CANCELLED) and not again:
            self.found.failures[key] = Failed(stage, state.reason, stage)
        if state.what != NEW and not again:
            return
        needed = [self.found.failures[item] for item in graph.needs[key] if item in self.found.failures]
        if needed:
            self.found.failures[key] = Failed(stage, f"not run: it needs {needed[0].stage.title}", needed[0].cause)
            return
        states = {
            key_of(graph.stages[item]): self.found.states[key_of(graph.stages[item])] for item in graph.needs[key]
        }
        waiting = {name: one.attempt for name, one in states.items() if one.what in LIVE}
        ready = all(one.what in (COMPLETE, *LIVE) for one in states.values())
        known = {name: attempt for name, attempt in waiting.items() if attempt and attempt.job and not attempt.over}
        if stage.waits or not ready or len(known) < len(waiting) or self.full or self.errors >= _ERRORS:
            self.found.later += 1
            return
        self.submit(stage, state, known, again)

    def submit(self, stage: Stage, state: State, needs: dict[str, Attempt], again: bool) -> None:
        """Submit a stage that is ready, or whose needs have jobs."""
        ids, most = self.lanes.setdefault(stage.kind, []), stage.resources.parallel
        lane = ids[-most : len(ids) - most + 1] if most and len(ids) >= most else []
        key = key_of(stage)
        try:
            attempt = self.executor.start(stage, state.attempt, needs, anew=again, lane=lane)
        except RefusedError as error:
            if not any(text in str(error) for text in FULL):
                raise InputError(f"{stage.title}: {error}; check CLUSTER and RESOURCES.{stage.kind.upper()}") from None
            self.full, self.found.later = True, self.found.later + 1
            self.found.notes.append(f"the cluster accepts no more jobs now ({error}); call again for the rest")
        except ClusterError as error:
            self.errors += 1
            self.found.states[key] = State(UNSURE, None, None, str(error))
            self.found.notes.append(f"{stage.title}: {error}; whether it was submitted will be known in a few minutes")
        else:
            what = "queued" if attempt else UNSURE
            self.found.states[key] = State(what, attempt, None, "" if attempt else "another call submits it")
            self.found.submitted += attempt is not None
            ids += [attempt.job] if attempt else []

    # ---- the job that calls again -------------------------------------------------------------------

    def follow_up(self, graph: Graph) -> None:
        """Submit the jobs that call the suite again: when a selection has ended, and when everything has."""
        jobs: dict[Key, str] = {}
        for key, stage in graph.stages.items():
            state = self.found.states[key_of(stage)]
            if state.what in LIVE and state.attempt and state.attempt.job:
                jobs[key] = state.attempt.job
        if not jobs or any(isinstance(stage, Compare) for stage in graph.stages.values()):
            return
        last = sorted(jobs[key] for key in jobs if not jobs.keys() & set(graph.followers[key]))
        choices = [[jobs[key]] for key in jobs if graph.stages[key].decides and any(s.waits for s in self.plan.stages)]
        for ids in [*choices, last]:
            self.call_again(ids)

    def call_again(self, ids: Sequence[str]) -> None:
        """Submit the job that calls the suite when jobs have ended, unless there is one."""
        key = f"{ledger.NEXT}{fingerprint(*ids)}"
        name, attempt = self.executor.name_of(key), ledger.load_last(folder_of(self.plan.output, key))
        if self.view.alive(name) or (attempt and (attempt.job or self.view.now - attempt.made < GRACE)):
            return
        call = FollowUp(list(self.command), ROOT, {FOLLOWING: "1"})
        folder = folder_of(self.plan.output, key)
        request = Request(name, folder, Resources(memory=4.0), after_any=ids)
        try:
            self.executor.submit(request, lambda _: call, attempt, {}, anew=False)
        except (RefusedError, ClusterError) as error:
            self.found.notes.append(f"no job will call the suite again ({error}); call it again later, or use --wait")
