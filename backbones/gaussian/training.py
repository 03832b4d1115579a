"""Training of many networks at once, each with its own early stopping.

A fixed number of slots holds the networks in training.  When one stops, the next waiting network takes its slot, and
if none is waiting, the last slot is moved into the gap, so that no step is spent on a network that has stopped.  The
result of a network depends only on its own seed and targets, never on other networks.

Letters: J networks, S slots, n training points, K classes, P parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backbones.core.errors import Diverged
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


@dataclass(frozen=True)
class Recipe:
    """Training recipe of every network (ILS, App. A); the paper states no batch size."""

    lr: float = 1e-2  # Adam's learning rate
    batch_size: int = 32  # the last batch of an epoch can be smaller
    max_epochs: int = 500
    patience: int = 10  # epochs without a lower validation cross-entropy before a network stops
    sizes: tuple[int, ...] = SIZES
    slots: int = 32  # networks trained at once: parameters and moments fit in the cache; results do not depend on it


class Problem(NamedTuple):
    """Data: x (n, 2), targets (J, n, K) of all networks; val_x (m, 2), val_labels (m,) int64 for early stopping."""

    x: Tensor
    targets: Tensor
    val_x: Tensor
    val_labels: Tensor


class Trained(NamedTuple):
    """Each network at its lowest validation cross-entropy: parameters (J, P), val_ce (J,), epoch (J,)."""

    parameters: Tensor
    val_ce: Tensor
    epoch: Tensor


def train_networks(problem: Problem, seeds: Sequence[np.random.SeedSequence], recipe: Recipe) -> Trained:
    """Train J networks, one per seed, in the dtype of `problem.x`."""
    slots = Slots(problem, seeds, recipe)
    while slots.active:
        slots.train_epoch()
        slots.end_epoch(slots.validate())
    return slots.trained


def child_seed(seed: np.random.SeedSequence, *key: int) -> np.random.SeedSequence:
    """Return an independent stream derived from `seed`; unlike `seed.spawn`, equal keys give equal streams."""
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key))


class Slots:
    """The networks in training, in the first `active` rows of the stacks (S, P)."""

    def __init__(self, problem: Problem, seeds: Sequence[np.random.SeedSequence], recipe: Recipe) -> None:
        self.problem, self.seeds, self.recipe = problem, seeds, recipe
        count, size, like = len(seeds), count_parameters(recipe.sizes), problem.x
        self.trained = Trained(
            like.new_zeros(count, size),
            like.new_full((count,), torch.inf, dtype=torch.float64),
            torch.zeros(count).long(),
        )
        self.active = min(recipe.slots, count)
        self.waiting = iter(range(self.active, count))
        self.parameters, self.slopes = like.new_zeros(self.active, size), like.new_zeros(self.active, size)
        self.adam = stacked_adam(self.parameters, recipe.lr)
        self.network = torch.zeros(self.active, dtype=torch.long)
        self.epoch, self.stale = torch.zeros_like(self.network), torch.zeros_like(self.network)
        self.orders: list[np.random.Generator] = [np.random.default_rng(0)] * self.active
        for slot in range(self.active):
            self._load(slot, slot)

    def train_epoch(self) -> None:
        """Make one pass over the training points for every network, each in its own order."""
        layers = split_layers(self.parameters[: self.active], self.recipe.sizes)
        n, slopes, network = len(self.problem.x), self.slopes[: self.active], self.network[: self.active, None]
        order = torch.from_numpy(np.stack([rng.permutation(n) for rng in self.orders[: self.active]]))
        for rows, slope in zip(self.adam.rows[: self.active], slopes, strict=True):
            rows.grad = slope
        for chosen in order.split(self.recipe.batch_size, dim=1):
            logits, inputs = forward(layers, self.problem.x[chosen])
            gradients(layers, inputs, cross_entropy_slope(logits, self.problem.targets[network, chosen]), slopes)
            self.adam.optimizer.step()

    def validate(self) -> Tensor:
        """Return the cross-entropy (active,) float64 of each network on the labels of the validation points."""
        logits = predict(self.parameters[: self.active], self.problem.val_x, self.recipe.sizes)
        log_p = logits.double().log_softmax(dim=2)
        return -log_p[:, torch.arange(len(self.problem.val_labels)), self.problem.val_labels].mean(dim=1)

    def end_epoch(self, val_ce: Tensor) -> None:
        """Store the networks that improved, and give the slots of networks that stop to others."""
        if not bool(val_ce.isfinite().all()):
            raise Diverged(f"a validation cross-entropy is not finite with --lr {self.recipe.lr}; give a lower one")
        now = slice(self.active)
        self.epoch[now] += 1
        better = val_ce < self.trained.val_ce[self.network[now]]
        improved = self.network[now][better]
        self.trained.parameters[improved] = self.parameters[now][better]
        self.trained.val_ce[improved], self.trained.epoch[improved] = val_ce[better], self.epoch[now][better]
        self.stale[now] = torch.where(better, 0, self.stale[now] + 1)
        stopped = (self.stale[now] >= self.recipe.patience) | (self.epoch[now] >= self.recipe.max_epochs)
        for slot in reversed(stopped.nonzero().flatten().tolist()):
            self._refill(slot)

    def _refill(self, slot: int) -> None:
        following = next(self.waiting, None)
        if following is not None:
            self._load(slot, following)
            return
        self.active -= 1
        self._move(self.active, slot)
        self.adam.rows[self.active].grad = None  # the optimizer skips it

    def _load(self, slot: int, network: int) -> None:
        """Start a network; its seed gives two independent streams, for the initial parameters and the order."""
        init, order = (np.random.default_rng(child_seed(self.seeds[network], key)) for key in (0, 1))
        self.parameters[slot] = torch.from_numpy(initial_parameters(init, self.recipe.sizes)).to(self.parameters)
        self.orders[slot] = order
        self.network[slot], self.epoch[slot], self.stale[slot] = network, 0, 0
        for state in self.adam.state:
            state[slot] = 0

    def _move(self, source: int, slot: int) -> None:
        self.orders[slot] = self.orders[source]
        for rows in (self.parameters, self.network, self.epoch, self.stale, *self.adam.state):
            rows[slot] = rows[source].clone()


class StackedAdam(NamedTuple):
    """Adam over the rows of a stack, with its state as stacks, so that a row can be moved or restarted."""

    optimizer: torch.optim.Adam
    rows: list[torch.nn.Parameter]
    state: tuple[Tensor, Tensor, Tensor]  # first and second moments (S, P), steps (S,)


def stacked_adam(parameters: Tensor, lr: float) -> StackedAdam:
    """Build one torch Adam whose parameters are the rows (P,) of `parameters`; each row counts its own steps."""
    first, second = torch.zeros_like(parameters), torch.zeros_like(parameters)
    steps = torch.zeros(len(parameters), dtype=torch.float32, device=parameters.device)
    rows = [torch.nn.Parameter(row, requires_grad=False) for row in parameters]
    optimizer = torch.optim.Adam(rows, lr=lr, fused=True)
    for row, *state in zip(rows, steps, first, second, strict=True):
        optimizer.state[row] = dict(zip(("step", "exp_avg", "exp_avg_sq"), state, strict=True))
    return StackedAdam(optimizer, rows, (first, second, steps))
