"""What this process may use of its machine: cores and memory, within the limits of its container.

Only the standard library is imported, for tools/doctor.py.
"""

import os
import platform
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPUS = Path("/proc/cpuinfo")
GB = 1e9


def count_cores() -> int:
    """Return the number of cores available to this process: its CPU affinity, or its container's quota if smaller."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read_limit("cpu.max").partition(" ")  # core microseconds per period; "max": no limit
    return max(1, min(cores, int(quota) // int(period))) if quota.isdigit() and period.isdigit() else cores


def total_memory() -> float:
    """Return the memory of the machine in GB, or the container's limit if smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    limit = _read_limit("memory.max")
    return min(total, int(limit) / GB) if limit.isdigit() else total


def cpu_name() -> str:
    """Return the model of the processor, as precisely as the system knows it."""
    lines = CPUS.read_text(errors="replace").splitlines() if CPUS.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, models), "") or platform.processor() or platform.machine()


def _read_limit(name: str) -> str:
    path = CGROUP / name
    return path.read_text().strip() if path.is_file() else ""
