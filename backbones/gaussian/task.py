"""The task: three classes in the plane, each of a dense and a sparse Gaussian (ILS, Sec. III and App. A)."""

from typing import NamedTuple

import numpy as np

DENSE_MEANS = np.array([[-4.0, 1.0], [-4.0, -1.0], [-1.0, 0.0]])
SPARSE_MEANS = np.array([[2.0, 1.0], [2.0, -1.0], [5.0, 0.0]])
DENSE_SHARE = 0.8  # share of a class's points; the covariance of every component is the identity
CLASSES = len(DENSE_MEANS)


class Points(NamedTuple):
    """n points: x (n, 2) float64, labels (n,) int64, dense (n,) bool, whether drawn from the dense component."""

    x: np.ndarray
    labels: np.ndarray
    dense: np.ndarray


def sample_points(rng: np.random.Generator, per_class: int) -> Points:
    """Draw `per_class` points of each class, in class order; the component is drawn for each point."""
    labels = np.repeat(np.arange(CLASSES), per_class)
    dense = rng.random(len(labels)) < DENSE_SHARE
    means = np.where(dense[:, None], DENSE_MEANS[labels], SPARSE_MEANS[labels])
    return Points(means + rng.standard_normal(means.shape), labels, dense)


def log_posterior(x: np.ndarray) -> np.ndarray:
    """Return log p(class | x), (n, K), for points (n, 2): the Bayes-optimal classifier."""
    joint = np.logaddexp(
        np.log(DENSE_SHARE) + _log_density(x, DENSE_MEANS), np.log(1 - DENSE_SHARE) + _log_density(x, SPARSE_MEANS)
    )
    return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)


def _log_density(x: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the log density of each class's normal distribution at each point, without the constant."""
    return -0.5 * ((x[:, None, :] - means) ** 2).sum(axis=2)
