"""What the job of a stage does: claim it, run its tool, record its output.

SLURM announces a time limit by SIGUSR2, on which submitit calls `StageJob.checkpoint` and starts the job again, and a
preemption, a requeue and `scancel` by SIGTERM, then SIGKILL.  The tool is stopped by SIGTERM and resumes from its
checkpoint in the next job.  After SIGTERM, this process does not end by itself: a job that ended now would count as
finished or failed, although it is to be started again.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.core.errors import Diverged, InputError
from suites.cluster import claims, ledger
from suites.cluster.claims import Claim, Claimant, ClaimLost
from suites.cluster.spread import end_steps, spread
from suites.execution import attempts
from suites.execution.executor import Ended
from suites.execution.local import LocalExecutor
from suites.execution.slots import Slot
from suites.fingerprints.data import load_known, tree_fingerprint
from suites.stages import Stage
from suites.stages.outcome import reason_of

# Seconds between two looks at the tool; for which the files of other stages may still be missing; to wait for SIGKILL;
# that the tool has to end when another job may claim its stage.
_POLL, _SETTLE, _END, _HURRY = 1.0, 10.0, 900.0, 10.0
_STOPPED = 143  # exit code of a job that SIGKILL does not reach


@dataclass(frozen=True)
class Times:
    """Seconds of a claim (suites/cluster/claims.py)."""

    beat: float = claims.BEAT
    fence: float = claims.FENCE
    stale: float = claims.STALE


@dataclass
class StageJob:
    """The call of a stage's tool in a job.

    folder: of the stage's attempts and claims; number: of the attempt.
    output: output folder of the suite; data: data folders that the stage reads, with their fingerprints.
    retries: how often the tool is started again after it was killed.
    """

    stage: Stage
    folder: Path
    number: int
    output: Path
    data: Sequence[tuple[Path, str]] = ()
    retries: int = 0
    times: Times = field(default_factory=Times)

    def __call__(self) -> None:
        """Run the stage, unless it is complete or was cancelled; exit with the code of its tool."""
        attempt = ledger.load_last(self.folder)
        if self.stage.complete() or (attempt and attempt.number == self.number and attempt.over == ledger.CANCELLED):
            return
        job = os.environ.get("SLURM_JOB_ID", "")
        claim = Claim(
            0, self.number, job, os.environ.get("SLURM_RESTART_COUNT", "0"), claims.this_machine(),
            socket.gethostname(), os.getpid(), self.stage.processes > 1, time.time(),
        )  # fmt: skip
        claimant = Claimant(self.folder, claim, time.monotonic, self.times.stale)
        self._work = _Work(self, claimant)
        if code := self._work.run():
            sys.exit(code)

    def checkpoint(self) -> Any:
        """Stop the tool before the time limit, and return what the next job calls."""
        from submitit.helpers import DelayedSubmission

        self._work.stop_in_time()
        self._work.claimant.end(claims.FREED)
        names = ("stage", "folder", "number", "output", "data", "retries", "times")
        return DelayedSubmission(StageJob(**{name: getattr(self, name) for name in names}))


class _Work:
    """The work on a stage in this process."""

    def __init__(self, job: StageJob, claimant: Claimant) -> None:
        self.job, self.stage, self.claimant = job, job.stage, claimant
        self.signals: list[int] = []
        self.executor: LocalExecutor | None = None

    def run(self) -> int:
        """Claim the stage and run it; return the exit code."""
        signal.signal(signal.SIGTERM, lambda number, _: self.signals.append(number))
        while not self.claimant.take():
            time.sleep(_POLL)
            self.end_if_stopped()
        try:
            return 0 if self.stage.complete() else self.run_claimed()
        except ClaimLost as lost:
            print(f"stopped: {lost}", file=sys.stderr)
            return 1
        except Exception as error:
            self.claimant.end(claims.FAILED, 1, " ".join(str(error).split()) or type(error).__name__)
            raise
        finally:
            self.stop(hurry=True)
            if self.claimant.claim.state == claims.HELD:
                self.claimant.end(claims.DONE if self.stage.complete() else claims.FREED)

    def run_claimed(self) -> int:
        """Run the tool until it succeeds, or fails by itself."""
        if reason := self.hindrance():
            return self.fail(InputError.exit_code, f"not run: {reason}")
        attempts.put_aside(self.stage)
        for left in range(self.job.retries, -1, -1):
            self.stage.forget()
            ended = self.call_tool()
            self.claimant.beat()  # record nothing if another job has taken over
            code = ended.code or 0
            reason = reason_of(code, self.stage) if code else attempts.complete(self.stage)
            if not reason:
                self.claimant.end(claims.DONE, 0, "", ended.seconds)
                return 0
            if code == Diverged.exit_code and self.stage.accept_divergence(reason):
                self.claimant.end(claims.DONE, code, reason, ended.seconds)
                return 0
            killed = code < 0 or (self.stage.processes > 1 and code == 1)
            if not killed or not left:
                return self.fail(code, reason, ended.seconds)
        raise AssertionError("the loop ends with its last try")

    def hindrance(self) -> str:
        """Return what no longer matches the hash of the stage, "" if it can run."""
        begun = time.monotonic()
        while missing := [item.title for item in self.stage.inputs if not item.complete()]:
            if time.monotonic() - begun > _SETTLE:
                return f"the output of {missing[0]} is missing or has changed since the suite was started"
            time.sleep(_POLL)
        known = load_known(self.job.output)
        changed = [str(folder) for folder, then in self.job.data if tree_fingerprint(folder, known) != then]
        changed += filter(None, [self.stage.changed_source()])
        return f"{changed[0]} has changed since the suite was started; start it again" if changed else ""

    def call_tool(self) -> Ended:
        """Run the tool once, and renew the claim meanwhile."""
        with open(os.devnull, "rb") as nothing:
            self.executor = LocalExecutor([Slot(0)], nothing.fileno())
            self.executor.start([spread(self.stage, self.job.folder)])
            renewed = time.monotonic()
            while not (ended := self.executor.look(_POLL)):
                self.end_if_stopped()
                renewed = self.renew(renewed)
            self.end_if_stopped()  # the signal may have ended the tool, too
        return ended[0]

    def renew(self, renewed: float) -> float:
        """Renew the claim if it is time to; return when it was renewed last."""
        now = time.monotonic()
        if now - renewed < self.job.times.beat:
            return renewed
        try:
            self.claimant.beat()
            return now
        except InputError:  # the file system does not answer
            if now - renewed > self.job.times.fence:
                raise ClaimLost(f"the claim of {self.stage.title} could not be renewed") from None
            return renewed

    def fail(self, code: int, reason: str, seconds: float = 0.0) -> int:
        """Record why the stage failed; return the exit code of the job."""
        self.claimant.end(claims.FAILED, code, reason, seconds)
        return code if 0 < code < 126 else 1

    def stop_in_time(self) -> None:
        """Stop the tool with time for its checkpoint, unless another job may have claimed the stage by then."""
        try:
            self.claimant.beat()
            self.stop()
        except (ClaimLost, InputError):
            self.stop(hurry=True)

    def stop(self, *, hurry: bool = False) -> None:
        """Stop the tool, if it runs."""
        if self.executor:
            begun = time.monotonic()
            self.executor.cancel(lambda: hurry and time.monotonic() - begun > _HURRY)
            if self.stage.resources.nodes > 1:
                end_steps(self.claimant.claim.job)

    def end_if_stopped(self) -> None:
        """After SIGTERM, free the stage and wait for the end."""
        if self.signals:
            self.stop_in_time()
            if self.claimant.claim.number:
                self.claimant.end(claims.FREED)
            time.sleep(_END)
            sys.exit(_STOPPED)


@dataclass
class FollowUp:
    """The call of the suite's own command in a job, when what it waits for has ended."""

    command: Sequence[str]
    folder: Path
    environment: dict[str, str]

    def __call__(self) -> None:
        """Call the command; exit with its code."""
        import subprocess

        code = subprocess.run(self.command, cwd=self.folder, env=os.environ | self.environment, check=False).returncode
        if code:
            sys.exit(code)

    def checkpoint(self) -> Any:
        """Return itself: it can be called any number of times."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(FollowUp(self.command, self.folder, self.environment))
