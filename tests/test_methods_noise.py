"""Losses made for noisy labels: closed forms, limits, gradients by finite differences, and the law of the noise."""

import math

import pytest
import torch
from helpers.method_toys import B, K, build, entropy_to, gradient, random_batch
from scipy.stats import binomtest, chisquare
from torch import nn

from backbones.methods import functional as F

DOUBLE = torch.float64


def numeric_gradient(loss, logits, step=1e-6):
    """Central differences of a function (B, K) -> ()."""
    found = torch.zeros_like(logits)
    for i in range(len(logits)):
        for k in range(logits.shape[1]):
            bump = torch.zeros_like(logits)
            bump[i, k] = step
            found[i, k] = (loss(logits + bump) - loss(logits - bump)) / (2 * step)
    return found


# Bootstrapping


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("detach", [False, True])
def test_bootsoft_is_cross_entropy_to_label_and_prediction(weight, detach):
    batch = random_batch()
    p = batch.images.softmax(dim=1)
    y = weight * F.one_hot(batch.labels, K, DOUBLE) + (1 - weight) * p
    loss = build("Bootsoft", hard_weight=weight, detach=detach)(batch).loss
    torch.testing.assert_close(loss, entropy_to(y, batch.images).mean())


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.95])
def test_gradient_of_bootsoft_flows_through_the_label_unless_detached(weight):
    batch = random_batch()
    hard, frozen = F.one_hot(batch.labels, K, DOUBLE), batch.images.softmax(dim=1)

    def moving(z):
        return entropy_to(weight * hard + (1 - weight) * z.softmax(dim=1), z).mean()

    def constant(z):
        return entropy_to(weight * hard + (1 - weight) * frozen, z).mean()

    for detach, loss in ((False, moving), (True, constant)):
        found = gradient(build("Bootsoft", hard_weight=weight, detach=detach), batch)
        torch.testing.assert_close(found, numeric_gradient(loss, batch.images), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found, weight * (frozen - hard) / B)  # p - y: the prediction itself pulls nowhere


@pytest.mark.parametrize("weight", [0.0, 0.8])
def test_boothard_is_cross_entropy_to_label_and_predicted_class(weight):
    batch = random_batch()
    y = weight * F.one_hot(batch.labels, K, DOUBLE) + (1 - weight) * F.one_hot(batch.images.argmax(dim=1), K, DOUBLE)
    method = build("Boothard", hard_weight=weight)
    torch.testing.assert_close(method(batch).loss, entropy_to(y, batch.images).mean())
    torch.testing.assert_close(gradient(method, batch), (batch.images.softmax(dim=1) - y) / B)


def test_bootstrapping_of_a_certain_prediction_is_finite():
    batch = random_batch(dtype=torch.float32)
    batch.images = 1e4 * F.one_hot((batch.labels + 1) % K, K)
    for name in ("Bootsoft", "Boothard"):
        assert gradient(build(name, dtype=torch.float32), batch).isfinite().all()


# Disturbed labels


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_disturbed_labels_follow_their_law(rate):
    method, count, label = build("DisturbLabel", rate=rate), 40_000, 2
    torch.manual_seed(0)
    batch = random_batch(size=count)
    batch.labels.fill_(label)
    y = method.targets(batch)
    assert ((y == 1).sum(dim=1) == 1).all()
    assert (y.sum(dim=1) == 1).all()
    drawn = y.argmax(dim=1)
    wrong = drawn != label
    assert binomtest(int(wrong.sum()), count, rate * (K - 1) / K).pvalue > 1e-3
    assert chisquare(torch.bincount(drawn[wrong], minlength=K)[torch.arange(K) != label].numpy()).pvalue > 1e-3


def test_labels_are_disturbed_anew_at_every_iteration():
    method, batch = build("DisturbLabel", rate=0.5), random_batch(size=100)
    assert not torch.equal(method.targets(batch), method.targets(batch))


# Symmetric and generalised cross-entropy


