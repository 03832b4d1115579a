"""ImageNet ResNets (He et al. 2016, arXiv:1512.03385), with torchvision's blocks and parameter names.

`resnet<depth>` has the ImageNet stem.  `resnet<depth>_cifar` is the same network for images of 32 pixels, as used by
OLS (Zhang et al. 2021, Table I): a 3x3 stem of stride 1, no pooling, stages of 64 to 512 channels at strides 1 to 8.
The thin ResNets of He et al.'s CIFAR section are in resnet_cifar.py.

Bottlenecks stride in their 3x3 convolution, as in torchvision.  Letters: B images, C channels, H x W pixels.
"""

from torch import Tensor, flatten, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from backbones.models.base import MODELS, Outputs, build_norm, initialize_convolutions


class ResNet(TorchvisionResNet):
    """torchvision's ResNet that also returns its stage features; its state dict has torchvision's keys."""

    stride_in_1x1 = False
    pooled = True

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: list[int],
        *,
        num_classes: int,
        norm: str,
        stem: str = "imagenet",
    ) -> None:
        """
        Args:
            stem: "imagenet" (7x7 of stride 2, 3x3 max pooling of stride 2) or "cifar" (3x3 of stride 1, no pooling).
        """
        super().__init__(block, layers, num_classes=num_classes, norm_layer=build_norm(norm))
        convolutions_per_block = 3 if block is Bottleneck else 2
        self.depth = convolutions_per_block * sum(layers) + 2  # with conv1 and fc: the number in the name
        self.arch = f"resnet{self.depth}"
        self.num_classes = num_classes
        self.norm = norm
        self.stem = stem
        if stem == "cifar":
            self.arch += "_cifar"
            self.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            initialize_convolutions(self.conv1)
            self.maxpool = nn.Identity()

    def feature_channels(self) -> dict[str, int]:
        """Return the channels of each feature map, in order."""
        last = self.fc.in_features
        return {"res2": last // 8, "res3": last // 4, "res4": last // 2, "res5": last}

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return "res2" to "res5" of images (B, 3, H, W), at strides 4 to 32, or 1 to 8 with the CIFAR stem."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = {}
        for name, layer in zip(("res2", "res3", "res4", "res5"), self.stage_modules(), strict=True):
            features[name] = x = layer(x)
        return features

    def stage_modules(self) -> tuple:
        """Return the modules that compute "res2" to "res5", in order."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, x: Tensor) -> Outputs:  # type: ignore[override]  # torchvision's returns only the logits
        """Return logits (B, K) and the features of `stages` of images (B, 3, H, W)."""
        features = self.stages(x)
        return Outputs(self.fc(flatten(self.avgpool(features["res5"]), 1)), features)


@MODELS.register()
def resnet18(num_classes: int, norm: str) -> ResNet:
    """ResNet-18: 11,689,512 parameters at 1,000 classes."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet34(num_classes: int, norm: str) -> ResNet:
    """ResNet-34: 21,797,672 parameters at 1,000 classes."""
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet50(num_classes: int, norm: str) -> ResNet:
    """ResNet-50: 25,557,032 parameters at 1,000 classes."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet101(num_classes: int, norm: str) -> ResNet:
    """ResNet-101: 44,549,160 parameters at 1,000 classes."""
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet152(num_classes: int, norm: str) -> ResNet:
    """ResNet-152: 60,192,808 parameters at 1,000 classes."""
    return ResNet(Bottleneck, [3, 8, 36, 3], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet18_cifar(num_classes: int, norm: str) -> ResNet:
    """ResNet-18 with the CIFAR stem: 11,220,132 parameters at 100 classes."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, norm=norm, stem="cifar")


@MODELS.register()
def resnet34_cifar(num_classes: int, norm: str) -> ResNet:
    """ResNet-34 with the CIFAR stem: 21,328,292 parameters at 100 classes; OLS Table I, "ResNet-34"."""
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes=num_classes, norm=norm, stem="cifar")


@MODELS.register()
def resnet50_cifar(num_classes: int, norm: str) -> ResNet:
    """ResNet-50 with the CIFAR stem: 23,705,252 parameters at 100 classes; OLS Table I, "ResNet-50"."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes=num_classes, norm=norm, stem="cifar")


@MODELS.register()
def resnet101_cifar(num_classes: int, norm: str) -> ResNet:
    """ResNet-101 with the CIFAR stem: 42,697,380 parameters at 100 classes; OLS Table I, "ResNet-101"."""
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes=num_classes, norm=norm, stem="cifar")


@MODELS.register()
def resnet152_cifar(num_classes: int, norm: str) -> ResNet:
    """ResNet-152 with the CIFAR stem: 58,341,028 parameters at 100 classes."""
    return ResNet(Bottleneck, [3, 8, 36, 3], num_classes=num_classes, norm=norm, stem="cifar")
