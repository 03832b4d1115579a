"""What a trained classifier says about pictures, and the numbers that follow: accuracy, calibration, context.

Letters: n pictures, K classes, c the confidence (largest probability), o the objectness (share of the picture that
objects of its class cover).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from backbones.calibration import (
    accuracy,
    calibration_metrics,
    confidence_statistics,
    ece,
    log_softmax,
    mce_bin_count,
    nll,
    scaled_metrics,
)
from backbones.core.distributed import gather_objects
from backbones.data.batch import Batch
from backbones.data.evaluation_set import EvaluationSet
from backbones.data.images import normalize
from backbones.data.loader import evaluation_batches
from backbones.data.samples import Samples


@dataclass(frozen=True)
class Predictions:
    """Outputs for n samples, in the order of their index; every sample once.

    logits: (n, K) float32 or float64.
    labels, index: (n,) int64.
    objectness, objectness_full: (n,) float64 of the evaluated crop and of the whole picture, or None.
    """

    logits: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    objectness: np.ndarray | None = None
    objectness_full: np.ndarray | None = None

    @property
    def log_p(self) -> np.ndarray:
        """(n, K) float64 log-probabilities."""
        return log_softmax(self.logits)

    def top1(self) -> float:
        """Share of right predictions."""
        return accuracy(self.logits, self.labels)

    def nll(self) -> float:
        """Mean negative log-likelihood, in nats."""
        return nll(self.log_p, self.labels)


@dataclass(frozen=True)
class Inputs:
    """How pictures reach the network.

    resize: shorter side in pixels (0: as it is), then a centre crop of side `crop`.
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

    @property
    def dtype(self) -> torch.dtype:
        """Of the model and its input."""
        return _dtype(self.precision)

    def normalization(self) -> dict:
        """How pixels become the network's input."""
        return {"mean": self.mean, "std": self.std, "dtype": str(self.dtype)}

    def protocol(self) -> dict:
        """What decides the numbers; batch size, processes and device do not."""
        return {"resize": self.resize, "crop": self.crop} | self.normalization()


@dataclass(frozen=True)
class Measurement:
    """Flat metrics (None where one cannot be computed), details with the reasons, and the predictions by split."""

    metrics: dict[str, float | None]
    details: dict
    predictions: dict[str, Predictions]


# ---- predictions -------------------------------------------------------------------------------


@torch.inference_mode()
def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    mean: list[float],
    std: list[float],
    precision: str,
) -> Predictions:
    """Run `model` in evaluation mode over all batches, of all processes.

    Args:
        batches: uint8 pictures, this process's share of them.
        mean, std: channel statistics, RGB in [0, 1].
        precision: "float64" for a float64 model; all others mean float32, also those that train under autocast:
            logits rounded to 8 bits would show in the calibration.
    """
    channels = [torch.tensor(values, dtype=_dtype(precision), device=device) for values in (mean, std)]
    was_training = model.training
    model.eval()
    parts = []
    for batch in batches:
        moved = batch.to(device, non_blocking=True)
        logits = model(normalize(moved.images, *channels)).logits
        parts.append((logits.cpu(), batch.labels, batch.index, batch.objectness, batch.objectness_full))
    model.train(was_training)
    return _gather(parts)


def _dtype(precision: str) -> torch.dtype:
    return torch.float64 if precision == "float64" else torch.float32


def _gather(parts: list[tuple]) -> Predictions:
    """Join the batches of all processes and sort them by the samples' index."""
    columns = list(zip(*(part for process in gather_objects(parts) for part in process), strict=True))
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
    paint_boxes: bool = False,
) -> Predictions:
    """Predictions for the samples numbered `chosen` (all by default), every one exactly once.

    paint_boxes: cover each box with the mean colour before resizing: only context is left to see.
    """
    colour = mean_colour(inputs.mean) if paint_boxes else None
    pictures = EvaluationSet(
        samples, resize=inputs.resize, crop=inputs.crop, paint_boxes=colour, with_objectness=with_objectness
    )
    numbers = np.arange(len(samples.labels)) if chosen is None else chosen
    subset = pictures if chosen is None else Subset(pictures, numbers.tolist())
    batches = evaluation_batches(subset, batch_size=inputs.batch_size, num_workers=inputs.num_workers)
    found = predict(model, batches, inputs.device, inputs.mean, inputs.std, inputs.precision)
    assert np.array_equal(found.index, numbers), "not every sample was evaluated"
    return found


