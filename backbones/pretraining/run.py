"""Pretraining of a classifier, from a validated config to a run folder with a backbone."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones import __version__
from backbones.config import ROLES, idle_settings
from backbones.core import distributed
from backbones.core.arguments import KEEP_ALL, KEEP_WEIGHTS
from backbones.core.checkpoint import OPTIMIZER, load_checkpoint, load_state, refuse_unfinished, save_checkpoint
from backbones.core.choices import EPOCH, TEMPERATURE, choice, chosen_on
from backbones.core.config import CfgNode, config_hash, expand_path, flatten, load_yaml
from backbones.core.engine import check_precision, seed_step, train
from backbones.core.errors import InputError
from backbones.core.imports import describe_imports
from backbones.core.meters import Meters
from backbones.core.results import make_results, save_results
from backbones.core.roles import FREE, TEST
from backbones.core.run_log import MetricsWriter, get_logger, hold_log
from backbones.core.runs import CONFIG_FILE, check_resume, open_run
from backbones.core.stopping import note_saved
from backbones.core.warning_counter import WarningCounter
from backbones.data.noise import save_noise
from backbones.data.samples import Samples
from backbones.measuring.predictions import Predictions, predict
from backbones.models.weights import identity, load_backbone, save_backbone
from backbones.pretraining.best_epoch import Validation, ValidationHook, fitted_metrics
from backbones.pretraining.building import (
    build_batches,
    build_context,
    build_evaluation_batches,
    build_learning_rate,
    build_method,
    build_samples,
    build_solver,
    build_task,
    build_teacher,
    iterations_per_epoch,
    method_name,
)
from backbones.pretraining.description import content_hash, describe_input, describe_protocol
from backbones.pretraining.task import MethodHook
from backbones.pretraining.teacher import CachedTeacher, OnlineTeacher
from backbones.pretraining.temperature_origin import KEY, restore_origin, temperature_origin

CHECKPOINT = "checkpoint.pth"
BACKBONE, BEST = "backbone.pth", "best.pth"
# Can change on resuming: the checkpoint holds the weights of both epochs.
_REPORT = "EVAL.REPORT"


def pretrain(cfg: CfgNode, run_dir: Path, *, resume: bool, keep: str = KEEP_ALL) -> dict[str, Any]:
    """Train with `cfg`; write checkpoint.pth, backbone.pth and results.json into `run_dir`, and return the results.

    The files of a resumed run are not changed before all checks have passed.

    Args:
        keep: what the last checkpoint holds (backbones/core/arguments.py).
    """
    device = distributed.setup_distributed()
    hold_log()
    if resume:
        check_resume(run_dir, cfg, ROLES, (*FREE, TEST), keys=(_REPORT,))
    for key in idle_settings(cfg):
        get_logger().warning("%s has no effect: METHOD.NAME is %s", key, cfg.METHOD.NAME)
    check_precision(cfg.PRECISION, device)
    seed_step(cfg.SEED, -1)
    warnings = WarningCounter()
    samples = build_samples(cfg, cfg.DATA.TRAIN_SPLIT, warnings, training=True)
    val = build_samples(cfg, cfg.DATA.VAL_SPLIT, warnings)
    if cfg.DATA.SHIFTED_SPLIT:  # used only after training; read here so that a wrong name fails early
        build_samples(cfg, cfg.DATA.SHIFTED_SPLIT, warnings)
    warnings.log(get_logger())
    pretraining = Pretraining(cfg, run_dir, device, samples, val, keep)
    pretraining.fit(resume=resume)
    return pretraining.finish(warnings)


class Pretraining:
    """One training, and the files it writes to `run_dir`.

    Args:
        samples, val: the training split and the validation split.
        keep: what the last checkpoint holds.
    """

    def __init__(
        self, cfg: CfgNode, run_dir: Path, device: torch.device, samples: Samples, val: Samples, keep: str = KEEP_ALL
    ) -> None:
        self.cfg, self.run_dir, self.device, self.samples, self.val = cfg, run_dir, device, samples, val
        self.keep = keep
        self.epoch = iterations_per_epoch(cfg, samples)
        self.stop = cfg.SOLVER.MAX_EPOCH * self.epoch
        self.method = build_method(cfg, len(samples.classes)).to(device)
        self.teacher = build_teacher(cfg, samples, device)
        # Hash of the initial weights; empty for random ones.
        self.start = load_backbone(expand_path(cfg.MODEL.WEIGHTS)).hash if cfg.MODEL.WEIGHTS else ""
        self.optimizer, self.meters = build_solver(cfg, self.method), Meters()
        seen = {key: cfg.DATA[key] for key in ("EVAL_RESIZE", "EVAL_CROP", "EVAL_STRETCH")}
        self.validation = Validation(
            self.method.model,
            partial(measure, cfg, self.method.model, val, device),
            period=cfg.EVAL.PERIOD,
            epoch=self.epoch,
            stop=self.stop,
            measured=config_hash(seen | {"fingerprint": val.fingerprint}),
        )
        fits = self.method.fits_temperature
        self.origin = temperature_origin(cfg, self.teacher, self.validation.measured) if fits else {}

    def fit(self, *, resume: bool) -> None:
        """Train; with `resume`, start from the checkpoint in the run folder, if it exists."""
        cfg, method, teacher = self.cfg, self.method, self.teacher
        resumed = resume and (self.run_dir / CHECKPOINT).exists()
        method.setup(build_context(cfg, self.samples, self.val, teacher, resumed=resumed))
        start = self._restore() if resume else 0
        open_run(self.run_dir, cfg)  # a refused call leaves no folder, and a run that it cannot resume as it is
        if distributed.is_main():
            save_noise(self.run_dir, self.samples)
        batches = build_batches(cfg, self.samples, method, start, self.stop)
        online = teacher if isinstance(teacher, OnlineTeacher) else None
        get_logger().info("%s: iterations %d to %d on %s", cfg.METHOD.NAME, start, self.stop, self.device)
        hook = MethodHook(method, self.epoch, self.stop)
        hook.begin(start)
        with MetricsWriter(self.run_dir, start) as writer:
            train(
                distributed.wrap_ddp(build_task(cfg, method, online, self.device), self.device),
                teacher.fill(batches) if isinstance(teacher, CachedTeacher) else batches,
                self.optimizer,
                build_learning_rate(cfg, self.epoch),
                start=start,
                stop=self.stop,
                seed=cfg.SEED,
                precision=cfg.PRECISION,
                clip_norm=cfg.SOLVER.CLIP_NORM,
                log_period=cfg.LOG_PERIOD,
                checkpoint_period=max(round(cfg.SOLVER.CHECKPOINT_PERIOD * self.epoch), 1),
                save=self._save,
                writer=writer,
                device=self.device,
                hooks=[hook, ValidationHook(self.validation, writer)],  # validates last: a signal can cut it off
                meters=self.meters,
            )
        if distributed.world_size() > 1:  # each process has its own batch statistics: measure with the saved ones
            self._restore()

    def finish(self, warnings: WarningCounter) -> dict[str, Any]:
        """Measure the reported epoch on the validation split; write backbone.pth, best.pth and results.json."""
        cfg, validation = self.cfg, self.validation
        if cfg.EVAL.REPORT == "best":
            validation.restore()
        predictions = measure(cfg, self.method.model, self.val, self.device)
        metrics = {"top1": predictions.top1(), "nll": predictions.nll()} | fitted_metrics(predictions)
        details: dict[str, Any] = {"reported_epoch": cfg.EVAL.REPORT, "classes": self.samples.classes}
        details |= {"choices": self._choices(), **describe_imports(cfg)}
        details["chosen_on_measured"] = chosen_on(details["choices"], [cfg.DATA.VAL_SPLIT])
        if self.teacher:
            details["teacher"] = self.teacher.hash
        files = {"backbone": BACKBONE, "checkpoint": CHECKPOINT, "metrics": "metrics.jsonl"}
        results: dict[str, Any] = {}
        if distributed.is_main():
            self._save_backbone(BACKBONE)
            if validation.period:
                validation.restore()
                self._save_backbone(BEST)
                metrics |= validation.metrics
                details |= {"best_epoch": validation.epoch}
                files |= {"best": BEST}
            results = make_results(
                "pretraining",
                identity(load_backbone(self.run_dir)),
                describe_protocol(cfg, self.samples.source, self.start),
                metrics,
                data={
                    split.split: {"name": split.name, "images": len(split.labels), "fingerprint": split.fingerprint}
                    for split in (self.samples, self.val)
                },
                details=details,
                warnings=warnings.as_list(),
                files=files,
            )
            save_results(self.run_dir, results)
        distributed.barrier()
        return results

    def _choices(self) -> list[dict[str, str]]:
        """Return what this training chose by validation, and on which split."""
        cfg, found = self.cfg, []
        if cfg.EVAL.REPORT == "best":
            found.append(choice(EPOCH, cfg.DATA.VAL_SPLIT))
        if self.origin:
            found.append(choice(TEMPERATURE, self.origin["split"]))
        return found

    def _save(self, finished: int) -> None:
        if isinstance(self.teacher, OnlineTeacher):
            self.teacher.refuse_not_finite()
        self.method.gather()
        self.meters.gather(self.device)
        further = {KEY: self.origin} if self.origin else {}
        if finished < self.stop or self.keep != KEEP_WEIGHTS:
            further[OPTIMIZER] = self.optimizer.state_dict()
        if distributed.is_main():
            save_checkpoint(
                self.run_dir / CHECKPOINT,
                iteration=finished,
                data=self.samples.fingerprint,
                teacher=self._teacher_identity(),
                start=self.start,
                method=self.method.state_dict(),
                validation=self.validation.state_dict(),
                meters=self.meters.state_dict(),
                **further,
            )
        distributed.barrier()
        note_saved(finished, self.stop)

    def _restore(self) -> int:
        """Load the checkpoint, if it exists; return the number of finished iterations."""
        path = self.run_dir / CHECKPOINT
        if not path.exists():
            get_logger().info("no checkpoint yet in %s: starting from the beginning", self.run_dir)
            return 0
        state = load_checkpoint(path)
        load_state(self.method, state["method"], where=path)
        if state["data"] != self.samples.fingerprint:
            raise InputError(
                f"{path} was trained on data of fingerprint {state['data']}, DATA.ROOT now holds "
                f"{self.samples.fingerprint}; restore the data, or start in another folder"
            )
        if state.get("teacher", "") != self._teacher_identity():
            raise InputError(
                f"cannot resume {path}: its teacher was {state.get('teacher') or 'none'} and is now "
                f"{self._teacher_identity() or 'none'}; restore the teacher or its cache, or start in another folder"
            )
        if state.get("start", self._start_of_earlier_version()) != self.start:
            raise InputError(
                f"cannot resume {path}: MODEL.WEIGHTS holds {self.start or 'nothing'}, it started from "
                f"{state.get('start', 'another file') or 'nothing'}; restore the file, or start in another folder"
            )
        self.origin = restore_origin(self.cfg, state, self.origin, path)
        self.validation.load_state_dict(state.get("validation", {}))
        refuse_unfinished(state, path, finished=state["iteration"] >= self.stop)
        if OPTIMIZER in state:
            self.optimizer.load_state_dict(state[OPTIMIZER])
        self.meters.load_state_dict(state.get("meters", {}))
        note_saved(state["iteration"], self.stop)
        return state["iteration"]

    def _start_of_earlier_version(self) -> str:
        """Return the start weights of a checkpoint that does not record them; an equal path counts as equal weights."""
        path = self.run_dir / CONFIG_FILE
        before = dict(flatten(load_yaml(path))).get("MODEL.WEIGHTS", "") if path.exists() else self.cfg.MODEL.WEIGHTS
        return self.start if before == self.cfg.MODEL.WEIGHTS else "unknown"

    def _teacher_identity(self) -> str:
        return self.teacher.identity if self.teacher else ""

    def _save_backbone(self, name: str) -> None:
        cfg = self.cfg
        provenance = {
            "label": cfg.LABEL or method_name(cfg),
            "method": method_name(cfg),
            "seed": cfg.SEED,
            "config_hash": content_hash(cfg, self.start, self._teacher_identity()),
            "data_fingerprint": self.samples.fingerprint,
            "version": __version__,
        }
        spec = describe_input(cfg, self.method.model, self.samples.classes)
        save_backbone(self.run_dir / name, self.method.model, spec, provenance)


def measure(cfg: CfgNode, model: nn.Module, val: Samples, device: torch.device) -> Predictions:
    """Predict the validation split with the current network."""
    batches = build_evaluation_batches(cfg, val)
    return predict(model, batches, device, cfg.DATA.MEAN, cfg.DATA.STD, cfg.PRECISION, val.paths)
