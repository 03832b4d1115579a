"""Run folders: the merged config, environment and log of a run; the stages add their own files."""

import os
import platform
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

from backbones.core.config import IMPORTS, CfgNode, flatten, load_yaml
from backbones.core.disk import write_error
from backbones.core.distributed import barrier, is_main
from backbones.core.errors import NO_ROOM, InputError
from backbones.core.files import save_json, save_text
from backbones.core.imports import refuse_changed_imports, with_copies
from backbones.core.machine import cpu_name
from backbones.core.revision import code_revision
from backbones.core.roles import CONTENT, FREE, Role, Roles
from backbones.core.run_log import log_to_file

CONFIG_FILE = "config.yaml"
_PACKAGES = ("torch", "torchvision", "numpy", "fvcore", "pycocotools", "detectron2", "opencv-python-headless")


def open_run(output_dir: str | Path, cfg: CfgNode) -> Path:
    """Create a run folder, or reopen it, and write config.yaml, environment.json and log.txt.

    Raises:
        InputError: the folder cannot be written.
    """
    run_dir = Path(output_dir)
    check_writable(run_dir)
    if is_main():
        save_text(run_dir / CONFIG_FILE, CfgNode(with_copies(cfg, run_dir)).dump(sort_keys=False))
        save_json(run_dir / "environment.json", environment())
        log_to_file(run_dir / "log.txt")
    barrier()
    return run_dir


def check_resume(
    run_dir: str | Path, cfg: CfgNode, roles: Roles, may_change: Collection[Role] = FREE, keys: Collection[str] = ()
) -> None:
    """Raise `InputError` for a config that would change the numbers of the run in `run_dir`; write nothing.

    A key of the role CONTENT may get another value, but not change between a value and none; the caller checks that
    the content is the same.

    Args:
        may_change: roles whose keys are allowed to differ.
        keys: further keys that are allowed to differ.
    """
    path = Path(run_dir) / CONFIG_FILE
    if not path.exists():
        return
    before, now = dict(flatten(load_yaml(path))), dict(flatten(cfg))
    refuse_changed_imports(path.parent, before, now)
    for key in sorted((before.keys() | now.keys()) - {IMPORTS}):
        if roles.of(key) in may_change or key in keys:
            continue
        # A key that the version of the run did not have counts as not set.
        old, new = (list(v) if isinstance(v, tuple) else v for v in (before.get(key, ""), now.get(key, "")))
        if old != new and not (roles.of(key) is CONTENT and old and new):
            raise InputError(
                f"cannot resume {path.parent}: {key} was {old!r} and is now {new!r}; "
                "set it back, or start in another folder"
            )


def check_writable(folder: Path) -> None:
    """Create `folder`; raise `InputError` if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        if error.errno in NO_ROOM:
            raise write_error(folder, error) from None
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another --output-dir") from None


def environment() -> dict[str, Any]:
    """Return the command, versions, device and git state, as needed to repeat the run."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        # Numbers on a CPU depend on its instructions.
        "device": torch.cuda.get_device_name() if cuda else f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "git": {key: code_revision()[key] for key in ("commit", "modified")},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
