"""Training of a detector, from start or resumption to the last save, the same for every engine."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from backbones.core.arguments import KEEP_ALL, KEEP_WEIGHTS
from backbones.core.checkpoint import OPTIMIZER
from backbones.core.config import CfgNode
from backbones.core.distributed import broadcast, is_main
from backbones.core.files import save_json
from backbones.core.run_log import MetricsWriter, get_logger
from backbones.core.stopping import note_saved
from backbones.models.weights import BackboneFile
from detection.choice import evaluation_period
from detection.data.records import DetectionData
from detection.engines import build_engine
from detection.engines.base import Detections
from detection.training.best import FIELD, build_best, require_evaluated
from detection.training.checkpoint import CHECKPOINT, read_detector, restore_detector, save_detector
from detection.training.evaluating import EvaluationHook
from detection.training.frozen import FrozenStages
from detection.training.resuming import (
    CHOOSING_DATA,
    TEST_DATA,
    build_resume_key,
    refuse_other_settings,
    require_finished,
    warn_of_other_processes,
)

LOADING_FILE = "loading.json"


class Fitted(NamedTuple):
    """A finished training.

    detections: every detection on the test set, complete on every process.
    choice: `BestCheckpoint.choice` on the main process; {} without TEST.BEST.
    """

    detections: Detections
    choice: dict[str, Any]


def fit(
    cfg: CfgNode,
    backbone: BackboneFile | None,
    train: DetectionData,
    test: DetectionData,
    run_dir: Path,
    device: torch.device,
    *,
    val: DetectionData | None = None,
    resume: bool = False,
    eval_only: bool = False,
    keep: str = KEEP_ALL,
    begin: Callable[[], Path] | None = None,
) -> Fitted:
    """Train (or resume, or only load) and detect on `test`, with the last weights, or with TEST.BEST the best ones.

    Writes checkpoint.pth and metrics.jsonl into `run_dir`, and loading.json: the account of the loaded backbone, with
    the proof that frozen stages did not change.

    Args:
        val: the data of DATASETS.VAL.
        keep: what the last checkpoint holds (backbones/core/arguments.py).
        begin: called on every process after all checks and before anything is written; returns the folder of
            loading.json (default: `run_dir`).
    """
    run = Fitting(cfg, backbone, train, test, run_dir, device, val, keep)
    if resume or eval_only:
        run.restore(required=eval_only)
    if eval_only:
        require_finished(run.path, run.finished, cfg.SOLVER.MAX_ITER)
        if run.best:
            require_evaluated(run.path, run.best.evaluated, cfg.SOLVER.MAX_ITER)
    folder = begin() if begin else run_dir
    if not eval_only:  # only now, because a refused resumption must leave the run unchanged
        run.save_loading(folder)
        run.train()
    run.load_best()
    run.save_loading(folder, run.frozen.prove())
    return Fitted(run.detector.detect(test), run.best.choice if run.best else {})


class Fitting:
    """A detector with the state that its checkpoint holds.

    Attributes:
        finished: number of finished iterations.
    """

    def __init__(
        self,
        cfg: CfgNode,
        backbone: BackboneFile | None,
        train: DetectionData,
        test: DetectionData,
        run_dir: Path,
        device: torch.device,
        val: DetectionData | None = None,
        keep: str = KEEP_ALL,
    ) -> None:
        self.cfg, self.data, self.test, self.val, self.run_dir, self.keep = cfg, train, test, val, run_dir, keep
        engine = build_engine(cfg.ENGINE)
        torch.manual_seed(cfg.SEED)
        self.detector = engine.build(cfg, backbone, device)
        self.frozen = FrozenStages(self.detector.frozen)
        self.resume_key = build_resume_key(engine.weight_settings(cfg), train, backbone, test)
        self.best = build_best(cfg, engine.roles, val or test)
        if self.best:
            self.resume_key[CHOOSING_DATA] = val.fingerprint if val else TEST_DATA
        self.path, self.finished = run_dir / CHECKPOINT, 0

    def restore(self, *, required: bool) -> None:
        """Load the checkpoint; if it does not exist, start from the beginning, unless it is `required`."""
        if not required and not self.path.exists():
            return
        state = read_detector(self.path)
        refuse_other_settings(state["resume_key"], self.resume_key, self.path)
        if self.best:
            self.best.load_state_dict(state[FIELD])
        self.finished = state["iteration"]
        restore_detector(self.path, self.detector, state, finished=self.finished >= self.cfg.SOLVER.MAX_ITER)
        if self.finished < self.cfg.SOLVER.MAX_ITER:
            warn_of_other_processes(state)
        if not required:
            note_saved(self.finished, self.cfg.SOLVER.MAX_ITER)
        get_logger().info("resuming from iteration %d", self.finished)

    def save(self, finished: int) -> None:
        """Save the checkpoint after `finished` iterations; called on every process."""
        precise, ended = self.cfg.TEST.get("PRECISE_BN"), finished == self.cfg.SOLVER.MAX_ITER
        if ended and precise and precise.ENABLED and not self.ended:
            # Before the last checkpoint, so that a later detection with it uses the same statistics.
            self.detector.measure_norms(self.data)
        self.finished = finished
        self.detector.gather()
        without = (OPTIMIZER,) if ended and self.keep == KEEP_WEIGHTS else ()
        best = {FIELD: self.best.state_dict()} if self.best else {}
        save_detector(self.path, self.detector, finished, self.resume_key, self.test.categories, without, **best)
        note_saved(finished, self.cfg.SOLVER.MAX_ITER)

    @property
    def ended(self) -> bool:
        """Whether all iterations are finished, and the last checkpoint is written."""
        return self.finished == self.cfg.SOLVER.MAX_ITER

    def train(self) -> None:
        """Run iterations `finished` .. MAX_ITER - 1, and the evaluation of the last one if a signal has cut it off."""
        evaluates = evaluation_period(self.cfg) > 0
        if self.ended and not (evaluates and (self.val or self.best)):
            return
        begun = time.time()
        with MetricsWriter(self.run_dir, self.finished) as writer:
            hook = EvaluationHook(self.detector, self.data, self.test, writer, self.val, self.best)
            hook.measured = self.ended
            if self.ended and not hook.lacks(self.finished):
                return
            # Not named to an engine of one's own that has no such argument, unless the key is set.
            more = {"hooks": [hook]} if evaluates else {}
            self.detector.train(
                self.data, start=self.finished, save=self.save, writer=writer, run_dir=self.run_dir, **more
            )
        get_logger().info("trained in %.1f s", time.time() - begun)
        # Each process has its own BN statistics; all detect with those of the main process.
        broadcast(*self.detector.model.state_dict().values())

    def load_best(self) -> None:
        """Load the weights that give the results, if they are not the last ones; called on every process."""
        if not self.best:
            return
        model = self.detector.model
        if is_main():
            choice = self.best.choice
            line = "the results are those of iteration %d, counted from 0, with the highest %s, %.4f on %s"
            get_logger().info(line, choice["iteration"], choice["metric"], choice["value"], choice["data"])
            model.load_state_dict(dict(self.best.weights))
        broadcast(*model.state_dict().values())

    def save_loading(self, folder: Path, frozen: dict[str, Any] | None = None) -> None:
        """Write which tensors were loaded from the backbone, and which were not.

        Args:
            frozen: result of `FrozenStages.prove`, after the training.
        """
        report = self.detector.report
        if report and is_main():
            save_json(folder / LOADING_FILE, {**asdict(report), "counts": report.counts(), "frozen": frozen})
