"""The ImageNet ResNets (He et al. 2016, arXiv:1512.03385), with torchvision's blocks and parameter names.

Bottlenecks stride in their 3x3 convolution, as in torchvision.  Letters: B images, C channels, H x W pixels.
"""

from torch import Tensor, flatten
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from backbones.models.base import MODELS, Outputs, build_norm


class ResNet(TorchvisionResNet):
    """torchvision's ResNet that also returns its stage features; the state dict is torchvision's, key by key."""

    stem = "imagenet"  # 7x7 convolution of stride 2, then 3x3 max pooling of stride 2
    stride_in_1x1 = False

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: list[int], *, num_classes: int, norm: str) -> None:
        super().__init__(block, layers, num_classes=num_classes, norm_layer=build_norm(norm))
        convolutions_per_block = 3 if block is Bottleneck else 2
        self.depth = convolutions_per_block * sum(layers) + 2  # with conv1 and fc, the number in the network's name
        self.arch = f"resnet{self.depth}"
        self.num_classes = num_classes
        self.norm = norm

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Features "res2" to "res5" of images (B, 3, H, W), at strides 4 to 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = {}
        for name, layer in zip(("res2", "res3", "res4", "res5"), self.stage_modules(), strict=True):
            features[name] = x = layer(x)
        return features

    def stage_modules(self) -> tuple:
        """The modules that compute "res2" to "res5", in order."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, x: Tensor) -> Outputs:  # type: ignore[override]  # torchvision's gives the logits alone
        features = self.stages(x)
        return Outputs(self.fc(flatten(self.avgpool(features["res5"]), 1)), features)


@MODELS.register()
def resnet18(num_classes: int, norm: str) -> ResNet:
    """11,689,512 parameters at 1,000 classes."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet34(num_classes: int, norm: str) -> ResNet:
    """21,797,672 parameters at 1,000 classes."""
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet50(num_classes: int, norm: str) -> ResNet:
    """25,557,032 parameters at 1,000 classes."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet101(num_classes: int, norm: str) -> ResNet:
    """44,549,160 parameters at 1,000 classes."""
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes=num_classes, norm=norm)


@MODELS.register()
def resnet152(num_classes: int, norm: str) -> ResNet:
    """60,192,808 parameters at 1,000 classes."""
    return ResNet(Bottleneck, [3, 8, 36, 3], num_classes=num_classes, norm=norm)
