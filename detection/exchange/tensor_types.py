"""Types of foreign tensors: which are converted to float32, and which are refused by name."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from backbones.core.errors import InputError

CONVERTED = (torch.float16, torch.bfloat16, torch.float64)
COUNTER = ".num_batches_tracked"  # of BN: an integer with no effect on its result


def to_float32(state: dict[str, Tensor], path: str | Path) -> dict[str, int]:
    """Replace every tensor of `state` by a float32 copy, in place; BN step counters stay integers.

    Returns:
        number of converted tensors by original type.

    Raises:
        InputError: a tensor without plain values, of another type, not finite, or too large for float32.
    """
    converted: Counter[str] = Counter()
    for name, tensor in state.items():
        if reason := _unreadable(name, tensor):
            raise InputError(f"{path}: {name} {reason}; save the network's weights as plain torch.float32")
        if not tensor.isfinite().all():
            raise InputError(
                f"{path}: the backbone's {name} holds NaN or infinity, values that are not finite: the training "
                "diverged, or the file is damaged; import another checkpoint"
            )
        wanted = torch.int64 if name.endswith(COUNTER) else torch.float32
        state[name] = tensor.to(wanted).clone()
        if not state[name].isfinite().all() or (
            wanted == torch.int64 and not torch.equal(state[name].to(tensor), tensor)
        ):
            raise InputError(
                f"{path}: {name} holds values that {wanted} cannot represent; save the network's weights as {wanted}"
            )
        if tensor.dtype in CONVERTED and wanted == torch.float32:
            converted[str(tensor.dtype).removeprefix("torch.")] += 1
    return dict(converted)


def _unreadable(name: str, tensor: Tensor) -> str:
    """Return why the tensor cannot be used as weights; "" if it can."""
    if tensor.is_quantized:
        return f"is quantised ({tensor.dtype})"
    if tensor.layout is not torch.strided:
        return f"is sparse ({tensor.layout})"
    if tensor.device.type != "cpu":
        return f"is on the device '{tensor.device.type}', without values"
    if tensor.dtype in (torch.float32, *CONVERTED):
        return ""
    whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
    if name.endswith(COUNTER) and whole:
        return ""
    return f"is of {tensor.dtype}, which is not supported for weights"