@pytest.mark.parametrize(("alpha", "beta"), [(6.0, 0.1), (0.1, 1.0), (0.0, 1.0)])
def test_symmetric_cross_entropy_from_its_definition(alpha, beta):
    batch = random_batch()
    p = batch.images.softmax(dim=1)
    clipped = F.one_hot(batch.labels, K, DOUBLE).clamp(1e-4, 1)
    reverse = -(p * clipped.log()).sum(dim=1)
    p_true = p.gather(1, batch.labels[:, None])[:, 0]
    torch.testing.assert_close(reverse, (1 - p_true) * 9.210340371976182)
    expected = (alpha * -p_true.log() + beta * reverse).mean()
    torch.testing.assert_close(build("SCE", alpha=alpha, beta=beta)(batch).loss, expected)
    other = (alpha * entropy_to(clipped, batch.images) + beta * reverse).mean()
    torch.testing.assert_close(build("SCE", alpha=alpha, beta=beta, form="reference")(batch).loss, other)


def test_generalised_cross_entropy_between_its_ends():
    batch = random_batch()
    p_true = batch.images.softmax(dim=1).gather(1, batch.labels[:, None])[:, 0]
    torch.testing.assert_close(build("GCE", exponent=1.0)(batch).loss, (1 - p_true).mean())
    torch.testing.assert_close(build("GCE", exponent=0.7)(batch).loss, ((1 - p_true**0.7) / 0.7).mean())
    distance = [(build("GCE", exponent=q)(batch).loss - build("CE")(batch).loss).abs() for q in (1e-2, 1e-4, 1e-6)]
    assert distance[0] > 50 * distance[1] > 2500 * distance[2]  # as q
    assert distance[2] < 1e-5


def test_generalised_cross_entropy_of_a_hopeless_sample_is_bounded():
    batch = random_batch(dtype=torch.float32)
    batch.images = -1e4 * F.one_hot(batch.labels, K)
    method = build("GCE", dtype=torch.float32, exponent=0.7)
    assert method(batch).loss.item() == pytest.approx(1 / 0.7)
    assert gradient(method, batch).abs().max() == 0  # what makes it robust: it gives up


# Pairwise confusion


@pytest.mark.parametrize("size", [2, 3, 12, 13])
@pytest.mark.parametrize("form", ["pairs", "reference"])
def test_pairwise_confusion_is_the_loop_over_pairs(size, form):
    batch = random_batch(size=size)
    half = size // 2
    values = batch.images.softmax(dim=1) if form == "pairs" else batch.images
    difference = (values[:half] - values[half : 2 * half]).tolist()
    axes = difference if form == "pairs" else list(zip(*difference, strict=True))
    total = sum(math.sqrt(sum(v * v for v in row)) for row in axes)
    expected = nn.functional.cross_entropy(batch.images, batch.labels) + 3 * total / (2 * half)
    torch.testing.assert_close(build("PairwiseConfusion", weight=3.0, form=form)(batch).loss, expected)


@pytest.mark.parametrize("form", ["pairs", "reference"])
@pytest.mark.parametrize("size", [1, 2, 12])
def test_equal_halves_add_nothing_and_their_gradient_is_finite(form, size):
    batch = random_batch(size=size)
    batch.images = batch.images[:1].repeat(size, 1)
    method = build("PairwiseConfusion", form=form)
    torch.testing.assert_close(method(batch).loss, build("CE")(batch).loss)
    torch.testing.assert_close(gradient(method, batch), gradient(build("CE"), batch))


def test_gradient_of_pairwise_confusion_is_right():
    batch = random_batch(size=6)
    method = build("PairwiseConfusion", weight=2.0)

    def loss(z):
        p = z.softmax(dim=1)
        return nn.functional.cross_entropy(z, batch.labels) + 2 * (p[:3] - p[3:]).square().sum(dim=1).sqrt().sum() / 6

    torch.testing.assert_close(gradient(method, batch), numeric_gradient(loss, batch.images), rtol=1e-5, atol=1e-8)
