"""YOLOv3 (Redmon & Farhadi 2018, arXiv:1804.02767) with a neck of depthwise-separable convolutions.

The backbone's features at strides 8, 16, 32 are processed from coarse to fine: a block of five convolutions narrows
each level; its output gives the predictions and, upsampled, enters the next finer level.  Every 3x3 convolution is a
depthwise one followed by a 1x1 (Howard et al. 2017, arXiv:1704.04861).

Letters: B images, A anchors per scale, H x W pixels, K classes.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from backbones.core.errors import InputError
from detection.engines.yolo.anchors import STRIDES

PRIOR = 0.01  # initial objectness, so that the many negatives do not dominate early (Lin et al. 2017, Sec. 4.1)
SLOPE = 0.1  # of the leaky ReLU
Norm = Callable[[int], nn.Module]


class YOLO(nn.Module):
    """Maps normalised images to the raw maps of the three scales."""

    def __init__(
        self,
        backbone: Any,
        channels: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        anchors: Sequence[Sequence[Sequence[float]]],
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        """
        Args:
            backbone: has `stages(x)` -> features by name; the last three have strides 8, 16, 32.
            channels: of these three features (`measure_features`).
            widths: channels of the neck at strides 8, 16, 32; 128, 256, 512 at full size.
            anchors: per scale its (width, height), in units of the stride; only their number is used here.
            norm: constructor of the neck's normalisation.
        """
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes
        self.laterals = nn.ModuleList(convolution(above, own, 1, norm) for own, above in pairwise(widths))
        inner = [*widths[:-1], 0]  # channels from the next coarser level
        self.necks = nn.ModuleList(
            _narrow(into + more, width, norm) for into, more, width in zip(channels, inner, widths, strict=True)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(separable(width, 2 * width, norm), _predictor(2 * width, len(own), 5 + num_classes))
            for width, own in zip(widths, anchors, strict=True)
        )
        initialize(self.laterals, self.necks, self.heads)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return raw maps (B, A, H / stride, W / stride, 5 + K) of strides 8, 16, 32: x, y, w, h, objectness, classes.

        Args:
            images: (B, 3, H, W) normalised, H and W multiples of 32.
        """
        if images.shape[2] % STRIDES[-1] or images.shape[3] % STRIDES[-1]:
            raise InputError(f"YOLO takes sides that are multiples of {STRIDES[-1]}, not {tuple(images.shape[2:])}")
        features = list(self.backbone.stages(images).values())[-len(STRIDES) :]
        maps: list[Tensor] = []
        coarser: Tensor | None = None
        for level in reversed(range(len(features))):
            x = features[level]
            if coarser is not None:
                x = torch.cat([interpolate(self.laterals[level](coarser), scale_factor=2.0), x], dim=1)
            coarser = self.necks[level](x)
            maps.insert(0, self._split(self.heads[level](coarser)))
        return maps

    def _split(self, x: Tensor) -> Tensor:
        """Reshape (B, A (5 + K), h, w) to (B, A, h, w, 5 + K)."""
        batch, _, height, width = x.shape
        return x.view(batch, -1, 5 + self.num_classes, height, width).permute(0, 1, 3, 4, 2)


def convolution(into: int, out: int, kernel: int, norm: Norm, groups: int = 1) -> nn.Sequential:
    """Build a convolution with normalisation and leaky ReLU."""
    conv = nn.Conv2d(into, out, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, norm(out), nn.LeakyReLU(SLOPE, inplace=True))


def separable(into: int, out: int, norm: Norm) -> nn.Sequential:
    """Build a 3x3 convolution as a depthwise and a 1x1 convolution."""
    return nn.Sequential(convolution(into, into, 3, norm, groups=into), convolution(into, out, 1, norm))


def initialize(*parts: nn.Module) -> None:
    """Initialise weights to keep the variance through leaky ReLUs, predictors near 0; leave biases unchanged."""
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)


def measure_features(backbone: Any, arch: str) -> list[int]:
    """Return the channels of the last three features, which must have strides 8, 16, 32."""
    side = 3 * STRIDES[-1]
    training = backbone.training
    with torch.no_grad():
        features = list(backbone.eval().stages(torch.zeros(1, 3, side, side)).values())[-len(STRIDES) :]
    backbone.train(training)
    found = [side / feature.shape[-1] for feature in features]
    if found != list(STRIDES):
        raise InputError(
            f"MODEL.ARCH {arch}: its features have the strides {', '.join(f'{stride:g}' for stride in found)}, YOLO "
            f"needs {', '.join(map(str, STRIDES))}; use mobilenetv2 or a ResNet with the ImageNet stem"
        )
    return [feature.shape[1] for feature in features]


def _narrow(into: int, width: int, norm: Norm) -> nn.Sequential:
    """Build the block of five convolutions: alternating 1x1 and 3x3, the 3x3 twice as wide."""
    return nn.Sequential(
        convolution(into, width, 1, norm),
        separable(width, 2 * width, norm),
        convolution(2 * width, width, 1, norm),
        separable(width, 2 * width, norm),
        convolution(2 * width, width, 1, norm),
    )


def _predictor(into: int, anchors: int, values: int) -> nn.Conv2d:
    layer = nn.Conv2d(into, anchors * values, 1)
    bias = torch.zeros(anchors, values)
    bias[:, 4] = math.log(PRIOR / (1 - PRIOR))
    layer.bias = nn.Parameter(bias.flatten())
    return layer
