"""Class activation maps of a classifier's last stage, computed with the `grad-cam` package.

Letters: B images, C channels, h x w positions of the last stage, H x W pixels of the input.
With A_k the feature map of channel k and z_t the logit of the class, a map is relu(sum_k w_k A_k) with

    CAM         w_k = the classifier's weight of class t for channel k (Zhou et al. 2016, arXiv:1512.04150)
    GradCAM     w_k = mean over positions of g_k = dz_t / dA_k (Selvaraju et al. 2017, arXiv:1610.02391)
    GradCAMPlusPlus  w_k = sum over positions of alpha_k relu(g_k) (Chattopadhay et al. 2018, arXiv:1710.11063)

resized to H x W (bilinear) and stretched to [0, 1]; a constant map becomes 0 everywhere.
For a network that ends in average pooling and a linear layer, CAM and GradCAM are the same map.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.utils.data import Subset

from backbones.core.errors import InputError
from backbones.core.registry import Registry
from backbones.data.evaluation_set import Cover, EvaluationSet
from backbones.data.images import normalize
from backbones.data.loader import evaluation_batches
from backbones.data.samples import Samples
from backbones.measuring.finite import refuse_not_finite
from backbones.measuring.predictions import Inputs

CAMS = Registry("localisation method")  # name -> pytorch_grad_cam.BaseCAM, built from (model, target_layers)


@CAMS.register()
class CAM(pytorch_grad_cam.base_cam.BaseCAM):
    """CAM with the weights of the classifier, without a backward pass.

    NOTE: differs from Zhou et al. 2016, who keep negative evidence: the package cuts it off, as Grad-CAM does.
    """

    def __init__(self, model: "LogitsOnly", target_layers: list[nn.Module]) -> None:
        super().__init__(model, target_layers, uses_gradients=False)
        if not model.network.pooled:
            raise InputError(
                f"LOCALIZE.METHOD CAM needs a linear classifier of the averaged last stage; {model.network.arch} "
                "has more linear layers; set LOCALIZE.METHOD GradCAM"
            )

    def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads) -> np.ndarray:
        """Return the classifier's weights (B, C) of the target classes."""
        weight = self.model.network.fc.weight.detach().float().cpu().numpy()
        return weight[[target.category for target in targets]]


@CAMS.register()
class GradCAM(pytorch_grad_cam.GradCAM):
    """Grad-CAM of the package, unchanged."""


@CAMS.register()
class GradCAMPlusPlus(pytorch_grad_cam.GradCAMPlusPlus):
    """Grad-CAM++ with exact weights.

    The paper's alpha = g^2 / (2 g^2 + S g^3), S = sum over positions of A_k, is 1 / (2 + S g) where g != 0.  The
    package adds 1e-6 to the denominator, which is not negligible: g is about 1e-3 for a 7 x 7 stage, so that the weight
    of some channels is halved and that of others is not.
    """

    def get_cam_weights(self, input_tensor, target_layers, target_category, activations, grads) -> np.ndarray:
        """Return weights (B, C) of activations and gradients (B, C, H, W): the sum of alpha relu(g)."""
        total = activations.sum(axis=(2, 3), keepdims=True)
        positive = np.maximum(grads, 0)
        return (positive / (2 + total * positive)).sum(axis=(2, 3))


class LogitsOnly(nn.Module):
    """A network as the package expects it: images in, logits out; disables the gradients of its parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def last_stage(self) -> nn.Module:
        """Return the last stage, whose activations are mapped."""
        return self.network.stage_modules()[-1]  # type: ignore[operator]  # every network of MODELS has it

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, 3, H, W)."""
        return self.network(images).logits


class ClassMaps:
    """Class activation maps: `ClassMaps(model, "CAM")(images, labels)`.  The model cannot be trained afterwards."""

    def __init__(self, model: nn.Module, method: str) -> None:
        wrapped, self.network = LogitsOnly(model), model
        # Registered before the package's hooks, which then get the leaf: the backward pass stops at the last stage.
        wrapped.last_stage().register_forward_hook(_cut_graph)
        self.cam = CAMS.get(method)(wrapped, [wrapped.last_stage()])

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """
        Args:
            images: (B, 3, H, W), normalised.
            labels: (B,) class of each map.
        Returns:
            maps (B, H, W) float32 in [0, 1], and logits (B, K) float32.
        """
        targets = [ClassifierOutputTarget(int(label)) for label in labels]
        # Values that are not finite are refused with the image's name (`localize`), not by a numpy warning.
        with torch.enable_grad(), np.errstate(invalid="ignore", over="ignore"):
            maps = self.cam(images, targets)
        return stretch(maps), self.cam.outputs.detach().float().cpu().numpy()


def _cut_graph(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor | None:
    return output.detach().requires_grad_() if torch.is_grad_enabled() else None


def stretch(maps: np.ndarray) -> np.ndarray:
    """Scale each map (B, H, W) linearly to exactly [0, 1]; a constant map becomes 0."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    return ((maps - low) / np.where(span > 0, span, 1)).astype(np.float32)


# ---- over a data set ---------------------------------------------------------------------------


class Localized(NamedTuple):
    """One image with the map of its true class.

    image: (H, W, 3) uint8 RGB as the network saw it.
    values: (H, W) map in [0, 1].
    boxes: (m, 4) half-open, in pixels of the image.
    """

    index: int
    label: int
    image: np.ndarray
    values: np.ndarray
    boxes: np.ndarray
    logits: np.ndarray


def localize(
    class_maps: ClassMaps,
    samples: Samples,
    numbers: np.ndarray,
    inputs: Inputs,
    size: int,
    cover: Cover | None = None,
) -> Iterator[Localized]:
    """Yield the samples with these numbers, resized directly to size x size pixels (no crop).

    cover: covers the objects before resizing.

    Raises:
        InputError: the logits or a map are not finite; names the image and the network's file.
    """
    channels = [torch.tensor(values, dtype=inputs.dtype, device=inputs.device) for values in (inputs.mean, inputs.std)]
    subset = Subset(EvaluationSet(samples, resize=size, stretch=True, cover=cover), numbers.tolist())
    for batch in evaluation_batches(subset, batch_size=inputs.batch_size, num_workers=inputs.num_workers):
        maps, logits = class_maps(normalize(batch.images.to(inputs.device), *channels), batch.labels)
        images = batch.images.permute(0, 2, 3, 1).numpy()
        assert batch.index is not None
        names = [samples.paths[index] for index in batch.index.tolist()]
        refuse_not_finite(logits, names, class_maps.network)
        refuse_not_finite(maps, names, class_maps.network, "class activation maps")
        assert batch.boxes is not None
        assert batch.box_count is not None
        for i, count in enumerate(batch.box_count.tolist()):
            boxes = batch.boxes[i, :count].numpy()
            yield Localized(int(batch.index[i]), int(batch.labels[i]), images[i], maps[i], boxes, logits[i])