def mean_colour(mean: list[float]) -> tuple[int, int, int]:
    """The mean colour as uint8 RGB; ImageNet's is (124, 116, 104)."""
    red, green, blue = (round(255 * value) for value in mean)
    return red, green, blue


# ---- numbers -----------------------------------------------------------------------------------


def evaluate_backbone(
    model: nn.Module, val: Samples, shifted: Samples | None, inputs: Inputs, *, context: bool
) -> Measurement:
    """Measure a classifier on `val`; and, where given, on `shifted` and on `val` with its objects painted over."""
    boxed = np.flatnonzero(val.box_counts() > 0)
    predictions = {"val": predict_samples(model, val, inputs, with_objectness=len(boxed) == len(val))}
    if shifted is not None:
        predictions["shifted"] = predict_samples(model, shifted, inputs)
    if context and len(boxed):
        predictions["context"] = predict_samples(model, val, inputs, chosen=boxed, paint_boxes=True)
    metrics = _val_metrics(predictions["val"])
    metrics |= _objectness_metrics(predictions["val"])
    metrics |= _shifted_metrics(predictions.get("shifted"))
    metrics |= _context_metrics(predictions.get("context"))
    metrics = {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()}
    details = _details(predictions, boxed)
    details["null"] = _reasons(metrics, len(boxed), len(val), context)
    return Measurement(metrics, details, predictions)


def _val_metrics(val: Predictions) -> dict[str, float]:
    metrics = calibration_metrics(val.log_p, val.labels) | scaled_metrics(val.log_p, val.labels)
    if val.logits.shape[1] <= 5:
        metrics["top5"] = np.nan
    return metrics


def _objectness_metrics(val: Predictions) -> dict[str, float]:
    """Mean of o, and of |c - o| (Krothapalli & Abbott, Sec. 4.2), of the evaluated crop and of the whole picture."""
    confidence = np.exp(val.log_p).max(axis=1)
    metrics = {}
    for suffix, share in (("", val.objectness), ("_full", val.objectness_full)):
        share = np.full(len(confidence), np.nan) if share is None else share
        metrics[f"mean_objectness{suffix}"] = share.mean()
        metrics[f"objectness_deviation{suffix}"] = np.abs(confidence - share).mean()
    return metrics


def _shifted_metrics(shifted: Predictions | None) -> dict[str, float]:
    if shifted is None:
        return dict.fromkeys(("top1_shifted", "shifted_nll", "shifted_ece15", "shifted_average_confidence"), np.nan)
    p = np.exp(shifted.log_p)
    return {
        "top1_shifted": shifted.top1(),
        "shifted_nll": shifted.nll(),
        "shifted_ece15": ece(p, shifted.labels, 15),
        "shifted_average_confidence": confidence_statistics(p, shifted.labels)["average_confidence"],
    }


def _context_metrics(context: Predictions | None) -> dict[str, float]:
    if context is None:
        names = ("top1", "average_confidence", "overconfidence", "underconfidence")
        return dict.fromkeys((f"context_{name}" for name in names), np.nan)
    metrics = {"top1": context.top1()} | confidence_statistics(np.exp(context.log_p), context.labels)
    return {f"context_{name}": value for name, value in metrics.items()}


def _details(predictions: dict[str, Predictions], boxed: np.ndarray) -> dict:
    p, labels = np.exp(predictions["val"].log_p), predictions["val"].labels
    return {
        "pictures": {name: len(found.labels) for name, found in predictions.items()},
        "pictures_with_boxes": len(boxed),
        "mce_bin_count": {f"mce{bins}": mce_bin_count(p, labels, bins) for bins in (15, 100)},
        "temperature": "fitted on one half of the split and measured on the other, both ways; the mean of the two",
    }


def _reasons(metrics: dict[str, float | None], boxed: int, pictures: int, context: bool) -> dict[str, str]:
    """Why a metric is null, by its name."""
    without = f"{pictures - boxed} of {pictures} pictures have no box"
    causes = {
        "objectness": without if boxed < pictures else "",
        "context": "EVAL.CONTEXT is off" if not context else without if not boxed else "",
        "shifted": "DATA.SHIFTED_SPLIT is not set" if metrics["top1_shifted"] is None else "",
        "top5": "the data set has no more than 5 classes",
        "overconfidence": "no prediction is wrong",
        "underconfidence": "no prediction is right",
    }
    missing = [name for name, value in metrics.items() if value is None]
    return {name: next((why for part, why in causes.items() if part in name and why), "not finite") for name in missing}
