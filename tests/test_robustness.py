"""Attacks on linear classifiers, where the worst change of the pixels is known in closed form."""

import numpy as np
import pytest
import torch
from helpers.tools import tool
from torch import nn

from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.data.batch import Batch
from backbones.measuring.robustness import Attack, build_attacks, find_errors, margin, perturb, wrong_predictions
from backbones.models import Outputs

pytest_plugins = ["helpers.noise_fixtures"]

SHAPE, K, B = (3, 5, 5), 7, 40
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


class Linear(nn.Module):
    """z = scale W x + b, on normalised pixels; noise while it trains."""

    def __init__(self, classes=K, scale=1.0, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (classes, int(np.prod(SHAPE)))
        self.weight = nn.Parameter(scale * torch.randn(shape, generator=generator, dtype=torch.float64))

    def forward(self, x):
        noise = torch.randn(1) if self.training else 0
        return Outputs(x.flatten(1) @ self.weight.to(x).T + noise, {})


def scores_of(model):
    return lambda x: model(x).logits


def grey(seed=0, spread=0.2):
    """Pixels far from 0 and 1, and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 + spread * (torch.rand((B, *SHAPE), generator=generator, dtype=torch.float64) - 0.5)
    return x, torch.randint(K, (B,), generator=generator)


def bytes_batch(model, seed=0):
    """uint8 images that the model gets right, half of them barely."""
    images = torch.randint(0, 256, (B, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    scale = torch.tensor(STD, dtype=torch.float64)[:, None, None]
    z = model((images.double() / 255 - torch.tensor(MEAN, dtype=torch.float64)[:, None, None]) / scale).logits
    return Batch(images, z.argmax(dim=1))


def run(model, batch, attacks, dtype=torch.float64, seed=0):
    options = {"mean": MEAN, "std": STD, "dtype": dtype, "device": torch.device("cpu"), "seed": seed}
    return find_errors(model, [batch], attacks, **options).metrics()


@pytest.mark.parametrize("method", ["fgsm", "pgd", "margin"])
def test_two_classes_lose_exactly_the_bound_times_the_norm(method):
    """The margin of a linear model falls by eps ||w_t - w_j||_1 and no more: each attack reaches the corner."""
    model, (x, labels) = Linear(classes=2).eval(), grey()
    labels = labels % 2
    attack = Attack(method, 8.0)
    found = perturb(scores_of(model), x, labels, attack, torch.Generator().manual_seed(0))
    norm = (model.weight[0] - model.weight[1]).abs().sum().item()
    change = margin(model(found).logits, labels) - margin(model(x).logits, labels)
    assert change.item() == pytest.approx(B * 8 / 255 * norm, rel=1e-9)
    assert (found - x).abs().max() == pytest.approx(8 / 255, rel=1e-9)


@pytest.mark.parametrize("method", ["fgsm", "pgd", "pgd_random", "margin"])
def test_images_stay_in_the_ball_and_in_range(method):
    model, (x, labels) = Linear().eval(), grey(spread=1.0)
    x[:, :, 0] = 0.0
    x[:, :, 1] = 1.0
    found = perturb(scores_of(model), x, labels, Attack(method, 16.0, steps=7), torch.Generator().manual_seed(1))
    assert (found - x).abs().max() <= 16 / 255 + 1e-12
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad
    unmoved = perturb(scores_of(model), x, labels, Attack(method, 0.0), torch.Generator())
    assert torch.equal(unmoved, x)


def test_bound_nothing_is_the_clean_error_and_more_is_never_better():
    model = Linear()
    batch = bytes_batch(model.eval())
    batch.labels[:4] = (batch.labels[:4] + 1) % K  # wrong before any attack
    model.train()
    found = run(model, batch, build_attacks(["fgsm", "pgd", "margin"], [0, 1, 2, 4, 8], 20, 2))
    assert model.training  # measured in evaluation mode, put back
    assert all(p.requires_grad for p in model.parameters())
    assert found["clean_top1_error"] == pytest.approx(4 / B)
    for method in ("fgsm", "pgd", "margin"):
        errors = [found[f"{method}_{bound}_top1_error"] for bound in (0, 1, 2, 4, 8)]
        assert errors[0] == found["clean_top1_error"]
        assert errors == sorted(errors)
        assert errors[0] < errors[1] < 1
        assert all(found[f"{method}_{b}_top5_error"] <= found[f"{method}_{b}_top1_error"] for b in (1, 8))
    for bound in (1, 2, 4, 8):
        assert found[f"pgd_{bound}_top1_error"] >= found[f"fgsm_{bound}_top1_error"]
        worst = max(found[f"{method}_{bound}_top1_error"] for method in ("fgsm", "pgd", "margin"))
        assert found[f"any_{bound}_top1_error"] >= worst


def test_two_classes_break_where_the_closed_form_says():
    """An image falls if and only if its margin is below eps ||w||_1 (of the pixels that have room to move)."""
    model = Linear(classes=2, seed=3).eval()
    batch = bytes_batch(model, seed=3)
    x = batch.images.double() / 255
    std = torch.tensor(STD, dtype=torch.float64)[:, None, None]
    direction = (model.weight[1] - model.weight[0]).reshape(SHAPE) / std
    sign = torch.where(batch.labels == 0, 1.0, -1.0).double()[:, None, None, None]
    z = model((x - torch.tensor(MEAN, dtype=torch.float64)[:, None, None]) / std).logits
    own = (z[:, 0] - z[:, 1]) * sign[:, 0, 0, 0]
    for bound in (1.0, 4.0):
        worst = (x + bound / 255 * (sign * direction).sign()).clamp(0, 1)
        falls = own < ((worst - x) * sign * direction).flatten(1).sum(dim=1)
        found = run(model, batch, build_attacks(["pgd", "margin"], [bound], 20, 1))
        assert 0 < falls.double().mean() < 1
        assert found[f"pgd_{bound:g}_top1_error"] == pytest.approx(falls.double().mean().item())
        assert found[f"margin_{bound:g}_top1_error"] == pytest.approx(falls.double().mean().item())
        assert f"pgd_{bound:g}_top5_error" not in found  # of two classes


class Bumpy(nn.Module):
    """Not convex: many places where the gradient leads nowhere."""

    def __init__(self):
        super().__init__()
        self.inner = Linear(seed=5)

    def forward(self, x):
        z = self.inner(x).logits
        return Outputs(z + 6 * torch.sin(9 * z.flip(1)), {})


def test_restarts_never_lower_the_error():
    model = Bumpy().eval()
    batch = bytes_batch(model)
    errors = [run(model, batch, [Attack("pgd_random", 1.0, 5, r)])["pgd_random_1_top1_error"] for r in (1, 2, 8)]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]
    assert run(model, batch, [Attack("pgd_random", 1.0, 5, 2)])["pgd_random_1_top1_error"] == errors[1]  # seeded


def test_the_margin_finds_what_a_certain_model_hides_from_cross_entropy():
    """Logits a thousandfold: the same classifier, the same images fall, but its cross-entropy gives no gradient."""
    plain, scaled = Linear().eval(), Linear(scale=1000.0).eval()
    batch = bytes_batch(plain)
    attacks = build_attacks(["pgd", "margin"], [2], 20, 1)
    open_, hidden = (run(model, batch, attacks, dtype=torch.float32) for model in (plain, scaled))
    assert hidden["pgd_2_top1_error"] < 0.5 * open_["pgd_2_top1_error"]
    assert hidden["margin_2_top1_error"] == open_["margin_2_top1_error"] > 0.1
    assert hidden["any_2_top1_error"] >= hidden["margin_2_top1_error"]


class NoGradient(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.inner = kind, Linear()

    def forward(self, x):
        z = self.inner((x * 10).round() if self.kind == "quantised" else x).logits
        constant = torch.zeros(len(x), K, dtype=x.dtype, requires_grad=True)
        return Outputs({"detached": z.detach(), "quantised": z, "constant": constant}[self.kind], {})


@pytest.mark.parametrize("kind", ["detached", "quantised", "constant"])
def test_a_model_without_gradients_is_refused_not_called_robust(kind):
    with pytest.raises(InputError, match="no gradient of the model"):
        run(NoGradient(kind), bytes_batch(Linear()), [Attack("pgd", 8.0)])


def test_ties_and_broken_logits_of_the_error():
    nan = float("nan")
    logits = torch.tensor([[1.0, 1, 0, 0, 0, 0], [1.0, 1, 0, 0, 0, 0], [0.0, 5, 4, 3, 2, 1], [nan, 0, 0, 0, 0, 0]])
    wrong = wrong_predictions(logits, torch.tensor([0, 1, 0, 0]))
    assert wrong[0].tolist() == [False, True, True, True]  # the lower class comes first; nan is not an answer
    assert wrong[1].tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("methods", "bounds", "message"),
    [
        (["pdg"], [8], "did you mean 'pgd'"),
        (["pgd"], [-1], "BOUNDS"),
        (["pgd"], [], "at least one"),
        (["fgsm", "pgd", "fgsm"], [8], "fgsm_8 2 times"),  # counted by name: the second would be called harmless
        (["pgd"], [8, 8.0], "pgd_8 2 times"),
    ],
)
def test_bad_attacks(methods, bounds, message):
    with pytest.raises(InputError, match=message):
        build_attacks(methods, bounds, 20, 1)


def test_tool_end_to_end(run_dir, tmp_path, capsys):
    overrides = ["ATTACK.STEPS", "2", "ATTACK.RESTARTS", "1", "ATTACK.MAX_IMAGES", "6", "ATTACK.BOUNDS", "[1.0, 8.0]"]
    assert tool("attack_backbone")([str(run_dir), "--output-dir", str(tmp_path / "out"), *overrides]) == 0
    results = load_results(tmp_path / "out")
    assert results["stage"] == "robustness"
    assert results["details"]["images"] == 6
    names = {
        f"{m}_{b}_top{k}_error" for m in ("fgsm", "pgd", "pgd_random", "margin", "any") for b in (1, 8) for k in (1, 5)
    }
    assert set(results["metrics"]) == names | {"clean_top1_error", "clean_top5_error"}
    assert results["metrics"]["any_8_top1_error"] >= results["metrics"]["clean_top1_error"]
    assert "any_8_top1_error" in capsys.readouterr().out
    with pytest.raises(InputError, match="robustness"):
        tool("evaluate_backbone")([str(run_dir), "--output-dir", str(tmp_path / "out")])
