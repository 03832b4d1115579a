"""How near a classifier's probabilities are to the votes of people (CIFAR-10H; Zhang et al. 2021, Table X).

The distance of a picture is KL(q || p) = sum_k q_k log(q_k / p_k) in nats, with 0 log 0 = 0, q the shares of votes.
(The paper does not say which direction; the reverse is infinite wherever nobody voted for a class.)  Its mean depends
on the pictures: those that the model got right (the paper's, which favours less accurate models), all of them, and
those that all compared models got right.

Letters: n pictures, K classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError

FILE_NAME = "cifar10h-probs.npy"
LEAST_AGREEMENT = 0.9  # of the most voted class with the labels; CIFAR-10H reaches 0.99


def load_human_labels(folder: str | Path) -> np.ndarray:
    """(n, K) float64 shares of votes from a folder of CIFAR-10H, in the order of CIFAR-10's test pictures."""
    tried = [Path(folder) / FILE_NAME, Path(folder) / "data" / FILE_NAME]
    path = next((path for path in tried if path.is_file()), None)
    if path is None:
        raise InputError(f"no {FILE_NAME} in {folder} or its data/; give the folder of a copy of CIFAR-10H")
    q = np.load(path, allow_pickle=False).astype(np.float64)
    if q.ndim != 2 or (q < 0).any() or np.abs(q.sum(axis=1) - 1).max() > 1e-6:
        raise InputError(f"{path} holds no shares of votes: rows of {q.shape} must sum to 1; copy the file again")
    return q / q.sum(axis=1, keepdims=True)


def check_human_labels(q: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """`InputError` where the votes cannot be those of the pictures with these labels."""
    if q.shape != (len(labels), classes):
        raise InputError(
            f"human labels of {q.shape[0]} pictures and {q.shape[1]} classes for {len(labels)} pictures and {classes} "
            "classes; they belong to CIFAR-10's 10,000 test pictures: set DATA.VAL_SPLIT to them"
        )
    agreement = float((q.argmax(axis=1) == labels).mean())
    if agreement < LEAST_AGREEMENT:
        raise InputError(
            f"people chose the label of only {agreement:.1%} of the pictures, fewer than {LEAST_AGREEMENT:.0%}: "
            "the pictures are not in the order of the human labels; keep that of the data set's test file"
        )


def divergence(q: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """(n,) KL(q || p) in nats, from q (n, K) and natural logarithms of p (n, K)."""
    voted = q > 0
    log_q, log_p = np.log(np.where(voted, q, 1)), np.where(voted, log_p, 0).astype(np.float64)
    return (q * (log_q - log_p)).sum(axis=1)


def human_metrics(q: np.ndarray, log_p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`human_kl` of the pictures that the model got right, `human_kl_all` of all; nan over none."""
    distance, right = divergence(q, log_p), log_p.argmax(axis=1) == labels
    return {
        "human_kl": float(distance[right].mean()) if right.any() else np.nan,
        "human_kl_all": float(distance.mean()),
    }


def compare_human_labels(
    q: np.ndarray, log_ps: Sequence[np.ndarray], labels: np.ndarray
) -> tuple[list[dict[str, float]], int]:
    """`human_metrics` of every model and `human_kl_common`, of the pictures that all got right, and how many."""
    common = np.logical_and.reduce([log_p.argmax(axis=1) == labels for log_p in log_ps])
    found = []
    for log_p in log_ps:
        shared = divergence(q[common], log_p[common]).mean() if common.any() else np.nan
        found.append(human_metrics(q, log_p, labels) | {"human_kl_common": float(shared)})
    return found, int(common.sum())
