"""The slots of this machine: equal shares of its cores and GPUs, each for one process of stages at a time."""

import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backbones.core.errors import InputError
from backbones.core.machine import count_cores, total_memory
from suites.stages import Stage
from suites.stages.resources import Resources

# Variables from which the libraries of a stage take their number of threads.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Machine:
    """What this process may use of a machine.

    cores: number of cores; memory: GB; gpus: as in CUDA_VISIBLE_DEVICES.
    core_ids: the cores that processes can be pinned to; empty where that is not possible (macOS) or where a container
        may use only a share of the time of more cores.
    """

    cores: int
    memory: float
    gpus: tuple[str, ...] = ()
    core_ids: tuple[int, ...] = ()

    def __str__(self) -> str:
        """`2 cores, 24 GB of memory, no GPU`."""
        gpus = _count(len(self.gpus), "GPU") if self.gpus else "no GPU"
        return f"{_count(self.cores, 'core')}, {self.memory:.0f} GB of memory, {gpus}"


@dataclass(frozen=True)
class Slot:
    """A share of the machine; empty `cores`: not pinned."""

    number: int
    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()

    def environment(self, threads: int) -> dict[str, str]:
        """Return the environment variables of a stage that runs in this slot."""
        return dict.fromkeys(_THREADS, str(threads)) | ({_GPUS: ",".join(self.gpus)} if self.gpus else {})


def check_system() -> None:
    """Raise `InputError` on a system on which suites do not run."""
    if sys.platform == "win32":
        raise InputError("suites run on Linux and macOS, not on Windows; use the Windows Subsystem for Linux")


def this_machine() -> Machine:
    """Return what this process may use: its CPU affinity, the limits of its container, the visible GPUs."""
    import torch  # slow

    cores, ids = count_cores(), tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_setaffinity") else ()
    visible = [name for name in os.environ.get(_GPUS, "").split(",") if name]
    gpus = visible or [str(number) for number in range(torch.cuda.device_count())]
    return Machine(cores, total_memory(), tuple(gpus[: torch.cuda.device_count()]), ids if len(ids) == cores else ())


def make_slots(machine: Machine, stages: Iterable[Stage], jobs: int = 0) -> list[Slot]:
    """Divide the machine into `jobs` equal slots, each large enough for any of `stages`; 0: as many as possible.

    Raises:
        InputError: LAUNCH.JOBS is more than the cores or the GPUs allow, so that slots would not own them.
    """
    stages = list(stages)
    limits = _limits(machine, stages)
    allowed = max(1, min(limits.values()))
    count = jobs or allowed
    for what in ("cores", "GPUs"):
        if count > max(1, limits.get(what, count)):
            fix = f"use at most {allowed}, or 0 for what the machine allows"
            raise InputError(
                f"LAUNCH.JOBS {jobs}: this machine ({machine}) has {what} for {max(1, limits[what])}; {fix}"
            )
    cores, gpus = len(machine.core_ids) // count, len(machine.gpus) // count
    return [
        Slot(number, machine.core_ids[number * cores :][:cores], machine.gpus[number * gpus :][:gpus])
        for number in range(count)
    ]


def _limits(machine: Machine, stages: Sequence[Stage]) -> dict[str, int]:
    """Return for how many of the largest stages at once the cores, the memory and the GPUs suffice."""
    kinds = {(stage.processes, stage.resources) for stage in stages} or {(1, Resources())}
    cores = max(processes * resources.threads for processes, resources in kinds)
    memory = max(processes * resources.memory for processes, resources in kinds)
    limits = {"cores": machine.cores // cores, "memory": math.floor(machine.memory / memory)}
    if machine.gpus:
        limits["GPUs"] = len(machine.gpus) // max(processes for processes, _ in kinds)
    return limits


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
