"""Identification of the code that made a result: the project's version, and the commit of the clone that was run."""

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

from backbones import __version__

ROOT = Path(__file__).resolve().parents[2]
# Folders whose code computes numbers; a changed README does not count as modified code.
CODE = ("backbones", "comparison", "detection", "suites", "tools")


@functools.cache  # once per process: a result names the code that was loaded, not a later checkout
def code_revision() -> dict[str, Any]:
    """Return {"version", "commit", "modified"}.

    commit: 40 hex digits, or None outside a clone of the project.
    modified: whether a file below CODE differs from the commit or is not part of it, or None outside a clone.
    """
    return {"version": __version__, **clone_state(ROOT)}


def clone_state(root: Path) -> dict[str, Any]:
    """Return {"commit", "modified"} of the clone whose top folder is `root`; both None if `root` is not one."""
    found = (_git(root, "rev-parse", "--show-toplevel", "HEAD") or "").splitlines()
    if len(found) != 2 or Path(found[0]).resolve() != root.resolve():  # an enclosing clone is another project
        return {"commit": None, "modified": None}
    changes = _git(root, "status", "--porcelain", "--", *CODE)
    return {"commit": found[1], "modified": None if changes is None else bool(changes)}


def describe_revision(code: dict[str, Any] | None) -> str | None:
    """Return "1a2b3c4d5e6f", "1a2b3c4d5e6f (modified)", or None if the commit is unknown."""
    if not code or not code.get("commit"):
        return None
    return str(code["commit"])[:12] + (" (modified)" if code.get("modified") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output; None if it fails or is not installed."""
    # Inside a git hook, GIT_DIR would point to the repository of that hook.
    environment = {key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
