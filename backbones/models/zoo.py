"""Networks of torchvision and timm with this project's interface, always without pretrained weights.

`mobilenetv2` and `efficientnet_b7` are used in OLS's fine-grained tables, `inceptionv4_cifar` in ILS's Table IV.
"""

from torch import nn
from torchvision.models import efficientnet_b7 as torchvision_efficientnet_b7
from torchvision.models import mobilenet_v2

from backbones.models.base import MODELS, StagedNetwork, build_norm, refuse_group_norm


@MODELS.register()
def mobilenetv2(num_classes: int, norm: str) -> StagedNetwork:
    """MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) of torchvision: 3,504,872 parameters at 1,000 classes.

    Features have the strides 4 to 32.
    """
    net = mobilenet_v2(num_classes=num_classes, norm_layer=build_norm(norm))
    dropout, fc = net.classifier
    f = net.features
    stages = [(f[2:4], 24), (f[4:7], 32), (f[7:14], 96), (f[14:], 1280)]
    parts = {"entry": f[:2], "stages": stages, "neck": dropout, "fc": fc}
    return StagedNetwork("mobilenetv2", norm=norm, stem="mobilenetv2", **parts)


@MODELS.register()
def efficientnet_b7(num_classes: int, norm: str) -> StagedNetwork:
    """EfficientNet-B7 (Tan & Le 2019, arXiv:1905.11946) of torchvision: 66,347,960 parameters at 1,000 classes.

    Features have the strides 4 to 32.
    """
    refuse_group_norm("efficientnet_b7", norm, "torchvision builds it with its own batch normalisation")
    net = torchvision_efficientnet_b7(num_classes=num_classes)
    dropout, fc = net.classifier
    f = net.features
    stages = [(f[2:3], 48), (f[3:4], 80), (f[4:6], 224), (f[6:], 2560)]
    parts = {"entry": f[:2], "stages": stages, "neck": dropout, "fc": fc}
    return StagedNetwork("efficientnet_b7", norm=norm, stem="efficientnet_b7", **parts)


@MODELS.register()
def inceptionv4(num_classes: int, norm: str) -> StagedNetwork:
    """Inception-v4 (Szegedy et al. 2017, arXiv:1602.07261) of timm, for 299 pixels: 42,679,816 parameters at 1,000
    classes."""
    return _inception("inceptionv4", num_classes, norm)


@MODELS.register()
def inceptionv4_cifar(num_classes: int, norm: str) -> StagedNetwork:
    """ILS "InceptionV4" for 32 pixels: the tensors of `inceptionv4`, but a stem without strides.

    As in the ILS code, which takes it from a collection of CIFAR networks, every 3x3 layer of the stem but the first is
    padded, so that 32 x 32 pixels become 30 x 30 at "res3", 14 x 14 at "res4" and 6 x 6 at "res5".
    """
    return _inception("inceptionv4_cifar", num_classes, norm)


def _inception(arch: str, num_classes: int, norm: str) -> StagedNetwork:
    from timm.models.inception_v4 import InceptionV4  # timm takes seconds to import; only this network needs it

    build_norm(norm)
    net = InceptionV4(num_classes=num_classes, norm_layer={"BN": "batchnorm2d", "GN": "groupnorm"}[norm])
    f = net.features
    small = arch.endswith("_cifar")
    if small:
        _remove_strides(f[:6])
    stages = [(f[3:5], 192), (f[5:10], 384), (f[10:18], 1024), (f[18:], 1536)]
    parts = {"entry": f[:3], "stages": stages, "fc": net.last_linear, "sizes": (17 if small else 75, 2**31)}
    return StagedNetwork(arch, norm=norm, stem="cifar" if small else "inceptionv4", **parts)


def _remove_strides(stem: nn.Module) -> None:
    layers = [layer for layer in stem.modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    layers = [layer for layer in layers if layer.kernel_size in (3, (3, 3))]
    for number, layer in enumerate(layers):
        padding = int(number > 0)
        pair = isinstance(layer, nn.Conv2d)
        layer.stride = (1, 1) if pair else 1
        layer.padding = (padding, padding) if pair else padding
