"""Divergence from human votes: closed forms, the three sets of images, the votes themselves."""

import numpy as np
import pytest
from scipy import stats

from backbones.data.cifar10h import check_agreement, load_cifar10h
from backbones.measuring.calibration import log_softmax
from backbones.measuring.human_labels import compare_human_labels, divergence, human_metrics

Q = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])


def test_closed_forms():
    p = np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    expected = [0.5 * np.log(2), np.log(2), 0]  # a class that nobody voted for counts nothing
    np.testing.assert_allclose(divergence(Q, np.log(p)), expected, atol=1e-15)
    np.testing.assert_allclose(divergence(Q, np.log(p)), stats.entropy(Q, p, axis=1), atol=1e-15)
    assert (divergence(Q, log_softmax(np.random.default_rng(0).normal(size=(3, 3)))) > 0).all()
    assert np.isfinite(divergence(Q, log_softmax(np.array([[0.0, 900, 0]] * 3)))).all()


def test_three_sets_of_images():
    labels = np.array([0, 0, 2])
    right = np.log([[0.6, 0.2, 0.2], [0.8, 0.1, 0.1], [0.2, 0.2, 0.6]])
    half = np.log([[0.2, 0.6, 0.2], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])  # wrong about the first
    (a, b), common = compare_human_labels(Q, [right, half], labels)
    assert common == 2
    assert a["human_kl"] == a["human_kl_all"] == pytest.approx(divergence(Q, right).mean())
    assert a["human_kl_common"] == pytest.approx(divergence(Q, right)[1:].mean())
    assert b["human_kl"] == b["human_kl_common"] == pytest.approx(divergence(Q, half)[1:].mean())
    assert b["human_kl_all"] > b["human_kl"]  # the filter favours the less accurate model
    nobody = human_metrics(Q, half, np.array([0, 1, 0]))
    assert np.isnan(nobody["human_kl"])
    assert np.isfinite(nobody["human_kl_all"])


def test_votes_of_cifar10h(shared_data):
    q = load_cifar10h(shared_data / "cifar10h")
    assert q.shape == (10_000, 10)
    np.testing.assert_allclose(q.sum(axis=1), 1, atol=1e-12)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(divergence(q, np.log(q)), 0, atol=1e-12)
    np.testing.assert_allclose(divergence(q, np.full_like(q, -np.log(10))).mean(), np.log(10) - _entropy(q), atol=1e-12)
    # Probabilities sharper than the votes are farther away, the more the sharper.
    smooth = 0.99 * q + 0.001
    distances = [divergence(q, log_softmax(np.log(smooth) * power)).mean() for power in (1, 2, 4, 8)]
    assert distances == sorted(distances)
    votes = np.load(shared_data / "cifar10h" / "data" / "cifar10h-counts.npy")
    np.testing.assert_allclose(q, votes / votes.sum(axis=1, keepdims=True), atol=1e-9)
    assert check_agreement(q, votes.argmax(axis=1), 10) == 1


def _entropy(q):
    return -(q * np.log(np.where(q > 0, q, 1))).sum(axis=1).mean()
