"""Soft labels of the detector's class loss: their limits, the online table by hand, and across a restart."""

import math

import pytest
import torch

from backbones.core.checkpoint import load_state
from backbones.core.errors import InputError
from backbones.methods import learnt
from detection.engines.yolo.labels import CLASS_LABELS, LS, OLS, Hard, sigmoid_distribution

K = 3
ARGUMENTS = {"Hard": {}, "LS": {"amount": 0.1, "convention": "all"}}
ARGUMENTS["OLS"] = {"hard_weight": 0.5, "form": "softmax", "empty": "uniform"}


def build_ols(**changes):
    return OLS(K, **(ARGUMENTS["OLS"] | changes))


def test_every_kind_is_tested():
    assert set(ARGUMENTS) == set(CLASS_LABELS.names())


@pytest.mark.parametrize("name", CLASS_LABELS.names())
def test_targets_are_distributions_of_any_shape(name):
    kind = CLASS_LABELS.get(name)(K, **ARGUMENTS[name])
    labels = torch.tensor([[0, 2, -1], [1, 1, 2]])
    targets = kind.targets(labels)
    assert targets.shape == (2, 3, K)
    torch.testing.assert_close(targets.sum(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(targets[0, 1], targets[1, 2])
    kind.observe(torch.randn(4, K), torch.tensor([0, 1, -1, 2]))
    kind.end_period()
    assert kind.targets(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0, K)


def test_smoothing_is_delta_over_all_classes():
    labels = torch.tensor([1, 0])
    for amount in (0.01, 0.1):
        expected = [
            [amount / K, 1 - amount + amount / K, amount / K],
            [1 - amount + amount / K, amount / K, amount / K],
        ]
        torch.testing.assert_close(LS(K, amount=amount, convention="all").targets(labels), torch.tensor(expected))
    assert LS(K, amount=0.0, convention="all").targets(labels).equal(Hard(K).targets(labels))
    torch.testing.assert_close(LS(K, amount=1.0, convention="all").targets(labels), torch.full((2, K), 1 / K))
    wrong_only = LS(K, amount=0.1, convention="k-1").targets(labels)
    torch.testing.assert_close(wrong_only[0], torch.tensor([0.05, 0.9, 0.05]))


def test_the_online_table_by_hand():
    kind = build_ols()
    torch.testing.assert_close(kind.targets(torch.tensor([1])), torch.tensor([[1 / 6, 4 / 6, 1 / 6]]))  # uniform first
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.8, 0.1, 0.1]])
    labels = torch.tensor([0, 0, 0, 2, -1])  # right, right, wrong, right, nothing
    kind.observe(p[:2].log(), labels[:2])
    kind.observe(p[2:].log() + 5, labels[2:])  # a constant does not matter
    assert kind.table.soft.eq(1 / K).all()  # not before the period has ended
    kind.end_period()
    expected = torch.tensor([[0.6, 0.15, 0.25], [1 / 3, 1 / 3, 1 / 3], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(kind.table.soft, expected)
    torch.testing.assert_close(kind.targets(torch.tensor([0])), torch.tensor([[0.8, 0.075, 0.125]]))
    kind.end_period()  # nothing was seen: uniform again
    torch.testing.assert_close(kind.table.soft, torch.full((K, K), 1 / K))


def test_an_empty_class_may_keep_its_label():
    kind = build_ols(empty="keep")
    kind.observe(torch.tensor([[2.0, 1, 0]]), torch.tensor([0]))
    kind.end_period()
    table = kind.table.soft.clone()
    kind.observe(torch.tensor([[0.0, 3, 0]]), torch.tensor([1]))
    kind.end_period()
    assert kind.table.soft[0].equal(table[0])
    assert not kind.table.soft[1].equal(table[1])


def test_the_sigmoid_form_divides_by_the_sum():
    logits = torch.tensor([[0.0, -1.0, -2.0]])
    p = [1 / (1 + math.exp(-z)) for z in logits[0].tolist()]
    expected = torch.tensor([[value / sum(p) for value in p]])
    torch.testing.assert_close(sigmoid_distribution(logits), expected)
    tiny = sigmoid_distribution(torch.tensor([[-400.0, -401.0]]))
    torch.testing.assert_close(tiny, torch.tensor([[-400.0, -401.0]]).softmax(dim=1))
    kind = build_ols(form="sigmoid")
    kind.observe(logits, torch.tensor([0]))
    kind.end_period()
    torch.testing.assert_close(kind.table.soft[:1], expected)
    assert not torch.allclose(expected, logits.softmax(dim=1), atol=0.05)


def test_both_ends_of_the_hard_weight():
    labels, logits = torch.tensor([0, 1]), torch.tensor([[3.0, 1, 0], [0, 2.0, 1]])
    for weight, expected in ((1.0, Hard(K).targets(labels)), (0.0, logits.softmax(dim=1))):
        kind = build_ols(hard_weight=weight)
        kind.observe(logits, labels)
        kind.end_period()
        torch.testing.assert_close(kind.targets(labels), expected)


def test_a_prediction_that_is_not_finite_is_not_seen():
    kind = build_ols()
    kind.observe(torch.tensor([[float("nan"), 0, 0], [4.0, 0, 0]]), torch.tensor([0, 0]))
    kind.end_period()
    torch.testing.assert_close(kind.table.soft[0], torch.tensor([4.0, 0, 0]).softmax(dim=0))


def test_a_resumed_table_equals_an_uninterrupted_one():
    random = torch.Generator().manual_seed(0)
    batches = [(torch.randn(50, K, generator=random), torch.randint(-1, K, (50,), generator=random)) for _ in range(6)]
    whole, first, second = build_ols(), build_ols(), build_ols()
    for number, batch in enumerate(batches):
        if number == 3:  # in the middle of a period
            first.gather()
            second.load_state_dict(first.state_dict())
        for kind in (whole, second if number >= 3 else first):
            kind.observe(*batch)
            if number % 2:
                kind.end_period()
        if number == 3:
            whole.gather()
    for name, value in whole.state_dict().items():
        assert second.state_dict()[name].equal(value), name


def test_a_checkpoint_names_the_table_as_it_always_did():
    """As of the labels themselves, at any depth; so that checkpoints of earlier versions load."""
    kind, loaded = build_ols(), build_ols()
    kind.observe(torch.tensor([[2.0, 1, 0]]), torch.tensor([0]))
    state = kind.state_dict()
    assert set(state) == {"soft", "total", "count", "local_total", "local_count"}
    assert state["local_count"].tolist() == [1, 0, 0]
    nested = torch.nn.ModuleDict({"labels": loaded, "soft": torch.nn.Linear(1, 1)})
    assert set(nested.state_dict()) == {*(f"labels.{name}" for name in state), "soft.weight", "soft.bias"}
    earlier = {f"labels.{name}": tensor.clone() for name, tensor in state.items()}
    load_state(nested, {**earlier, **nested["soft"].state_dict(prefix="soft.")}, where="a file")
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in state.items())
    assert set(earlier) == {f"labels.{name}" for name in state}  # as it was


def test_two_processes_share_one_table(monkeypatch):
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, K, generator=random).double(), torch.randint(K, (40,), generator=random)
    one, halves = build_ols().double(), [build_ols().double(), build_ols().double()]
    one.observe(logits, labels)
    one.end_period()
    for kind, part in zip(halves, (slice(0, 15), slice(15, 40)), strict=True):
        kind.observe(logits[part], labels[part])
    total = [sum(getattr(kind.table, name) for kind in halves) for name in ("local_total", "local_count")]
    monkeypatch.setattr(learnt, "all_reduce_sum", lambda *own: [a.copy_(b) for a, b in zip(own, total, strict=True)])
    for kind in halves:
        kind.end_period()
        torch.testing.assert_close(kind.table.soft, one.table.soft, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("LS", {"amount": 1.5}, r"CLASS_LABELS.LS.amount is 1.5"),
        ("LS", {"convention": "some"}, r"unknown CLASS_LABELS.LS.convention 'some'; choices: all, k-1"),
        ("OLS", {"hard_weight": -0.1}, r"OLS.hard_weight"),
        ("OLS", {"form": "tanh"}, r"unknown CLASS_LABELS.OLS.form 'tanh'; choices: sigmoid, softmax"),
        ("OLS", {"empty": "zero"}, r"OLS.empty"),
    ],
)
def test_bad_arguments_are_named(name, changes, message):
    with pytest.raises(InputError, match=message):
        CLASS_LABELS.get(name)(K, **(ARGUMENTS[name] | changes))
