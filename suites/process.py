"""The process of a stage: runs its command, writes its output to the stage's log, and never outlives this process."""

import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from backbones.core.disk import append, shortage, writing
from backbones.core.entry import REPORTS
from backbones.core.launch import die_with_parent, end_with_parent, refusals
from suites.stages import Stage
from suites.stages.log import COMMAND_MARK, last_line
from suites.training import ROOT

# Seconds between two checks of a child, and to wait for it to end after SIGTERM; torchrun gives its processes 30 s.
_TICK, _GRACE, _GRACE_OF_SEVERAL = 1.0, 10.0, 45.0


def run_command(stage: Stage, lock: int, tick: Callable[[float], None]) -> int:
    """Run the command of a stage; return its exit code, or minus the signal number if a signal ended it.

    torchrun always fails with code 1; with several processes, the code of the first one that reported an error is
    returned instead.

    Args:
        lock: descriptor of the suite's lock, which the child also holds.
        tick: called about every second with the elapsed seconds.
    """
    with writing(stage.log):
        stage.log.parent.mkdir(parents=True, exist_ok=True)
    if stage.processes == 1:
        return _run(stage, lock, tick)
    with tempfile.TemporaryDirectory() as reports:
        code = _run(stage, lock, tick, reports)
        refused = refusals(Path(reports))
        if refused and code > 0:
            with stage.log.open("ab", buffering=0) as log:
                append(log, f"error: {refused[0]}\n".encode())
            return refused[0].exit_code
        return code


def _run(stage: Stage, lock: int, tick: Callable[[float], None], reports: str = "") -> int:
    begun = time.monotonic()
    with ExitStack() as files:
        with writing(stage.log):
            log = files.enter_context(stage.log.open("ab", buffering=0))
            append(log, f"{COMMAND_MARK} {shlex.join(stage.command)}\n".encode())
            apart = stage.standard_output != stage.log
            output = files.enter_context(stage.standard_output.open("wb", buffering=0)) if apart else log
        child = subprocess.Popen(
            stage.command, stdin=subprocess.DEVNULL, stdout=output, stderr=log, cwd=ROOT, pass_fds=[lock],
            preexec_fn=end_with_parent if reports else die_with_parent,
            # The encoding in which its output is read back.
            env=os.environ | {"PYTHONIOENCODING": "utf-8"} | ({REPORTS: reports} if reports else {}),
        )  # fmt: skip
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(_TICK)
                tick(time.monotonic() - begun)
        finally:
            _stop(child, _GRACE_OF_SEVERAL if reports else _GRACE)


def reason_of(code: int, stage: Stage) -> str:
    """Return in one line why a stage failed whose process ended with `code`."""
    said = last_line(stage.log)
    if stage.processes > 1 and code > 0:  # torchrun prints a page after the output of its processes
        said = last_line(stage.log, "error: ") or said
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    if code == 0:
        return "ended without writing its results"
    return said or f"ended with exit code {code} and no output{shortage(stage.log)}"


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Make SIGTERM end a suite and its child, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(child: subprocess.Popen, grace: float) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
