"""Symmetric label noise (OLS Table V): wrong training labels, drawn once.  Letters: N samples, K classes."""

import dataclasses
from pathlib import Path

import numpy as np

from backbones.core.checks import check_range
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, save_atomic
from backbones.core.sampling import draw_rng
from backbones.data.samples import Samples

NOISE_FILE = "label_noise.npz"
_STREAM = 201  # makes these draws independent of others with the same seed


def noisy_labels(labels: np.ndarray, num_classes: int, rate: float, seed: int) -> np.ndarray:
    """Replace exactly round(rate * N) of (N,) int64 labels, each with a uniform draw from the OTHER classes.

    The samples are drawn uniformly without replacement.  Some cited works draw from all K classes, so that the rate of
    wrong labels is rate * (K - 1) / K; the text of OLS asks for wrong labels.

    Args:
        rate: share of wrong labels in [0, 1]; 0 leaves the labels unchanged.
    """
    check_range("DATA.NOISE_RATE", rate, 0, 1)
    if rate > 0 and num_classes < 2:
        raise InputError(f"DATA.NOISE_RATE {rate} needs at least 2 classes to draw a wrong one from")
    rng = draw_rng(seed, _STREAM)
    chosen = rng.permutation(len(labels))[: round(rate * len(labels))]
    shift = rng.integers(1, num_classes, len(chosen)) if len(chosen) else 0
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + shift) % num_classes
    return noisy


def add_noise(samples: Samples, rate: float, seed: int) -> Samples:
    """Return the samples with noisy labels and their own fingerprint; `clean_labels` holds the original labels."""
    labels = noisy_labels(samples.labels, len(samples.classes), rate, seed)
    digest = fingerprint(samples.fingerprint, labels)
    return dataclasses.replace(samples, labels=labels, clean_labels=samples.labels, fingerprint=digest)


def save_noise(run_dir: Path, samples: Samples) -> None:
    """Write label_noise.npz: `index` and `labels` of the samples with a wrong label, and their `clean_labels`."""
    if samples.clean_labels is None:
        return
    clean = samples.clean_labels
    index = np.flatnonzero(samples.labels != clean)
    arrays = {"index": index, "labels": samples.labels[index], "clean_labels": clean[index]}
    save_atomic(run_dir / NOISE_FILE, lambda temporary: np.savez(temporary, **arrays), arrays)
