"""The executor of this machine: a process per slot, which never outlives this one.

A stage runs with the threads of its RESOURCES, pinned to the cores of its slot where the system can do that, and sees
the GPUs of its slot only.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from backbones.core.disk import append, writing
from backbones.core.entry import REPORTS
from backbones.core.errors import InputError
from backbones.core.launch import die_with_parent, end_with_parent, refusals
from suites.execution.chain import CODES
from suites.execution.executor import Ended
from suites.execution.slots import Slot
from suites.stages import Stage
from suites.stages.log import describe_command
from suites.training import ROOT

# Seconds between two checks of the processes, and to wait for them to end after SIGTERM; a training, which finishes its
# iteration and saves its checkpoint, has most of the 120 s that a cluster gives it (suites/cluster/slurm.py).
_POLL, _GRACE, _GRACE_OF_TRAINING = 0.05, 10.0, 110.0
# How long torchrun waits for its own processes, where its version reads this variable; otherwise, it waits for 30 s.
_PATIENCE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "100"}


@dataclass
class _Process:
    """The process of one or more stages, with the slots that it owns and what must be closed after it."""

    slots: Sequence[Slot]
    stages: Sequence[Stage]
    child: subprocess.Popen
    files: ExitStack
    codes: int = -1  # descriptor from which the exit codes of a chain are read
    reports: str = ""
    begun: float = field(default_factory=time.monotonic)

    @property
    def trains(self) -> bool:
        """Whether it trains, and can save a checkpoint."""
        return any(stage.trains for stage in self.stages)


class LocalExecutor:
    """Runs every process in a slot of this machine.

    Args:
        lock: descriptor of the suite's lock, which the processes also hold.
        grace: seconds that a training has to save its checkpoint when it is cancelled.
    """

    def __init__(self, slots: Sequence[Slot], lock: int, grace: float = _GRACE_OF_TRAINING) -> None:
        self._lock, self._grace, self._free = lock, grace, sorted(slots, key=lambda slot: slot.number)
        self.slots = len(self._free)
        self._running: list[_Process] = []

    @property
    def free(self) -> int:
        """Number of free slots."""
        return len(self._free)

    def start(self, stages: Sequence[Stage]) -> None:
        """Start the process of `stages` in the first free slot, or in all of them if it spreads."""
        slots = self._free if stages[0].spreads else self._free[:1]
        try:
            with ExitStack() as files:
                process = _start(stages, slots, self._lock, files)
                process.files = files.pop_all()
        except (OSError, subprocess.SubprocessError) as error:  # the latter if it cannot be bound to cores
            raise InputError(f"cannot start its process: {error}") from None
        self._free = self._free[len(slots) :]
        self._running.append(process)

    def look(self, seconds: float) -> list[Ended]:
        """Wait for a stage to end, at most `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            ended = [one for process in list(self._running) for one in self._ended(process)]
            if ended or time.monotonic() >= deadline:
                return ended
            time.sleep(_POLL)

    def cancel(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all processes: SIGTERM, and SIGKILL to those that do not end in time, or to all when `hurry` is true."""
        for process in self._running:
            with suppress(ProcessLookupError):
                process.child.terminate()
        begun = time.monotonic()
        for process in self._running:
            end = begun + (self._grace if process.trains else _GRACE)
            while process.child.poll() is None and time.monotonic() < end and not hurry():
                time.sleep(_POLL)
            if process.child.poll() is None:
                _kill(process.child.pid)
            process.child.wait()
            _end_group(process)
            process.files.close()
        self._running.clear()

    def _ended(self, process: _Process) -> Iterator[Ended]:
        code = process.child.poll()
        for text in _read(process.codes):
            stage, *process.stages = process.stages
            yield Ended(stage, int(text), time.monotonic() - process.begun)
            process.begun = time.monotonic()
        if code is None:
            return
        _end_group(process)
        code = _explain(process, code)
        for number, stage in enumerate(process.stages):
            yield Ended(stage, None if number else code, time.monotonic() - process.begun)
        process.files.close()
        self._running.remove(process)
        self._free = sorted([*self._free, *process.slots], key=lambda slot: slot.number)


def _start(stages: Sequence[Stage], slots: Sequence[Slot], lock: int, files: ExitStack) -> _Process:
    for stage in stages:
        with writing(stage.log):
            stage.log.parent.mkdir(parents=True, exist_ok=True)
            with stage.log.open("ab", buffering=0) as log:
                append(log, describe_command(stage.command).encode())
    first, environment, descriptors = stages[0], {}, [lock]
    codes, reports, before = -1, "", _prepare(slots, die_with_parent)
    closed = ExitStack()  # what only the child needs
    log = files.enter_context(first.log.open("ab", buffering=0))
    output = log
    if len(stages) > 1:
        command, (codes, writes) = _chain(stages), os.pipe()
        os.set_blocking(codes, False)
        files.callback(os.close, codes)
        closed.callback(os.close, writes)
        descriptors.append(writes)
        environment[CODES] = str(writes)
    else:
        command = first.command
        if first.standard_output != first.log:
            with writing(first.standard_output):
                output = files.enter_context(first.standard_output.open("wb", buffering=0))
        if first.processes > 1:
            before, reports = _prepare(slots, end_with_parent), files.enter_context(tempfile.TemporaryDirectory())
            environment |= {REPORTS: reports, **_PATIENCE}
    environment |= slots[0].environment(first.resources.threads)
    with closed:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=log, cwd=ROOT, pass_fds=descriptors,
            # The encoding in which its output is read back.
            preexec_fn=before, env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
        )  # fmt: skip
    return _Process(slots, stages, child, files, codes, reports)


def _kill(pid: int) -> None:
    """Kill a process and, on Linux, those that it has started, as torchrun does in groups of their own."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # it starts no more
        for child in listed.read_text().split() if listed.is_file() else ():
            _kill(int(child))
        os.kill(pid, signal.SIGKILL)


def _end_group(process: _Process) -> None:
    """End what a process that has ended left behind: it could write to the folder, and would hold the lock."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.child.pid, signal.SIGKILL)


def _prepare(slots: Sequence[Slot], bind: Callable[[], None]) -> Callable[[], None]:
    """Return what a child does before it starts its program.

    It is bound to this process and to the slots' cores, and leads a group of its own, which `_end_group` ends.
    """
    cores = [core for slot in slots for core in slot.cores]

    def prepare() -> None:
        os.setpgrp()
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # by which a cluster tells all processes of its time limit
        bind()
        if cores:
            os.sched_setaffinity(0, cores)

    return prepare


def _chain(stages: Sequence[Stage]) -> list[str]:
    calls = []
    for stage in stages:
        _, script, *arguments = stage.command
        log, output = str(stage.log), str(stage.standard_output)
        calls.append({"script": script, "arguments": arguments, "log": log, "output": output})
    return [sys.executable, "-m", "suites.execution.chain", stages[0].process_context, json.dumps(calls)]


def _read(descriptor: int) -> list[str]:
    """Return the lines that can be read now."""
    try:
        return os.read(descriptor, 1 << 16).decode().split() if descriptor >= 0 else []
    except BlockingIOError:
        return []


def _explain(process: _Process, code: int) -> int:
    """Return the exit code of the first process that reported an error, since torchrun itself always ends with 1."""
    refused = refusals(Path(process.reports)) if process.reports and code > 0 else []
    if not refused:
        return code
    with suppress(OSError), process.stages[0].log.open("ab", buffering=0) as log:
        append(log, f"error: {refused[0]}\n".encode())
    return refused[0].exit_code
