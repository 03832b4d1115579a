"""Risk-coverage and reliability of the classifiers, as "classifiers" of comparison.json, from their values per image.

Risk at coverage k / n (Geifman & El-Yaniv 2017, Selective Classification for Deep Neural Networks): share of errors
among the k most confident of n images.  Within tied confidences every order counts equally: the risk is the mean over
the orders.  AURC (Geifman, Uziel & El-Yaniv 2019, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers) is
its mean over k = 1..n.

Letters: n images.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backbones.core.per_image import ImageGroup, Mean, load_per_image
from comparison.families import Family
from comparison.protocols import protocol_name
from comparison.row import Row

BINS = 15  # of equal width, as of ece15
PERCENT = tuple(range(1, 101))
_STAGE, _RIGHT, _CONFIDENCE = "backbone", "top1", "average_confidence"


class Answers(NamedTuple):
    """Confidence (n,) and correctness (n,) bool of a classifier; identity: of the images."""

    confidence: np.ndarray
    right: np.ndarray
    identity: str


def risk_at_every_coverage(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the risk at coverages 1/n, 2/n, ... 1, (n,) float64; both arguments (n,), n >= 1."""
    _, level, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.bincount(level, weights=~right) / size  # mean within each confidence, the most confident first
    return np.cumsum(np.repeat(errors, size)) / np.arange(1, len(confidence) + 1)


def reliability_bins(confidence: np.ndarray, right: np.ndarray) -> dict[str, np.ndarray]:
    """Return the sums of "count", "confidence" and "right" per bin of confidence, each (BINS,); bins (low, high]."""
    at = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    weights = {"count": np.ones(len(at)), "confidence": confidence, "right": right.astype(np.float64)}
    return {name: np.bincount(at, weights=values, minlength=BINS) for name, values in weights.items()}


def build_classifiers(families: Sequence[Family], baseline_labels: set[str]) -> list[dict[str, Any]]:
    """Return one entry per protocol and set of images that classifiers with values per image were measured on."""
    groups: dict[tuple[str, str], list[tuple[Family, list[Answers]]]] = {}
    for family, rows in backbones_of(families, _STAGE):
        own: dict[tuple[str, str], list[Answers]] = {}
        for row in rows:
            if (found := _answers(row)) is not None:
                own.setdefault((protocol_name(row.results[_STAGE]), found.identity), []).append(found)
        for key, answers in own.items():
            groups.setdefault(key, []).append((family, answers))
    return [
        {
            "protocol": protocol,
            "images": len(methods[0][1][0].right),
            "methods": [
                {
                    "label": family.label,
                    "is_baseline": family.label in baseline_labels,
                    "backbones": len(answers),
                    **_numbers(answers),
                }
                for family, answers in methods
            ],
        }
        for (protocol, _), methods in groups.items()
    ]


def backbones_of(families: Sequence[Family], stage: str) -> Iterator[tuple[Family, list[Row]]]:
    """Yield every method with one row of each of its backbones, the first that has results of a stage.

    A backbone of several detectors counts once, also where these are several methods.
    """
    seen: set[str] = set()
    for family in families:
        firsts = {
            weights: found for weights, rows in family.backbones.items()
            if weights not in seen and (found := next((row for row in rows if stage in row.results), None))
        }  # fmt: skip
        seen |= firsts.keys()
        if firsts:
            yield family, list(firsts.values())


def _answers(row: Row) -> Answers | None:
    path = row.file(_STAGE, "per_image")
    return _answers_of(path) if path else None


def _answers_of(path: Path) -> Answers | None:
    for group in load_per_image(path):
        right, confidence = _values(group, _RIGHT), _values(group, _CONFIDENCE)
        if right is not None and confidence is not None:
            return Answers(confidence, right > 0.5, group.identity)
    return None


def _values(group: ImageGroup, name: str) -> np.ndarray | None:
    number = group.numbers.get(name)
    return number.value if isinstance(number, Mean) and not np.isnan(number.value).any() else None


def _numbers(answers: Sequence[Answers]) -> dict[str, Any]:
    """Return means over the backbones of a method; of the bins, all their images count equally."""
    risks = [risk_at_every_coverage(one.confidence, one.right) for one in answers]
    sums: Mapping[str, np.ndarray] = {
        name: np.sum([reliability_bins(one.confidence, one.right)[name] for one in answers], axis=0)
        for name in ("count", "confidence", "right")
    }
    return {
        "aurc": float(np.mean([risk.mean() for risk in risks])),
        "risk": [float(np.mean([risk[-(-share * len(risk) // 100) - 1] for risk in risks])) for share in PERCENT],
        "bins": [
            {"count": int(count), "confidence": float(confidence / count), "accuracy": float(right / count)}
            for count, confidence, right in zip(*(sums[n] for n in ("count", "confidence", "right")), strict=True)
            if count
        ],
    }
