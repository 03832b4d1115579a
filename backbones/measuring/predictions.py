"""Predictions of a classifier for samples, each sample exactly once.

Letters: n samples, K classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from backbones.core.stopping import gather_finished, until_signal
from backbones.data.batch import Batch
from backbones.data.evaluation_set import Cover, EvaluationSet
from backbones.data.images import normalize
from backbones.data.loader import evaluation_batches
from backbones.data.samples import Samples
from backbones.measuring.calibration import accuracy, log_softmax, nll
from backbones.measuring.finite import refuse_not_finite


@dataclass(frozen=True)
class Predictions:
    """Outputs for n samples, sorted by index, each sample exactly once.

    logits: (n, K) float32 or float64.
    labels, index: (n,) int64.
    objectness, objectness_full: (n,) float64, for the evaluated crop and the whole image, or None.
    """

    logits: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    objectness: np.ndarray | None = None
    objectness_full: np.ndarray | None = None

    @property
    def log_p(self) -> np.ndarray:
        """Log-probabilities (n, K) float64."""
        return log_softmax(self.logits)

    def top1(self) -> float:
        """Return the share of right predictions."""
        return accuracy(self.logits, self.labels)

    def nll(self) -> float:
        """Return the mean negative log-likelihood in nats."""
        return nll(self.log_p, self.labels)


@dataclass(frozen=True)
class Inputs:
    """Settings of the network's input.

    resize: shorter side in pixels (0: unchanged), both sides with `stretch`; then a centre crop of side `crop`.
    mean, std: channel statistics, RGB in [0, 1].
    precision: see `predict`.
    """

    resize: int
    crop: int
    mean: list[float]
    std: list[float]
    batch_size: int
    num_workers: int
    precision: str
    device: torch.device
    stretch: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Type of the model and its input."""
        return _dtype(self.precision)

    def normalization(self) -> dict:
        """Return the settings that map pixels to the network's input."""
        return {"mean": self.mean, "std": self.std, "dtype": str(self.dtype)}

    def size(self) -> dict:
        """Return the size of the images as arguments of `EvaluationSet`."""
        return {"resize": self.resize, "crop": self.crop} | ({"stretch": True} if self.stretch else {})

    def protocol(self) -> dict:
        """Return the settings that determine the numbers; batch size, processes and device do not."""
        return self.size() | self.normalization()


@torch.inference_mode()
def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    mean: list[float],
    std: list[float],
    precision: str,
    names: Sequence[str] | None = None,
) -> Predictions:
    """Run `model` in evaluation mode over the batches of all processes.

    Args:
        batches: this process's share of the uint8 images.
        mean, std: channel statistics, RGB in [0, 1].
        precision: "float64" for a float64 model; float32 for all others, including those that train with autocast:
            logits rounded to 8 bits would affect the calibration.
        names: names of the images by sample index, for messages.

    Raises:
        InputError: the logits are not finite; names the image and the network's file.
        Unfinished: a signal has cut off this evaluation, which was part of a training.
    """
    channels = [torch.tensor(values, dtype=_dtype(precision), device=device) for values in (mean, std)]
    was_training = model.training
    model.eval()
    parts = []
    for batch in until_signal(batches):
        moved = batch.to(device, non_blocking=True)
        logits = model(normalize(moved.images, *channels)).logits
        parts.append((logits.cpu(), batch.labels, batch.index, batch.objectness, batch.objectness_full))
    model.train(was_training)
    found = _gather(parts)
    index: list[int] = found.index.tolist()
    refuse_not_finite(found.logits, [f"image {i}" if names is None else names[i] for i in index], model)
    return found


def _dtype(precision: str) -> torch.dtype:
    return torch.float64 if precision == "float64" else torch.float32


def _gather(parts: list[tuple]) -> Predictions:
    """Concatenate the batches of all processes, sorted by sample index."""
    columns = list(zip(*(part for process in gather_finished(parts) for part in process), strict=True))
    logits, labels, index = (torch.cat(column).numpy() for column in columns[:3])
    order = np.argsort(index, kind="stable")
    assert (np.diff(index[order]) > 0).all(), "a sample was evaluated twice"
    shares = [None if c[0] is None else torch.cat(c).numpy().astype(np.float64)[order] for c in columns[3:]]
    return Predictions(logits[order], labels[order], index[order], *shares)


def predict_samples(
    model: nn.Module,
    samples: Samples,
    inputs: Inputs,
    *,
    chosen: np.ndarray | None = None,
    with_objectness: bool = False,
    cover: Cover | None = None,
) -> Predictions:
    """Predict the samples numbered `chosen` (default: all), each exactly once.

    cover: covers the objects before resizing, so that only context is visible (`backbones.measuring.context`).
    """
    images = EvaluationSet(samples, **inputs.size(), cover=cover, with_objectness=with_objectness)
    numbers = np.arange(len(samples.labels)) if chosen is None else chosen
    subset = images if chosen is None else Subset(images, numbers.tolist())
    batches = evaluation_batches(subset, batch_size=inputs.batch_size, num_workers=inputs.num_workers)
    found = predict(model, batches, inputs.device, inputs.mean, inputs.std, inputs.precision, samples.paths)
    assert np.array_equal(found.index, numbers), "not every sample was evaluated"
    return found
