"""The cluster as the place where stages run: start, look and cancel, from any process, with no state in this one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from suites.cluster import claims, ledger
from suites.cluster.jobs import Cluster, ClusterError, Job, RefusedError, Request
from suites.cluster.ledger import Attempt, create, folder_of, job_prefix, key_of
from suites.cluster.stage_job import StageJob, Times
from suites.cluster.states import COMPLETE, SKEW, TIMEOUTS, State, View, find_state
from suites.plan import Plan
from suites.stages import Stage

_NAME = 150  # characters of a stage's key in the name of its job


class ClusterExecutor:
    """Starts stages as jobs, finds them again and cancels them.

    Args:
        clock: time by the clock of the file system.
    """

    def __init__(
        self, plan: Plan, cluster: Cluster, clock: Callable[[], float] | None = None, times: Times | None = None
    ) -> None:
        self.output, self.suite, self.cluster = plan.output, plan.suite, cluster
        self.clock = clock or (lambda: ledger.file_clock(plan.output))
        self.times = times or Times()
        self.data = {source.folder: source.hash for source in plan.data.values() if source.stage is None}
        self.prefix = job_prefix(plan.output)

    def name_of(self, key: str) -> str:
        """Return the name of the jobs of a stage."""
        return f"{self.prefix}{key[-_NAME:]}"

    # ---- look ------------------------------------------------------------------------------------

    def ask(self) -> View:
        """Ask the scheduler about all jobs of the output folder: one call, and one to the accounting if one is missed.

        Raises:
            ClusterError: the scheduler did not answer, so that nothing may be submitted.
        """
        queue = _by_name(self.cluster.jobs(self.prefix))
        # The folders are read after the queue: a job that has left it has written everything before.
        attempts, now = ledger.load_all(self.output), self.clock()
        view = View(now, attempts, queue, {})
        missed = [
            one.made
            for key, one in attempts.items()
            if not one.over and not key.startswith(ledger.NEXT) and not view.alive(self.name_of(key))
        ]
        if not missed:
            return view
        try:
            history = self.cluster.history(self.prefix, min(missed) - SKEW)
        except ClusterError:
            return replace(view, answered=False)
        return replace(view, history=_by_name(history or ()), accounted=history is not None)

    def look(self, stages: Iterable[Stage], view: View, *, keep: bool = True) -> dict[str, State]:
        """Return the states of stages by key; keep: save what has become known of their attempts."""
        states: dict[str, State] = {}
        for stage in stages:
            key, folder = key_of(stage), folder_of(self.output, key_of(stage))
            attempt, name = view.attempts.get(key), self.name_of(key)
            if not stage.waits and stage.complete():
                ended = attempt and not attempt.over and not view.alive(name)
                states[key] = State(COMPLETE, attempt.end(ledger.DONE, "") if attempt and ended else attempt)
            else:
                claim = claims.load_last(folder) if attempt and not attempt.over else None
                broken = partial(self._broken, attempt, view)
                states[key] = find_state(stage, name, attempt, claim, view, self.suite.launch.retries, broken)
            if keep:
                self._keep(folder, attempt, states[key])
        return states

    def _broken(self, attempt: Attempt | None, view: View) -> bool:
        """Return whether a job for which an attempt waited did not succeed, as far as is known."""
        for key, number in attempt.after.items() if attempt else ():
            needed = view.attempts.get(key)
            if needed is None or needed.number != number or needed.over not in ("", ledger.DONE):
                return True
            record = view.ended(self.name_of(key), needed)
            if record is None or record.state != "COMPLETED":
                return True
        return False

    def _keep(self, folder: Path, before: Attempt | None, state: State) -> None:
        now = state.attempt
        if now is not None and now != before:
            if now.job and before and not before.job:
                self.cluster.adopt(folder / str(now.number), now.job)
            ledger.save(folder, now)

    def durations(self, stages: Iterable[Stage]) -> list[tuple[Stage, float]]:
        """Return the seconds of the stages that ran in one go, by when they began."""
        found = []
        for stage in stages:
            claim = claims.load_last(folder_of(self.output, key_of(stage)))
            if claim and claim.state == claims.DONE and claim.number == 1 and claim.seconds:
                found.append((claim.begun, stage, claim.seconds))
        return [(stage, seconds) for _, stage, seconds in sorted(found, key=lambda one: one[0])]

    # ---- start -----------------------------------------------------------------------------------

    def start(
        self, stage: Stage, last: Attempt | None, needs: Mapping[str, Attempt], *, anew: bool, lane: Sequence[str] = ()
    ) -> Attempt | None:
        """Submit a stage; return its attempt, None if another process submits it.

        Args:
            last: its last attempt.
            needs: the attempts of the stages that it needs whose jobs have not ended, by key.
            anew: the user starts it again.
            lane: ids of jobs that must have ended before, so that not too many of a kind run at once.

        Raises:
            RefusedError: the scheduler refused the job.
            ClusterError: it may have been submitted.
        """
        key = key_of(stage)
        folder = folder_of(self.output, key)
        data = [(path, self.data[path]) for path in stage.reads if path in self.data]
        request = Request(
            self.name_of(key), folder, stage.resources, stage.processes_per_node, TIMEOUTS if stage.trains else 0,
            [one.job for one in needs.values()], lane,
        )  # fmt: skip
        after = {key: one.number for key, one in needs.items()}
        retries = self.suite.launch.retries
        call = partial(StageJob, stage, folder, output=self.output, data=data, retries=retries, times=self.times)
        return self.submit(request, lambda number: call(number), last, after, anew=anew)

    def submit(
        self, request: Request, call: Callable[[int], Callable[[], object]], last: Attempt | None,
        after: Mapping[str, int], *, anew: bool,
    ) -> Attempt | None:  # fmt: skip
        """Create the next attempt, submit its job, and add the job's id to it; None if another process does.

        Args:
            request: with the folder of the attempts.
            call: returns what the job of the attempt with a number calls.
        """
        made, folder = self.clock(), request.folder
        attempt = last.follow(made, after, anew=anew) if last else Attempt(1, made, after=after)
        attempt = create(folder, attempt)
        if attempt is None:
            return None
        try:
            job = self.cluster.submit(replace(request, folder=folder / str(attempt.number)), call(attempt.number))
        except RefusedError as error:
            ledger.save(folder, attempt.end(ledger.LOST, str(error)))
            raise
        attempt = replace(attempt, job=job)
        ledger.save(folder, attempt)
        return attempt

    # ---- cancel ----------------------------------------------------------------------------------

    def cancel(self) -> list[Job]:
        """Cancel all jobs of the output folder; return them."""
        alive = [job for jobs in _by_name(self.cluster.jobs(self.prefix)).values() for job in jobs if job.alive]
        for key, attempt in ledger.load_all(self.output).items():
            if not attempt.over and (not attempt.job or attempt.job in {job.id for job in alive}):
                ledger.save(folder_of(self.output, key), attempt.end(ledger.CANCELLED, "cancelled by --cancel"))
        if alive:
            self.cluster.cancel([job.id for job in alive])
        return alive


def _by_name(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.name, []).append(job)
    return found
