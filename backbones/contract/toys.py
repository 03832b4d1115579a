"""Methods around a two-layer network, and batches of images with all fields that a method can need."""

from typing import Any

import torch
from torch import Tensor, nn

from backbones.config import get_defaults
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Context, Method
from backbones.models import Outputs

B, K, SIZE = 12, 5, 32


class Tiny(nn.Module):
    """A convolution and a linear classifier."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Outputs:
        """Return logits, and features before and after the activation."""
        early = self.conv(x)
        features = early.relu()
        return Outputs(self.fc(features.mean(dim=(2, 3))), {"res2": early, "res3": features})

    def feature_channels(self) -> dict[str, int]:
        """Return the channels of each feature."""
        return {"res2": 16, "res3": 16}


def build(name: str, num_classes: int = K, model: nn.Module | None = None, **arguments: Any) -> Method:
    """Return a method ready for its first step; `arguments` override its defaults."""
    torch.manual_seed(0)
    block = get_defaults().METHOD[name] | arguments
    method = METHODS.get(name)(model or Tiny(num_classes), num_classes, **block)
    context = Context(
        B,
        batch(num_classes).labels,
        epochs=2,
        steps_per_epoch=4,
        unaugmented=lambda: [images(num_classes)],
        teacher_temperature=lambda: 1.3,
    )
    method.setup(context)
    method.begin_epoch(0)
    return method


def images(num_classes: int = K) -> Batch:
    """Return several images of every class."""
    random = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (2 * K, 3, 8, 8), generator=random, dtype=torch.uint8)
    return Batch(images, torch.arange(2 * K) % num_classes)


def batch(num_classes: int = K, seed: int = 1, dtype: torch.dtype = torch.float32) -> Batch:
    """Return B samples with every optional field."""
    random = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(B, 3, SIZE, SIZE, generator=random, dtype=dtype),
        torch.randint(num_classes, (B,), generator=random),
        index=torch.arange(B),
        objectness=torch.rand(B, generator=random),
        boxes=torch.tensor([4.0, 4.0, 20.0, 24.0]).repeat(B, 1, 1),
        is_context=torch.rand(B, generator=random) < 0.2,
        second_view=torch.randn(B, 3, SIZE, SIZE, generator=random, dtype=dtype),
        teacher_logits=2 * torch.randn(B, num_classes, generator=random, dtype=dtype),
    )


def take(whole: Batch, rows: slice) -> Batch:
    """Return the samples `rows` of a batch."""
    values: dict[str, Any] = {name: None if value is None else value[rows] for name, value in vars(whole).items()}
    return Batch(**values)


def treats_samples_alone(name: str) -> bool:
    """Whether a step treats samples independently: it draws nothing, and compares no samples with each other.

    If so, two processes with half of a batch each give the result of one process with the whole batch.
    """
    method, whole = build(name).double(), batch(dtype=torch.float64)
    for seed in range(5):
        losses = []
        for part in (whole, take(whole, slice(0, B // 2)), take(whole, slice(B // 2, B))):
            torch.manual_seed(seed)
            losses.append(method(part).loss.item())
        if abs(losses[0] - (losses[1] + losses[2]) / 2) > 1e-9:
            return False
    return True
