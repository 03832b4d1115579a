"""Evaluation of a detector during its training (TEST.EVAL_PERIOD), which changes nothing in it.

The metrics of the test set are written to metrics.jsonl every EVAL_PERIOD iterations, and those of the results at the
end.
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
from detection.data.records import DetectionData
from detection.engines.base import Detector
from detection.evaluation.evaluators import measure

FIRST = "AP"  # every evaluation has it


def evaluation_period(cfg: CfgNode) -> int:
    """Return TEST.EVAL_PERIOD; 0 for an engine without it."""
    return cfg.TEST.EVAL_PERIOD if "EVAL_PERIOD" in cfg.TEST else 0


class EvaluationHook:
    """Hook of the training loop: evaluates every TEST.EVAL_PERIOD iterations, except after the last one.

    Args:
        train: the training data, for TEST.PRECISE_BN.
    """

    def __init__(self, detector: Detector, train: DetectionData, test: DetectionData, writer: MetricsWriter) -> None:
        self.detector, self.train, self.test, self.writer = detector, train, test, writer
        self.period, self.stop = evaluation_period(detector.cfg), detector.cfg.SOLVER.MAX_ITER

    def after_step(self, finished: int) -> None:
        """Evaluate if due; called on every process."""
        if finished % self.period or finished >= self.stop:
            return
        metrics = self.evaluate()
        if is_main():
            get_logger().info("iteration %d: AP %.4f on %s", finished, metrics[FIRST], self.test.name)
        self.writer.write(finished - 1, **finite(metrics))

    def catch_up(self, start: int) -> None:
        """Evaluate in a resumed training what a signal has cut off."""
        if FIRST not in self.writer.last:
            self.after_step(start)

    def evaluate(self) -> dict[str, float]:
        """Return the metrics that the run would have if it ended now; {} on other processes than the main one."""
        detector, test = self.detector, self.detector.cfg.TEST
        precise = test.get("PRECISE_BN")
        with unchanged(detector):
            if precise and precise.ENABLED:
                detector.measure_norms(self.train)
            broadcast(*detector.model.buffers())  # each process has its own statistics; those of the main one are saved
            found = detector.detect(self.test)
        if not is_main():
            return {}
        with tempfile.TemporaryDirectory() as folder:
            return measure(self.test, found, test.AP_SCORE_THRESH, Path(folder) / MATCHES_FILE).metrics


def write_last(run_dir: Path, cfg: CfgNode, metrics: Mapping[str, float | None]) -> None:
    """Add the metrics of the results to metrics.jsonl, once; called on every process."""
    if not evaluation_period(cfg):
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
