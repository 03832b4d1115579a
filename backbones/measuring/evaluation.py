"""Metrics of a trained classifier: accuracy, calibration, context.

Letters: n images, K classes, c the confidence (largest probability), o the objectness (share of the image covered by
objects of its class).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from backbones.core.per_image import Binned, ImageGroup, Mean, Number
from backbones.data.samples import Samples
from backbones.measuring.calibration import (
    among_largest,
    calibration_metrics,
    confidence_statistics,
    ece,
    log_softmax,
    mce_bin_count,
    nll_per_image,
    number_bins,
    scaled_metrics,
    temperatures_of,
)
from backbones.measuring.context import NAMES, build_cover, context_metrics, scaled_confidence, uniform_batch
from backbones.measuring.human_labels import divergence, human_metrics
from backbones.measuring.predictions import Inputs, Predictions, predict, predict_samples
from backbones.measuring.pycalib import Subsample, pycalib_metrics

CROSS_FITTED = "fitted on one half of the split and measured on the other, both ways; the mean of the two"
FITTED_ELSEWHERE = "fitted on EVAL.TEMPERATURE_SPLIT"


@dataclass(frozen=True)
class Measurement:
    """Flat metrics (None if not computable), details with the reasons, the predictions by split, metrics per image."""

    metrics: dict[str, float | None]
    details: dict
    predictions: dict[str, Predictions]
    per_image: list[ImageGroup]


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
    """Measure a classifier on `val` and, if given, on `shifted` and on `val` with covered objects.

    context: fills of `backbones.measuring.context.FILLS`; empty: not measured.
    temperature: samples to fit the temperature on, instead of halves of `val`.
    pycalib: random subsets over which the `*_pycalib` metrics are averaged.
    human: (n, K) shares of human votes for the images of `val`.
    """
    boxed = np.flatnonzero(val.box_counts() > 0)
    predictions = {"val": predict_samples(model, val, inputs, with_objectness=len(boxed) == len(val))}
    for name, samples in (("shifted", shifted), ("temperature", temperature)):
        if samples is not None:
            predictions[name] = predict_samples(model, samples, inputs)
    covered = {fill: _predict_context(model, fill, val, boxed, inputs) for fill in context}
    named = {"context" if fill == "mean" else f"context_{fill}": found for fill, found in covered.items()}
    predictions |= {name: found for name, found in named.items() if found is not None}
    temperatures = _temperatures(predictions["val"], predictions.get("temperature"))
    metrics, details = _val_metrics(predictions["val"], predictions.get("temperature"), temperatures, pycalib)
    metrics |= _objectness_metrics(predictions["val"])
    metrics |= _shifted_metrics(predictions.get("shifted"))
    if human is not None:
        metrics |= human_metrics(human, predictions["val"].log_p, predictions["val"].labels)
    for fill in dict.fromkeys(("mean", *context)):
        metrics |= context_metrics(fill, covered.get(fill), temperatures)
    metrics = {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()}
    details |= _details(predictions, boxed)
    details["null"] = null_reasons(metrics, len(boxed), len(val), context)
    images = {
        "val": _val_images(predictions["val"], temperatures, human),
        "boxed": _context_images(predictions, temperatures),
    }
    images["shifted"] = _shifted_images(predictions.get("shifted"))
    groups = {"val": (val, np.arange(len(val))), "boxed": (val, boxed)}
    groups |= {"shifted": (shifted, np.arange(len(shifted)))} if shifted is not None else {}
    per_image = [_group(name, *group, images[name], metrics) for name, group in groups.items()]
    return Measurement(metrics, details, predictions, per_image)


def _predict_context(
    model: nn.Module, fill: str, val: Samples, boxed: np.ndarray, inputs: Inputs
) -> Predictions | None:
    """Predict the context images of a fill; None if no image has a box."""
    if fill == "uniform":
        nothing = uniform_batch(inputs.mean, inputs.crop)
        names = ["an image of the mean colour"]
        return predict(model, [nothing], inputs.device, inputs.mean, inputs.std, inputs.precision, names)
    if not len(boxed):
        return None
    return predict_samples(model, val, inputs, chosen=boxed, cover=build_cover(fill, inputs.mean))


def _fit_on(temperature: Predictions | None) -> tuple[np.ndarray, np.ndarray] | None:
    return None if temperature is None else (temperature.log_p, temperature.labels)


def _temperatures(val: Predictions, temperature: Predictions | None) -> np.ndarray:
    """Return the temperature of every image of `val`, (n,), fitted on other images."""
    return temperatures_of(val.log_p, val.labels, fit=_fit_on(temperature))


def _val_metrics(
    val: Predictions, temperature: Predictions | None, temperatures: np.ndarray, pycalib: Subsample | None
) -> tuple[dict[str, float], dict]:
    """Return metrics and details, with the deviation of metrics that are means over subsets."""
    scaled = scaled_metrics(val.log_p, val.labels, fit=_fit_on(temperature), temperatures=temperatures)
    metrics = calibration_metrics(val.log_p, val.labels) | scaled
    details: dict = {"temperature": FITTED_ELSEWHERE if temperature else CROSS_FITTED}
    if pycalib is not None and pycalib.size < len(val.labels):
        mean, deviation = pycalib_metrics(np.exp(val.log_p), val.labels, pycalib)
        metrics |= mean
        details["pycalib"] = pycalib._asdict() | {"deviation": deviation}
    if val.logits.shape[1] <= 5:
        metrics["top5"] = np.nan
    return metrics, details


def _objectness_metrics(val: Predictions) -> dict[str, float]:
    """Return the means of o and of |c - o| (Krothapalli & Abbott, Sec. 4.2), for the crop and for the whole image."""
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


# ---- numbers per image -------------------------------------------------------------------------


def _group(
    name: str, samples: Samples, chosen: np.ndarray, numbers: dict[str, Number], metrics: dict[str, float | None]
) -> ImageGroup:
    """Return the numbers that exist, of the samples numbered `chosen`."""
    known = {number: one for number, one in numbers.items() if metrics[number] is not None}
    return ImageGroup(name, samples.identify(chosen), chosen, known)


def _val_images(val: Predictions, temperatures: np.ndarray, human: np.ndarray | None) -> dict[str, Number]:
    p = np.exp(val.log_p)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == val.labels
    scaled = log_softmax(val.log_p / temperatures[:, None])
    softened = np.exp(scaled.max(axis=1))
    numbers: dict[str, Number] = {
        "top1": Mean(right),
        "top5": Mean(among_largest(p, val.labels, 5)),
        "nll": Mean(nll_per_image(val.log_p, val.labels)),
        "nll_scaled": Mean(nll_per_image(scaled, val.labels)),
        "ece15_scaled": Binned(right - softened, number_bins(np.nan_to_num(softened), 15)),
        "ece15": Binned(right - confidence, number_bins(confidence, 15)),
        "overconfidence": Mean(np.where(right, np.nan, confidence)),
        "underconfidence": Mean(np.where(right, 1 - confidence, np.nan)),
        "average_confidence": Mean(confidence),
    }
    if val.objectness is not None:
        numbers["objectness_deviation"] = Mean(np.abs(confidence - val.objectness))
    if human is not None:
        counted = val.log_p.argmax(axis=1) == val.labels
        numbers["human_kl"] = Mean(np.where(counted, divergence(human, val.log_p), np.nan))
    return numbers


def _shifted_images(shifted: Predictions | None) -> dict[str, Number]:
    return {} if shifted is None else {"top1_shifted": Mean(shifted.logits.argmax(axis=1) == shifted.labels)}


def _context_images(predictions: dict[str, Predictions], temperatures: np.ndarray) -> dict[str, Number]:
    covered = {name: predictions[name] for name in ("context", "context_blur") if name in predictions}
    confidences = {name: np.exp(found.log_p).max(axis=1) for name, found in covered.items()}
    numbers: dict[str, Number] = {f"{name}_average_confidence": Mean(c) for name, c in confidences.items()}
    if "context" in covered:
        found, confidence = covered["context"], confidences["context"]
        right = found.log_p.argmax(axis=1) == found.labels
        numbers |= {
            "context_top1": Mean(right),
            "context_overconfidence": Mean(np.where(right, np.nan, confidence)),
            "context_underconfidence": Mean(np.where(right, 1 - confidence, np.nan)),
            "context_average_confidence_scaled": Mean(scaled_confidence(found, temperatures)),
        }
    return numbers


def _details(predictions: dict[str, Predictions], boxed: np.ndarray) -> dict:
    p, labels = np.exp(predictions["val"].log_p), predictions["val"].labels
    return {
        "images": {name: len(found.labels) for name, found in predictions.items()},
        "images_with_boxes": len(boxed),
        "mce_bin_count": {f"mce{bins}": mce_bin_count(p, labels, bins) for bins in (15, 100)},
    }


def null_reasons(metrics: dict[str, float | None], boxed: int, images: int, context: Sequence[str]) -> dict[str, str]:
    """Return the reason for each metric that is null, by its name."""
    without = f"{images - boxed} of {images} images have no box"
    unasked = "" if "mean" in context else "'mean' is not in EVAL.CONTEXT_FILLS"
    causes = {
        "objectness": without if boxed < images else "",
        "context": "EVAL.CONTEXT is off" if not context else without if not boxed else "",
        **{f"context_{name}": unasked for name in NAMES},  # those of other fills exist only if asked for
        "shifted": "DATA.SHIFTED_SPLIT is not set" if metrics["top1_shifted"] is None else "",
        "top5": "the data set has no more than 5 classes",
        "overconfidence": "no prediction is wrong",
        "underconfidence": "no prediction is right",
        "human_kl": "no prediction is right",
    }
    missing = [name for name, value in metrics.items() if value is None]
    return {name: next((why for part, why in causes.items() if part in name and why), "not finite") for name in missing}
