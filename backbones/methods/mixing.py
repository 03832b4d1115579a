"""Methods that combine two pictures and their labels.

CutMix: Yun et al. 2019, arXiv:1905.04899, as in the authors' code.  Letters: B batch, H x W pixels.
"""

import dataclasses

import torch
from torch import Tensor, nn

from backbones.core.errors import InputError
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Method
from backbones.methods.functional import cut_rectangle, mix_rectangle


@METHODS.register()
class CutMix(Method):
    """A rectangle of another picture of the batch is pasted in; a label weighs as much as its share of the pixels.

    The draws come from the CPU's generator, so that a run is the same on every device and never waits for one.
    """

    def __init__(self, model: nn.Module, num_classes: int, *, alpha: float, probability: float) -> None:
        """
        Args:
            alpha: the kept share of the picture is Beta(alpha, alpha), before clipping; 1 is uniform.
            probability: share of the batches that are mixed, in [0, 1]; 0 is the hard label.
        """
        super().__init__(model, num_classes)
        if not alpha > 0:
            raise InputError(f"METHOD.CutMix.alpha: {alpha} must be above 0")
        self.kept = torch.distributions.Beta(alpha, alpha)
        self.probability = self.check_range("probability", probability, 0, 1)

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        if torch.rand(()).item() >= self.probability:
            return batch, targets
        height, width = batch.images.shape[2:]
        centre_y, centre_x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        rectangle = cut_rectangle(height, width, self.kept.sample().item(), centre_y, centre_x)
        order = torch.randperm(len(targets))
        # A picture that meets itself is as it was; so is every one under an empty rectangle.
        mixed = (order != torch.arange(len(order))) & (rectangle.area > 0)
        order = order.to(targets.device, non_blocking=True)
        images, targets = mix_rectangle(batch.images, targets, order, rectangle)
        mixed = batch.mixed | mixed.to(targets.device, non_blocking=True)
        return dataclasses.replace(batch, images=images, mixed=mixed), targets
