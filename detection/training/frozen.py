"""Proof that a frozen stage did not move: one hash over all its parameters and buffers, before and after.

Published "frozen" results have left a stage training, or its running statistics moving; neither shows in a loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from backbones.core.errors import InputError
from backbones.core.files import fingerprint


class FrozenStages:
    """Remembers the stages as they are when it is made: with the backbone's weights, before any training.

    Args:
        stages: name -> module, of the stages that MODEL.BACKBONE.FREEZE_AT freezes; none is fine.
    """

    def __init__(self, stages: Mapping[str, nn.Module]) -> None:
        self.stages = dict(stages)
        self.before = hash_tensors(self.stages)

    def prove(self) -> dict[str, Any] | None:
        """{"stages", "tensors", "before", "after"}, or None where nothing is frozen.

        Raises:
            InputError: a tensor has changed.
        """
        if not self.stages:
            return None
        after = hash_tensors(self.stages)
        if after != self.before:
            raise InputError(
                f"MODEL.BACKBONE.FREEZE_AT: the frozen stages {', '.join(self.stages)} have changed "
                f"({self.before} -> {after}): this is not a result of a frozen backbone; start in a new output folder"
            )
        tensors = sum(len(stage.state_dict()) for stage in self.stages.values())
        return {"stages": list(self.stages), "tensors": tensors, "before": self.before, "after": after}


def hash_tensors(modules: Mapping[str, nn.Module]) -> str:
    """12 hex digits over the names, shapes and bits of every parameter and buffer."""
    parts = []
    for name, module in modules.items():
        for key, tensor in sorted(module.state_dict().items()):
            parts += [f"{name}.{key}", tensor.detach().cpu().numpy()]
    return fingerprint(*parts)
