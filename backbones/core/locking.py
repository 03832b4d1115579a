"""Locks that keep a folder to one process at a time: a lock file that names its owner and is released with it.

The system releases the lock when the last process that holds it ends, so that a file left by a killed process blocks
nobody.  Processes forked from the owner, such as data loaders, release their copy.
"""

import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from backbones.core.disk import write_error, writing
from backbones.core.distributed import gather_objects, is_main, rank
from backbones.core.errors import InputError
from backbones.core.run_log import get_logger
from backbones.core.runs import check_writable

if sys.platform != "win32":
    import fcntl

RUN_LOCK = "run.lock"
# Seconds until an owner that was just killed has vanished.
_GRACE = 1.0
_POLL = 0.05
# Seconds until a file that was just written is seen on other machines.
_VISIBLE = 60.0
# Error numbers of file systems without locks, such as some network file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_own: set[int] = set()  # descriptors of locks that are released when this process ends


class Owner(NamedTuple):
    """Process that holds a lock; pid 0 if the lock file does not state it."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'}{f' on {self.host}' if self.host else ''}"

    def alive(self) -> bool:
        """Whether the process exists; assumed for one on another machine, as its lock is held."""
        if self.pid <= 0:
            return False
        if self.host not in ("", socket.gethostname()):
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it runs as another user
            return True
        return True


@contextmanager
def lock_run(folder: str | Path) -> Iterator[None]:
    """Lock the folder that a tool writes to; the main process holds the lock for all.

    Raises:
        InputError: another process holds it, or not all processes see it; nothing was written.
    """
    folder = Path(folder)
    new = [path for path in (folder, *folder.parents) if not path.exists()]

    def refusal(owner: Owner) -> str:
        return f"{owner} is already writing to {folder}; wait for it to end, or choose another --output-dir"

    with ExitStack() as stack:
        refused, held = "", False
        # A folder without write permission needs no lock: any attempt to write to it reports the error.
        if is_main() and (new or os.access(folder, os.W_OK)):
            try:
                stack.enter_context(hold_lock(folder / RUN_LOCK, refusal, stays=False))
                held = True
            except InputError as error:
                refused = str(error)
        if refused := next(filter(None, gather_objects(refused)), ""):
            raise InputError(refused)
        try:
            _check_shared(folder / RUN_LOCK, held)
            yield
        finally:
            stack.close()
            if new and is_main():
                with suppress(OSError):  # stops at the first folder that is not empty
                    for path in new:
                        path.rmdir()


def _check_shared(path: Path, held: bool) -> None:
    """Raise `InputError` on all processes unless all see the lock file that the main one holds: they resume from the
    same folder."""
    mine = gather_objects(_signature() if held else "")[0]
    problem, deadline = "", time.monotonic() + _VISIBLE
    while mine and not is_main() and not problem:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == mine:
                break
        if time.monotonic() > deadline:
            problem = (
                f"process {rank()} on {socket.gethostname()} does not see {path} of the main process; --output-dir "
                f"must be one folder that all machines share"
            )
        time.sleep(_POLL)
    if problem := next(filter(None, gather_objects(problem)), ""):
        raise InputError(problem)


def _signature() -> str:
    return f"{os.getpid()}\n{socket.gethostname()}\n"


@contextmanager
def hold_lock(
    path: Path, refusal: Callable[[Owner], str], *, orphans: float = 0.0, stays: bool = True
) -> Iterator[int]:
    """Hold the lock file `path`, write this process's id and host to it, and yield its descriptor.

    Args:
        refusal: returns the error message for a process that finds the lock taken.
        orphans: seconds to wait for child processes that still hold the lock of an owner that has ended.
        stays: keep the file after the lock is released, as is necessary where child processes inherit the descriptor
            and with it the lock.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.
    """
    check_writable(path.parent)
    descriptor = _acquire(path, refusal, orphans)
    if not stays:
        _own.add(descriptor)
    try:
        with writing(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _signature().encode())
        yield descriptor
    finally:
        if stays:
            os.close(descriptor)
        elif descriptor in _own:  # false in a process forked from this one
            _own.discard(descriptor)
            with suppress(OSError):  # the disk has become read-only; a remaining file blocks nobody
                path.unlink()
            os.close(descriptor)


def _acquire(path: Path, refusal: Callable[[Owner], str], orphans: float) -> int:
    begun = time.monotonic()
    while True:
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if _lock(descriptor, path):
            if _is_file(descriptor, path):
                return descriptor
            os.close(descriptor)  # its owner ended and deleted it between the two calls
            continue
        owner = _read_owner(descriptor)
        os.close(descriptor)
        if time.monotonic() - begun > (_GRACE if owner.alive() else max(orphans, _GRACE)):
            raise InputError(refusal(owner))
        time.sleep(_POLL)


def _lock(descriptor: int, path: Path) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on some network file systems
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise write_error(path, error) from None
        message = "cannot lock %s (%s): make sure that no other process writes to its folder"
        get_logger().warning(message, path, error.strerror)
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read_owner(descriptor: int) -> Owner:
    lines = os.pread(descriptor, 1024, 0).decode(errors="replace").split()
    pid = int(lines[0]) if lines and lines[0].isdigit() else 0
    return Owner(pid, lines[1] if len(lines) > 1 else "")


def _let_go() -> None:
    for descriptor in _own:
        os.close(descriptor)
    _own.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
