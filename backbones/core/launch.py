"""Start a tool again in several processes, on one machine or several, and return one exit code and one error.

`torchrun` does the same and works with every tool that trains; but after a wrong key, which each process reports in one
line, it exits with code 1 and prints a page of its own.  Here the launcher reports the line of the first process, and
exits with its code.  Each of several machines has a launcher (backbones/core/machines.py); their processes meet as
backbones/core/joining.py says.
"""

import argparse
import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backbones.core.entry import REPORTS, SECOND_VOICE_SECONDS
from backbones.core.errors import ConnectionLost, Diverged, InputError, Interrupted
from backbones.core.joining import JOINS
from backbones.core.machines import Machines, count_processes, find_machines, find_tasks
from backbones.core.stopping import Stopped, also_stops, hold_signals, noted_signal

POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
STOP_SECONDS = 120.0  # in which a training that was told to stop saves its checkpoint
CAUSE_SECONDS = 2.0  # in which the process that broke a connection ends, after another has noticed


def wants_launch(args: argparse.Namespace) -> bool:
    """Whether several processes are requested and this is not yet one of them.

    Raises:
        InputError: the options contradict each other, or this process already belongs to another number of processes,
            as under torchrun, so that they would be ignored.
    """
    told = (args.num_machines, args.machine_rank, args.dist_url) != (None, None, "auto")
    if told and "RANK" not in os.environ:
        find_machines(args)  # also for one process: the options would be ignored
    asked = count_processes(args)
    if asked == 1:
        return False
    if "RANK" in os.environ:
        started = os.environ.get("WORLD_SIZE", "1")
        if started != str(asked) and (args.num_gpus, args.num_machines) != (1, None):
            machines = "" if args.num_machines is None else f" and --num-machines {args.num_machines}"
            raise InputError(
                f"--num-gpus {args.num_gpus}{machines}: the environment (RANK, WORLD_SIZE) makes this one of {started} "
                f"processes; leave {'both' if machines else 'it'} out under torchrun, or unset RANK"
            )
        return False
    import torch.distributed as dist  # a slow import

    return not dist.is_initialized()


def launch(args: argparse.Namespace, script: str, argv: Sequence[str]) -> int:
    """Run `script` with `argv` in `args.num_gpus` processes of this machine; return the first exit code that is not 0.

    Report a process that was ended by a signal, for example by the kernel when memory runs out.  SIGTERM and Ctrl-C are
    passed on to all processes, which stop together, on all machines.  Under `srun`, SIGUSR1 counts as SIGTERM, which
    `srun` does not pass on, but answers with SIGKILL to all tasks.

    Raises:
        InputError: the options contradict each other, or a process raised this error.
        Interrupted: a signal has stopped the processes, of which the main one has said what is saved.
        Stopped: a signal has stopped them before any could.
    """
    machines = find_machines(args)
    first = _check_gpus(args.num_gpus, machines)
    try:
        code = _run([sys.executable, os.path.abspath(script), *map(str, argv)], args.num_gpus, first, machines)
    except Stopped as stopped:
        if not machines.rank:
            raise
        code = stopped.exit_code  # the first machine says what is saved
    except InputError:
        _let_first_speak(machines)
        raise
    if code < 0:
        print(f"error: a process was ended by signal {-code} ({signal.strsignal(-code)})", file=sys.stderr)
    if code:
        _let_first_speak(machines)
    return code if code >= 0 else 128 - code


def _let_first_speak(machines: Machines) -> None:
    """Wait on all machines but the first, which often says the same; under `srun`, the first end of a task ends all."""
    if machines.rank:
        time.sleep(SECOND_VOICE_SECONDS)


