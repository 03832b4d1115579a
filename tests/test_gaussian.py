"""The synthetic study: the task, the stack of networks, their training, the targets and the measures."""

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from torch import nn

from backbones.core.errors import Diverged
from backbones.gaussian import measures
from backbones.gaussian.candidates import Candidate, Grids, Teacher, build_candidates, build_targets
from backbones.gaussian.families import check_families
from backbones.gaussian.network import (
    SIZES,
    count_parameters,
    cross_entropy_slope,
    forward,
    gradients,
    initial_parameters,
    predict,
    split_layers,
)
from backbones.gaussian.published import load_tables
from backbones.gaussian.task import DENSE_MEANS, DIFFERENT, NORMAL, SPARSE_MEANS, Points, log_posterior, sample_points
from backbones.gaussian.training import Problem, Recipe, Slots, stacked_adam, train_networks
from backbones.measuring import calibration

SMALL = (2, 8, 8, 3)


def density(x, y, k):
    """Of class k, written out."""
    squares = [(x - m[0]) ** 2 + (y - m[1]) ** 2 for m in (DENSE_MEANS[k], SPARSE_MEANS[k])]
    return (0.8 * np.exp(-squares[0] / 2) + 0.2 * np.exp(-squares[1] / 2)) / (2 * np.pi)


# ---- the task ----------------------------------------------------------------------------------


def test_posterior_is_bayes_rule():
    points = sample_points(np.random.default_rng(0), 50)
    densities = np.stack([density(points.x[:, 0], points.x[:, 1], k) for k in range(3)], axis=1)
    np.testing.assert_allclose(np.exp(log_posterior(points.x)), densities / densities.sum(axis=1, keepdims=True))


def test_mean_posterior_is_the_prior():
    """The integral of p(c | x) p(x) is 1/3: numerical integration over the plane."""
    p = lambda y, x: np.exp(log_posterior(np.array([[x, y]])))[0, 0] * sum(density(x, y, k) for k in range(3)) / 3  # noqa: E731
    mass, _ = dblquad(p, -10, 11, -7, 7, epsabs=1e-4)
    assert mass == pytest.approx(1 / 3, abs=2e-3)


@pytest.mark.parametrize("task", [NORMAL, DIFFERENT])
def test_the_density_of_every_class_integrates_to_one(task):
    axis = np.linspace(-10, 10, 201)
    density = np.exp(task.log_joint(np.stack(np.meshgrid(axis, axis), axis=2).reshape(-1, 2)))
    np.testing.assert_allclose(density.sum(axis=0) * 0.1**2, 1, rtol=1e-4)


def test_far_points_have_a_posterior():
    assert np.isfinite(log_posterior(np.array([[1e3, -1e3]]))).all()


def test_bayes_row_is_the_published_one():
    points = sample_points(np.random.default_rng(1), 200_000)
    ours = dict(zip(measures.MEASURES, measures.measure(log_posterior(points.x)[None], points)[0], strict=True))
    paper = load_tables()["I"]["bayes"]
    for column, tolerance in (("acc", 0.003), ("acc_dense", 0.003), ("acc_sparse", 0.003), ("ce", 0.003)):
        assert ours[column] == pytest.approx(paper[column], abs=tolerance), column
    assert ours["ece15"] < 0.003  # the published 0.0067 is the bias of 15000 points


def test_components_have_their_shares_and_means():
    points = sample_points(np.random.default_rng(2), 20_000)
    assert points.dense.mean() == pytest.approx(0.8, abs=0.006)
    for k in range(3):
        for dense, mean in ((True, DENSE_MEANS[k]), (False, SPARSE_MEANS[k])):
            part = points.x[(points.labels == k) & (points.dense == dense)]
            np.testing.assert_allclose(part.mean(axis=0), mean, atol=0.06)
            np.testing.assert_allclose(np.cov(part.T), np.eye(2), atol=0.08)


# ---- the stack of networks ----------------------------------------------------------------------


def linear_stack(row, sizes):
    """The same network of torch.nn.Linear layers."""
    layers = []
    for weights, biases in split_layers(row[None], sizes):
        linear = nn.Linear(*weights.shape[1:], dtype=row.dtype)
        linear.weight.data, linear.bias.data = weights[0].T.clone(), biases[0, 0].clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def flat_gradients(network):
    return torch.cat([g for layer in network[::2] for g in (layer.weight.grad.T.flatten(), layer.bias.grad)])


def random_stack(count, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([initial_parameters(rng, sizes) for _ in range(count)]))


