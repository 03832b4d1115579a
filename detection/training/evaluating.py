"""Evaluation of a detector during its training (TEST.EVAL_PERIOD), which changes nothing in it.

The metrics are written to metrics.jsonl every EVAL_PERIOD iterations: of DATASETS.VAL as val_AP ..., with its loss as
val_loss ..., or without such a set those of the test set as AP ..., and those of the results at the end.
"""

import math
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from backbones.core.config import CfgNode
from backbones.core.distributed import broadcast, is_main
from backbones.core.matches import MATCHES_FILE
from backbones.core.run_log import MetricsWriter, get_logger
from detection.choice import evaluation_period, validation_name
from detection.data.records import DetectionData
from detection.engines.base import Detector
from detection.evaluation.evaluators import measure
from detection.training.best import BestCheckpoint
from detection.training.validation_loss import measure_losses

FIRST = "AP"  # every evaluation has it


VALIDATION = "val_"  # begins the names of the numbers of DATASETS.VAL


class EvaluationHook:
    """Hook of the training loop: evaluates every TEST.EVAL_PERIOD iterations.

    After the last one, only if the results do not have these numbers anyway: for a validation set, or to choose.

    Args:
        train: the training data, for TEST.PRECISE_BN.
        val: the validation set; None: the test set is evaluated.
        best: receives the weights; None: those of the last iteration give the results.

    Attributes:
        measured: whether the model holds its final statistics of precise batch norm already.
    """

    def __init__(
        self,
        detector: Detector,
        train: DetectionData,
        test: DetectionData,
        writer: MetricsWriter,
        val: DetectionData | None = None,
        best: BestCheckpoint | None = None,
    ) -> None:
        self.detector, self.train, self.writer, self.best = detector, train, writer, best
        self.data, self.prefix = (test, "") if val is None else (val, VALIDATION)
        self.period, self.stop = evaluation_period(detector.cfg), detector.cfg.SOLVER.MAX_ITER
        self.at_the_end, self.measured = bool(val or best), False

    def is_due(self, finished: int) -> bool:
        """Whether to evaluate after `finished` iterations."""
        return self.at_the_end if finished >= self.stop else finished % self.period == 0

    def after_step(self, finished: int, *, written: bool = False) -> None:
        """Evaluate if due; called on every process.

        Args:
            written: whether metrics.jsonl has the line already.
        """
        if not self.is_due(finished):
            return
        metrics = self.evaluate(finished)
        if is_main():
            get_logger().info("iteration %d: AP %.4f on %s", finished, metrics[FIRST], self.data.name)
        if not written:
            self.writer.write(finished - 1, **{self.prefix + name: value for name, value in finite(metrics).items()})

    def catch_up(self, start: int) -> bool:
        """Evaluate in a resumed training what a signal has cut off, or what its checkpoint does not choose from yet.

        A kill between an evaluation and the next checkpoint leaves the line, but not the weights that it would keep.
        """
        if not self.lacks(start):
            return False
        self.after_step(start, written=self.is_written())
        return True

    def lacks(self, start: int) -> bool:
        """Whether an evaluation after `start` iterations is due, and its line or its part in the choice is missing."""
        return self.is_due(start) and not (self.is_written() and (not self.best or self.best.evaluated == start - 1))

    def is_written(self) -> bool:
        """Whether the last line before this training is one of these evaluations."""
        return self.prefix + FIRST in self.writer.last

    def evaluate(self, finished: int = 0) -> dict[str, float]:
        """Return the metrics that the run would have if it ended now, and the losses of a validation set.

        On other processes than the main one, {}.  After `finished` iterations, offer the weights to `best`.
        """
        detector, test = self.detector, self.detector.cfg.TEST
        precise = test.get("PRECISE_BN")
        with unchanged(detector):
            if precise and precise.ENABLED and not self.measured:
                detector.measure_norms(self.train)
            broadcast(*detector.model.buffers())  # each process has its own statistics; those of the main one are saved
            found = detector.detect(self.data)
            losses = measure_losses(detector, self.data) if self.prefix else {}
            if not is_main():
                return {}
            with tempfile.TemporaryDirectory() as folder:
                metrics = measure(self.data, found, test.AP_SCORE_THRESH, Path(folder) / MATCHES_FILE).metrics
            if self.best:
                self.best.offer(finished - 1, metrics, detector.model)
        return metrics | losses


def write_last(run_dir: Path, cfg: CfgNode, metrics: Mapping[str, float | None]) -> None:
    """Add the metrics of the results on the test set to metrics.jsonl, once; called on every process."""
    if not evaluation_period(cfg) or validation_name(cfg):
        return
    stop = cfg.SOLVER.MAX_ITER
    with MetricsWriter(run_dir, stop) as writer:
        if FIRST not in writer.last:
            writer.write(stop - 1, **finite(metrics))


def finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Return the metrics that are defined, as JSON has no NaN."""
    return {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}


@contextmanager
def unchanged(detector: Detector) -> Iterator[None]:
    """Restore the detector's buffers, the modes of its modules and all random generators at the end."""
    modules = {*detector.task.modules(), *detector.model.modules()}
    modes = {module: module.training for module in modules}
    # With its object, which precise batch norm replaces.
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modules
        for name, buffer in module.named_buffers(recurse=False)
    ]
    python, old = random.getstate(), np.random.get_state()
    devices = [detector.device] if detector.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(old)
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                setattr(module, name, buffer.copy_(before))
        for module, mode in modes.items():
            module.training = mode