def _run(command: Sequence[str], number: int, first: int, machines: Machines) -> int:
    """Run `number` processes; return an exit code, minus the number of a signal.

    Args:
        first: LOCAL_RANK of the first one.
    """
    under_srun = find_tasks() is not None
    with tempfile.TemporaryDirectory() as reports, hold_signals():
        environment = {
            **os.environ,
            "MASTER_ADDR": machines.host,
            "MASTER_PORT": str(machines.port or _free_port()),
            "WORLD_SIZE": str(number * machines.count),
            JOINS: "1",
            REPORTS: reports,
        }
        environment.setdefault("OMP_NUM_THREADS", "1")  # like torchrun: processes that share cores slow each other down
        children: dict[int, subprocess.Popen] = {}
        if under_srun:
            also_stops(signal.SIGUSR1)
        try:
            for local in range(number):
                rank = machines.rank * number + local
                own = {"RANK": str(rank), "LOCAL_RANK": str(first + local)}
                if rank:  # only the main process shows the warnings of libraries
                    own["PYTHONWARNINGS"] = "ignore"
                before = _ignoring(signal.SIGUSR1, signal.SIGUSR2) if under_srun else die_with_parent
                children[rank] = subprocess.Popen(command, env=environment | own, preexec_fn=before)
            code = _wait(children, Path(reports))
        finally:
            _end(children)
        refused = refusals(Path(reports))
        if refused and not (isinstance(refused[0], ConnectionLost) and code != ConnectionLost.exit_code):
            raise refused[0]
    return code


def _check_gpus(number: int, machines: Machines) -> int:
    """Return the number of the first process of this machine among its GPUs."""
    import torch  # a slow import

    if not torch.cuda.is_available():
        return machines.local
    seen = torch.cuda.device_count()
    if number > seen:
        raise InputError(f"--num-gpus {number}: this machine has {seen}")
    return 0 if seen == number == 1 else machines.local  # a task that sees no GPU but its own


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(children: Mapping[int, subprocess.Popen], reports: Path) -> int:
    """Wait until all processes have succeeded or one has failed, since the others would wait for it forever.

    Returns:
        The exit code of the failed process (minus the number of a signal), that of an error that one reported, or 0.
    """
    deadline = math.inf
    while True:
        if noted_signal() and deadline == math.inf:
            deadline = time.monotonic() + STOP_SECONDS
            for child in children.values():
                child.send_signal(noted_signal())
        codes = [child.poll() for child in children.values()]
        if any(codes) or refusals(reports):
            return _first_failure(children, reports)
        if None not in codes:
            return 0
        if time.monotonic() > deadline:
            return -noted_signal()
        time.sleep(POLL_SECONDS)


def _first_failure(children: Mapping[int, subprocess.Popen], reports: Path) -> int:
    """Return the exit code of the first process that has failed by itself, not by the end of another."""
    deadline = time.monotonic() + CAUSE_SECONDS
    while True:
        errors = _reports(reports)
        lost = [rank for rank, error in errors if isinstance(error, ConnectionLost)]
        codes = [child.poll() for rank, child in children.items() if rank not in lost]
        codes += [error.exit_code for rank, error in errors if rank not in lost]
        if failed := [code for code in codes if code]:
            return failed[0]
        if time.monotonic() > deadline:
            return ConnectionLost.exit_code
        time.sleep(POLL_SECONDS)


def refusals(reports: Path) -> list[InputError]:
    """Return the errors that processes have left in the folder `reports` (`REPORTS`), by rank; lost connections, which
    are never the cause, come last."""
    return sorted((error for _, error in _reports(reports)), key=lambda error: isinstance(error, ConnectionLost))


def _reports(reports: Path) -> list[tuple[int, InputError]]:
    """Return (rank, error) of all that processes have left, by rank."""
    # The names of unfinished files are not numbers.
    paths = sorted((path for path in reports.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    found = [(int(path.name), *path.read_text(encoding="utf-8").partition(" ")) for path in paths]
    return [(rank, _as_error(int(code), line)) for rank, code, _, line in found]


def _as_error(code: int, line: str) -> InputError:
    if code > 128:
        return Interrupted(line, code)
    return {Diverged.exit_code: Diverged, ConnectionLost.exit_code: ConnectionLost}.get(code, InputError)(line)


def _end(children: Mapping[int, subprocess.Popen]) -> None:
    for child in children.values():
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children.values():
        try:
            child.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


# Loaded before the fork: after it, only the call itself is safe.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have this child (`preexec_fn`) killed with its parent, so that it cannot keep writing to a folder in which a run
    is resumed.  Linux only; no effect elsewhere."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _ignoring(*numbers: int) -> Callable[[], None]:
    """Return `die_with_parent` that also ignores signals, which a scheduler sends to all processes of a job."""

    def prepare() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        die_with_parent()

    return prepare


def end_with_parent() -> None:
    """Make this child process receive SIGTERM when its parent dies, so that torchrun can stop its own workers."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
