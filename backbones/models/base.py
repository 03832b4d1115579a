"""What a network is: a module that maps images to `Outputs`, found by name in `MODELS`.

A network has the attributes `arch`, `depth`, `num_classes`, `norm`, `stem` and `fc`, and the method `stages`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from backbones.core.errors import InputError, suggestion
from backbones.core.registry import Registry

MODELS = Registry("model")  # name -> function(num_classes, norm) -> nn.Module


@dataclass
class Outputs:
    """What a network returns for B images of H x W pixels and K classes.

    logits: (B, K).
    features: the output of each stage; after an ImageNet stem "res2" is (B, C, H/4, W/4), "res5" (B, C, H/32, W/32).
    """

    logits: Tensor
    features: dict[str, Tensor]


def build_model(arch: str, num_classes: int, norm: str = "BN") -> nn.Module:
    """The network registered as `arch`, randomly initialised, with a linear classifier of `num_classes` outputs.

    norm: "BN" (batch normalisation) or "GN" (group normalisation, which needs no batch statistics).
    """
    if num_classes < 2:
        raise InputError(f"MODEL: num_classes is {num_classes}; a classifier needs at least 2 classes")
    return MODELS.get(arch)(num_classes=num_classes, norm=norm)


def build_norm(norm: str) -> Callable[[int], nn.Module]:
    """The constructor `channels -> normalisation layer` called `norm` in the config (MODEL.NORM)."""
    if norm not in NORMS:
        raise InputError(f"MODEL.NORM: unknown normalisation {norm!r}{suggestion(norm, NORMS)}")
    return NORMS[norm]


def _group_norm(channels: int) -> nn.GroupNorm:
    """32 groups (Wu & He 2018), or the nearest smaller power of two that divides the channels."""
    groups = 32
    while channels % groups:
        groups //= 2
    return nn.GroupNorm(groups, channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {"BN": nn.BatchNorm2d, "GN": _group_norm}
