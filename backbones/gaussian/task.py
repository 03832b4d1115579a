"""Tasks of three classes in the plane, in the main one each of a dense and a sparse Gaussian (ILS, App. A)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

DENSE_MEANS = np.array([[-4.0, 1.0], [-4.0, -1.0], [-1.0, 0.0]])
SPARSE_MEANS = np.array([[2.0, 1.0], [2.0, -1.0], [5.0, 0.0]])
SEPARATE_MEANS = np.array([[-3.0, 0.0], [0.0, -2.0], [2.0, 2.0]])  # read from ILS Fig. 5
DENSE_SHARE = 0.8  # share of a class's points; the covariance of every component is the identity
CLASSES = len(DENSE_MEANS)


class Points(NamedTuple):
    """n points: x (n, 2) float64, labels (n,) int64, dense (n,) bool, whether drawn from the dense component."""

    x: np.ndarray
    labels: np.ndarray
    dense: np.ndarray


class Task(NamedTuple):
    """Means (K, 2) of the dense and the sparse components of the classes, and the share of the dense ones."""

    dense: np.ndarray = DENSE_MEANS
    sparse: np.ndarray = SPARSE_MEANS
    share: float = DENSE_SHARE

    def sample(self, rng: np.random.Generator, per_class: int) -> Points:
        """Draw `per_class` points of each class, in class order; the component is drawn for each point."""
        labels = np.repeat(np.arange(CLASSES), per_class)
        dense = rng.random(len(labels)) < self.share
        means = np.where(dense[:, None], self.dense[labels], self.sparse[labels])
        return Points(means + rng.standard_normal(means.shape), labels, dense)

    def log_joint(self, x: np.ndarray) -> np.ndarray:
        """Return log p(x | class), (n, K), for points (n, 2)."""
        with np.errstate(divide="ignore"):  # a task without sparse components
            shares = np.log([self.share, 1 - self.share])
        return np.logaddexp(shares[0] + _log_density(x, self.dense), shares[1] + _log_density(x, self.sparse))

    def log_posterior(self, x: np.ndarray) -> np.ndarray:
        """Return log p(class | x), (n, K), for points (n, 2): the Bayes-optimal classifier."""
        joint = self.log_joint(x)
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)


NORMAL = Task()
DIFFERENT = Task(SEPARATE_MEANS, SEPARATE_MEANS, 1.0)


@dataclass(frozen=True)
class SetUp:
    """A set-up of ILS Figs. 6 and 7; sizes: of the network, those of the recipe if empty; more: of training points."""

    name: str
    title: str
    task: Task = NORMAL
    sizes: tuple[int, ...] = ()
    more: int = 1


# The paper gives 200 training points per class for the bigger set, 4 times as many, and one hidden layer for the
# shallow network; that layer's width is not stated.
SETUPS = (
    SetUp("normal", "Normal set-up"),
    SetUp("shallow", "Shallow network", sizes=(2, 64, 3)),
    SetUp("bigger", "Bigger training set", more=4),
    SetUp("different", "Different data set", task=DIFFERENT),
)


def sample_points(rng: np.random.Generator, per_class: int) -> Points:
    """Draw points of the normal task."""
    return NORMAL.sample(rng, per_class)


def log_posterior(x: np.ndarray) -> np.ndarray:
    """Return log p(class | x), (n, K), of the normal task."""
    return NORMAL.log_posterior(x)


def _log_density(x: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the log density of each class's normal distribution at each point."""
    return -0.5 * ((x[:, None, :] - means) ** 2).sum(axis=2) - np.log(2 * np.pi)
