"""Check that a detector computes the features of its backbone from the same pixels.

Comparing tensors cannot reveal a wrong channel order, mean, deviation or stride; a forward pass does.  The reference
is torchvision's own ResNet, built and fed independently of the detector.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from backbones.core.errors import InputError
from backbones.models.weights import BackboneFile
from detection.exchange.loading import export_torchvision

STAGES = ("res2", "res3", "res4", "res5")
PROOF_SIZE = 128  # side in pixels of the test image; a multiple of the largest stride, 32
TOLERANCE = 1e-4  # largest difference, as a fraction of the stage's largest feature

Features = Callable[[Tensor], Mapping[str, Tensor]]  # (B, 3, H, W) -> {"res2": ..., "res5": ...}


def build_reference(backbone: BackboneFile) -> Features:
    """Return torchvision's ResNet of this backbone, in eval mode, as a function from images to stage features.

    It is built by torchvision, not by our own models, so that the comparison is independent.
    """
    norm = partial(nn.GroupNorm, 32) if backbone.spec["norm"] == "GN" else None
    body = getattr(torchvision.models, f"resnet{backbone.spec['depth']}")(norm_layer=norm).eval()
    export_torchvision(backbone, body)
    if backbone.spec["stride_in_1x1"]:
        _move_strides(body)

    def features(images: Tensor) -> dict[str, Tensor]:
        x = body.maxpool(body.relu(body.bn1(body.conv1(images))))
        found = {}
        for stage, layer in zip(STAGES, (body.layer1, body.layer2, body.layer3, body.layer4), strict=True):
            found[stage] = x = layer(x)
        return found

    return features


def prove_from_pixels(backbone: BackboneFile, candidate: Features, channel_order: str) -> dict[str, Any]:
    """Compare the features of a detector and its backbone from raw pixels, including channel order, mean and deviation.

    Args:
        candidate: maps one image (1, 3, H, W) uint8, in `channel_order`, to stage features of the detector, which must
            be in eval mode, on the CPU and in float32: a GPU's TF32 differs by more than the tolerance.
        channel_order: INPUT.FORMAT of the detector.

    Returns:
        same as `prove_features`.
    """
    spec, reference = backbone.spec, build_reference(backbone)
    mean, std = (torch.tensor(spec[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, PROOF_SIZE, PROOF_SIZE), generator=noise, dtype=torch.uint8)

    def seen_by_classifier(pixels: Tensor) -> Mapping[str, Tensor]:
        ordered = pixels if channel_order == spec["channel_order"] else pixels.flip(1)
        return reference((ordered.float() / 255 * spec["pixel_range"] - mean) / std)

    return prove_features(seen_by_classifier, candidate, pixels)


@torch.no_grad()
def prove_features(
    reference: Features, candidate: Features, images: Tensor, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """Compare two backbones on the same normalised images; raise `InputError` unless they agree.

    Args:
        reference, candidate: (B, 3, H, W) -> {"res2": ..., "res5": ...}, both in eval mode.
        images: (B, 3, H, W), already normalised.
        tolerance: largest allowed difference, as a fraction of the stage's largest feature.

    Returns:
        {"tolerance", "largest_difference": {stage: relative}, "largest_feature": {stage: absolute}}
    """
    wanted, found = reference(images), candidate(images)
    differences, sizes = {}, {}
    for stage in STAGES:
        if found[stage].shape != wanted[stage].shape:
            raise InputError(
                f"features of {stage} have the shape {tuple(found[stage].shape)} in the detector, "
                f"{tuple(wanted[stage].shape)} in the backbone: the two networks differ"
            )
        if not wanted[stage].isfinite().all():
            raise InputError(
                f"the backbone's features of {stage} are NaN or infinite: its weights are damaged or too large; "
                "use another backbone"
            )
        sizes[stage] = float(wanted[stage].abs().max())
        # A network whose features are all zero would agree with anything.
        largest = float((found[stage] - wanted[stage]).abs().max())
        differences[stage] = largest / sizes[stage] if sizes[stage] > 0 else float("nan")
    if not all(value <= tolerance for value in differences.values()):
        raise InputError(
            f"the detector's features differ from the backbone's by {differences} of the largest feature, "
            f"more than {tolerance:g}: the detector does not hold this backbone, or its input differs"
        )
    return {"tolerance": tolerance, "largest_difference": differences, "largest_feature": sizes}


def _move_strides(body: nn.Module) -> None:
    """Move the stride of bottlenecks to their first 1x1 convolution, as in He et al.'s weights."""
    for block in body.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
