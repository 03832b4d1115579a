"""The contract between the scheduler, which knows what stages mean, and an executor, which knows where they run."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from suites.stages import Stage


class Ended(NamedTuple):
    """A stage whose tool has ended.

    code: its exit code, minus the number of the signal that ended its process; None if that process ended before it
        came to this stage.
    seconds: how long it ran.
    """

    stage: Stage
    code: int | None
    seconds: float


class Executor(Protocol):
    """Where stages run.

    slots: number of processes that can run at once; free: how many more can be started now.
    """

    slots: int

    @property
    def free(self) -> int:
        """Number of processes that can be started now."""
        ...

    def start(self, stages: Sequence[Stage]) -> None:
        """Run the tools of `stages` one after the other in one process; called only while a slot is free.

        Raises:
            InputError: the process could not be started, for example since its log cannot be written.
        """

    def look(self, seconds: float) -> list[Ended]:
        """Wait until a stage has ended, at most `seconds`; return those that have ended since the last look."""
        ...

    def cancel(self, hurry: Callable[[], bool]) -> None:
        """End everything that runs, and return when it has ended; trainings get time to save a checkpoint, until
        `hurry` is true."""
        ...
