"""Names of stages and folders: the tool, and a hash over everything that the stage's numbers depend on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import backbones.core
from backbones.core.config import config_hash
from backbones.core.errors import InputError
from backbones.core.results import SCHEMA_VERSION


def find_tool(folder: Path, name: str) -> Path:
    """Return the file of a tool in `folder`; raise `InputError` if it does not exist."""
    path = folder / f"{name}.py"
    if not path.is_file():
        raise InputError(f"no tool {path}; run from a clone of the repository, installed by: pip install -e .")
    return path


def stage_hash(
    tool: Path, arguments: Sequence[str], config: Mapping[str, Any] | None, upstream: Sequence[str], source: str = ""
) -> str:
    """Hash everything that a stage's numbers depend on, except paths of this machine, to 12 hex digits.

    Args:
        config: content of the config file.
        source: fingerprint of the label class.
    """
    return config_hash(
        {
            "tool": tool.name,
            "arguments": list(arguments),
            "config": config,
            "source": source,
            "upstream": list(upstream),
            "version": backbones.__version__,
            "schema": SCHEMA_VERSION,
        }
    )


def slug(text: str) -> str:
    """Convert `text` to a part of a folder name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)
