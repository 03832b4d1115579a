"""The loss of a detector on a validation set: that of its training, but without augmentation.

Batch norm uses its statistics, as in the test, and does not update them; what a step samples (anchors, proposals) is a
function of the seed and the batch.  The result is the mean of the batches, weighted by their images, and the same for
any number of processes.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from backbones.core.distributed import rank, world_size
from backbones.core.stopping import gather_finished, until_signal
from detection.data.records import DetectionData
from detection.engines.base import Detector

TOTAL = "loss"


def measure_losses(detector: Detector, data: DetectionData) -> dict[str, float]:
    """Return the loss and its parts on every process; {} for a detector without `losses`.

    Raises:
        Unfinished: a signal has cut off the evaluation, which was part of a training.
    """
    mine = []
    set_modes(detector.task)
    with torch.no_grad():
        for images, losses in until_signal(_seeded(detector, data)):
            mine.append((images, {TOTAL: float(sum(losses.values())), **{k: float(v) for k, v in losses.items()}}))
    return average(gather_finished(mine))


def average(parts: list[list[tuple[int, dict[str, float]]]]) -> dict[str, float]:
    """Return the mean over images of the losses of all batches, in their order: of each process every n-th batch."""
    longest = max(map(len, parts))
    batches = [part[n] for n in range(longest) for part in parts if n < len(part)]
    images = sum(count for count, _ in batches)
    names = batches[0][1] if batches else ()
    return {name: sum(count * losses[name] for count, losses in batches) / images for name in names}


def _seeded(detector: Detector, data: DetectionData) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
    """Yield the losses of every batch, each with the random numbers of its position among those of all processes."""
    batches, number = iter(detector.losses(data)), rank()
    while True:
        torch.manual_seed((detector.cfg.SEED * 1_000_003 + number) % 2**63)
        try:
            yield next(batches)
        except StopIteration:
            return
        number += world_size()


def set_modes(task: nn.Module) -> None:
    """Set every module to training, in which a detector has losses, except norms and dropout."""
    task.train()
    for module in task.modules():
        if isinstance(module, (_NormBase, _DropoutNd)):
            module.eval()
