"""Methods around a model whose logits are its input, for tests that compare with explicit formulas."""

import torch
from torch import nn

from backbones.config import get_defaults
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Context
from backbones.models import Outputs

K, B = 5, 12


class Given(nn.Module):
    """Model whose logits are its input (B, K, ...), times a parameter that is 1."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x):
        return Outputs(x.flatten(1) * self.scale, {})


def build(name, num_classes=K, *, dtype=torch.float64, model=None, **arguments):
    """Build the method with `arguments` over its defaults, in `dtype`; the hooks before training are not called."""
    block = get_defaults().METHOD[name] | arguments
    return METHODS.get(name)(model or Given(dtype), num_classes, **block).to(dtype)


def random_batch(num_classes=K, size=B, seed=0, dtype=torch.float64):
    """Return a batch with logits in place of images, and with teacher logits."""
    random = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(size, num_classes, generator=random, dtype=dtype),
        torch.randint(num_classes, (size,), generator=random),
        index=torch.arange(size),
        teacher_logits=2 * torch.randn(size, num_classes, generator=random, dtype=dtype),
    )


def context(labels, **fields):
    """Return the `Context` for samples with these labels."""
    return Context(len(labels), labels, **{"epochs": 2, "steps_per_epoch": 2, **fields})


def entropy_to(targets, logits):
    """Compute H(y, p) per sample from its definition."""
    return -(targets * logits.softmax(dim=1).log()).sum(dim=1)


def gradient(method, batch):
    """Return the gradient of the loss with respect to the logits (B, K)."""
    logits = batch.images.detach().clone().requires_grad_()
    batch.images = logits
    method(batch).loss.backward()
    batch.images = logits.detach()
    return logits.grad
