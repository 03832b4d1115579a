"""Hard labels, uniform label smoothing, and smoothing towards similar classes.

cLS: after Liu & JaJa 2021, which Maher & Kull 2021 compare with (Table III).  Letters: B batch, K classes, D pixels.
"""

import torch
from torch import Tensor, nn

from backbones.core.distributed import all_reduce_sum
from backbones.core.errors import InputError
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Context, Method
from backbones.methods.functional import CONVENTIONS, similarity_table, smooth_labels, table_targets


@METHODS.register()
class CE(Method):
    """Hard labels: y is one-hot."""


@METHODS.register()
class LS(Method):
    """Label smoothing by the same amount for every sample (functional.smooth_labels)."""

    def __init__(self, model: nn.Module, num_classes: int, *, amount: float = 0.1, convention: str = "all") -> None:
        """
        Args:
            amount: smoothed mass in [0, 1]; 0 is CE.
            convention: "all" spreads the mass over all K classes (ILS, OLS, torch), "k-1" over the wrong classes (ALS).
        """
        super().__init__(model, num_classes)
        self.amount = self.check_range("amount", amount, 0, 1)
        self.convention = self.check_choice("convention", convention, CONVENTIONS)

    def targets(self, batch: Batch) -> Tensor:
        return smooth_labels(batch.labels, self.num_classes, self.amount, self.convention, self.target_dtype)


@METHODS.register()
class ClassSimilarityLS(Method):
    """Label smoothing towards similar classes (cLS), by the distance between the mean images of the classes.

    NOTE: the weights, functional.similarity_table, are ours; Maher & Kull name only the distance, and their code gives
    more mass to less similar classes.
    """

    table: Tensor

    def __init__(self, model: nn.Module, num_classes: int, *, amount: float = 0.1, temperature: float = 1.0) -> None:
        """
        Args:
            amount: smoothed mass in [0, 1]; 0 is CE.
            temperature: in units of the mean distance between classes, above 0; high is LS with "k-1", low gives all
                the mass to the nearest class.
        """
        super().__init__(model, num_classes)
        self.amount = self.check_range("amount", amount, 0, 1)
        self.temperature = self.check_positive("temperature", temperature)
        uniform = similarity_table(torch.zeros(num_classes, 1), float("inf"))
        self.register_buffer("table", uniform.to(self.target_dtype))  # replaced in `setup`

    def targets(self, batch: Batch) -> Tensor:
        return table_targets(batch.labels, self.table, 1 - self.amount)

    def setup(self, context: Context) -> None:
        if context.resumed or context.unaugmented is None:
            return
        sums, counts = torch.zeros(0), self.table.new_zeros(self.num_classes)
        for batch in context.unaugmented():
            images = batch.images.to(self.table).flatten(1)
            if not len(sums):
                sums = self.table.new_zeros(self.num_classes, images.shape[1])
            labels = batch.labels.to(sums.device)
            sums.index_add_(0, labels, images)
            counts.index_add_(0, labels, torch.ones_like(labels).to(counts))
        all_reduce_sum(sums, counts)
        if not counts.all():
            raise InputError("METHOD.NAME ClassSimilarityLS: a class has no training image, and so no mean image")
        self.table.copy_(similarity_table(sums / counts[:, None], self.temperature))