@pytest.mark.parametrize("sizes", [SIZES, (2, 5, 3), (2, 3)])
def test_loss_and_gradients_are_those_of_autograd(sizes):
    torch.manual_seed(0)
    stack, x = random_stack(4, sizes), torch.randn(4, 7, 2, dtype=torch.float64)
    targets = torch.rand(4, 7, 3, dtype=torch.float64).softmax(dim=2)
    logits, inputs = forward(split_layers(stack, sizes), x)
    slopes = torch.empty_like(stack)
    gradients(split_layers(stack, sizes), inputs, cross_entropy_slope(logits, targets), slopes)
    for j in range(4):
        network = linear_stack(stack[j], sizes)
        nn.functional.cross_entropy(network(x[j]), targets[j]).backward()
        torch.testing.assert_close(logits[j], network(x[j]).detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(slopes[j], flat_gradients(network), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(predict(stack, x[0], sizes, points=3)[0], logits[0])


def test_initial_parameters_are_torchs():
    """Uniform in +-1/sqrt(in), weights and biases alike; 17027 of them."""
    assert count_parameters() == sum(p.numel() for p in linear_stack(random_stack(1, SIZES)[0], SIZES).parameters())
    rows = random_stack(50, SIZES)
    for (weights, biases), n_in in zip(split_layers(rows), SIZES[:-1], strict=True):
        for values in (weights, biases):
            assert values.abs().max() <= n_in**-0.5
            assert values.std() == pytest.approx(n_in**-0.5 / 3**0.5, rel=0.1)
            assert values.mean() == pytest.approx(0, abs=0.1 * n_in**-0.5)


# ---- training ------------------------------------------------------------------------------------


def test_stacked_adam_is_torchs_adam_on_each_row():
    torch.manual_seed(1)
    stack = torch.randn(3, 11, dtype=torch.float64)
    alone = [nn.Parameter(row.clone()) for row in stack]
    optimizers = [torch.optim.Adam([p], lr=0.01, foreach=False, fused=False) for p in alone]
    adam = stacked_adam(stack, lr=0.01)
    for step in range(20):
        slopes = torch.randn_like(stack) * 10.0 ** torch.arange(-2, 1)[:, None]
        for j, row in enumerate(adam.rows):
            active = j < 2 or step >= 5  # the last row begins later, with a bias correction of its own
            row.grad = slopes[j] if active else None
            if active:
                alone[j].grad = slopes[j].clone()
                optimizers[j].step()
        adam.optimizer.step()
    torch.testing.assert_close(stack, torch.stack([p.detach() for p in alone]), rtol=1e-10, atol=1e-12)


def small_problem(count, seed=0, points=20):
    rng = np.random.default_rng(seed)
    train, val = sample_points(rng, points), sample_points(rng, points)
    eps = torch.linspace(0, 0.3, count, dtype=torch.float64)[:, None, None]
    hard = torch.eye(3, dtype=torch.float64)[torch.from_numpy(train.labels)]
    return Problem(
        torch.from_numpy(train.x), (1 - eps) * hard + eps / 3, torch.from_numpy(val.x), torch.from_numpy(val.labels)
    )


def train_alone(problem, number, seed, recipe):
    """One network by an ordinary loop with autograd and torch's Adam."""
    init, order = (
        np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, k))) for k in (0, 1)
    )
    network = linear_stack(torch.from_numpy(initial_parameters(init, recipe.sizes)), recipe.sizes)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr, foreach=False)
    best, stale, kept = np.inf, 0, (0, None)
    for epoch in range(1, recipe.max_epochs + 1):
        for chosen in torch.from_numpy(order.permutation(len(problem.x))).split(recipe.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(problem.x[chosen]), problem.targets[number, chosen]).backward()
            optimizer.step()
        loss = nn.functional.cross_entropy(network(problem.val_x), problem.val_labels).item()
        if loss < best:
            best, stale, kept = loss, 0, (epoch, [p.detach().clone() for p in network.parameters()])
        else:
            stale += 1
        if stale == recipe.patience:
            break
    return best, *kept


