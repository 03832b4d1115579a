"""Soft labels of the detector's class loss: the functions of pretraining, applied to the learned boxes.

YOLO's classes are independent sigmoids, trained with binary cross-entropy against a (K,) target: the one-hot label or
a soft one.  OLS: Zhang et al. 2021 (arXiv:2011.12562), Sec. IV-D; LS there is delta / K for every class.

Each kind of label has `targets(labels)`, `observe(logits, labels)` for the predictions at the positives, and
`end_period()`, called after every epoch.  Letters: n boxes or positives, K classes.
"""

from torch import Tensor, nn

from backbones.core.checks import check_choice, check_range
from backbones.core.errors import InputError
from backbones.core.registry import Registry
from backbones.methods.functional import CONVENTIONS, full_precision, one_hot, smooth_labels
from backbones.methods.tables import EMPTY, SoftLabelTable

CLASS_LABELS = Registry("class labels")  # name -> subclass of ClassLabels
FORMS = ("softmax", "sigmoid")


class ClassLabels(nn.Module):
    """Targets of the class loss; subclasses define `_targets`, the other hooks do nothing by default."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def targets(self, labels: Tensor) -> Tensor:
        """Return targets (..., K) of labels (...) int64; padding (-1) gets those of class 0, which no loss counts."""
        return self._targets(labels.clamp(min=0).flatten()).view(*labels.shape, self.num_classes)

    def _targets(self, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def observe(self, logits: Tensor, labels: Tensor) -> None:
        """Learn from the class logits (n, K) at positives with labels (n,) int64; -1 is not counted."""

    def gather(self) -> None:
        """Add up the sums of all processes; called on every process before a checkpoint."""

    def end_period(self) -> None:
        """End the period after an epoch; called on every process."""


@CLASS_LABELS.register()
class Hard(ClassLabels):
    """The one-hot label."""

    def _targets(self, labels: Tensor) -> Tensor:
        return one_hot(labels, self.num_classes)


@CLASS_LABELS.register()
class LS(ClassLabels):
    """The uniformly smoothed label."""

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
    """w onehot + (1 - w) S[label], S[k]: mean over last epoch's correct predictions at positives of class k.

    NOTE: the paper does not specify how sigmoids form a distribution; see `form`.
    """

    def __init__(self, num_classes: int, *, hard_weight: float, form: str, empty: str) -> None:
        """
        Args:
            hard_weight: w in [0, 1]; 1 is the hard label, the paper's classification uses 0.5.
            form: the averaged prediction: "softmax" of the class logits, or "sigmoid", sigmoids divided by their sum.
            empty: soft label of a class without correct predictions: "uniform" (paper), or "keep" the last one.
        """
        super().__init__(num_classes)
        self.hard_weight = check_range("CLASS_LABELS.OLS.hard_weight", hard_weight, 0, 1)
        check_choice("CLASS_LABELS.OLS.form", form, FORMS)
        check_choice("CLASS_LABELS.OLS.empty", empty, EMPTY)
        distribution = sigmoid_distribution if form == "sigmoid" else None
        self.table = SoftLabelTable(num_classes, empty=empty, distribution=distribution)
        # In a checkpoint, the tensors of the table have the names of the labels' own tensors.
        self.register_state_dict_post_hook(_leave_out_table)
        self.register_load_state_dict_pre_hook(_put_in_table)

    def _targets(self, labels: Tensor) -> Tensor:
        return self.table.targets(labels, self.hard_weight)

    def observe(self, logits: Tensor, labels: Tensor) -> None:
        self.table.observe(logits, labels.clamp(min=0), labels >= 0)

    def gather(self) -> None:
        self.table.gather()

    def end_period(self) -> None:
        self.table.end_period()


def _leave_out_table(labels: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Rename `table.soft` to `soft`, and so on."""
    for key in [key for key in state if key.startswith(f"{prefix}table.")]:
        state[prefix + key.removeprefix(f"{prefix}table.")] = state.pop(key)


def _put_in_table(labels: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Undo `_leave_out_table`."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}table.{key.removeprefix(prefix)}"] = state.pop(key)


def sigmoid_distribution(logits: Tensor) -> Tensor:
    """Return sigmoids divided by their sum, (n, K): the distribution of independent classifiers."""
    # As a softmax of their logarithms, because all of them can be too small for a sum.
    return nn.functional.logsigmoid(full_precision(logits)).softmax(dim=1)
