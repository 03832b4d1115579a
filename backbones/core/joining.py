"""How the processes of backbones/core/launch.py meet, on one machine or several.

The main process listens.  Every process says there which one it is and of how many, so that a wrong option is one line
on every machine, instead of a wait of half an hour.
"""

import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from backbones.core.errors import InputError

if TYPE_CHECKING:
    from torch.distributed import Store

# Environment variable of processes that meet here; others, as torchrun's, as torch does it.
JOINS = "SMOOTH2DET_JOINS"
# Seconds in which all processes must come, when machines are started by hand; and for the main one to reach itself.
JOIN_SECONDS, OWN_SECONDS = 300.0, 20.0
# For which the main process keeps listening after a refusal, so that the others can read it.
LISTEN_SECONDS = 1.0
_POLL = 0.05
# Of later calls, as torch has it.
_LATER = timedelta(minutes=30)


def join_group(backend: str) -> None:
    """Join the process group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe.

    Raises:
        InputError: the main process cannot be reached, not all come, or they do not agree on their numbers.
    """
    import torch.distributed as dist

    own, size, host, port = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    store = _open_store(host, int(port), main=own == "0")
    _meet(store, int(own), int(size), f"tcp://{host}:{port}")
    store.set_timeout(_LATER)
    dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=int(own), world_size=int(size))


def _open_store(host: str, port: int, *, main: bool) -> "Store":
    from torch.distributed import TCPStore

    where = f"tcp://{host}:{port}"
    if main:
        _check_free(port, where)
    else:
        _reach(host, port, where)
    try:
        seconds = timedelta(seconds=OWN_SECONDS if main else JOIN_SECONDS)
        return TCPStore(host, port, None, main, seconds, wait_for_workers=False)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        if main:
            raise InputError(
                f"{where}: the main process cannot listen there; HOST in --dist-url must be this machine, of "
                f"--machine-rank 0 ({said})"
            ) from None
        raise InputError(f"{where}: what listens there is not the main process; choose another port ({said})") from None


def _check_free(port: int, where: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise InputError(f"{where}: {error.strerror}; choose another port in --dist-url on all machines") from None


def _reach(host: str, port: int, where: str) -> None:
    """Wait until the main process listens."""
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        left = deadline - time.monotonic()
        try:
            socket.create_connection((host, port), timeout=max(min(left, 5.0), 0.1)).close()
            return
        except OSError as error:
            if left <= 0:
                raise InputError(
                    f"{where}: no answer from the main process within {JOIN_SECONDS:g} s "
                    f"({error.strerror or 'timed out'}); start machine 0, or open this port between the machines"
                ) from None
        time.sleep(_POLL)


def _meet(store: "Store", own: int, size: int, where: str) -> None:
    """Wait until all `size` processes have come."""
    deadline = time.monotonic() + JOIN_SECONDS
    names = [f"came/{size}/{rank}" for rank in range(size)]
    if store.add(names[own], 1) > 1:
        _refuse(store, own, f"{where}: process {own} has come twice; give every machine its own --machine-rank")
    if own == 0:
        store.set("size", str(size))
    while not store.check(["all"]):
        if store.check(["refused"]):
            _refuse(store, own, store.get("refused").decode())
        if own and store.check(["size"]) and int(store.get("size")) != size:
            expected = store.get("size").decode()
            _refuse(
                store, own,
                f"{where}: the main process expects {expected} processes, process {own} says {size}; give every "
                f"machine the same --num-gpus and --num-machines",
            )  # fmt: skip
        if own == 0 and store.check(names):
            store.set("all", "")
        elif time.monotonic() > deadline:
            came = sum(store.check([name]) for name in names)
            _refuse(
                store, own,
                f"{where}: only {came} of {size} processes came within {JOIN_SECONDS:g} s; start all machines with the "
                f"same --dist-url, or open this port between them",
            )  # fmt: skip
        time.sleep(_POLL)


def _refuse(store: "Store", own: int, line: str) -> NoReturn:
    """Tell all processes why they cannot train together."""
    store.set("refused", line)
    if own == 0:
        time.sleep(LISTEN_SECONDS)
    raise InputError(line)
