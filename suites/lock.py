"""One suite at a time in a folder, and an end of it that takes its stage along."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backbones.core.locking import Owner, hold_lock

LOCK = "suite.lock"
# Seconds for the rest of a killed suite to vanish.
_ORPHANS = 15.0


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a suite as Ctrl-C does: with its child."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Hold `folder`'s lock file, which names this process; yields its descriptor.

    Stages inherit it: a stage that outlives its suite must not meet its own successor.
    """

    def refusal(owner: Owner) -> str:
        what = "another suite is" if owner.alive() else "a stage of a suite that is gone is still"
        return f"{what} at work in {folder} ({owner}); wait for it, or choose another --output-dir"

    with hold_lock(folder / LOCK, refusal, orphans=_ORPHANS) as descriptor:
        yield descriptor
