"""The machines of a training: how many, which one this is, and where they meet; from the options, or from SLURM.

Under `srun` with several tasks, every task is one machine with `--num-gpus` processes: one task on a node that starts
all of its processes, or one task for each process.
"""

import argparse
import os
import re
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from backbones.core.checks import check_range
from backbones.core.errors import InputError

# Ports that the tasks of a step of a job may meet at: below those that systems give to outgoing connections.
_PORTS = range(12000, 32000)


class Machines(NamedTuple):
    """The machines of a training.

    count: how many; rank: number of this one.
    host, port: where the main process listens; port 0: any, on this machine.
    local: number of the first process of this one among those on the same node.
    """

    count: int
    rank: int
    host: str
    port: int
    local: int = 0


class Tasks(NamedTuple):
    """The tasks that `srun` has started: how many, on how many nodes, and the numbers of this one."""

    count: int
    nodes: int
    rank: int
    local: int


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the launch options of detectron2's tools."""
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine")
    parser.add_argument(
        "--num-machines", type=int, help="machines, each with --num-gpus processes; default: the tasks of srun, or 1"
    )
    parser.add_argument("--machine-rank", type=int, help="number of this machine, from 0; default: that of srun's task")
    parser.add_argument(
        "--dist-url", default="auto", help="tcp://HOST:PORT of machine 0; auto for a single machine or under srun"
    )


def find_tasks(environment: Mapping[str, str] = os.environ) -> Tasks | None:
    """Return the tasks of which this process is one; None if `srun` has not started several."""
    names = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_PROCID", "SLURM_LOCALID")
    texts = [environment.get(name, "") for name in names]
    if not all(text.isdecimal() for text in texts):
        return None
    tasks = Tasks(*map(int, texts))
    return tasks if tasks.count > 1 else None


def count_processes(args: argparse.Namespace) -> int:
    """Return the number of processes that the options ask for, or those and `srun`."""
    tasks = find_tasks()
    return args.num_gpus * (args.num_machines or (tasks.count if tasks and args.num_machines is None else 1))


def find_machines(args: argparse.Namespace) -> Machines:
    """Return the machines that the options and `srun` describe.

    Raises:
        InputError: they contradict each other, or the machines cannot meet.
    """
    check_range("--num-gpus", args.num_gpus, 1)
    if args.num_machines is not None:
        check_range("--num-machines", args.num_machines, 1)
    tasks = find_tasks()
    if tasks is None or args.num_machines == 1:
        for option, value, usual in (("machine-rank", args.machine_rank, None), ("dist-url", args.dist_url, "auto")):
            if args.num_machines is None and value != usual:
                raise InputError(
                    f"--{option} {value} is for several machines; give --num-machines, too, or leave it out"
                )
        count = args.num_machines or 1
        rank = args.machine_rank or 0
        check_range("--machine-rank", rank, 0, count - 1)
        return Machines(count, rank, *_meeting_point(args.dist_url, count))
    _check_tasks(args, tasks)
    host, port = _point_of_step() if args.dist_url == "auto" else _meeting_point(args.dist_url, tasks.count)
    return Machines(tasks.count, tasks.rank, host, port, tasks.local)


def _check_tasks(args: argparse.Namespace, tasks: Tasks) -> None:
    own = {"num-machines": (args.num_machines, tasks.count), "machine-rank": (args.machine_rank, tasks.rank)}
    for option, (given, number) in own.items():
        if given not in (None, number):
            raise InputError(
                f"--{option} {given}: this is task {tasks.rank} of the {tasks.count} that srun has started; leave "
                f"the option out, or set --num-machines 1 to train in each task alone"
            )
    if tasks.count > tasks.nodes and args.num_gpus > 1:
        raise InputError(
            f"--num-gpus {args.num_gpus}: srun has started {tasks.count} tasks on {tasks.nodes} node(s); start one on "
            f"each (--ntasks-per-node 1), or leave --num-gpus out for one process in each task"
        )


def _meeting_point(url: str, count: int) -> tuple[str, int]:
    if url == "auto" and count == 1:
        return "127.0.0.1", 0
    found = re.fullmatch(r"tcp://(\[.+\]|[^:/]+):(\d+)", url)
    if not found:
        raise InputError(f"--dist-url {url}: several machines need tcp://HOST:PORT of machine 0")
    host, port = found[1].strip("[]"), int(found[2])
    check_range(f"--dist-url {url}: the port", port, 1, 65535)
    if not _known(host):
        raise InputError(f"--dist-url {url}: no machine of this name is known here; give its address")
    return host, port


def _known(host: str) -> bool:
    with suppress(OSError):
        return bool(socket.getaddrinfo(host, None))
    return False


def _point_of_step() -> tuple[str, int]:
    """Return (host, port) for the tasks of this step: its first node, and a port by the number of the job."""
    node = first_node(os.environ.get("SLURM_STEP_NODELIST", ""))
    host = node if _known(node) else _address_of(node)
    job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return host, _PORTS[(job + 997 * step) % len(_PORTS)]


def first_node(nodes: str) -> str:
    """Return the first node of a list as SLURM writes it, such as n08 of `n[08-10],m3`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0] if first else "")


def _address_of(node: str) -> str:
    """Return the address by which SLURM reaches a node whose name is not known here."""
    said = ""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "--oneliner", "show", "node", node]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    found = re.search(r"NodeAddr=(\S+)", said)
    if not found or not _known(found[1]):
        raise InputError(
            f"srun: the address of the first node '{node}' is not known here; give --dist-url tcp://HOST:PORT of the "
            f"machine of task 0"
        )
    return found[1]
