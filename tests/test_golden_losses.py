"""Losses, gradients and the OLS table against reference implementations (see the README of the golden vectors)."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from backbones.data.batch import Batch
from backbones.methods.base import METHODS
from backbones.models import Outputs

OLS = {
    "hard_weight": 0.5,
    "period": 0,
    "empty": "uniform",
    "init": "uniform",
    "sum_weights": False,
    "freeze_at": 0.0,
}
CURVE = {"shift": 0.8, "coefficient": 2.0}
CASES = {
    "cross_entropy": ("CE", {}),
    "label_smoothing_0.1_eps_over_K": ("LS", {"amount": 0.1, "convention": "all"}),
    "adaptive_label_smoothing_beta1.0": ("ALS", {"beta": 1.0, "convention": "k-1"}),
    "adaptive_label_smoothing_beta0.75": ("ALS", {"beta": 0.75, "convention": "k-1"}),
    "adaptive_label_smoothing_beta0.25": ("ALS", {"beta": 0.25, "convention": "k-1"}),
    "symmetric_cross_entropy_alpha0.1_beta1.0": ("SCE", {"alpha": 0.1, "beta": 1.0, "form": "reference"}),
    "symmetric_cross_entropy_alpha6.0_beta0.1": ("SCE", {"alpha": 6.0, "beta": 0.1, "form": "reference"}),
    "bootsoft_0.95": ("Bootsoft", {"hard_weight": 0.95, "detach": False}),
    "boothard_0.8": ("Boothard", {"hard_weight": 0.8}),
    "generalized_cross_entropy_q0.7": ("GCE", {"exponent": 0.7}),
    "pairwise_confusion_lambda10_reference": ("PairwiseConfusion", {"weight": 10.0, "form": "reference"}),
    "ils1_P1_0p8_P2_2": ("ILS1", CURVE),
    "ils2_eps0p1": ("ILS2", {"amount": 0.1, "temperature": 1.0}),
    "ils_P1_0p8_P2_2": ("ILS", {**CURVE, "temperature": 1.0, "shared_temperature": False}),
}


class Given(nn.Module):
    """A model whose logits are its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        return Outputs(x * self.scale, {})


@pytest.fixture(scope="module")
def losses(golden):
    return json.loads((golden / "losses.json").read_text())


def test_every_vector_is_used(losses):
    assert set(losses["expected"]) == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient(losses, case):
    name, arguments = CASES[case]
    logits = torch.tensor(losses["logits"], dtype=torch.float64, requires_grad=True)
    objectness = 1 - torch.tensor(losses["als_alpha"], dtype=torch.float64)
    teacher = torch.tensor(losses["teacher_probabilities"], dtype=torch.float64).log()
    batch = Batch(logits, torch.tensor(losses["targets"]), objectness=objectness, teacher_logits=teacher)
    step = METHODS.get(name)(Given(), losses["K"], **arguments)(batch)
    step.loss.backward()
    expected = losses["expected"][case]
    assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-5)
    assert logits.grad.norm().item() == pytest.approx(expected["grad_norm"], abs=1e-5)
    np.testing.assert_allclose(logits.grad[0], expected["grad_row0"], rtol=0, atol=1e-5)


def test_online_label_smoothing_sequence(losses, golden):
    inputs = np.load(golden / "ols_inputs.npz")
    logits, targets = torch.from_numpy(inputs["logits"]), torch.from_numpy(inputs["targets"])
    method = METHODS.get("OLS")(Given(), logits.shape[-1], **OLS)
    for epoch, expected in enumerate(losses["online_label_smoothing_alpha0.5"]["epochs"]):
        steps = [method(Batch(x, y)) for x, y in zip(logits[epoch], targets[epoch], strict=True)]
        np.testing.assert_allclose([step.loss.item() for step in steps], expected["losses"], rtol=0, atol=1e-6)
        method.end_period()
        np.testing.assert_allclose(method.table.soft, expected["soft_labels_row_is_target"], rtol=0, atol=1e-6)
