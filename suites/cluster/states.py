"""The state of a stage on a cluster: from its folder first, then from its attempts, its claims and the scheduler.

A stage is never submitted again while its job may be alive, and never counted as failed before its job has ended and
left the queue, and its files have had time to appear.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from suites.cluster import claims, jobs, ledger
from suites.cluster.claims import Claim
from suites.cluster.jobs import Job
from suites.cluster.ledger import Attempt
from suites.stages import Stage

COMPLETE, RUNNING, QUEUED, UNSURE, FAILED, CANCELLED, NEW = (
    "complete", "running", "queued", "unsure", "failed", "cancelled", "new"
)  # fmt: skip
LIVE = (RUNNING, QUEUED)
# Seconds: after which a submission without an answer counts as lost; for which the files of a job that has ended may
# still be missing; by which the clocks of scheduler and file system may differ.
GRACE, SETTLE, SKEW = 180.0, 10.0, 600.0
# Times that a stage is submitted again after a time limit, and if its job ends before it begins.
TIMEOUTS, UNBEGUN = 30, 3


class State(NamedTuple):
    """The state of a stage; attempt: its last one, with what is now known of it."""

    what: str
    attempt: Attempt | None = None
    job: Job | None = None
    reason: str = ""

    @property
    def waits_for_files(self) -> bool:
        """Whether it is unsure for no longer than `SETTLE`."""
        return self.what == UNSURE and self.attempt is not None and self.attempt.absent > 0


@dataclass(frozen=True)
class View:
    """What the scheduler says at one moment.

    now: by the clock of the file system.
    attempts: the last one at every stage, by key, read after the queue.
    queue, history: jobs by name; accounted: whether the cluster has an accounting; answered: whether it answered.
    """

    now: float
    attempts: Mapping[str, Attempt]
    queue: Mapping[str, Sequence[Job]]
    history: Mapping[str, Sequence[Job]]
    accounted: bool = True
    answered: bool = True

    def alive(self, name: str) -> Job | None:
        """Return the job of this name that is alive, a running one first."""
        found = [job for job in self.queue.get(name, ()) if job.alive]
        return max(found, key=lambda job: (job.runs, job.submitted), default=None)

    def ended(self, name: str, attempt: Attempt) -> Job | None:
        """Return the job of an attempt as it ended, None if it is not known."""
        found = [job for job in (*self.history.get(name, ()), *self.queue.get(name, ())) if not job.alive]
        if attempt.job:  # ids are used again
            found = [job for job in found if job.id == attempt.job]
        found = [job for job in found if job.submitted >= attempt.made - SKEW]
        found = [job for job in found if job.id not in attempt.before or job.submitted >= attempt.made]
        return max(found, key=lambda job: job.submitted, default=None)


def find_state(
    stage: Stage,
    name: str,
    attempt: Attempt | None,
    claim: Claim | None,
    view: View,
    retries: int,
    broken: Callable[[], bool],
) -> State:
    """Return the state of a stage that is not complete.

    Args:
        name: of its jobs.
        attempt, claim: its last ones.
        retries: how often it is started again after it was killed.
        broken: returns whether a job for which its attempt waited did not succeed.
    """
    if job := view.alive(name):
        if attempt and not attempt.over:
            attempt = replace(attempt, job=job.id, absent=0.0)
        return State(RUNNING if job.runs else QUEUED, attempt, job, job.reason)
    if attempt is None:
        return State(NEW)
    if attempt.over:
        return _over(attempt)
    own = claim if claim and claim.attempt == attempt.number else None
    record = view.ended(name, attempt)
    if found := attempt.job or (own.job if own else "") or (record.id if record else ""):
        attempt = replace(attempt, job=found, absent=attempt.absent or view.now)
        return _judge(stage, attempt, own, record, view, retries, broken)
    if not view.answered or view.now - attempt.made < GRACE:
        return State(UNSURE, attempt, None, "it is being submitted, or its submission was interrupted")
    return _over(attempt.end(ledger.LOST, "its submission was interrupted"))


def _judge(
    stage: Stage,
    attempt: Attempt,
    claim: Claim | None,
    record: Job | None,
    view: View,
    retries: int,
    broken: Callable[[], bool],
) -> State:
    """Judge an attempt whose job is not in the queue."""
    waited = view.now - attempt.absent
    if waited < SETTLE:
        return State(UNSURE, attempt, record, f"job {attempt.job} has left the queue; waiting for its files")
    if claim and claim.state == claims.FAILED:
        return _over(attempt.end(ledger.FAILED, claim.reason))
    if record is None and not (view.answered and (not view.accounted or waited >= GRACE)):
        return State(
            UNSURE, attempt, None, f"job {attempt.job} has left the queue; the accounting does not know it yet"
        )
    state = record.state if record else ""
    if state in jobs.LOST:
        return _over(attempt.end(ledger.LOST, f"job {attempt.job} was lost: {state}"))
    if state == jobs.CANCELLED:
        if claim is None and broken():
            return _over(attempt.end(ledger.LOST, "what it waited for did not succeed"))
        return _over(attempt.end(ledger.CANCELLED, f"job {attempt.job} was cancelled"))
    if state in jobs.TIMEOUT:
        return _repeat(attempt, ledger.TIMEOUT, TIMEOUTS if stage.trains else 0, _time_limit(stage, attempt))
    if claim and claim.state == claims.FREED:
        return _over(attempt.end(ledger.LOST, f"job {attempt.job} was stopped"))
    if claim and claim.state == claims.DONE:
        return _over(attempt.end(ledger.FAILED, "its results are not those of this stage, or were changed since"))
    how = f": {state}" if state else ""
    if claim is None:
        return _repeat(attempt, ledger.KILLED, UNBEGUN, f"job {attempt.job} ended before it began{how}")
    return _repeat(attempt, ledger.KILLED, retries, f"job {attempt.job} was killed{how}")


def _repeat(attempt: Attempt, over: str, limit: int, reason: str) -> State:
    return _over(attempt.end(over if attempt.repeats.get(over, 0) < limit else ledger.FAILED, reason))


def _over(attempt: Attempt) -> State:
    what = {ledger.FAILED: FAILED, ledger.CANCELLED: CANCELLED}.get(attempt.over, NEW)
    return State(what, attempt, None, attempt.reason)


def _time_limit(stage: Stage, attempt: Attempt) -> str:
    return f"job {attempt.job} reached its time limit; raise RESOURCES.{stage.kind.upper()}.TIME"
