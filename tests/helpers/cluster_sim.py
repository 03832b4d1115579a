"""A cluster with a scheduler, nodes and jobs in this process, on a clock of its own, that does whatever can go wrong.

It is behind the contract of a cluster (suites/cluster/jobs.py), and its jobs claim a stage and renew the claim as real
ones do.  `Mortal` ends a caller between any two lines.
"""

import random
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from backbones.core.errors import InputError
from suites.cluster import claims, ledger
from suites.cluster.claims import Claim, Claimant, ClaimLost
from suites.cluster.jobs import NEVER, ClusterError, Job, RefusedError
from suites.cluster.stage_job import StageJob

# Files in which a caller can die.
FATAL = ("/suites/cluster/", "/backbones/core/files.py", "/suites/cleaning.py", "/suites/folder.py")


class Dead(BaseException):
    """The caller was killed."""


@contextmanager
def mortal(lines):
    """Kill what runs inside after so many lines of `FATAL`: no later line runs either, not even to clean up."""
    left = [lines]

    def trace(frame, event, _):
        if not any(part in frame.f_code.co_filename for part in FATAL):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                raise Dead
        return trace

    sys.settrace(trace)
    try:
        yield
    except Dead:  # the simulated death: only the process ends
        pass
    finally:
        sys.settrace(None)


@dataclass
class SimJob:
    """A job.

    visible: when the scheduler shows it for the first time.
    steps: what its process still does, as a generator of seconds to wait; None: it has no process.
    cut: whether its node cannot reach the file system.
    """

    id: str
    request: object
    call: object
    submitted: float
    visible: float
    state: str = "PENDING"
    restart: int = 0
    ended: float = 0.0
    reason: str = ""
    steps: object = None
    wakes: float = 0.0
    cut: bool = False


@dataclass(frozen=True)
class Faults:
    """How likely each fault is, at each chance."""

    refuse: float = 0.0
    lose_reply: float = 0.0
    lose_request: float = 0.0
    no_answer: float = 0.0
    strike: float = 0.0  # of something that happens to a running job, per minute
    reuse_ids: float = 0.0
    another: float = 0.0  # caller, during any call of the scheduler

    def scaled(self, factor):
        return Faults(**{name: value * factor for name, value in vars(self).items()})


