"""The mathematics of each method: reductions, closed forms, conservation, independent implementations."""

import logging
import math

import pytest
import torch
from helpers.own_methods import OWN
from torch import nn

from backbones.config import get_defaults
from backbones.core.errors import InputError
from backbones.core.run_log import get_logger
from backbones.data.batch import Batch
from backbones.methods import functional as F
from backbones.methods.base import METHODS, Context
from backbones.models import Outputs

K, B, SIZE = 6, 16, 20
CLASSES = [2, 3, 10, 1000]


class Given(nn.Module):
    """A model whose logits are its input."""

    def forward(self, x):
        return Outputs(x.flatten(1), {"res2": x, "res3": x})

    def feature_channels(self):
        return {"res2": K, "res3": K}


def build(name, num_classes=K, **arguments):
    return METHODS.get(name)(Given(), num_classes, **arguments)


def random_batch(num_classes=K, seed=0, size=B):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (size,), generator=random)
    logits = torch.randn(size, num_classes, generator=random)
    return Batch(logits, labels, objectness=torch.rand(size, generator=random))


@pytest.fixture
def warnings():
    """Messages of the log, at level warning or above."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    get_logger().addHandler(handler)
    yield messages
    get_logger().removeHandler(handler)


# Targets


def test_soft_cross_entropy_of_hard_labels_is_torchs():
    batch = random_batch()
    expected = nn.functional.cross_entropy(batch.images, batch.labels, reduction="none")
    torch.testing.assert_close(F.soft_cross_entropy(batch.images, F.one_hot(batch.labels, K)), expected)


def test_soft_cross_entropy_is_the_entropy_at_its_minimum():
    y = torch.rand(B, K, dtype=torch.float64).softmax(dim=1)
    entropy = -(y * y.log()).sum(dim=1)
    torch.testing.assert_close(F.soft_cross_entropy(y.log() + 7, y), entropy)
    assert (F.soft_cross_entropy(torch.randn(B, K, dtype=torch.float64), y) > entropy).all()


def test_soft_cross_entropy_stays_finite_for_large_half_precision_logits():
    logits = torch.tensor([[300.0, 0.0]], dtype=torch.bfloat16)
    assert F.soft_cross_entropy(logits, torch.tensor([[0.0, 1.0]])).item() == 300.0


@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("amount", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("convention", F.CONVENTIONS)
def test_smoothed_label_entry_by_entry(num_classes, amount, convention):
    labels = torch.tensor([0, num_classes - 1])
    y = F.smooth_labels(labels, num_classes, amount, convention, torch.float64)
    wrong = amount / num_classes if convention == "all" else amount / (num_classes - 1)
    right = 1 - amount + amount / num_classes if convention == "all" else 1 - amount
    for row, label in zip(y.tolist(), labels.tolist(), strict=True):
        assert row == pytest.approx([right if k == label else wrong for k in range(num_classes)], abs=1e-15)
        assert math.fsum(row) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("amount", [0.0, 0.03, 0.2, 0.5])
def test_the_two_conventions_convert_into_each_other(num_classes, amount):
    labels = torch.arange(num_classes)
    wrong_only = F.equivalent_amount(amount, num_classes, convention="all")
    torch.testing.assert_close(
        F.smooth_labels(labels, num_classes, amount, "all", torch.float64),
        F.smooth_labels(labels, num_classes, wrong_only, "k-1", torch.float64),
    )
    assert F.equivalent_amount(wrong_only, num_classes, convention="k-1") == pytest.approx(amount, abs=1e-15)
    if num_classes == 2:
        assert wrong_only == amount / 2


def test_label_smoothing_is_torchs():
    batch = random_batch()
    expected = nn.functional.cross_entropy(batch.images, batch.labels, label_smoothing=0.3)
    torch.testing.assert_close(build("LS", amount=0.3, convention="all")(batch).loss, expected)


NEUTRAL = [
    ("LS", {"amount": 0.0, "convention": "all"}),
    ("LS", {"amount": 0.0, "convention": "k-1"}),
    ("ClassSimilarityLS", {"amount": 0.0}),
    ("ALS", {"beta": 0.0, "convention": "all"}),
    ("ALS", {"beta": 0.0, "convention": "k-1"}),
    ("ALSContext", {"beta": 0.0}),
    ("CutMix", {"probability": 0.0}),
    ("CutOut", {"size": 0}),
    ("CutOutLS", {"size": 0, "amount": 0.0}),
    ("CutOutOLS", {"size": 0, "hard_weight": 1.0}),
    ("OLS", {"hard_weight": 1.0}),
    ("OLSSingle", {"hard_weight": 1.0}),
    ("ILS1", {"coefficient": 0.0}),
    ("ILS2", {"amount": 0.0}),
    ("ILS", {"coefficient": 0.0}),
    ("Bootsoft", {"hard_weight": 1.0}),
    ("Boothard", {"hard_weight": 1.0}),
    ("DisturbLabel", {"rate": 0.0}),
    ("SCE", {"alpha": 1.0, "beta": 0.0}),
    ("PairwiseConfusion", {"weight": 0.0}),
    ("SelfDistillation", {"hard_weight": 1.0}),
    ("KD", {"weight": 0.0}),
    ("PSKD", {"final_weight": 0.0}),
    ("TFKD", {"weight": 0.0}),
    ("TwoView", {"weight": 0.0}),
    ("BYOT", {"final_weight": 1.0, "shallow_weight": 0.0}),
]
# Only towards a limit: the first two at weights of one image, GCE at q = 0, beta smoothing at amount 0, ILS1Sine and
# BYOTOLS nowhere; ALSCutMix at probability 0 is ALS.
NO_NEUTRAL = {"Mixup", "RICAP", "GCE", "BetaSmoothing", "ILS1Sine", "BYOTOLS", "ALSCutMix", "CE"}


def test_every_method_has_a_neutral_setting_or_is_known_to_have_none():
    assert sorted({name for name, _ in NEUTRAL} | NO_NEUTRAL) == OWN
    assert not {name for name, _ in NEUTRAL} & NO_NEUTRAL


@pytest.mark.parametrize(("name", "arguments"), NEUTRAL)
def test_neutral_setting_is_cross_entropy(name, arguments):
    batch, method = random_batch(), build(name, **(get_defaults().METHOD[name] | arguments))
    batch.images = batch.images[:, :, None, None]
    batch.index, batch.is_context = torch.arange(B), torch.zeros(B, dtype=torch.bool)
    batch.teacher_logits, batch.second_view = 3 * torch.randn(B, K), batch.images.clone()
    method.setup(Context(B, batch.labels, epochs=2, steps_per_epoch=1))
    for epoch in range(2):
        method.begin_epoch(epoch)
        step = method(batch)
        torch.testing.assert_close(step.loss, build("CE")(batch).loss, rtol=0, atol=1e-6)
        assert torch.equal(step.targets, F.one_hot(batch.labels, K))
        method.end_period()


# Adaptive label smoothing


@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("convention", F.CONVENTIONS)
def test_adaptive_targets_at_both_ends(num_classes, convention):
    labels = torch.arange(num_classes)
    hard = F.one_hot(labels, num_classes, torch.float64)
    full = F.adaptive_targets(labels, torch.ones(num_classes), num_classes, 1.0, convention, torch.float64)
    empty = F.adaptive_targets(labels, torch.zeros(num_classes), num_classes, 1.0, convention, torch.float64)
    uniform = torch.full_like(hard, 1 / num_classes)
    torch.testing.assert_close(full, hard)
    torch.testing.assert_close(empty, uniform if convention == "all" else (1 - hard) / (num_classes - 1))


@pytest.mark.parametrize("convention", F.CONVENTIONS)
@pytest.mark.parametrize("beta", [0.25, 0.75, 1.0])
def test_adaptive_targets_are_the_mixture_of_the_paper(convention, beta):
    batch = random_batch()
    for label, o in zip(batch.labels, batch.objectness.double(), strict=True):
        hard = F.one_hot(label[None], K, torch.float64)
        adaptive = o * hard + (1 - o) * ((1 - hard) / (K - 1) if convention == "k-1" else 1 / K)
        y = F.adaptive_targets(label[None], o[None], K, beta, convention, torch.float64)
        torch.testing.assert_close(y, beta * adaptive + (1 - beta) * hard)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_class_stays_on_top_exactly_where_theory_says(num_classes):
    labels, o = torch.zeros(201, dtype=torch.int64), torch.linspace(0, 1, 201, dtype=torch.float64)
    for convention, beta in (("all", 1.0), ("k-1", (num_classes - 1) / num_classes)):
        y = F.adaptive_targets(labels, o, num_classes, beta, convention, torch.float64)
        assert (y[:, 0] >= y[:, 1] - 1e-12).all()
    literal = F.adaptive_targets(labels, o, num_classes, 1.0, "k-1", torch.float64)
    assert torch.equal(literal[:, 0] < literal[:, 1] - 1e-12, o < 1 / num_classes - 1e-12)


@pytest.mark.parametrize(
    ("convention", "beta", "share", "warns"),
    [("k-1", 1.0, 0.1, True), ("k-1", 1.0, 0.04, False), ("all", 1.0, 0.5, False), ("k-1", 0.5, 0.5, False)],
)
def test_warns_once_where_labels_contradict_their_class(warnings, convention, beta, share, warns):
    method, batch = build("ALS", beta=beta, convention=convention), random_batch(size=100)
    below = int(share * 100)
    batch.objectness = torch.tensor([0.9 / K] * below + [1.1 / K] * (100 - below))
    for period in range(3):
        method(batch)
        assert len(warnings) == (warns and period > 0)  # the end of a period is the first to look
        method.end_period()
    assert len(warnings) == warns
    if warns:
        assert f"{share:.0%}" in warnings[0]
        assert (method.counter.misleading, method.counter.crops) == (3 * below, 300)


# Arguments


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("LS", {"amount": 1.5, "convention": "all"}, "METHOD.LS.amount is 1.5; it must be between 0 and 1"),
        ("LS", {"amount": math.nan, "convention": "all"}, "METHOD.LS.amount is nan"),
        ("LS", {"amount": 0.1, "convention": "k1"}, "unknown METHOD.LS.convention 'k1'.*'k-1'"),
        ("ALS", {"beta": -0.1, "convention": "all"}, "METHOD.ALS.beta is -0.1"),
        ("CutMix", {"alpha": 0.0, "probability": 1.0}, "METHOD.CutMix.alpha is 0.0; it must be above 0"),
        ("CutMix", {"alpha": 1.0, "probability": 2.0}, "METHOD.CutMix.probability is 2.0"),
        ("OLS", {"hard_weight": 2, "period": 0, "empty": "keep"}, "METHOD.OLS.hard_weight is 2"),
        ("OLS", {"hard_weight": 0.5, "period": -1, "empty": "keep"}, "METHOD.OLS.period: -1"),
        ("OLS", {"hard_weight": 0.5, "period": 0, "empty": "zero"}, "unknown METHOD.OLS.empty 'zero'"),
    ],
)
def test_refuses_arguments_out_of_range(name, arguments, message):
    with pytest.raises(InputError, match=message):
        build(name, **arguments)


def test_ols_without_hard_label_warns(warnings):
    build("OLS", hard_weight=0.0, period=0, empty="uniform")
    assert any("METHOD.OLS.hard_weight 0" in message for message in warnings)
    assert build("OLS", hard_weight=0.5, period=7, empty="uniform").period == 7
    assert build("OLS", hard_weight=0.5, period=0, empty="uniform").period is None
