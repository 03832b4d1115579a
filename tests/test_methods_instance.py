"""Instance-based label smoothing: its curves, its distribution, and which temperature decides what."""

import copy

import pytest
import torch
from helpers.method_toys import K, build, context, entropy_to, random_batch

from backbones.methods import functional as F

DOUBLE = torch.float64
CURVE = {"shift": 0.8, "coefficient": 2.0}


def told(method, temperature=1.0, *, resumed=False):
    """The method after `setup`, with this fitted temperature."""
    calls = []
    labels = torch.arange(K)
    method.setup(context(labels, teacher_temperature=lambda: calls.append(1) or temperature, resumed=resumed))
    return method, len(calls)


# The curves


def test_amount_of_the_paper_at_its_three_points():
    p = torch.tensor([0.8, 1.0, 0.6, 0.0, 0.8 - 0.1**0.5], dtype=DOUBLE)
    expected = torch.tensor([0, 0.08, 0.08, 0.2, 0.2], dtype=DOUBLE)  # the cap begins at P1 - sqrt(0.1)
    torch.testing.assert_close(F.instance_amount(p, 0.8, 2.0), expected)


@pytest.mark.parametrize("shift", [0.75, 0.975])
@pytest.mark.parametrize("coefficient", [0.0, 0.75, 2.0, 50.0])
def test_amount_falls_to_the_shift_and_rises_behind_it(shift, coefficient):
    p = torch.linspace(0, 1, 1001, dtype=DOUBLE)
    amount = F.instance_amount(p, shift, coefficient)
    slow = [min(0.2, coefficient * (q - shift) ** 2) for q in p.tolist()]
    torch.testing.assert_close(amount, torch.tensor(slow, dtype=DOUBLE))
    step = amount.diff()
    assert (step[p[1:] <= shift] <= 0).all()
    assert (step[p[:-1] >= shift] >= 0).all()


def test_the_sine_stays_within_its_range_and_is_a_tenth_at_the_shift():
    p = torch.linspace(0, 1, 1001, dtype=DOUBLE)
    amount = F.instance_amount_sine(p, 0.5, 12.0)  # a full wave
    assert amount.min() >= 0
    assert amount.min() < 1e-4
    assert 0.2 - 1e-4 < amount.max() <= 0.2
    assert amount[500].item() == pytest.approx(0.1, abs=1e-15)
    assert torch.equal(F.instance_amount_sine(p, 0.5, 0.0), torch.full_like(p, 0.1))
    assert amount[700].item() > 0.1 > amount[300].item()


@pytest.mark.parametrize(("name", "curve"), [("ILS1", F.instance_amount), ("ILS1Sine", F.instance_amount_sine)])
def test_ils1_smooths_by_the_calibrated_teacher(name, curve):
    batch = random_batch()
    method, _ = told(build(name, **CURVE), temperature=2.5)
    for z, t, y in zip(batch.teacher_logits, batch.labels.tolist(), method.targets(batch), strict=True):
        p = (z / 2.5).exp() / (z / 2.5).exp().sum()
        amount = curve(p[t : t + 1], 0.8, 2.0).item()
        expected = [amount / K + (1 - amount) * (k == t) for k in range(K)]
        torch.testing.assert_close(y, torch.tensor(expected, dtype=DOUBLE), rtol=1e-6, atol=1e-7)


# The distribution


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_stable_form_is_the_division_of_the_paper(temperature):
    batch = random_batch(size=50)
    y = build("ILS2", amount=0.3, temperature=temperature).targets(batch)
    p = (batch.teacher_logits / temperature).softmax(dim=1)
    p_true = p.gather(1, batch.labels[:, None])
    literal = (0.3 * p / (1 - p_true)).scatter(1, batch.labels[:, None], 0.7)
    torch.testing.assert_close(y, literal)


def test_a_hot_teacher_smooths_evenly():
    batch = random_batch()
    expected = F.smooth_labels(batch.labels, K, 0.3, "k-1", DOUBLE)
    distance = [
        (build("ILS2", amount=0.3, temperature=t).targets(batch) - expected).abs().max() for t in (1e1, 1e3, 1e5)
    ]
    assert distance[0] > 50 * distance[1] > 2500 * distance[2] > 0  # as 1 / T