@pytest.mark.parametrize("slots", [3, 7, 50])
def test_a_network_becomes_what_it_becomes_alone(slots):
    """Early stopping, refilled and moved slots, best epoch: each of ten equals an ordinary training loop."""
    problem, seeds = small_problem(10), np.random.SeedSequence(5).spawn(10)
    recipe = Recipe(batch_size=16, max_epochs=40, patience=3, sizes=SMALL, slots=slots)
    trained = train_networks(problem, seeds, recipe)
    assert len(set(trained.epoch.tolist())) > 3  # they stop at different times
    for j in range(10):
        best, epoch, parameters = train_alone(problem, j, seeds[j], recipe)
        assert trained.val_ce[j].item() == pytest.approx(best, abs=1e-10)
        assert trained.epoch[j] == epoch
        for (weights, biases), (w, b) in zip(
            split_layers(trained.parameters[j : j + 1], SMALL),
            zip(parameters[::2], parameters[1::2], strict=True),
            strict=True,
        ):
            torch.testing.assert_close(weights[0], w.T, rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(biases[0, 0], b, rtol=1e-9, atol=1e-10)


def test_stopped_networks_do_not_move():
    problem, recipe = small_problem(10), Recipe(batch_size=16, max_epochs=60, patience=3, sizes=SMALL)
    slots = Slots(problem, np.random.SeedSequence(5).spawn(10), recipe)
    while slots.active > 5:
        slots.train_epoch()
        slots.end_epoch(slots.validate())
    gone = slots.parameters[slots.active :].clone()
    slots.train_epoch()
    assert 0 < slots.active <= 5
    torch.testing.assert_close(slots.parameters[slots.active :], gone, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_is_an_error():
    problem = small_problem(2)
    broken = problem._replace(x=problem.x * torch.nan)
    with pytest.raises(Diverged, match=r"is not finite with --lr 0\.01; give a lower one"):
        train_networks(broken, np.random.SeedSequence(0).spawn(2), Recipe(sizes=SMALL))


# ---- targets -------------------------------------------------------------------------------------

LABELS = np.array([0, 1, 2, 0])
LOGITS = np.array([[2.0, 0.0, 1.0], [0.5, 0.1, -1.0], [0.0, 0.0, 900.0], [-1.0, 3.0, 2.0]])
PROBABILITIES = np.exp(calibration.log_softmax(LOGITS / 1.3))
TEACHER = Teacher(LABELS, LOGITS, PROBABILITIES, np.full((4, 3), 1 / 3))


def only(method, **settings):
    return build_targets([Candidate(method, **settings)], TEACHER)[0]


def test_targets_of_every_candidate_are_distributions():
    candidates = build_candidates(Grids(), ("ls", "ils1", "sine", "ils2", "ils", "distillation", "figure11"))
    targets = build_targets(candidates, TEACHER)
    np.testing.assert_allclose(targets.sum(axis=2), 1)
    assert (targets >= 0).all()
    assert len({c.name for c in candidates}) == len({c.seed_key() for c in candidates}) == len(candidates)


def test_label_smoothing_closed_form():
    np.testing.assert_allclose(only("ls", eps=0.2), 0.8 * np.eye(3)[LABELS] + 0.2 / 3)
    np.testing.assert_allclose(only("hard"), np.eye(3)[LABELS])


def test_ils1_is_equation_3():
    y = only("ils1", p1=0.8, p2=2.0)
    for i, label in enumerate(LABELS):
        amount = min(0.2, 2.0 * (PROBABILITIES[i, label] - 0.8) ** 2)
        np.testing.assert_allclose(y[i], (1 - amount) * np.eye(3)[label] + amount / 3)
    assert y[2, 2] == pytest.approx(1 - 0.08 * 2 / 3)  # p_t = 1: the curve rises again
    assert y[3, 0] == pytest.approx(1 - 0.2 * 2 / 3)  # p_t near 0: the largest amount


def test_the_sine_is_trained_with_its_amount():
    y = only("sine", p1=0.95, p2=5.0)
    for i, label in enumerate(LABELS):
        amount = 0.1 * (np.sin(5.0 * (PROBABILITIES[i, label] - 0.95)) + 1)
        np.testing.assert_allclose(y[i], (1 - amount) * np.eye(3)[label] + amount / 3)
    assert {c.method for c in build_candidates(Grids(), ["sine"])} == {"sine"}


def test_ils2_is_equation_4():
    y, p = only("ils2", eps=0.1, t=2.0), np.exp(calibration.log_softmax(LOGITS / 2.0))
    for i in (0, 1, 3):  # sample 2 has p_t = 1, where Eq. 4 divides by zero
        expected = 0.1 * p[i] / (1 - p[i, LABELS[i]])
        expected[LABELS[i]] = 0.9
        np.testing.assert_allclose(y[i], expected)
    np.testing.assert_allclose(y[2], [0.05, 0.05, 0.9])


def test_ils2_tends_to_smoothing_over_the_wrong_classes():
    y = only("ils2", eps=0.1, t=1e9)
    np.testing.assert_allclose(y, np.where(np.eye(3)[LABELS] == 1, 0.9, 0.05), atol=1e-6)


def test_ils_has_the_amount_of_ils1_and_the_distribution_of_ils2():
    both, one, two = only("ils", p1=0.8, p2=1.5, t=4.0), only("ils1", p1=0.8, p2=1.5), only("ils2", eps=0.1, t=4.0)
    own = LABELS[:, None]
    amount = (1 - np.take_along_axis(one, own, axis=1)) * 3 / 2  # Eq. 3 smooths over all classes
    np.testing.assert_allclose(np.take_along_axis(both, own, axis=1), 1 - amount)
    wrong = np.eye(3)[LABELS] == 0
    np.testing.assert_allclose(both[wrong], (two / 0.1 * amount)[wrong])


def test_distillation_takes_the_teachers_probabilities():
    np.testing.assert_allclose(only("distil_hard"), np.exp(calibration.log_softmax(LOGITS)))
    np.testing.assert_allclose(only("distil_bayes"), TEACHER.posterior)


def test_an_unknown_family_names_the_nearest():
    assert check_families(["ils", "ls"]) == ("ls", "ils")
    with pytest.raises(ValueError, match="did you mean 'ils1'"):
        check_families(["isl1"])


# ---- measures ------------------------------------------------------------------------------------


def random_logits(count, points, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((count, len(points.labels), 3)) + 1.5 * np.eye(3)[points.labels]


def test_measures_are_those_of_the_calibration_module():
    points = sample_points(np.random.default_rng(3), 70)
    log_p = measures.log_softmax(random_logits(6, points))
    found = measures.measure(log_p, points)
    for row, one in zip(found, log_p, strict=True):
        p, by_name = np.exp(one), dict(zip(measures.MEASURES, row, strict=True))
        assert by_name["acc"] == pytest.approx(calibration.accuracy(p, points.labels))
        assert by_name["acc_dense"] == pytest.approx(calibration.accuracy(p[points.dense], points.labels[points.dense]))
        assert by_name["acc_sparse"] == pytest.approx(
            calibration.accuracy(p[~points.dense], points.labels[~points.dense])
        )
        assert by_name["ce"] == pytest.approx(calibration.nll(one, points.labels))
        assert by_name["ece15"] == pytest.approx(calibration.ece(p, points.labels))
        assert by_name["cwece15"] == pytest.approx(calibration.cwece(p, points.labels))
        assert by_name["cwece15_trueclass"] == pytest.approx(calibration.cwece_trueclass(p, points.labels))


def test_a_score_on_the_edge_of_bins_belongs_to_the_lower_one():
    scores, hits = np.array([0.6, 0.61, 0.2, 0.21, 0.0, 1.0]), np.array([True, False, False, True, False, True])
    lower, upper = (calibration.reliability(scores, hits, measures.BINS, closed) for closed in ("right", "left"))
    gaps = [float((table.count * table.gaps()).sum() / len(scores)) for table in (lower, upper)]
    assert gaps[0] != pytest.approx(gaps[1])
    assert measures._gap(scores[None], hits[None])[0] == pytest.approx(gaps[0])


def test_a_subset_without_points_is_nan():
    points = sample_points(np.random.default_rng(3), 5)
    points = Points(points.x, points.labels, np.ones(15, bool))
    found = dict(zip(measures.MEASURES, measures.measure(log_posterior(points.x)[None], points)[0], strict=True))
    assert np.isnan(found["acc_sparse"])
    assert found["acc_dense"] == found["acc"]


@pytest.mark.parametrize("scale", [0.02, 0.5, 2.0, 30.0])
def test_temperatures_are_those_of_the_scalar_search(scale):
    points = sample_points(np.random.default_rng(4), 40)
    logits = random_logits(5, points, scale=1.0) * scale
    found = measures.fit_temperatures(logits, points.labels)
    for one, t in zip(logits, found, strict=True):
        assert t == pytest.approx(calibration.fit_temperature(one, points.labels, tolerance=1e-9), rel=1e-5)
        bounded = calibration.fit_temperature(one, points.labels, measures.PARITY_BOUNDS, tolerance=1e-9)
        assert np.clip(t, *measures.PARITY_BOUNDS) == pytest.approx(bounded, rel=1e-5)


def test_a_temperature_without_optimum_is_the_bound():
    labels = np.array([0, 1, 2])
    right, wrong = 4.0 * np.eye(3), 4.0 * np.eye(3)[[1, 2, 0]]
    np.testing.assert_allclose(
        measures.fit_temperatures(np.stack([right, wrong]), labels), measures.T_BOUNDS, rtol=1e-8
    )
