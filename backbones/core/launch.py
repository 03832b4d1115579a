"""Start a tool again in several processes, on one machine or several, and return one exit code and one error.

`torchrun` does the same and works with every tool that trains; but after a wrong key, which each process reports in one
line, it exits with code 1 and prints a page of its own.  Here the launcher reports the line of the first process, and
exits with its code.
"""

import argparse
import ctypes
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from backbones.core.checks import check_range
from backbones.core.entry import REPORTS
from backbones.core.errors import Diverged, InputError, Interrupted
from backbones.core.stopping import hold_signals, noted_signal

POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
STOP_SECONDS = 120.0  # in which a training that was told to stop saves its checkpoint


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the launch options of detectron2's tools."""
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine")
    parser.add_argument("--num-machines", type=int, default=1, help="machines, each with --num-gpus processes")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0; auto for a single machine")


def wants_launch(args: argparse.Namespace) -> bool:
    """Whether several processes are requested and this is not yet one of them.

    Raises:
        InputError: this process already belongs to another number of processes, as under torchrun, so that the options
            would be ignored.
    """
    asked = args.num_gpus * args.num_machines
    if asked == 1:
        return False
    if "RANK" in os.environ:
        started = os.environ.get("WORLD_SIZE", "1")
        if started != str(asked):
            raise InputError(
                f"--num-gpus {args.num_gpus} and --num-machines {args.num_machines}: the environment (RANK, "
                f"WORLD_SIZE) makes this one of {started} processes; leave both out under torchrun, or unset RANK"
            )
        return False
    import torch.distributed as dist  # a slow import

    return not dist.is_initialized()


def launch(args: argparse.Namespace, script: str, argv: Sequence[str]) -> int:
    """Run `script` with `argv` in `args.num_gpus` processes; return the first exit code that is not 0.

    Report a process that was ended by a signal, for example by the kernel when memory runs out.  SIGTERM and Ctrl-C are
    passed on to all processes, which stop together.

    Raises:
        InputError: the options contradict each other, or a process raised this error.
        Interrupted: a signal has stopped the processes, of which the main one has said what is saved.
        Stopped: a signal has stopped them before any could.
    """
    host, port = _meeting_point(args)
    with tempfile.TemporaryDirectory() as reports:
        environment = {
            **os.environ,
            "MASTER_ADDR": host,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(args.num_gpus * args.num_machines),
            REPORTS: reports,
        }
        environment.setdefault("OMP_NUM_THREADS", "1")  # like torchrun: processes that share cores slow each other down
        command = [sys.executable, os.path.abspath(script), *map(str, argv)]
        children = []
        with hold_signals():
            try:
                for local in range(args.num_gpus):
                    rank = args.machine_rank * args.num_gpus + local
                    own = {"RANK": str(rank), "LOCAL_RANK": str(local)}
                    if rank:  # only the main process shows the warnings of libraries
                        own["PYTHONWARNINGS"] = "ignore"
                    children.append(subprocess.Popen(command, env=environment | own, preexec_fn=die_with_parent))
                code = _wait(children, Path(reports))
            finally:
                _end(children)
            if refused := refusals(Path(reports)):
                raise refused[0]
    if code < 0:
        print(f"error: a process was ended by signal {-code} ({signal.strsignal(-code)})", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _meeting_point(args: argparse.Namespace) -> tuple[str, int]:
    """Return (host, port) of the rendezvous of the processes."""
    import torch  # a slow import

    check_range("--num-gpus", args.num_gpus, 1)
    check_range("--num-machines", args.num_machines, 1)
    check_range("--machine-rank", args.machine_rank, 0, args.num_machines - 1)
    if torch.cuda.is_available() and args.num_gpus > torch.cuda.device_count():
        raise InputError(f"--num-gpus {args.num_gpus}: this machine has {torch.cuda.device_count()}")
    if args.dist_url == "auto" and args.num_machines == 1:
        return "127.0.0.1", _free_port()
    found = re.fullmatch(r"tcp://(\[.+\]|[^:/]+):(\d+)", args.dist_url)
    if not found:
        raise InputError(f"--dist-url {args.dist_url}: several machines need tcp://HOST:PORT of machine 0")
    return found[1].strip("[]"), int(found[2])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(children: list[subprocess.Popen], reports: Path) -> int:
    """Wait until all processes have succeeded or one has failed, since the others would wait for it forever.

    Returns:
        The exit code of the failed process (minus the number of a signal), 2 if one reported an error, or 0.
    """
    deadline = math.inf
    while True:
        if noted_signal() and deadline == math.inf:
            deadline = time.monotonic() + STOP_SECONDS
            for child in children:
                child.send_signal(noted_signal())
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed:
            return failed[0]
        if refused := refusals(reports):
            return refused[0].exit_code
        if None not in codes:
            return 0
        if time.monotonic() > deadline:
            return -noted_signal()
        time.sleep(POLL_SECONDS)


def refusals(reports: Path) -> list[InputError]:
    """Return the errors that processes have left in the folder `reports` (`REPORTS`), by rank."""
    # The names of unfinished files are not numbers.
    paths = sorted((path for path in reports.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    found = [path.read_text(encoding="utf-8").partition(" ") for path in paths]
    return [_as_error(int(code), line) for code, _, line in found]


def _as_error(code: int, line: str) -> InputError:
    if code > 128:
        return Interrupted(line, code)
    return (Diverged if code == Diverged.exit_code else InputError)(line)


def _end(children: list[subprocess.Popen]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
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


def end_with_parent() -> None:
    """Make this child process receive SIGTERM when its parent dies, so that torchrun can stop its own workers."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
