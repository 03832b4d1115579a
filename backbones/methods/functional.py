"""The mathematics of the methods, as pure functions.

A target is a distribution over the classes; soft cross-entropy is linear in it, so every way of softening or mixing
labels is a function that returns (B, K) targets.  Letters: B batch, K classes, H x W pixels; p the prediction.
"""

from typing import NamedTuple

import torch
from torch import Tensor

CONVENTIONS = ("all", "k-1")


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Hard targets (B, K) of labels (B,) int64."""
    return torch.zeros(len(labels), num_classes, dtype=dtype, device=labels.device).scatter_(1, labels[:, None], 1)


def smooth_labels(
    labels: Tensor,
    num_classes: int,
    amount: float | Tensor,
    convention: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniformly smoothed targets (B, K) of labels (B,) int64.

    "all": y = (1 - a) onehot + a / K, a share `a` spread over all classes (Szegedy et al. 2016; OLS Eq. 2).
    "k-1": y_t = 1 - a, y_j = a / (K - 1), over the wrong classes only (ALS Eq. 4, 5).
    The two agree where a_(k-1) = a_all (K - 1) / K.

    amount: a in [0, 1], one number or one per sample (B,); 0 is the hard label.
    """
    if not isinstance(amount, Tensor):
        amount = torch.full(labels.shape, amount, dtype=dtype, device=labels.device)
    amount = amount.to(dtype)
    wrong = amount / (num_classes if convention == "all" else num_classes - 1)
    right = 1 - amount + wrong if convention == "all" else 1 - amount
    return wrong[:, None].repeat(1, num_classes).scatter_(1, labels[:, None], right[:, None])


def equivalent_amount(amount: float, num_classes: int, *, convention: str) -> float:
    """The amount in the other convention that gives the same targets as `amount` in `convention`."""
    ratio = (num_classes - 1) / num_classes
    return amount * ratio if convention == "all" else amount / ratio


def adaptive_targets(
    labels: Tensor,
    objectness: Tensor,
    num_classes: int,
    beta: float,
    convention: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Targets (B, K) smoothed by the share of the crop that is not the object (ALS Eq. 5).

    y = beta s(1 - o) + (1 - beta) onehot = s(beta (1 - o)), s the smoothing of `convention`; with "k-1"
    y_t = 1 - beta (1 - o), y_j = beta (1 - o) / (K - 1).  o = 1 or beta = 0 give the hard label.
    NOTE: "k-1" is the formula of the paper; its text says that o = 0 gives the uniform label, which only "all" does.

    objectness: o (B,) in [0, 1], area of the object inside the crop over the crop's area.
    """
    amount = beta * (1 - objectness.to(dtype))
    return smooth_labels(labels, num_classes, amount, convention, dtype)


def table_targets(labels: Tensor, table: Tensor, hard_weight: float) -> Tensor:
    """Targets (B, K): w onehot + (1 - w) table[label], w = `hard_weight` (both losses of OLS, Sec. III-B, in one).

    table: (K, K), row k the soft label of class k.
    """
    targets = table.index_select(0, labels).mul_(1 - hard_weight)
    hard = targets.new_full((len(labels), 1), hard_weight)
    return targets.scatter_add_(1, labels[:, None], hard)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """H(y, p) = -sum_k y_k log p_k per sample, (B,); computed in float32 or better.

    logits, targets: (B, K).
    """
    return -(targets * full_precision(logits).log_softmax(dim=1)).sum(dim=1)


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 where it already is."""
    return x if x.dtype == torch.float64 else x.float()


def right_predictions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions p (B, K), and which samples were classified right, (B,) bool.

    On a tie the lowest class counts as predicted; a sample whose p is not finite is never right.
    """
    p = full_precision(logits).softmax(dim=1)
    confidence, predicted = p.max(dim=1)  # NaN where any p of the row is
    return p, (predicted == labels) & confidence.isfinite()


class Rectangle(NamedTuple):
    """Rows top to bottom, columns left to right, in pixels; half open."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def cut_rectangle(height: int, width: int, kept: float, centre_y: int, centre_x: int) -> Rectangle:
    """CutMix's rectangle: sides sqrt(1 - kept) times (H, W) around the centre, clipped to the picture.

    kept: the share of the picture that stays, before clipping, in [0, 1].
    """
    side = (1 - kept) ** 0.5
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    return Rectangle(
        max(centre_y - half_height, 0),
        min(centre_y + half_height, height),
        max(centre_x - half_width, 0),
        min(centre_x + half_width, width),
    )


def mix_rectangle(images: Tensor, targets: Tensor, order: Tensor, rectangle: Rectangle) -> tuple[Tensor, Tensor]:
    """Paste the rectangle of image order[i] into image i; weigh the two targets by the pixels each one keeps.

    images: (B, C, H, W). targets: (B, K). order: (B,) int64, a permutation. Returns new images and targets.
    """
    top, bottom, left, right = rectangle
    pasted = rectangle.area / (images.shape[2] * images.shape[3])
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].index_select(0, order)
    return mixed, (1 - pasted) * targets + pasted * targets.index_select(0, order)
