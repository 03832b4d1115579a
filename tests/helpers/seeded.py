"""Seeded backbones for tests, with random tensors in every normalisation layer."""

import functools

import torch
import torchvision
from torch import nn

from backbones.models.weights import BackboneFile

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def group_norm(channels):
    return nn.GroupNorm(32, channels)


def make_backbone(depth=18, norm="BN", seed=0, spec=None):
    """Return a backbone as pretraining writes it; `spec` overrides its declared properties."""
    own = {
        "arch": f"resnet{depth}", "depth": depth, "num_classes": 7, "norm": norm, "stem": "imagenet",
        "stride_in_1x1": False, "channel_order": "RGB", "pixel_range": 1.0, "mean": MEAN, "std": STD,
        "image_size": 64, "classes": [str(k) for k in range(7)],
    }  # fmt: skip
    provenance = dict.fromkeys(("label", "method", "config_hash", "data_fingerprint", "version"), "test")
    state = dict(_state(depth, norm, seed))
    return BackboneFile(state, {**own, **(spec or {})}, {**provenance, "seed": seed}, f"{depth}-{norm}-{seed}")


@functools.cache
def _state(depth, norm, seed):
    torch.manual_seed(seed)
    layer = nn.BatchNorm2d if norm == "BN" else group_norm
    model = getattr(torchvision.models, f"resnet{depth}")(norm_layer=layer, num_classes=7)
    return dict(_randomise(model, seed).state_dict())


def _randomise(model, seed):
    """Randomise BN weights, biases and running statistics; initial values would hide a BN that was not loaded."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.5, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model
