"""Jobs of a cluster, and the contract between a suite and the scheduler of a cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from backbones.core.errors import InputError
from suites.stages.resources import Resources

# States in which a job has ended; every other state, also one that is not known here, means that it is still there.
LOST = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "REVOKED")
CANCELLED, TIMEOUT = "CANCELLED", ("TIMEOUT", "DEADLINE")
ENDED = (*LOST, CANCELLED, *TIMEOUT, "COMPLETED", "FAILED", "OUT_OF_MEMORY")
# Reason of a job that waits for one that has failed.
NEVER = "DependencyNeverSatisfied"


class ClusterError(InputError):
    """The scheduler of the cluster did not answer; what was asked may have been done."""


class RefusedError(InputError):
    """The scheduler of the cluster refused a job: it was not submitted."""


class Job(NamedTuple):
    """A job as the scheduler describes it.

    submitted: seconds since 1970, by the clock of the scheduler.
    node: where it runs; reason: why it waits.
    """

    id: str
    name: str
    state: str
    submitted: float
    node: str = ""
    reason: str = ""

    @property
    def alive(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in ENDED

    @property
    def runs(self) -> bool:
        """Whether it has been started."""
        return self.state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")


@dataclass(frozen=True)
class Request:
    """A job to be submitted.

    folder: of its files.
    resources: of a process, and the number of nodes; processes: number that it starts on each.
    timeouts: how often it is started again after its time limit.
    after_ok, after_any: ids of jobs that must have succeeded, or ended, before it.
    """

    name: str
    folder: Path
    resources: Resources
    processes: int = 1
    timeouts: int = 0
    after_ok: Sequence[str] = ()
    after_any: Sequence[str] = ()

    @property
    def dependency(self) -> str:
        """Its dependencies as `sbatch` reads them; never beside a job of the same name."""
        parts = ["singleton"]
        parts += [":".join(["afterok", *self.after_ok])] if self.after_ok else []
        parts += [":".join(["afterany", *self.after_any])] if self.after_any else []
        return ",".join(parts)


class Cluster(Protocol):
    """The scheduler of a cluster; every method is one call of one of its programs."""

    def jobs(self, prefix: str) -> list[Job]:
        """Return this user's jobs whose names begin with `prefix` that wait, run or have just ended.

        Raises:
            ClusterError: the scheduler did not answer.
        """
        ...

    def history(self, prefix: str, since: float) -> list[Job] | None:
        """Return this user's jobs whose names begin with `prefix` from the accounting; None: the cluster has none.

        Raises:
            ClusterError: the accounting did not answer.
        """
        ...

    def submit(self, request: Request, call: Callable[[], object]) -> str:
        """Submit a job and return its id.

        Args:
            call: what it calls; an object with a method `checkpoint` is called again after a preemption.

        Raises:
            RefusedError: it was not submitted.
            ClusterError: it may have been submitted.
        """
        ...

    def adopt(self, folder: Path, job: str) -> None:
        """Complete the files of a job in `folder` whose submission was interrupted."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs.

        Raises:
            ClusterError: the scheduler did not answer.
        """