def test_a_cold_teacher_gives_all_to_the_runner_up():
    batch = random_batch()
    y = build("ILS2", amount=0.3, temperature=1e-3).targets(batch)
    others = batch.teacher_logits.scatter(1, batch.labels[:, None], -torch.inf)
    expected = 0.3 * F.one_hot(others.argmax(dim=1), K, DOUBLE) + 0.7 * F.one_hot(batch.labels, K, DOUBLE)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 16.0])
def test_with_two_classes_it_is_label_smoothing(temperature):
    batch = random_batch(num_classes=2)
    y = build("ILS2", 2, amount=0.2, temperature=temperature).targets(batch)
    torch.testing.assert_close(y, F.smooth_labels(batch.labels, 2, 0.2, "k-1", DOUBLE))


@pytest.mark.parametrize("name", ["ILS1", "ILS1Sine", "ILS2", "ILS"])
@pytest.mark.parametrize("logit", [90.0, 1e4, 3e38])
def test_a_teacher_that_is_certain_does_no_harm(name, logit):
    batch = random_batch(dtype=torch.float32)
    batch.teacher_logits = logit * F.one_hot(batch.labels, K)  # p_t = 1 in float32
    y = told(build(name, dtype=torch.float32))[0].targets(batch)
    assert y.isfinite().all()
    assert y.min() >= 0
    torch.testing.assert_close(y.sum(dim=1), torch.ones(len(y)))
    if name == "ILS2":
        torch.testing.assert_close(y, F.smooth_labels(batch.labels, K, 0.1, "k-1"))


# Which temperature decides what


def parts(y, labels):
    """Amount (B,) and distribution over the wrong classes (B, K) of targets."""
    right = y.gather(1, labels[:, None])
    wrong = y.scatter(1, labels[:, None], 0)
    return 1 - right[:, 0], wrong / wrong.sum(dim=1, keepdim=True)


def test_amount_is_of_the_fitted_temperature_and_distribution_of_the_given():
    batch = random_batch()
    distribution = {"temperature": 1.0}, {"temperature": 4.0}
    base = parts(told(build("ILS", **CURVE, **distribution[0]), 2.0)[0].targets(batch), batch.labels)
    hotter = parts(told(build("ILS", **CURVE, **distribution[1]), 2.0)[0].targets(batch), batch.labels)
    fitted = parts(told(build("ILS", **CURVE, **distribution[0]), 3.0)[0].targets(batch), batch.labels)
    torch.testing.assert_close(hotter[0], base[0])
    assert (hotter[1] - base[1]).abs().max() > 0.01
    torch.testing.assert_close(fitted[1], base[1])
    assert (fitted[0] - base[0]).abs().max() > 0.01
    y1 = told(build("ILS1", **CURVE), 2.0)[0].targets(batch)
    torch.testing.assert_close(base[0], (1 - y1.amax(dim=1)) * K / (K - 1))  # its amount is that of ILS1
    y2 = build("ILS2", amount=0.1, **distribution[0]).targets(batch)
    torch.testing.assert_close(base[1], parts(y2, batch.labels)[1])  # its distribution is that of ILS2


def test_one_shared_temperature_decides_both():
    batch = random_batch()
    shared, calls = told(build("ILS", **CURVE, temperature=4.0, shared_temperature=True), 2.0)
    own, _ = told(build("ILS", **CURVE, temperature=4.0), 4.0)
    assert calls == 0, "nothing to fit"
    torch.testing.assert_close(shared.targets(batch), own.targets(batch))


@pytest.mark.parametrize("name", ["ILS1", "ILS1Sine", "ILS"])
def test_fitted_temperature_survives_and_is_not_measured_again(name):
    batch = random_batch()
    method, calls = told(build(name), 2.5)
    assert calls == 1
    resumed, calls = told(build(name), 7.0, resumed=True)
    assert calls == 0
    assert not torch.allclose(resumed.targets(batch), method.targets(batch))
    resumed.load_state_dict(copy.deepcopy(method.state_dict()))
    assert torch.equal(resumed.targets(batch), method.targets(batch))


@pytest.mark.parametrize("name", ["ILS1", "ILS1Sine", "ILS2", "ILS"])
def test_loss_is_the_cross_entropy_of_the_targets(name):
    batch = random_batch()
    step = told(build(name))[0](batch)
    torch.testing.assert_close(step.loss, entropy_to(step.targets, batch.images).mean())
