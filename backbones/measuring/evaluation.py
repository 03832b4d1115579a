"""What a trained classifier says about pictures, and the numbers that follow: accuracy, calibration, context.

Letters: n pictures, K classes, c the confidence (largest probability), o the objectness (share of the picture that
objects of its class cover).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from backbones.core.distributed import gather_objects
from backbones.data.batch import Batch
from backbones.data.evaluation_set import EvaluationSet
from backbones.data.images import normalize
from backbones.data.loader import evaluation_batches
from backbones.data.samples import Samples
from backbones.measuring.calibration import (
    accuracy,
    calibration_metrics,
    confidence_statistics,
    ece,
    log_softmax,
    mce_bin_count,
    nll,
    scaled_metrics,
)
from backbones.measuring.context import Cover, build_cover, context_metrics, uniform_batch
from backbones.measuring.finite import refuse_not_finite
from backbones.measuring.human_labels import human_metrics
from backbones.measuring.null_reasons import null_reasons
from backbones.measuring.pycalib import Subsample, pycalib_metrics

CROSS_FITTED = "fitted on one half of the split and measured on the other, both ways; the mean of the two"
FITTED_ELSEWHERE = "fitted on EVAL.TEMPERATURE_SPLIT"


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

    resize: shorter side in pixels (0: as it is), both sides with `stretch`; then a centre crop of side `crop`.
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
        """Of the model and its input."""
        return _dtype(self.precision)

    def normalization(self) -> dict:
        """How pixels become the network's input."""
        return {"mean": self.mean, "std": self.std, "dtype": str(self.dtype)}

    def size(self) -> dict:
        """The size of the pictures, as `EvaluationSet` takes it."""
        return {"resize": self.resize, "crop": self.crop} | ({"stretch": True} if self.stretch else {})

    def protocol(self) -> dict:
        """What decides the numbers; batch size, processes and device do not."""
        return self.size() | self.normalization()


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
    names: Sequence[str] | None = None,
) -> Predictions:
    """Run `model` in evaluation mode over all batches, of all processes.

    Args:
        batches: uint8 pictures, this process's share of them.
        mean, std: channel statistics, RGB in [0, 1].
        precision: "float64" for a float64 model; all others mean float32, also those that train under autocast:
            logits rounded to 8 bits would show in the calibration.
        names: of the images, by the samples' index, for messages.

    Raises:
        InputError: logits that are not finite, with the image and the network's file.
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
    found = _gather(parts)
    index: list[int] = found.index.tolist()
    refuse_not_finite(found.logits, [f"image {i}" if names is None else names[i] for i in index], model)
    return found


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
    cover: Cover | None = None,
) -> Predictions:
    """Predictions for the samples numbered `chosen` (all by default), every one exactly once.

    cover: hides the objects before resizing, so that only context is left to see (`backbones.measuring.context`).
    """
    pictures = EvaluationSet(samples, **inputs.size(), cover=cover, with_objectness=with_objectness)
    numbers = np.arange(len(samples.labels)) if chosen is None else chosen
    subset = pictures if chosen is None else Subset(pictures, numbers.tolist())
    batches = evaluation_batches(subset, batch_size=inputs.batch_size, num_workers=inputs.num_workers)
    found = predict(model, batches, inputs.device, inputs.mean, inputs.std, inputs.precision, samples.paths)
    assert np.array_equal(found.index, numbers), "not every sample was evaluated"
    return found


# ---- numbers -----------------------------------------------------------------------------------


def evaluate_backbone(
    model: nn.Module,
    val: Samples,
    shifted: Samples | None,
    inputs: Inputs,
    *,
    context: Sequence[str] = (),
    temperature: Samples | None = None,
    pycalib: Subsample | None = None,
    human: np.ndarray | None = None,
) -> Measurement:
    """Measure a classifier on `val`; and, where given, on `shifted` and on `val` with its objects covered.

    context: fills of `backbones.measuring.context.FILLS`, none: not measured.
    temperature: fit the temperature here instead of on halves of `val`.
    pycalib: random subsets over which the `*_pycalib` numbers are averaged.
    human: (n, K) shares of human votes for the pictures of `val`.
    """
    boxed = np.flatnonzero(val.box_counts() > 0)
    predictions = {"val": predict_samples(model, val, inputs, with_objectness=len(boxed) == len(val))}
    for name, samples in (("shifted", shifted), ("temperature", temperature)):
        if samples is not None:
            predictions[name] = predict_samples(model, samples, inputs)
    covered = {fill: _predict_context(model, fill, val, boxed, inputs) for fill in context}
    named = {"context" if fill == "mean" else f"context_{fill}": found for fill, found in covered.items()}
    predictions |= {name: found for name, found in named.items() if found is not None}
    metrics, details = _val_metrics(predictions["val"], predictions.get("temperature"), pycalib)
    metrics |= _objectness_metrics(predictions["val"])
    metrics |= _shifted_metrics(predictions.get("shifted"))
    if human is not None:
        metrics |= human_metrics(human, predictions["val"].log_p, predictions["val"].labels)
    for fill in dict.fromkeys(("mean", *context)):
        metrics |= context_metrics(fill, covered.get(fill))
    metrics = {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()}
    details |= _details(predictions, boxed)
    details["null"] = null_reasons(metrics, len(boxed), len(val), context)
    return Measurement(metrics, details, predictions)


def _predict_context(
    model: nn.Module, fill: str, val: Samples, boxed: np.ndarray, inputs: Inputs
) -> Predictions | None:
    """None where no picture has a box."""
    if fill == "uniform":
        nothing = uniform_batch(inputs.mean, inputs.crop)
        names = ["an image of the mean colour"]
        return predict(model, [nothing], inputs.device, inputs.mean, inputs.std, inputs.precision, names)
    if not len(boxed):
        return None
    return predict_samples(model, val, inputs, chosen=boxed, cover=build_cover(fill, inputs.mean))


def _val_metrics(
    val: Predictions, temperature: Predictions | None, pycalib: Subsample | None
) -> tuple[dict[str, float], dict]:
    """Metrics, and the details of those that are means over subsets."""
    fit = None if temperature is None else (temperature.log_p, temperature.labels)
    metrics = calibration_metrics(val.log_p, val.labels) | scaled_metrics(val.log_p, val.labels, fit=fit)
    details: dict = {"temperature": FITTED_ELSEWHERE if temperature else CROSS_FITTED}
    if pycalib is not None and pycalib.size < len(val.labels):
        mean, deviation = pycalib_metrics(np.exp(val.log_p), val.labels, pycalib)
        metrics |= mean
        details["pycalib"] = pycalib._asdict() | {"deviation": deviation}
    if val.logits.shape[1] <= 5:
        metrics["top5"] = np.nan
    return metrics, details


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


def _details(predictions: dict[str, Predictions], boxed: np.ndarray) -> dict:
    p, labels = np.exp(predictions["val"].log_p), predictions["val"].labels
    return {
        "pictures": {name: len(found.labels) for name, found in predictions.items()},
        "pictures_with_boxes": len(boxed),
        "mce_bin_count": {f"mce{bins}": mce_bin_count(p, labels, bins) for bins in (15, 100)},
    }
