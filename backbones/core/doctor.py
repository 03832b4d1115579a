"""Checks of what this machine can run, each with a line that fixes the problem: Python, packages, GPUs, memory, disk.

Only the standard library is imported until a check needs more, so that a broken installation can be examined.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from backbones.core.machine import GB, count_cores, total_memory

OK, PROBLEM = "ok", "problem"
PRETRAINING, TORCHVISION, DETECTRON2 = "pretraining", "ENGINE torchvision", "ENGINE detectron2"
QUICK, SCALE = "quick suite", "COCO at scale"
ABILITIES = (PRETRAINING, TORCHVISION, DETECTRON2, QUICK, SCALE)
EVALUATED = (TORCHVISION, DETECTRON2, QUICK, SCALE)  # all that end with a COCO evaluation

OLDEST_PYTHON = (3, 10)
# Free disk space needed, in GB.  Quick suite: data, checkpoints and a page; at scale: checkpoints and predictions of a
# few runs.
QUICK_DISK, SCALE_DISK = 1, 20
QUICK_MEMORY, SCALE_SHARED, SCALE_GPU = 3, 1, 8


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        blocks: the ABILITIES that this problem blocks; empty: an inconvenience only.
        fix: the line that fixes a problem.
    """

    name: str
    state: str
    found: str
    fix: str = ""
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """A package that is imported as `module` and installed as `requirement`."""

    module: str
    requirement: str
    blocks: tuple[str, ...]


PACKAGES = (
    Package("numpy", "numpy>=1.26", ABILITIES),
    Package("scipy", "scipy", ABILITIES),
    Package("PIL", "pillow", ABILITIES),
    Package("cv2", "opencv-python-headless>=4.11", ABILITIES),
    Package("fvcore", "fvcore", ABILITIES),
    Package("yacs", "yacs", ABILITIES),
    Package("tqdm", "tqdm", ABILITIES),
    Package("fastjsonschema", "fastjsonschema>=2.19", ABILITIES),
    Package("tensorboard", "tensorboard", ABILITIES),
    Package("rich", "rich", (QUICK,)),
    Package("numba", "numba>=0.60", (QUICK, *EVALUATED)),
    Package("pycocotools", "pycocotools>=2.0.8", EVALUATED),
    Package("msgspec", "msgspec>=0.18", EVALUATED),
    Package("matplotlib", "matplotlib", (QUICK,)),
    Package("jinja2", "jinja2", (QUICK,)),
    Package("vl_convert", "vl-convert-python>=1.6", (QUICK,)),
    Package("pytorch_grad_cam", "grad-cam>=1.5.4", (QUICK,)),
    Package("timm", "timm>=1.0", ()),
    Package("sklearn", "scikit-learn", ()),
)
OLDEST_TORCH = {"torch": "torch>=2.6", "torchvision": "torchvision>=0.21"}


def check_machine(output_dir: Path) -> list[Check]:
    """Check Python, cores, memory, shared memory, and the disk of `output_dir`."""
    old = sys.version_info[:2] < OLDEST_PYTHON
    found = f"{platform.python_version()}, {sys.executable}"
    fix = f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or later" if old else ""
    return [
        Check("Python", PROBLEM if old else OK, found, fix, ABILITIES),
        Check("cores", OK, str(count_cores())),
        check_memory(),
        check_shared_memory(),
        check_disk(output_dir),
    ]


def check_memory() -> Check:
    """Check the memory of the machine or container."""
    total = total_memory()
    few = total < QUICK_MEMORY
    fix = f"give the machine or container {QUICK_MEMORY} GB" if few else ""
    return Check("memory", PROBLEM if few else OK, f"{total:.1f} GB", fix, EVALUATED)


def check_shared_memory() -> Check:
    """Check /dev/shm, through which loader workers hand over batches."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("/dev/shm", OK, "none on this system")
    total = shutil.disk_usage(folder).total / GB
    few = total < SCALE_SHARED
    fix = "start the container with --shm-size=8g or --ipc=host, or set DATALOADER.NUM_WORKERS 0" if few else ""
    return Check("/dev/shm", PROBLEM if few else OK, f"{total:.2f} GB for loader workers", fix, (SCALE,))


def check_disk(output_dir: Path) -> Check:
    """Check free space and write permission of the output folder, or of its closest existing parent."""
    folder = output_dir.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free / GB
    found = f"{free:.1f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", PROBLEM, f"cannot write to {folder}", "choose another --output-dir", ABILITIES)
    if free < SCALE_DISK:
        blocked = ABILITIES if free < QUICK_DISK else (SCALE,)
        needed = QUICK_DISK if free < QUICK_DISK else SCALE_DISK
        return Check("disk", PROBLEM, found, f"free {needed} GB or choose another --output-dir", blocked)
    return Check("disk", OK, found)


def check_packages(packages: Sequence[Package] = PACKAGES) -> list[Check]:
    """Check that every package imports and is new enough."""
    return [check_package(package) for package in packages]


def check_package(package: Package) -> Check:
    """Check that a package imports, as an installed one can still fail to, and is new enough."""
    name, _, oldest = package.requirement.partition(">=")
    install = f"pip install '{package.requirement}'"
    try:
        module = import_quietly(package.module)
    except Exception as error:  # a broken package raises anything; all of it is reported
        if "libGL" in str(error):
            install = f"pip uninstall -y opencv-python; {install} --force-reinstall"
        return Check(name, PROBLEM, reason(error, package.module), install, package.blocks)
    version = version_of(name, module)
    if oldest and version and numbers(version) < numbers(oldest):
        return Check(name, PROBLEM, f"{version} is too old", install, package.blocks)
    return Check(name, OK, version or "unknown version")


def import_quietly(module: str) -> ModuleType:
    """Import a module by name, without its warnings, which the user cannot fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def version_of(distribution: str, module: ModuleType) -> str:
    """Return the version that the module states, else the one of its installation."""
    try:
        return str(getattr(module, "__version__", "") or importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return ""


def numbers(version: str) -> tuple[int, ...]:
    """Parse a version: "2.0.8+cpu" -> (2, 0, 8)."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))


def reason(error: Exception, module: str = "") -> str:
    """Describe an exception raised by the import of `module` in one short line."""
    if isinstance(error, ModuleNotFoundError) and error.name and "halted" not in str(error):
        return "not installed" if error.name == module else f"needs {error.name}, which is not installed"
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def verdicts(checks: Sequence[Check]) -> dict[str, str]:
    """Return "yes" or "no - " and what is missing for each ability, with the fix if only one thing is missing."""
    found = {}
    for ability in ABILITIES:
        missing = [check for check in checks if check.state == PROBLEM and ability in check.blocks]
        named = [c.found if c.name.lower() in c.found.lower() else f"{c.name}: {c.found}" for c in missing]
        fix = f"; {missing[0].fix}" if len(missing) == 1 else ""  # for several, the fixes are listed above
        found[ability] = f"no - {', '.join(named)}{fix}" if missing else "yes"
    return found


def describe(checks: Sequence[Check]) -> str:
    """Return the report: one line per check, the line that fixes it below, the verdicts at the end."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8} {check.name:<{width}}  {check.found}")
        if check.state == PROBLEM:
            lines.append(f"{'':<8} {'':<{width}}  -> {check.fix}")
    return "\n".join([*lines, "", *(f"{ability}: {verdict}" for ability, verdict in verdicts(checks).items())])


def as_dict(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks and verdicts as plain values."""
    return {"checks": [asdict(check) for check in checks], "verdicts": verdicts(checks)}
