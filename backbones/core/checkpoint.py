"""Checkpoints of tensors and plain types, written whole, loaded with every key accounted for."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.errors import InputError
from backbones.core.files import save_atomic


def save_checkpoint(path: str | Path, **state: Any) -> None:
    """Write `state` (tensors and plain types) atomically."""
    save_atomic(path, lambda temporary: torch.save(state, temporary), state)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a file of `save_checkpoint` onto the CPU; `InputError` names one that is missing, truncated or foreign."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}; check the path, or start without --resume") from None
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, pickle.UnpicklingError, zipfile.BadZipFile):
        raise InputError(f"{path} is truncated or no checkpoint of ours; copy it again or delete it") from None
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}, not a checkpoint of ours; name another file")
    return state


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, where: str | Path) -> None:
    """Load `state` into `module`: every key must be there, none over, all of the same shape."""
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or shapes:
        parts = [f"{len(keys)} {kind} ('{keys[0]}', ...)" for kind, keys in _named(missing, unexpected, shapes) if keys]
        raise InputError(f"{where} is of another architecture: {', '.join(parts)}; check MODEL and METHOD")
    module.load_state_dict(dict(state), strict=True)


def _named(missing: list[str], unexpected: list[str], shapes: list[str]) -> list[tuple[str, list[str]]]:
    return [("tensors missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
