"""Distance between a classifier's probabilities and human votes (CIFAR-10H; Zhang et al. 2021, Table X).

The distance of an image is KL(q || p) = sum_k q_k log(q_k / p_k) in nats, with 0 log 0 = 0, q the shares of votes.
(The paper does not state the direction; the reverse is infinite if a class got no vote.)  The mean is taken over the
images that the model classifies correctly (as in the paper, which favours less accurate models), over all images, and
over the images that all compared models classify correctly.

Letters: n images, K classes.
"""

from collections.abc import Sequence

import numpy as np


def divergence(q: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """Return KL(q || p) in nats, (n,), from q (n, K) and natural logarithms of p (n, K)."""
    voted = q > 0
    log_q, log_p = np.log(np.where(voted, q, 1)), np.where(voted, log_p, 0).astype(np.float64)
    return (q * (log_q - log_p)).sum(axis=1)


def human_metrics(q: np.ndarray, log_p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return `human_kl` over correctly classified images (nan if there are none) and `human_kl_all` over all."""
    distance, right = divergence(q, log_p), log_p.argmax(axis=1) == labels
    return {
        "human_kl": float(distance[right].mean()) if right.any() else np.nan,
        "human_kl_all": float(distance.mean()),
    }


def compare_human_labels(
    q: np.ndarray, log_ps: Sequence[np.ndarray], labels: np.ndarray
) -> tuple[list[dict[str, float]], int]:
    """Return `human_metrics` and `human_kl_common` of every model, and the number of common images.

    Common images are those that all models classify correctly.
    """
    common = np.logical_and.reduce([log_p.argmax(axis=1) == labels for log_p in log_ps])
    found = []
    for log_p in log_ps:
        shared = divergence(q[common], log_p[common]).mean() if common.any() else np.nan
        found.append(human_metrics(q, log_p, labels) | {"human_kl_common": float(shared)})
    return found, int(common.sum())
