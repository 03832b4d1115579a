"""Checkpoints of tensors and plain types: written atomically, loaded with every key accounted for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.errors import InputError
from backbones.core.file_kinds import describe_kind, find_changed_record, find_named_code
from backbones.core.files import save_atomic

# Field of a training's checkpoint that the last one lacks with --keep weights.
OPTIMIZER = "optimizer"


def refuse_unfinished(state: Mapping[str, Any], path: str | Path, *, finished: bool) -> None:
    """Raise `InputError` for a checkpoint without optimizer state of a training that has iterations left."""
    if not finished and OPTIMIZER not in state:
        raise InputError(
            f"{path} holds no optimizer state (KEEP of its suite, or --keep weights), so its training cannot be "
            "continued; start in another folder"
        )


def save_checkpoint(path: str | Path, **state: Any) -> None:
    """Write `state` (tensors and plain types) atomically."""
    save_atomic(path, lambda temporary: torch.save(state, temporary), state)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a file of `save_checkpoint` onto the CPU.

    Raises:
        InputError: the file is missing, damaged, or not such a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}; check the path, or start without --resume") from None
    except Exception as error:  # on foreign bytes, torch's reader raises anything
        if code := find_named_code(str(error)):
            raise InputError(f"{path} holds {code}, which is not loaded because it could run code") from None
        kind = describe_kind(path) if Path(path).is_file() else None
        raise InputError(
            f"{path} is {kind or 'truncated, or not a checkpoint of this project; copy it again or delete it'}"
        ) from None
    if changed := find_changed_record(path):
        raise InputError(f"{path} is damaged: {changed} does not match its checksum; copy it again or delete it")
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}, not a checkpoint of this project; name another file")
    return state


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, where: str | Path) -> None:
    """Load `state` into `module`.

    Raises:
        InputError: a key is missing or unexpected, a shape differs, or a value is not finite.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or shapes:
        parts = [f"{len(keys)} {kind} ('{keys[0]}', ...)" for kind, keys in _named(missing, unexpected, shapes) if keys]
        raise InputError(f"{where} has another architecture: {', '.join(parts)}; check MODEL and METHOD")
    refuse_not_finite(state, where)
    module.load_state_dict(dict(state), strict=True)


def refuse_not_finite(state: Mapping[str, Tensor], where: str | Path) -> None:
    """Raise `InputError` for the first tensor with NaN or infinity: any result computed from it is meaningless."""
    for name, tensor in state.items():
        # float8 has no isfinite of its own.
        values = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
        if not torch.isfinite(values).all():
            raise InputError(
                f"{where}: '{name}' holds NaN or infinite values: its training diverged, or the file is damaged; "
                "name another file, or train again"
            )


def _named(missing: list[str], unexpected: list[str], shapes: list[str]) -> list[tuple[str, list[str]]]:
    return [("tensors missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
