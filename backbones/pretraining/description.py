"""What a pretraining states about itself: its protocol, its backbone's input, and the hash of its settings."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from backbones.config import ROLES
from backbones.core.config import IMPORTS, CfgNode, config_hash
from backbones.core.imports import imported_digests
from backbones.core.roles import NUMBER, TEST, WEIGHTS
from backbones.models.base import build_model
from backbones.models.weights import BackboneFile, backbone_spec


def describe_protocol(cfg: CfgNode, data: str, start: str) -> dict[str, Any]:
    """Return the protocol for results.json; it is equal for rows that differ only in method and seed.

    Of the keys with role TEST only those of DATA count, which define the validation of the pretraining itself; EVAL,
    ATTACK and LOCALIZE belong to the tools that measure it later.

    Args:
        data: fingerprint of the training data.
        start: hash of the initial weights.
    """
    validated = {key: value for key, value in ROLES.select(cfg, TEST).items() if key.startswith("DATA.")}
    settings = ROLES.select(cfg, NUMBER) | validated | {"MODEL.WEIGHTS": start}
    digest = config_hash({"settings": settings, "data": [data]})
    return {"name": f"{cfg.DATA.NAME}-{cfg.MODEL.ARCH}", "hash": digest, "settings": settings}


def content_hash(cfg: CfgNode, start: str, teacher: str) -> str:
    """Hash everything that the weights depend on; files count by their content, not by their path.

    Args:
        start: hash of the initial weights.
        teacher: its `identity`; empty without a teacher.
    """
    settings = ROLES.select(cfg, *WEIGHTS)
    if own := imported_digests(cfg):
        settings |= {IMPORTS: own}
    cached = bool(cfg.TEACHER.CACHE)
    return config_hash(settings | {"MODEL.WEIGHTS": start, "teacher": teacher, "teacher is cached": cached})


def expect_backbone(cfg: CfgNode) -> BackboneFile:
    """Return the description of the backbone that this training will write, without weights and class names."""
    return BackboneFile({}, describe_input(cfg, _outline(cfg.MODEL.ARCH, cfg.MODEL.NORM), ["?", "?"]), {}, "")


@cache
def _outline(arch: str, norm: str) -> nn.Module:
    """Return a network of two classes without weights."""
    with torch.device("meta"):
        return build_model(arch, 2, norm)


def describe_input(cfg: CfgNode, model: nn.Module, classes: Sequence[str]) -> dict[str, Any]:
    """Return the specification of the network and its input, for the backbone file."""
    data = cfg.DATA
    return backbone_spec(model, mean=data.MEAN, std=data.STD, image_size=data.IMAGE_SIZE, classes=classes)