@dataclass
class Sim:
    """The cluster; `run` passes the time.

    work: function of a stage that does what its tool does, in no time; returns its exit code.
    accounting: whether it has one; lag: seconds after which it knows.
    kills_stuck: whether jobs whose dependency fails are cancelled by the cluster.
    """

    seed: int
    work: object
    faults: Faults = Faults()
    accounting: bool = True
    lag: float = 0.0
    skew: float = 0.0
    kills_stuck: bool = True
    nodes: int = 3
    now: float = 1e9
    table: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    running: dict = field(default_factory=dict)  # key of a stage -> the process that writes to its folder
    starts: list = field(default_factory=list)  # (key, job, time)
    orphans: list = field(default_factory=list)  # processes that the scheduler believes to be gone
    problems: list = field(default_factory=list)
    another: object = None  # another caller
    deep: bool = False

    def __post_init__(self):
        self.random, self.next_id = random.Random(self.seed), 1

    # ---- the contract --------------------------------------------------------------------------

    def jobs(self, prefix):
        self._called("squeue")
        return [self._told(job) for job in self.table if job.visible <= self.now and not self._purged(job)]

    def history(self, prefix, since):
        self._called("sacct")
        if not self.accounting:
            return None
        seen = [job for job in self.table if job.visible + self.lag <= self.now]
        recent = [job for job in seen if not job.ended or job.ended >= since]
        return [
            self._told(job) if not job.ended or job.ended + self.lag <= self.now else self._told(job, "RUNNING")
            for job in recent
        ]

    def submit(self, request, call):
        self.calls.append("sbatch")
        if self.happens(self.faults.refuse):
            raise RefusedError("sbatch: AssocMaxSubmitJobLimit")
        if self.happens(self.faults.lose_request):
            raise ClusterError("sbatch: Unable to contact slurm controller")
        lost = self.happens(self.faults.lose_reply)
        delay = self.random.uniform(0, 120) if lost else 0.0
        alive = [job for job in self.table if job.request.name == request.name and self._alive(job)]
        if alive:
            self.problems.append(f"{request.name} submitted while {alive[0].id} is {alive[0].state}")
        if self.happens(self.faults.reuse_ids):
            self.next_id = 1
        used = {job.id for job in self.table if not self._purged(job)}
        while str(self.next_id) in used:
            self.next_id += 1
        job = SimJob(str(self.next_id), request, call, self.now + self.skew, self.now + delay)
        self.next_id += 1
        self.table.append(job)
        if lost:
            raise ClusterError("sbatch: Socket timed out on send/recv operation")
        self._let_another_call()
        return job.id

    def adopt(self, folder, job):
        pass

    def cancel(self, ids):
        self._called("scancel")
        for job in self.table:
            if job.id in ids and self._alive(job):
                self._stop(job, "CANCELLED", gracefully=True)

    # ---- time ----------------------------------------------------------------------------------

    def run(self, seconds):
        """Pass the time in steps of a few seconds."""
        end = self.now + seconds
        while self.now < end:
            self.now += 5.0
            self._schedule()
            for job in list(self.table):
                if job.state == "RUNNING":
                    self._step(job)
                    if job.state == "RUNNING" and self.happens(self.faults.strike / 12):
                        self._strike(job)
            for orphan in list(self.orphans):
                self._step(orphan)
                if orphan.steps is None:
                    self.orphans.remove(orphan)

    def happens(self, chance):
        return chance > 0 and self.random.random() < chance

    def _schedule(self):
        free = self.nodes - sum(job.state == "RUNNING" for job in self.table)
        for job in self.table:
            if job.state != "PENDING" or job.visible > self.now:
                continue
            met = self._met(job)
            if met is None:
                job.reason = NEVER
                if self.kills_stuck:
                    job.state, job.ended = "CANCELLED", self.now
            elif met and free > 0:
                free -= 1
                job.state, job.reason = "RUNNING", ""
                job.steps, job.wakes = self._process(job), self.now
                self._step(job)

    def _met(self, job):
        """Whether the dependencies of a job are met; None: they never will be."""
        older = self.table[: self.table.index(job)]
        if any(other.request.name == job.request.name and self._alive(other) for other in older):
            return False
        ends = [self._by_id(number, older) for number in job.request.after_ok]
        if any(other and not self._alive(other) and other.state != "COMPLETED" for other in ends):
            return None
        ends += [self._by_id(number, older) for number in job.request.after_any]
        return not any(other and self._alive(other) for other in ends)

    def _by_id(self, number, jobs):
        return next((job for job in reversed(jobs) if job.id == number), None)

    def _step(self, job):
        while job.steps is not None and job.wakes <= self.now:
            try:
                job.wakes = self.now + next(job.steps)
            except StopIteration as ended:
                job.steps = None
                if job in self.table:
                    job.state, job.ended = ("FAILED" if ended.value else "COMPLETED"), self.now

    def _strike(self, job):
        fault = self.random.choice(
            ["kill", "oom", "node", "zombie", "partition", "preempt", "preempt lost", "timeout", "requeue", "revoked"]
        )
        if fault in ("kill", "oom"):
            self._stop(job, "FAILED" if fault == "kill" else "OUT_OF_MEMORY")
        elif fault == "node":
            self._requeue(job)
        elif fault in ("zombie", "partition"):
            orphan = SimJob(job.id, job.request, job.call, 0, 0, "ORPHAN", steps=job.steps, wakes=job.wakes)
            orphan.cut = fault == "partition"
            self.running = {key: orphan if one is job else one for key, one in self.running.items()}
            self.orphans.append(orphan)
            job.steps = None
            self._requeue(job)
        elif fault in ("preempt", "requeue"):
            self._requeue(job, gracefully=True)
        elif fault == "preempt lost":
            self._stop(job, "PREEMPTED", gracefully=True)
        elif fault == "timeout":
            self._stop(job, "TIMEOUT")
        else:
            self._stop(job, "REVOKED")

    def _end_process(self, job, gracefully):
        if job.steps is None:
            return
        if gracefully:
            with suppress(StopIteration, InputError):
                job.steps.throw(InputError("stopped"))
        job.steps = None
        self.running = {key: one for key, one in self.running.items() if one is not job}

    def _stop(self, job, state, gracefully=False):
        self._end_process(job, gracefully)
        job.state, job.ended = state, self.now

    def _requeue(self, job, gracefully=False):
        self._end_process(job, gracefully)
        job.state, job.restart, job.visible = "PENDING", job.restart + 1, self.now

    # ---- what a job does -----------------------------------------------------------------------

    def _process(self, job):
        """What a job does, as `StageJob` does it."""
        call = job.call
        if not isinstance(call, StageJob):
            yield 1.0
            self._let_another_call(certainly=True)
            return 0
        stage, me = call.stage, self._process_of(job)
        attempt = ledger.load_last(call.folder)
        if stage.complete() or (attempt.number == call.number and attempt.over == ledger.CANCELLED):
            return 0
        claim = Claim(0, call.number, job.id, str(job.restart), host=f"n{job.restart}", pid=1)
        claimant = Claimant(call.folder, claim, lambda: self.now)
        while not claimant.take():
            yield 5.0
        try:
            return (yield from self._work(claimant, call, me))
        except ClaimLost:
            return 1
        except InputError:  # it was stopped
            claimant.end(claims.FREED)
            return 1

    def _work(self, claimant, call, me):
        stage, key = call.stage, ledger.key_of(call.stage)
        if stage.complete():
            claimant.end(claims.DONE)
            return 0
        if not all(item.complete() for item in stage.inputs):
            claimant.end(claims.FAILED, 2, "not run: an input is missing")
            return 2
        if key in self.running:
            self.problems.append(f"{key} runs twice at {self.now}")
        stage.forget()
        self.running[key] = me()
        self.starts.append((key, me().id, self.now))
        left, renewed = self.random.choice([20.0, 90.0, 400.0]), self.now
        try:
            while left > 0:
                yield min(left, claims.BEAT)
                left -= claims.BEAT
                if me().cut:
                    if self.now - renewed > claims.FENCE:
                        raise ClaimLost("fenced")
                    continue
                claimant.beat()
                renewed = self.now
            if me().cut:
                raise ClaimLost("no file can be written")
            code = self.work(stage)
            if code:
                claimant.end(claims.FAILED, code, "the tool refuses")
                return code
            stage.record()
            claimant.end(claims.DONE)
            return 0
        finally:
            self.running.pop(key, None)

    def _process_of(self, job):
        """Return a function that returns the process: an orphan once the scheduler has given it up."""
        steps = []

        def me():
            if not steps:
                steps.append(job.steps)
            return next((one for one in self.orphans if one.steps is steps[0]), job)

        return me

    # ---- details -------------------------------------------------------------------------------

    def _called(self, what):
        self.calls.append(what)
        self._let_another_call()
        if self.happens(self.faults.no_answer):
            raise ClusterError(f"{what}: Socket timed out on send/recv operation")

    def _let_another_call(self, certainly=False):
        if self.another and not self.deep and (certainly or self.happens(self.faults.another)):
            trace = sys.gettrace()
            sys.settrace(None)
            self.deep = True
            try:
                self.another()
            finally:
                self.deep = False
                sys.settrace(trace)

    def _alive(self, job):
        return job.state in ("PENDING", "RUNNING")

    def _purged(self, job):
        return bool(job.ended) and self.now - job.ended > 60

    def _told(self, job, state=""):
        return Job(job.id, job.request.name, state or job.state, job.submitted, "n1", job.reason)
