"""C4 heads that detectron2 lacks, and the stages of its detectors.

This module does not import detectron2: it receives its subpackages from engine.py.
"""

from types import SimpleNamespace
from typing import Any

from torch import nn

from detection.config_pairs import EXTRA_NORM


def register_heads(d2: SimpleNamespace) -> None:
    """Add `Res5ROIHeadsExtraNorm` to detectron2's registry, once.

    A norm of RESNETS.NORM follows C4's res5, as in MoCo (He et al. 2020, arXiv:1911.05722, Sec. 4.2): new layers are
    also normalised, so that the box predictor works alike for backbones with different feature scales.
    """
    registry = d2.modeling.ROI_HEADS_REGISTRY
    if EXTRA_NORM in registry:
        return

    class Res5ROIHeadsExtraNorm(registry.get("Res5ROIHeads")):
        @classmethod
        def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
            blocks, channels = super()._build_res5_block(cfg)
            blocks.add_module("norm", d2.layers.get_norm(cfg.MODEL.RESNETS.NORM, channels))
            return blocks, channels

    registry.register(Res5ROIHeadsExtraNorm)


def res5_blocks(model: Any) -> nn.Sequential:
    """Return the backbone's part of a C4 detector's res5: without the extra norm, which no backbone file has."""
    return nn.Sequential(*(block for name, block in model.roi_heads.res5.named_children() if name != "norm"))


def resnet_of(model: Any) -> Any:
    """Return the ResNet of a detector, with or without a pyramid."""
    return getattr(model.backbone, "bottom_up", model.backbone)


def frozen_stages(model: Any, freeze_at: int) -> dict[str, nn.Module]:
    """Return the stages that MODEL.BACKBONE.FREEZE_AT freezes, by name; in C4, 5 is the head's res5."""
    resnet = resnet_of(model)
    stages = {"stem": resnet.stem, **{name: getattr(resnet, name) for name in resnet.stage_names}}
    if "res5" not in stages:
        stages["res5"] = res5_blocks(model)
    return dict(list(stages.items())[:freeze_at])


def freeze_res5(model: Any) -> None:
    """Freeze a C4 detector's res5, as detectron2 freezes a stage of the backbone.

    NOTE: differs from detectron2, whose FREEZE_AT 5 leaves res5 training because it is in the head: the result would
    be reported as that of a frozen backbone without being one.
    """
    blocks: Any = res5_blocks(model)
    for block in blocks:
        block.freeze()
