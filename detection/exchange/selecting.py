"""Select the network's tensors in a foreign checkpoint by the format of its declared source."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.core.errors import InputError
from detection.exchange.sources import COMPILED, SOURCES, Source, find_source


@dataclass
class ImportReport:
    """Report of one import: every name in the file's state dict, and the added ones."""

    kept: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)  # counters of BN steps that old checkpoints lack
    converted: dict[str, int] = field(default_factory=dict)  # original type -> number of tensors converted to float32


def select_state(content: Mapping[str, Any], source: str, path: str | Path) -> tuple[dict[str, Tensor], ImportReport]:
    """Select the network's tensors by the format of `source`, under torchvision's names; report the dropped ones."""
    form = find_source(source)
    found = content if form.key is None else content.get(form.key)
    named = _rename(found, form.rename, path) if isinstance(found, Mapping) else {}
    if not _prefixes(named):
        raise InputError(f"{path}: --source {source} {_missing_state(content, form.key)}")
    if unnamed := [name for name in named if not isinstance(name, str)]:
        raise InputError(
            f"{path}: {unnamed[0]!r} in its state dict is not the name of a tensor; save `model.state_dict()`"
        )
    if foreign := [name for name, value in named.items() if not isinstance(value, Tensor)]:
        raise InputError(
            f"{path}: '{foreign[0]}' in its state dict is a {type(named[foreign[0]]).__name__}, not a tensor"
        )
    prefix = next((prefix for prefix in form.prefixes if prefix in _prefixes(named)), None)
    if prefix is None:
        raise InputError(f"{path}: --source {source} {_other_prefix(named, form)}")
    stripped = {name[len(prefix) :]: name for name in named if name.startswith(prefix)}
    others = [name for name in named if not name.startswith(prefix)]
    if unknown := [name for name in others if not _matches(name, form.others)]:
        raise InputError(
            f"{path}: --source {source} does not explain {len(unknown)} tensors without the prefix '{prefix}': "
            f"{', '.join(unknown[:3])}; choose the source that wrote the file"
        )
    heads = [name for name in stripped if _matches(name, form.heads)]
    state = {name: named[full].detach() for name, full in stripped.items() if name not in heads}
    return state, ImportReport(dropped=[*others, *(stripped[name] for name in heads)])


def _rename(named: Mapping[Any, Any], rename: Callable[[str], str] | None, path: str | Path) -> dict[Any, Any]:
    """Return the state dict under torchvision's names, with arrays converted to tensors."""
    result: dict[Any, Any] = {}
    for name, value in named.items():
        new = rename(name) if rename and isinstance(name, str) else name
        if new in result:
            raise InputError(
                f"{path}: '{name}' and another tensor both become {new} in torchvision's names; remove one"
            )
        result[new] = _as_tensor(value) if isinstance(value, np.ndarray | np.generic) else value
    return result


def _as_tensor(value: np.ndarray | np.generic) -> Tensor:
    array = np.array(value)  # an own copy
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


# ---------------------------------------------------------------------------------------- reasons


def _missing_state(content: Mapping[str, Any], key: str | None) -> str:
    expected = f"has its state dict under '{key}'" if key else "is the state dict itself"
    tables = [name for name, value in content.items() if isinstance(value, Mapping) and _prefixes(value)]
    fitting = [name for name, form in SOURCES.items() if form.key in tables and not form.rename]
    if fitting and key not in tables:
        return f"{expected}; here it is under '{tables[0]}', as with --source {' or '.join(fitting)}"
    if key and _prefixes(content):
        return f"{expected}; here the file is the state dict itself, as with --source torchvision or ddp"
    if any(isinstance(table, Mapping) and "res2.0.conv1.weight" in table for table in content.values()):
        return f"{expected}; here the names are detectron2's, as with --source detectron2"
    return (
        f"{expected}; it holds no ResNet with torchvision's names (layer1.0.conv1.weight); the file holds "
        f"{', '.join(map(str, list(content)[:5]))}"
    )


def _other_prefix(named: Mapping[str, Any], form: Source) -> str:
    found = sorted(_prefixes(named))
    expected = f"the prefix '{form.prefix}'" if form.prefix else "no prefix"
    carried = ", ".join(f"'{prefix}'" if prefix else "none" for prefix in found)
    fitting = [name for name, one in SOURCES.items() if {*one.prefixes} & {*found} and one.key == form.key]
    advice = f"try --source {' or '.join(fitting)}" if fitting else "save the network without its wrapper"
    return f"has {expected} before its tensors' names, the file has {carried}; {advice}"


def _prefixes(named: Mapping[Any, Any]) -> set[str]:
    """Return the prefix of each ResNet in a state dict; {""} for a plain one."""
    found = (re.fullmatch(r"(.*?)layer1\.0\.conv1\.weight", str(name)) for name in named)
    return {match[1] for match in found if match}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name.replace(COMPILED, ""), pattern) for pattern in patterns)
