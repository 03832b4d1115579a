"""Validation during training, and the best epoch that it found.

Maher & Kull 2021, Sec. IV, report the epoch with the lowest validation cross-entropy; others report the last one.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from backbones.core.distributed import broadcast
from backbones.core.errors import InputError
from backbones.core.run_log import MetricsWriter, get_logger
from backbones.measuring.calibration import fit_temperature, log_softmax, nll
from backbones.measuring.predictions import Predictions


class Validation:
    """The validations of one training, and the weights of its best epoch.

    Their state, weights included, is part of the checkpoint, so that a killed run that is resumed finds the same best
    epoch, whatever was validated after that checkpoint.

    Args:
        model: the network that is trained.
        measure: returns the network's predictions for the validation split, gathered on every process.
        period: epochs between two validations, 0 for none; the last iteration is always validated.
        epoch: number of iterations in one epoch.
        stop: number of iterations in the training.
        measured: identifies the validation images and their preprocessing; only epochs measured on the same are
            comparable.

    Attributes:
        metrics: `best_nll` and `best_top1` so far.
        epoch: the epoch they belong to, counted from 1; 0 before the first validation.
        weights: the network's weights after that epoch, on the CPU.
        finished: number of iterations before the last validation; 0 before the first one.
    """

    def __init__(
        self,
        model: nn.Module,
        measure: Callable[[], Predictions],
        *,
        period: int,
        epoch: int,
        stop: int,
        measured: str = "",
    ) -> None:
        self.model, self.measure, self.period, self.measured = model, measure, period, measured
        self.iterations, self.stop = epoch, stop
        self.metrics: dict[str, float] = {"best_nll": math.inf, "best_top1": math.nan}
        self.epoch = self.finished = 0
        self.weights: dict[str, Tensor] = {}

    def is_due(self, finished: int) -> bool:
        """Whether to validate after `finished` iterations."""
        return bool(self.period) and (finished % (self.period * self.iterations) == 0 or finished == self.stop)

    def validate(self, finished: int) -> dict[str, float]:
        """Measure the network after `finished` iterations, and keep it if it is the best; every process calls it.

        Returns:
            `val_nll` and `val_top1`.
        """
        self.finished = finished
        # Every process has its own batch statistics; those of the main process are saved.
        broadcast(*self.model.buffers())
        predictions = self.measure()
        value, top1 = predictions.nll(), predictions.top1()
        epoch = finished // self.iterations
        get_logger().info("epoch %d: validation nll %.4f, top-1 %.4f", epoch, value, top1)
        best = self.metrics["best_nll"]
        if not self.weights or math.isnan(best) or value < best:  # the first of equal epochs
            self.metrics, self.epoch = {"best_nll": value, "best_top1": top1}, epoch
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return {"val_nll": value, "val_top1": top1}

    def restore(self) -> None:
        """Load the best weights into the network."""
        self.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain types; empty without validations."""
        if not self.period:
            return {}
        best = {"metrics": self.metrics, "epoch": self.epoch, "weights": self.weights}
        return {"period": self.period, "measured": self.measured, "finished": self.finished} | best

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state`.

        Raises:
            InputError: it was written with another period, or validated on other images.
        """
        if state.get("period", 0) != self.period:
            raise InputError(
                f"cannot resume: EVAL.PERIOD was {state.get('period', 0)} and is now {self.period}; set it back, or "
                "start in another folder"
            )
        if state.get("measured", self.measured) != self.measured:
            raise InputError(
                "cannot resume: the epochs so far were validated on other images (DATA.VAL_SPLIT, DATA.EVAL_*) and are "
                "not comparable with the next ones; set the keys back, or start in another folder"
            )
        if state:
            self.metrics, self.epoch, self.weights = dict(state["metrics"]), state["epoch"], dict(state["weights"])
            self.finished = state.get("finished", -1)  # -1: unknown, of an earlier checkpoint


class ValidationHook:
    """Hook of the training loop: validates when due and writes the metrics to metrics.jsonl."""

    def __init__(self, validation: Validation, writer: MetricsWriter) -> None:
        self.validation, self.writer = validation, writer

    def after_step(self, finished: int) -> None:
        """Measure after every `period` epochs and after the last iteration; keep the weights of the best epoch."""
        if self.validation.is_due(finished):
            self.writer.write(finished - 1, **self.validation.validate(finished))

    def catch_up(self, start: int) -> bool:
        """Validate in a resumed training what a signal has cut off, or what its checkpoint does not choose from yet."""
        written = "val_nll" in self.writer.last
        if not self.validation.is_due(start) or (written and self.validation.finished in (-1, start)):
            return False
        if written:  # by a run that was killed before its next checkpoint
            self.validation.validate(start)
        else:
            self.after_step(start)
        return True


def fitted_metrics(predictions: Predictions) -> dict[str, float]:
    """Return `temperature_fitted` and the resulting `nll_fitted`, both fitted and measured on all samples.

    Used to choose among trainings, as in the rows "+TempS" of Maher & Kull 2021.  The reported NLL of a backbone after
    scaling is `nll_scaled` (calibration.scaled_metrics), which is measured on held-out samples.  NaN if the unscaled
    NLL is not finite.
    """
    if not math.isfinite(predictions.nll()):
        return {"nll_fitted": math.nan, "temperature_fitted": math.nan}
    temperature = fit_temperature(predictions.logits, predictions.labels)
    scaled = log_softmax(predictions.logits / temperature)
    return {"nll_fitted": nll(scaled, predictions.labels), "temperature_fitted": temperature}
