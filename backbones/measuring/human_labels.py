"""How near a classifier's probabilities are to the votes of people (CIFAR-10H; Zhang et al. 2021, Table X).

The distance of an image is KL(q || p) = sum_k q_k log(q_k / p_k) in nats, with 0 log 0 = 0, q the shares of votes.
(The paper does not say which direction; the reverse is infinite wherever nobody voted for a class.)  Its mean depends
on the images: those that the model got right (the paper's, which favours less accurate models), all of them, and
those that all compared models got right.

Letters: n images, K classes.
"""

from collections.abc import Sequence

import numpy as np


def divergence(q: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """(n,) KL(q || p) in nats, from q (n, K) and natural logarithms of p (n, K)."""
    voted = q > 0
    log_q, log_p = np.log(np.where(voted, q, 1)), np.where(voted, log_p, 0).astype(np.float64)
    return (q * (log_q - log_p)).sum(axis=1)


def human_metrics(q: np.ndarray, log_p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`human_kl` of the images that the model got right, `human_kl_all` of all; nan over none."""
    distance, right = divergence(q, log_p), log_p.argmax(axis=1) == labels
    return {
        "human_kl": float(distance[right].mean()) if right.any() else np.nan,
        "human_kl_all": float(distance.mean()),
    }


def compare_human_labels(
    q: np.ndarray, log_ps: Sequence[np.ndarray], labels: np.ndarray
) -> tuple[list[dict[str, float]], int]:
    """`human_metrics` of every model and `human_kl_common`, of the images that all got right, and how many."""
    common = np.logical_and.reduce([log_p.argmax(axis=1) == labels for log_p in log_ps])
    found = []
    for log_p in log_ps:
        shared = divergence(q[common], log_p[common]).mean() if common.any() else np.nan
        found.append(human_metrics(q, log_p, labels) | {"human_kl_common": float(shared)})
    return found, int(common.sum())
