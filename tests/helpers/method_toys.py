"""Methods around a model whose logits are its input, for tests that compute everything by hand."""

import torch
from torch import nn

from backbones.config import get_defaults
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Context
from backbones.models import Outputs

K, B = 5, 12


class Given(nn.Module):
    """A model whose logits are its input (B, K, ...), times a parameter that is 1."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x):
        return Outputs(x.flatten(1) * self.scale, {})


def build(name, num_classes=K, *, dtype=torch.float64, model=None, **arguments):
    """The method with its default arguments but for these, in `dtype`; the hooks before training are not called."""
    block = get_defaults().METHOD[name] | arguments
    return METHODS.get(name)(model or Given(dtype), num_classes, **block).to(dtype)


def random_batch(num_classes=K, size=B, seed=0, dtype=torch.float64):
    """Logits in place of images, and a teacher's."""
    random = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(size, num_classes, generator=random, dtype=dtype),
        torch.randint(num_classes, (size,), generator=random),
        index=torch.arange(size),
        teacher_logits=2 * torch.randn(size, num_classes, generator=random, dtype=dtype),
    )


def context(labels, **fields):
    """What a method is told before training, of samples with these labels."""
    return Context(len(labels), labels, **{"epochs": 2, "steps_per_epoch": 2, **fields})


def entropy_to(targets, logits):
    """H(y, p) per sample, from the definition."""
    return -(targets * logits.softmax(dim=1).log()).sum(dim=1)


def gradient(method, batch):
    """The gradient of the loss by the logits (B, K)."""
    logits = batch.images.detach().clone().requires_grad_()
    batch.images = logits
    method(batch).loss.backward()
    batch.images = logits.detach()
    return logits.grad
