"""Networks: each maps images to logits and stage features (`Outputs`), and is built by `build_model`."""

from backbones.models import cifar, resnet, resnet_cifar, zoo  # noqa: F401  (they register the networks)
from backbones.models.base import MODELS, Outputs, build_model, list_networks
from backbones.models.weights import BackboneFile, backbone_spec, identity, load_backbone, save_backbone

__all__ = [
    "MODELS",
    "BackboneFile",
    "Outputs",
    "backbone_spec",
    "build_model",
    "identity",
    "list_networks",
    "load_backbone",
    "save_backbone",
]
