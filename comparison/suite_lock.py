"""One suite at a time in a folder, and an end of it that takes its stage along."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from backbones.core.errors import InputError

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
def lock_folder(folder: Path) -> Iterator[IO[str]]:
    """Hold `folder`'s lock file, which names this process.

    The system drops a lock with the last process that holds it, so a dead suite's file locks nobody out.  Stages
    inherit it: a stage that outlives its suite must not meet its own successor.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another --output-dir") from None
    with file:
        deadline = time.monotonic() + _ORPHANS
        while not _acquired(file):
            owner = _owner(file)
            if _alive(owner) or time.monotonic() > deadline:
                what = "another suite is" if _alive(owner) else "a stage of a suite that is gone is still"
                where = f"at work in {folder} (process {owner})"
                raise InputError(f"{what} {where}; wait for it, or choose another --output-dir")
            time.sleep(0.1)
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield file


def _acquired(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(file: IO[str]) -> int:
    file.seek(0)
    text = file.read().strip()
    return int(text) if text.isdigit() else 0


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs as another user
        return True
    return True
