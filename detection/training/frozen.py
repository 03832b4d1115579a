"""Proof that frozen stages did not change: one hash over all parameters and buffers, before and after training.

Published "frozen" results have left a stage training, or its running statistics changing; a loss shows neither.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from backbones.core.errors import InputError
from backbones.core.files import fingerprint


class FrozenStages:
    """The frozen stages and their hash on construction: with the backbone's weights, before any training.

    Args:
        stages: name -> module of the stages that MODEL.BACKBONE.FREEZE_AT freezes; can be empty.
    """

    def __init__(self, stages: Mapping[str, nn.Module]) -> None:
        self.stages = dict(stages)
        self.before = hash_tensors(self.stages)

    def prove(self) -> dict[str, Any] | None:
        """Return {"stages", "tensors", "before", "after"}, or None if nothing is frozen.

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
    """Return 12 hex digits over the names, shapes and bits of every parameter and buffer."""
    parts = []
    for name, module in modules.items():
        for key, tensor in sorted(module.state_dict().items()):
            parts += [f"{name}.{key}", tensor.detach().cpu().numpy()]
    return fingerprint(*parts)
