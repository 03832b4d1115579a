"""Who writes checkpoints of torchvision-style ResNets how: the declared source of an import decides what is read.

Nothing is guessed: names that the declared source does not explain, or a prefix that does not occur, are refused with
what does occur, because whatever is left over would be a random tensor in a detector that trains nevertheless.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.core.errors import InputError, suggestion


@dataclass(frozen=True)
class Source:
    """How a program writes its checkpoints.

    key: under which the file holds the state dict; None: the file is the state dict.
    prefix: of every tensor of the network; it is stripped.
    others: patterns of tensors without the prefix, dropped on purpose: teachers, queues, predictors.
    heads: patterns of tensors, their prefix stripped, dropped on purpose: projections, which are no classifier.
    """

    made_by: str
    key: str | None = None
    prefix: str = ""
    others: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()


SOURCES = {
    "torchvision": Source("torchvision, timm's releases: the plain state dict"),
    "ddp": Source("a plain state dict saved from DataParallel or DDP", prefix="module."),
    "torchvision-references": Source("torchvision's references/classification", key="model"),
    "pytorch-examples": Source("pytorch/examples imagenet, and what grew from it", key="state_dict", prefix="module."),
    "timm": Source("timm's train.py", key="state_dict"),
    "timm-ema": Source("timm's train.py, the averaged weights", key="state_dict_ema"),
    "moco": Source(
        "MoCo v1 and v2", "state_dict", "module.encoder_q.", ("module.encoder_k.*", "module.queue*"), ("fc.*",)
    ),
    "moco-v3": Source(
        "MoCo v3",
        "state_dict",
        "module.base_encoder.",
        ("module.momentum_encoder.*", "module.predictor.*"),
        ("fc.*",),
    ),
    "simsiam": Source("SimSiam", "state_dict", "module.encoder.", ("module.predictor.*",), ("fc.*",)),
    "swav": Source("SwAV", None, "module.", (), ("projection_head.*", "prototypes.*")),
    "mmpretrain": Source("OpenMMLab's mmpretrain", "state_dict", "backbone.", ("head.*",)),
}


@dataclass
class ImportReport:
    """The account of one import: every name of the file's state dict, and what was added to it."""

    kept: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)  # counters of BN steps that old checkpoints lack


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a foreign torch file onto the CPU, without running code that it may hold."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments of training scripts
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"no checkpoint file at {path}; check --checkpoint") from None
    except Exception as error:  # torch's reader of pickles raises whatever a foreign byte leads to
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"{path} holds {named[1]} besides tensors, which is not loaded, because it could run code; "
                "if you trust it, save its state dict alone with torch.save"
            ) from None
        raise InputError(f"{path} is truncated or no torch file; check --checkpoint") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, no state dict; save `model.state_dict()`")
    return content  # type: ignore[return-value]  # an OrderedDict keeps its attributes


def select_state(content: Mapping[str, Any], source: str, path: str | Path) -> tuple[dict[str, Tensor], ImportReport]:
    """The network's tensors under torchvision's names, as `source` writes them; and what was dropped on purpose."""
    if source not in SOURCES:
        raise InputError(f"--source {source}: no such source{suggestion(source, SOURCES)}")
    form = SOURCES[source]
    named = content if form.key is None else content.get(form.key)
    if not isinstance(named, Mapping) or not _prefixes(named):
        raise InputError(f"{path}: --source {source} {_missing_state(content, form.key)}")
    if unnamed := [name for name in named if not isinstance(name, str)]:
        raise InputError(f"{path}: {unnamed[0]!r} in its state dict is no name of a tensor; save `model.state_dict()`")
    if foreign := [name for name, value in named.items() if not isinstance(value, Tensor)]:
        raise InputError(f"{path}: '{foreign[0]}' in its state dict is a {type(named[foreign[0]]).__name__}, no tensor")
    if form.prefix not in _prefixes(named):
        raise InputError(f"{path}: --source {source} {_other_prefix(named, form)}")
    stripped = {name[len(form.prefix) :]: name for name in named if name.startswith(form.prefix)}
    others = [name for name in named if not name.startswith(form.prefix)]
    if unknown := [name for name in others if not _matches(name, form.others)]:
        raise InputError(
            f"{path}: --source {source} does not explain {len(unknown)} tensors without the prefix '{form.prefix}': "
            f"{', '.join(unknown[:3])}; choose the source that wrote the file"
        )
    heads = [name for name in stripped if _matches(name, form.heads)]
    state = {name: named[full].detach().cpu().clone() for name, full in stripped.items() if name not in heads}
    return state, ImportReport(dropped=[*others, *(stripped[name] for name in heads)])


# ---------------------------------------------------------------------------------------- reasons


def _missing_state(content: Mapping[str, Any], key: str | None) -> str:
    expected = f"has its state dict under '{key}'" if key else "is the state dict itself"
    tables = [name for name, value in content.items() if isinstance(value, Mapping) and _prefixes(value)]
    fitting = [name for name, form in SOURCES.items() if form.key in tables]
    if fitting and key not in tables:
        return f"{expected}; here it is under '{tables[0]}', as --source {' or '.join(fitting)} has it"
    if key and _prefixes(content):
        return f"{expected}; here the file is the state dict itself, as --source torchvision or ddp has it"
    return (
        f"{expected}; here is no ResNet by torchvision's names (layer1.0.conv1.weight), the file has "
        f"{', '.join(map(str, list(content)[:5]))}"
    )


def _other_prefix(named: Mapping[str, Any], form: Source) -> str:
    found = sorted(_prefixes(named))
    expected = f"the prefix '{form.prefix}'" if form.prefix else "no prefix"
    carried = ", ".join(f"'{prefix}'" if prefix else "none" for prefix in found)
    fitting = [name for name, one in SOURCES.items() if one.prefix in found and one.key == form.key]
    advice = f"--source {' or '.join(fitting)} has it" if fitting else "save the network without its wrapper"
    return f"has {expected} before its tensors' names, the file has {carried}; {advice}"


def _prefixes(named: Mapping[Any, Any]) -> set[str]:
    """What stands before the names of each ResNet in a state dict; {""} for a plain one."""
    found = (re.fullmatch(r"(.*?)layer1\.0\.conv1\.weight", str(name)) for name in named)
    return {match[1] for match in found if match}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
