"""Thin residual networks for images of 32 pixels: three stages at strides 1, 2 and 4, a 3x3 (ResNeXt: 1x1) stem.

    resnet29/56/74/110_cifar  bottlenecks of 16, 32, 64 (x 4) channels, (d - 2) / 9 per stage; the networks of OLS
                              (Zhang et al. 2021, Tables V, VI, IX, X)
    resnet110_basic           basic blocks of 16, 32, 64 channels, (d - 2) / 6 per stage, shortcuts without parameters
                              (He et al. 2016, Sec. 4.2); the "ResNet110" of ILS (Maher & Kull 2021, Table III)
    resnet110_sd, resnet152_sd   the same with stochastic depth (Huang et al. 2016, arXiv:1603.09382); "ResNet110SD"
                              and "ResNet152SD" of ILS
    resnext29_2x64d, resnext29_32x4d   aggregated bottlenecks of 256, 512, 1024 channels, 3 per stage; OLS Table I

Letters: B images, C channels, H x W pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.models.resnet import Bottleneck

from backbones.models.base import MODELS, StagedNetwork, build_norm, initialize_convolutions


def shortcut_a(x: Tensor, stride: int, channels: int) -> Tensor:
    """Apply the shortcut of type A (He et al. 2016, Sec. 3.3): every `stride`-th pixel, new channels 0, no parameters.

    NOTE: the ILS code averages stride x stride pixels instead of taking one.
    """
    x = x[:, :, ::stride, ::stride]
    return pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


def stochastic_depth(residual: Tensor, death_rate: float, training: bool) -> Tensor:
    """Drop the residual of the whole batch with probability `death_rate` in training (Huang et al. 2016, Sec. 3).

    A surviving residual is divided by its survival probability, so that its mean equals that in evaluation, where all
    are kept.  NOTE: the paper multiplies in evaluation instead; the ILS code divides in training, as here.

    A dropped branch is multiplied by 0, not skipped: its parameters get a gradient of zeros, without which distributed
    training would wait forever.  The draw is made on the CPU: it needs no synchronisation with the device, is the same
    on every device, and is repeated exactly by a resumed run, since the engine seeds every step.
    """
    if not training or death_rate == 0:
        return residual
    survives = torch.rand((), device="cpu").item() >= death_rate
    return residual * (survives / (1 - death_rate))


class BasicBlockA(nn.Module):
    """Two 3x3 convolutions and a shortcut of type A; drops the residual with probability `death_rate` in [0, 1)."""

    def __init__(self, into: int, channels: int, stride: int, norm: str, death_rate: float) -> None:
        super().__init__()
        build = build_norm(norm)
        self.conv1 = nn.Conv2d(into, channels, 3, stride, padding=1, bias=False)
        self.bn1 = build(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = build(channels)
        self.stride, self.channels, self.death_rate = stride, channels, death_rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, into, H, W) to (B, channels, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        residual = stochastic_depth(residual, self.death_rate, self.training)
        return (residual + shortcut_a(x, self.stride, self.channels)).relu_()


def _basic_network(arch: str, depth: int, num_classes: int, norm: str, final_death_rate: float = 0.0) -> StagedNetwork:
    """Build a network that drops block l of L with probability final_death_rate * l / L (Huang et al. 2016, Eq. 4)."""
    blocks, total = (depth - 2) // 6, (depth - 2) // 2
    stages, into, number = [], 16, 0
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        layers = []
        for _ in range(blocks):
            number += 1
            layers.append(
                BasicBlockA(into, channels, stride if not layers else 1, norm, final_death_rate * number / total)
            )
            into = channels
        stages.append((nn.Sequential(*layers), channels))
    return _network(arch, norm, _entry(16, 3, norm), stages, num_classes)


def _bottleneck_network(
    arch: str,
    num_classes: int,
    norm: str,
    *,
    blocks: int,
    entry: tuple[int, int],
    planes: tuple[int, ...],
    groups: int = 1,
    base_width: int = 64,
) -> StagedNetwork:
    """Build `blocks` torchvision bottlenecks per stage, of 4 * planes channels; entry: channels, kernel of the stem."""
    build = build_norm(norm)
    stages, into = [], entry[0]
    for number, width in enumerate(planes):
        stride, out = (2 if number else 1), Bottleneck.expansion * width
        shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), build(out))
        layers = [Bottleneck(into, width, stride, shortcut, groups, base_width, norm_layer=build)]
        for _ in range(1, blocks):
            layers.append(Bottleneck(out, width, groups=groups, base_width=base_width, norm_layer=build))
        stages.append((nn.Sequential(*layers), out))
        into = out
    return _network(arch, norm, _entry(*entry, norm), stages, num_classes)


def _entry(channels: int, kernel: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv2d(3, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, build_norm(norm)(channels), nn.ReLU(inplace=True))


def _network(arch: str, norm: str, entry: nn.Module, stages: list, num_classes: int) -> StagedNetwork:
    fc = nn.Linear(stages[-1][1], num_classes)
    network = StagedNetwork(arch, norm=norm, stem="cifar", entry=entry, stages=stages, fc=fc)
    initialize_convolutions(network)
    return network


def _thin(depth: int, num_classes: int, norm: str) -> StagedNetwork:
    blocks = (depth - 2) // 9
    arch = f"resnet{depth}_cifar"
    return _bottleneck_network(arch, num_classes, norm, blocks=blocks, entry=(16, 3), planes=(16, 32, 64))


@MODELS.register()
def resnet29_cifar(num_classes: int, norm: str) -> StagedNetwork:
    """ResNet-29 of OLS Tables VI and X: 3 bottlenecks per stage."""
    return _thin(29, num_classes, norm)


@MODELS.register()
def resnet56_cifar(num_classes: int, norm: str) -> StagedNetwork:
    """ResNet-56 of OLS Tables V and IX: 6 bottlenecks per stage."""
    return _thin(56, num_classes, norm)


@MODELS.register()
def resnet74_cifar(num_classes: int, norm: str) -> StagedNetwork:
    """ResNet-74 of OLS Table IX: 8 bottlenecks per stage."""
    return _thin(74, num_classes, norm)


@MODELS.register()
def resnet110_cifar(num_classes: int, norm: str) -> StagedNetwork:
    """ResNet-110 of OLS Table IX: 12 bottlenecks per stage.  The "ResNet110" of ILS is `resnet110_basic`."""
    return _thin(110, num_classes, norm)


@MODELS.register()
def resnet110_basic(num_classes: int, norm: str) -> StagedNetwork:
    """ILS "ResNet110": 18 basic blocks per stage; 1,727,962 parameters at 10 classes."""
    return _basic_network("resnet110_basic", 110, num_classes, norm)


@MODELS.register()
def resnet110_sd(num_classes: int, norm: str) -> StagedNetwork:
    """ILS "ResNet110SD": `resnet110_basic` with blocks dropped at a rate that grows linearly to 0.5."""
    return _basic_network("resnet110_sd", 110, num_classes, norm, final_death_rate=0.5)


@MODELS.register()
def resnet152_sd(num_classes: int, norm: str) -> StagedNetwork:
    """ILS "ResNet152SD" (SVHN): 25 basic blocks per stage, dropped at rates as in `resnet110_sd`."""
    return _basic_network("resnet152_sd", 152, num_classes, norm, final_death_rate=0.5)


@MODELS.register()
def resnext29_2x64d(num_classes: int, norm: str) -> StagedNetwork:
    """OLS "ResNeXt29-2x64d": 2 groups of 64 channels in the first stage; 9.22M parameters at 100 classes."""
    return _resnext29(2, 64, num_classes, norm)


@MODELS.register()
def resnext29_32x4d(num_classes: int, norm: str) -> StagedNetwork:
    """OLS "ResNeXt29-32x4d": 32 groups of 4 channels in the first stage; 4.87M parameters at 100 classes."""
    return _resnext29(32, 4, num_classes, norm)


def _resnext29(groups: int, width: int, num_classes: int, norm: str) -> StagedNetwork:
    """ResNeXt-29 (Xie et al. 2017, arXiv:1611.05431) with the 1x1 stem of the OLS code instead of their 3x3 stem."""
    arch, sizes = f"resnext29_{groups}x{width}d", {"groups": groups, "base_width": width}
    return _bottleneck_network(arch, num_classes, norm, blocks=3, entry=(64, 1), planes=(64, 128, 256), **sizes)
