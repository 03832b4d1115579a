"""CutMix against the pixels it moves, and online label smoothing against a slow loop."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import nn

from backbones.data.batch import Batch
from backbones.methods import functional as F
from backbones.methods import learnt
from backbones.methods.base import METHODS
from backbones.methods.mixing import draw_beta
from backbones.methods.regions import cut_rectangle
from backbones.models import Outputs

K, B, SIZE = 6, 16, 20


class Given(nn.Module):
    """A model whose logits are its input."""

    def forward(self, x):
        return Outputs(x, {})


def build(name, **arguments):
    return METHODS.get(name)(Given(), K, **arguments)


def build_ols(hard_weight=0.5, period=0, empty="uniform"):
    return build("OLS", hard_weight=hard_weight, period=period, empty=empty)


def random_batch(seed=0):
    """Logits in place of images, for each label a little higher than the others."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (B,), generator=random)
    return Batch(torch.randn(B, K, generator=random) + F.one_hot(labels, K), labels)


# CutMix


@pytest.mark.parametrize(("alpha", "least", "most"), [(1.0, 40, 50), (0.01, 10, 40)])  # 0.01: all or nothing
def test_weight_of_a_label_is_its_share_of_the_pixels(alpha, least, most):
    # Paint every image with its own class: then the mean colour must be the target.
    method, labels = build("CutMix", alpha=alpha, probability=1.0), torch.arange(K)
    targets = F.one_hot(labels, K)
    images = targets[:, :, None, None].repeat(1, 1, SIZE, SIZE + 3)
    changed = 0
    for seed in range(50):
        torch.manual_seed(seed)
        mixed, soft = method.mix(Batch(images, labels), targets)
        torch.testing.assert_close(mixed.images.mean(dim=(2, 3)), soft)
        assert torch.equal(mixed.mixed, (soft - targets).abs().amax(dim=1) > 1e-6)
        changed += int(mixed.mixed.any())
    assert least <= changed <= most


def test_same_seed_same_mixture_and_probability_is_a_share():
    batch = Batch(torch.rand(B, 3, SIZE, SIZE), torch.arange(B) % K)
    method, targets, mixed = build("CutMix", alpha=1.0, probability=0.5), F.one_hot(batch.labels, K), 0
    for seed in range(200):
        results = []
        for _ in range(2):
            torch.manual_seed(seed)
            results.append(method.mix(batch, targets))
        assert torch.equal(results[0][0].images, results[1][0].images)
        assert torch.equal(results[0][1], results[1][1])
        mixed += results[0][0] is not batch
    assert 70 < mixed < 130  # 4 standard deviations


