"""Soft labels of the detector's class loss: the functions of pretraining, applied to the boxes that are learned.

YOLO's classes are independent sigmoids, trained by binary cross-entropy against a (K,) target: the one-hot label, or
a softer one.  OLS: Zhang et al. 2021 (arXiv:2011.12562), Sec. IV-D; LS there is delta / K everywhere.

A kind of label has `targets(labels)`, `observe(logits, labels)` for what was predicted at the positives, and
`end_period()`, called after every epoch.  Letters: n boxes or positives, K classes.
"""

import torch
from torch import Tensor, nn

from backbones.core.checks import check_choice, check_range
from backbones.core.distributed import all_reduce_sum
from backbones.core.errors import InputError
from backbones.core.registry import Registry
from backbones.methods.functional import (
    CONVENTIONS,
    full_precision,
    mean_predictions,
    one_hot,
    right_predictions,
    smooth_labels,
    table_targets,
)

CLASS_LABELS = Registry("class labels")  # name -> subclass of ClassLabels
FORMS = ("softmax", "sigmoid")


class ClassLabels(nn.Module):
    """Targets of the class loss; `_targets` is what a kind defines, the other hooks do nothing by default."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def targets(self, labels: Tensor) -> Tensor:
        """(..., K) targets of labels (...) int64; of padding (-1) those of class 0, which no loss counts."""
        return self._targets(labels.clamp(min=0).flatten()).view(*labels.shape, self.num_classes)

    def _targets(self, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def observe(self, logits: Tensor, labels: Tensor) -> None:
        """Learn from the class logits (n, K) at positives of labels (n,) int64; -1 is not counted."""

    def gather(self) -> None:
        """Bring the sums of all processes together; called on every process before a checkpoint."""

    def end_period(self) -> None:
        """An epoch has ended; called on every process."""


@CLASS_LABELS.register()
class Hard(ClassLabels):
    """The one-hot label."""

    def _targets(self, labels: Tensor) -> Tensor:
        return one_hot(labels, self.num_classes)


@CLASS_LABELS.register()
class LS(ClassLabels):
    """Uniformly smoothed."""

    def __init__(self, num_classes: int, *, amount: float, convention: str) -> None:
        """
        Args:
            amount: delta in [0, 1]; 0 is the hard label. 0.01 in the code that OLS builds on, 0.1 as in classification.
            convention: "all", delta / K for every class (that code); "k-1", delta / (K - 1) for the wrong ones.
        """
        super().__init__(num_classes)
        self.amount = check_range("CLASS_LABELS.LS.amount", amount, 0, 1)
        self.convention = check_choice("CLASS_LABELS.LS.convention", convention, CONVENTIONS)
        if convention == "k-1" and num_classes < 2:
            raise InputError("CLASS_LABELS.LS.convention: 'k-1' needs at least 2 classes; use 'all'")

    def _targets(self, labels: Tensor) -> Tensor:
        return smooth_labels(labels, self.num_classes, self.amount, self.convention)


@CLASS_LABELS.register()
class OLS(ClassLabels):
    """w onehot + (1 - w) S[label], S[k] the mean prediction at the positives of class k that were right last epoch.

    NOTE: the paper does not say how sigmoids make a distribution; see `form`.
    """

    soft: Tensor
    total: Tensor
    count: Tensor
    local_total: Tensor
    local_count: Tensor

    def __init__(self, num_classes: int, *, hard_weight: float, form: str, empty: str) -> None:
        """
        Args:
            hard_weight: w in [0, 1]; 1 is the hard label, 0.5 the paper's in classification.
            form: the prediction that is averaged: "softmax" of the class logits, or "sigmoid", divided by their sum.
            empty: soft label of a class that had no right prediction: "uniform" (paper), or "keep" the last one.
        """
        super().__init__(num_classes)
        self.hard_weight = check_range("CLASS_LABELS.OLS.hard_weight", hard_weight, 0, 1)
        self.form = check_choice("CLASS_LABELS.OLS.form", form, FORMS)
        self.empty = check_choice("CLASS_LABELS.OLS.empty", empty, ("uniform", "keep"))
        # Row k of `soft` is the label of class k.  Buffers, so that a resumed run goes on from the same labels.
        # The local ones hold this process's sums: never broadcast them between processes.
        square = torch.zeros(num_classes, num_classes)
        self.register_buffer("soft", torch.full_like(square, 1 / num_classes))
        self.register_buffer("total", square.clone())
        self.register_buffer("count", square[0].clone())
        self.register_buffer("local_total", square.clone())
        self.register_buffer("local_count", square[0].clone())

    def _targets(self, labels: Tensor) -> Tensor:
        return table_targets(labels, self.soft, self.hard_weight)

    @torch.no_grad()
    def observe(self, logits: Tensor, labels: Tensor) -> None:
        own = labels.clamp(min=0)
        p, right = right_predictions(logits, own)
        if self.form == "sigmoid":
            p = sigmoid_distribution(logits)
        right = right & (labels >= 0)
        # Zeros instead of a selection of rows: nothing waits for the device.  0 times NaN is not 0, so NaN goes first.
        seen = (p.nan_to_num(nan=0.0) * right[:, None]).to(self.local_total)
        self.local_total.index_add_(0, own, seen)
        self.local_count.index_add_(0, own, right.to(seen))

    def gather(self) -> None:
        all_reduce_sum(self.local_total, self.local_count)
        self.total += self.local_total
        self.count += self.local_count
        self.local_total.zero_()
        self.local_count.zero_()

    def end_period(self) -> None:
        self.gather()
        unseen = torch.full_like(self.soft, 1 / self.num_classes) if self.empty == "uniform" else self.soft
        self.soft.copy_(mean_predictions(self.total, self.count, unseen))
        self.total.zero_()
        self.count.zero_()


def sigmoid_distribution(logits: Tensor) -> Tensor:
    """Sigmoids divided by their sum, (n, K): the distribution of independent classifiers."""
    # As a softmax of their logarithms: all of them may be too small for a sum.
    return nn.functional.logsigmoid(full_precision(logits)).softmax(dim=1)
