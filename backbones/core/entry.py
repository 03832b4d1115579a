"""Entry point of every tool: exit codes, and errors as one line on standard error."""

import atexit
import errno
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn, TextIO

from backbones.core.disk import write_error
from backbones.core.distributed import lost_connection
from backbones.core.errors import NO_ROOM, ConnectionLost, InputError, Interrupted
from backbones.core.stopping import Stopped, catch_signals, describe_stop
from backbones.core.streams import CLOSED, protect_streams

# Environment variable with the folder where processes started by backbones/core/launch.py write their error, which the
# launcher reports once.
REPORTS = "SMOOTH2DET_REPORTS"
# Delay of the other processes under torchrun: the first one to exit ends them before they repeat its error.
SECOND_VOICE_SECONDS = 1.0


def run_tool(main: Callable[[list[str] | None], int | None], *, resume: str = "", saves: bool = False) -> NoReturn:
    """Call `main(None)` and exit with its exit code (None: 0).

    Exit with 2 and one line on standard error after an `InputError` or on a full disk, with 3 after a training that
    diverged, with 130 after Ctrl-C, and with 141 if the reader of standard output has closed it and nothing else
    failed.  A tool that can resume exits with 143 after SIGTERM, and says how; others are ended by it.

    Args:
        resume: what to do after an interruption, for a tool that can resume.
        saves: it resumes from a checkpoint, and notes whether there is one (backbones/core/stopping.py).
    """
    output = protect_streams()
    atexit.register(gc.freeze)  # otherwise, the exit searches the modules of torch for garbage, half a second
    threading.excepthook = _report_thread
    code: int | str | None
    try:
        with catch_signals() if resume else nullcontext():
            try:
                code = main(None)
                sys.stdout.flush()
            except KeyboardInterrupt as stopped:  # with the signals caught, as a second one can follow
                code = _report_stop(stopped, resume, saves)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        code = stopped.exit_code
    except InputError as error:
        code = _report(str(error), error.exit_code)
    except RuntimeError as error:
        if not (line := lost_connection(error)):
            raise
        code = _report(line, ConnectionLost.exit_code)
    except PermissionError as error:
        if not error.filename:
            raise
        code = _report(f"no permission for {error.filename}; allow it, or choose another place", InputError.exit_code)
    except OSError as error:
        if error.errno not in (*NO_ROOM, errno.EROFS):
            raise
        code = _report(_describe(error), InputError.exit_code)
        if output:  # otherwise, what could not be written would be tried again at exit
            output.discard()
    except SystemExit as stopped:  # argparse
        code = stopped.code
    alone = "RANK" not in os.environ  # on any exit code except 0, a launcher ends the other processes
    sys.exit(CLOSED if output and output.left and not code and alone else code)


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import without garbage collection: it takes a fifth of the time of importing torch, where little is garbage."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _describe(error: OSError) -> str:
    if error.filename:
        return str(write_error(error.filename, error))
    what = "standard output" if _fails(sys.stdout) else "a file"  # the system does not name a file that is already open
    return f"cannot write {what}: {error.strerror}; free some space, or write to another disk"


def _fails(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return True
    return False


def _report_thread(args: threading.ExceptHookArgs) -> None:
    """Ignore a full disk in TensorBoard's thread: the next call of its writer raises it again and names the file."""
    if not (isinstance(args.exc_value, OSError) and args.exc_value.errno in NO_ROOM):
        threading.__excepthook__(args)


def _report_stop(stopped: KeyboardInterrupt, resume: str, saves: bool) -> int:
    """Print the line of a tool that a signal has stopped, on the main process; return the exit code."""
    number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
    line = describe_stop(number, resume) if saves else f"interrupted{'; ' * bool(resume)}{resume}"
    if os.environ.get("RANK", "0") == "0" and not _leave(line, 128 + number):
        print(line, file=sys.stderr)
    return 128 + number


def _report(message: str, code: int) -> int:
    line, rank = " ".join(message.split()), os.environ.get("RANK", "0")
    if _leave(line, code):
        return code
    if rank != "0":
        time.sleep(SECOND_VOICE_SECONDS)
    print(f"error: {line}", file=sys.stderr)
    return code


def _leave(line: str, code: int) -> bool:
    """Leave the line to the launcher, if there is one; return whether it can be left."""
    if REPORTS not in os.environ:
        return False
    # The launchers of several nodes have no rank.
    part = Path(os.environ[REPORTS], os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0")
    try:
        part.with_suffix(".part").write_text(f"{code} {line}", encoding="utf-8")
        part.with_suffix(".part").rename(part)
    except OSError:  # the disk of temporary files is full: each process prints its own error
        part.with_suffix(".part").unlink(missing_ok=True)
        return False
    return True