def test_rectangle_is_the_authors():
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        kept, (y, x) = torch.rand((), generator=random).item(), torch.randint(SIZE, (2,), generator=random).tolist()
        cut_h, cut_w = int(SIZE * (1 - kept) ** 0.5), int((SIZE + 9) * (1 - kept) ** 0.5)
        expected = [max(y - cut_h // 2, 0), min(y + cut_h // 2, SIZE), max(x - cut_w // 2, 0)]
        expected.append(min(x + cut_w // 2, SIZE + 9))
        assert list(cut_rectangle(SIZE, SIZE + 9, kept, y, x)) == expected
    assert cut_rectangle(SIZE, SIZE, 0.0, SIZE // 2, SIZE // 2).area == SIZE**2
    assert cut_rectangle(SIZE, SIZE, 1.0, 3, 3).area == 0


@pytest.mark.parametrize("alpha", [0.001, 0.003, 0.009])
def test_a_small_alpha_is_a_beta_distribution(alpha):
    """Its gamma variables are below the smallest double for a quarter of all draws (0.001); none may be lost."""
    torch.manual_seed(0)
    drawn = np.array([draw_beta(alpha, alpha) for _ in range(4000)])
    assert ((drawn >= 0) & (drawn <= 1)).all()
    for low, high in ((-1, 0.5), (0.05, 0.95), (1e-30, 1e-3), (1e-3, 0.4)):
        share = beta.cdf(high, alpha, alpha) - beta.cdf(low, alpha, alpha)
        within = ((drawn > low) & (drawn <= high)).mean()
        assert abs(within - share) < 4 * math.sqrt(share * (1 - share) / 4000), (low, high)
    assert beta.cdf(1e-30, alpha, 2 * alpha) == pytest.approx(
        np.mean([draw_beta(alpha, 2 * alpha) <= 1e-30 for _ in range(4000)]), abs=0.032
    )


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.3, 1.0, 2.0])
def test_the_draws_of_a_usual_alpha_are_those_of_torch(alpha):
    """A repeated run must not change."""
    torch.manual_seed(3)
    drawn, after = [draw_beta(alpha, alpha) for _ in range(20)], torch.rand(())
    torch.manual_seed(3)
    assert drawn == [torch.distributions.Beta(alpha, alpha).sample().item() for _ in range(20)]
    assert torch.equal(after, torch.rand(()))


# Online label smoothing


class SlowOLS:
    """The paper's Algorithm 1 with its text's corrections, sample by sample."""

    def __init__(self, num_classes, hard_weight, empty):
        self.num_classes, self.hard_weight, self.empty = num_classes, hard_weight, empty
        self.soft = [[1 / num_classes] * num_classes for _ in range(num_classes)]
        self.seen = [[] for _ in range(num_classes)]

    def loss(self, logits, labels, mixed):
        losses = []
        for z, label, is_mixed in zip(logits.double(), labels.tolist(), mixed.tolist(), strict=True):
            p = [value.item() for value in z.softmax(dim=0)]
            soft = -sum(s * math.log(q) for s, q in zip(self.soft[label], p, strict=True))
            losses.append(self.hard_weight * -math.log(p[label]) + (1 - self.hard_weight) * soft)
            if p.index(max(p)) == label and not is_mixed:
                self.seen[label].append(p)
        return sum(losses) / len(losses)

    def end_period(self):
        for k, seen in enumerate(self.seen):
            if seen:
                self.soft[k] = [sum(column) / len(seen) for column in zip(*seen, strict=True)]
            elif self.empty == "uniform":
                self.soft[k] = [1 / self.num_classes] * self.num_classes
        self.seen = [[] for _ in range(self.num_classes)]


@pytest.mark.parametrize("hard_weight", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("empty", ["uniform", "keep"])
def test_ols_is_the_slow_loop(hard_weight, empty):
    method = build_ols(hard_weight, empty=empty).double()
    slow = SlowOLS(K, hard_weight, empty)
    for epoch in range(3):
        for i in range(4):
            batch = random_batch(seed=10 * epoch + i)
            batch.images = batch.images.double()
            batch.labels[batch.labels == epoch] = K - 1  # a class without samples, another one each epoch
            batch.mixed = torch.rand(B, generator=torch.Generator().manual_seed(i)) < 0.3
            expected = slow.loss(batch.images, batch.labels, batch.mixed)
            assert method(batch).loss.item() == pytest.approx(expected, abs=1e-6)
        method.end_period()
        slow.end_period()
        torch.testing.assert_close(method.table.soft, torch.tensor(slow.soft, dtype=torch.float64), rtol=0, atol=1e-6)
        torch.testing.assert_close(method.table.soft.sum(dim=1), torch.ones(K, dtype=torch.float64))


def test_ols_starts_as_uniform_label_smoothing():
    batch = random_batch()
    step = build_ols(hard_weight=0.7)(batch)
    torch.testing.assert_close(step.targets, F.smooth_labels(batch.labels, K, 0.3, "all"))


def test_ols_observes_only_what_is_right_whole_and_finite():
    method = build_ols()
    logits = 3 * torch.eye(K).repeat(2, 1)  # tie-free: row k is classified k
    logits[0, 0] = math.nan
    logits[1, 2] = math.inf
    batch = Batch(logits, torch.arange(K).repeat(2))
    batch.labels[8] = 5  # wrong
    batch.mixed[3] = True
    method.observe(Outputs(batch.images, {}), batch)
    method.gather()
    assert method.table.count.tolist() == [1, 1, 1, 1, 2, 2]
    torch.testing.assert_close(method.table.total.sum(dim=1), method.table.count)
    tied = Batch(torch.zeros(K, K), torch.arange(K))  # equal predictions: the lowest class counts
    method.observe(Outputs(tied.images, {}), tied)
    assert method.table.local_count.tolist() == [1, 0, 0, 0, 0, 0]


def test_ols_with_nothing_right_goes_back_to_uniform_or_keeps():
    for empty in ("uniform", "keep"):
        method, batch = build_ols(empty=empty), random_batch()
        method(dataclasses.replace(batch, images=F.one_hot(batch.labels, K) * 4))
        method.end_period()
        first = method.table.soft.clone()
        assert not torch.allclose(first, torch.tensor(1 / K))
        method(dataclasses.replace(batch, images=-F.one_hot(batch.labels, K) * 4))
        method.end_period()
        expected = first if empty == "keep" else torch.full((K, K), 1 / K)
        torch.testing.assert_close(method.table.soft, expected)


def test_ols_of_two_processes_is_ols_of_one(monkeypatch):
    one, two = build_ols().double(), [build_ols().double(), build_ols().double()]

    def on_both(hook):
        # The sum over the processes: what the other one held before either began.
        for method, other in zip(two, copy.deepcopy(two)[::-1], strict=True):
            theirs = iter((other.table.local_total, other.table.local_count))
            monkeypatch.setattr(learnt, "all_reduce_sum", lambda *mine, t=theirs: [m.add_(next(t)) for m in mine])
            getattr(method, hook)()

    for seed in range(3):
        batch = random_batch(seed)
        losses = [m(Batch(batch.images[i::2], batch.labels[i::2])).loss for i, m in enumerate(two)]
        monkeypatch.undo()
        torch.testing.assert_close(one(batch).loss, torch.stack(losses).mean())
        if seed == 1:  # a checkpoint inside the period: process 0 writes, both read
            on_both("gather")
            for method in two:
                method.load_state_dict(copy.deepcopy(two[0].state_dict()))
    one.end_period()
    on_both("end_period")
    for method in two:
        torch.testing.assert_close(method.table.soft, one.table.soft, rtol=0, atol=1e-12)
