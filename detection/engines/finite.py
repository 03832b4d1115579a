"""Refuse raw predictions of a detector that are not finite.

Every detector drops non-finite values before its suppression, or by comparing them with a threshold; the AP of the rest
would be reported silently.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.errors import InputError


class FiniteOutputs:
    """Context manager that watches whether the outputs of modules are finite.

    Args:
        modules: the heads; their outputs are tensors in any nesting of lists, tuples and dicts.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.seen: list[Tensor] = []
        self.handles = [module.register_forward_hook(self._add) for module in modules]

    def __enter__(self) -> "FiniteOutputs":
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _add(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.seen += [tensor.isfinite().all() for tensor in _tensors(output)]  # on the device

    def check(self, images: Sequence[str]) -> None:
        """Raise `InputError` if an output since the last check was not finite.

        Waits for the device: call it where the caller waits for it anyway.

        Args:
            images: files of the batch.
        """
        flags, self.seen = self.seen, []
        if flags and not torch.stack(flags).all():
            more = f" (or one of the {len(images) - 1} others of its batch)" if len(images) > 1 else ""
            raise InputError(
                f"the detector's scores or boxes for {images[0]}{more} are not finite: its weights are too large or "
                "damaged; train it again with a lower SOLVER.BASE_LR"
            )


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
