"""Many fully connected networks as one batch: each layer is one batched matrix product over all networks.

A network's parameters are one row of a stack (J, P): for each layer its weights (in, out), then its biases (out).
The backward pass is explicit: it reuses the activations of the forward pass and writes the gradient in the same row
layout, for use with a plain optimizer.

Letters: J networks, B points, P parameters.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SIZES = (2, 64, 64, 64, 64, 64, 3)  # ILS, App. A: five hidden layers of 64, each followed by a ReLU
Layers = list[tuple[Tensor, Tensor]]


def count_parameters(sizes: Sequence[int] = SIZES) -> int:
    """Return the number of parameters P."""
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))


def initial_parameters(rng: np.random.Generator, sizes: Sequence[int] = SIZES) -> np.ndarray:
    """Draw one row (P,) float64, uniform in +-1/sqrt(in) for weights and biases, as torch.nn.Linear does."""
    bounds = [np.full((n_in + 1) * n_out, n_in**-0.5) for n_in, n_out in itertools.pairwise(sizes)]
    bound = np.concatenate(bounds)
    return bound * (2 * rng.random(len(bound)) - 1)


def split_layers(parameters: Tensor, sizes: Sequence[int] = SIZES) -> Layers:
    """Return views of (J, P) as weights (J, in, out) and biases (J, 1, out), layer by layer."""
    layers, start = [], 0
    for n_in, n_out in itertools.pairwise(sizes):
        stop = start + n_in * n_out
        weights = parameters[:, start:stop].unflatten(1, (n_in, n_out))
        layers.append((weights, parameters[:, None, stop : stop + n_out]))
        start = stop + n_out
    return layers


def forward(layers: Layers, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return logits (J, B, K) of points (J, B, 2), and the input of every layer, for `gradients`."""
    inputs = [x]
    for weights, biases in layers[:-1]:
        inputs.append(torch.baddbmm(biases, inputs[-1], weights).relu_())
    weights, biases = layers[-1]
    return torch.baddbmm(biases, inputs[-1], weights), inputs


def gradients(layers: Layers, inputs: list[Tensor], slope: Tensor, out: Tensor) -> None:
    """Write the gradient of every network to `out` (J, P); `slope` (J, B, K): gradient with respect to the logits."""
    parts = []
    for number in reversed(range(len(layers))):
        parts += [slope.sum(1), torch.bmm(inputs[number].mT, slope).flatten(1)]
        if number:
            # relu's derivative is 1 where its output is positive
            slope = torch.bmm(slope, layers[number][0].mT).mul_(inputs[number].sign())
    torch.cat(parts[::-1], dim=1, out=out)


def cross_entropy_slope(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of each network's mean soft cross-entropy with respect to the logits:
    (softmax(z) - y) / B."""
    return (logits.softmax(dim=2) - targets).div_(logits.shape[1])


def predict(parameters: Tensor, x: Tensor, sizes: Sequence[int] = SIZES, points: int = 1024) -> Tensor:
    """Return logits (J, n, K) of all networks on the same points (n, 2), in chunks that fit into the cache."""
    layers = split_layers(parameters, sizes)
    parts = [forward(layers, part.expand(len(parameters), -1, -1))[0] for part in x.split(points)]
    return torch.cat(parts, dim=1)
