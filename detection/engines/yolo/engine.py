"""One YOLO fine-tuning: from a validated config and a backbone to predictions, VOC and COCO numbers, results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.core.config import CfgNode, config_hash
from backbones.core.distributed import barrier, broadcast, is_main, setup_distributed
from backbones.core.results import BackboneIdentity
from backbones.core.run_log import get_logger, hold_log
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile, load_backbone
from detection.data.records import DetectionData
from detection.engines import save_loading
from detection.engines.finite import FiniteOutputs
from detection.engines.yolo.building import build_yolo, check_backbone, frozen_stages
from detection.engines.yolo.config import ROLES, are_hard, describe_protocol, label_name, label_settings, validate
from detection.engines.yolo.data import InferenceImages, Square, inference_batches
from detection.engines.yolo.inference import Rules, View, detect
from detection.engines.yolo.soft_labels import confusions, load_soft_labels
from detection.engines.yolo.training import Training, YOLOTask, build_task
from detection.finetune import RANDOM, load_both, name_backbone, save_detection
from detection.training.frozen import FrozenStages
from detection.training.gathering import gather_detections
from detection.training.resuming import require_finished
from detection.training.run_folder import RunFolder, check_folder, choose_folder


def load_checked(cfg: CfgNode, backbone: str) -> BackboneFile | None:
    """Check the config and the backbone that it is for; read no data.

    Args:
        backbone: a pretraining run's folder, a backbone file, or "random".
    """
    validate(cfg)
    file = None if backbone == RANDOM else load_backbone(backbone)
    check_backbone(cfg.MODEL, file)
    return file


def finetune(
    cfg: CfgNode, backbone: BackboneFile | None, run_dir: Path, *, resume: bool, eval_only: bool
) -> dict[str, Any]:
    """Train, detect, evaluate; write predictions.json, matches.npz and results.json; return the results.

    Args:
        backbone: of `load_checked`; None is random initialisation.
        run_dir: created, with its config and log, when nothing can be refused any more.
        resume: go on from the run's checkpoint, if there is one.
        eval_only: detect and evaluate with the finished run's checkpoint; `run_folder` says where its results go.
    """
    device = setup_distributed()
    hold_log()
    check_folder(run_dir, cfg, ROLES, resume=resume, eval_only=eval_only)
    warnings = WarningCounter()
    train, test = load_both(cfg.DATASETS, cfg.MODEL.NUM_CLASSES, "MODEL.NUM_CLASSES", warnings)
    place = choose_folder(run_dir, cfg, train, test, ROLES, resume=resume, eval_only=eval_only)
    torch.manual_seed(cfg.SEED)
    model, report = build_yolo(cfg.MODEL, backbone)
    task = build_task(cfg, model).to(device)
    get_logger().info("backbone: %s; class labels: %s", report.counts(), label_name(cfg.CLASS_LABELS))
    frozen = FrozenStages(frozen_stages(model.backbone, cfg.MODEL.FREEZE_AT))
    run = Training(cfg, backbone, train, task, run_dir, device, test)
    if resume or eval_only:
        run.restore(required=eval_only)
    if eval_only:
        require_finished(run.path, run.finished, cfg.SOLVER.MAX_ITER)
    folder = place.open()
    if is_main() and not eval_only:  # not before: a refused resumption leaves the run as it was
        save_loading(folder, report)
    if run.finished < cfg.SOLVER.MAX_ITER:
        run.train()
        broadcast(*task.state_dict().values())  # each process has its own BN statistics: all detect with the main's
    proof = frozen.prove()
    if is_main():
        save_loading(folder, report, proof)
    predictions = detect_all(cfg, task, test, device)
    results = save(cfg, backbone, train, test, predictions, place, warnings) if is_main() else {}
    barrier()
    return results


def save(
    cfg: CfgNode,
    backbone: BackboneFile | None,
    train: DetectionData,
    test: DetectionData,
    predictions: list[dict[str, Any]],
    place: RunFolder,
    warnings: WarningCounter,
) -> dict[str, Any]:
    """Evaluate the predictions and write what the run leaves."""
    details: dict[str, Any] = {"engine": "yolo", "seed": cfg.SEED}
    details["backbone_hash"] = name_backbone(cfg, backbone).hash  # of the weights alone
    details["class_labels"] = {"name": cfg.CLASS_LABELS.NAME, **label_settings(cfg.CLASS_LABELS)}
    if found := load_soft_labels(place.run):
        details["look_alikes"] = confusions(found)
    return save_detection(
        name_row(cfg, backbone),
        describe_protocol(cfg, train.fingerprint, test.fingerprint),
        train,
        test,
        predictions,
        place,
        warnings,
        score_threshold=cfg.TEST.AP_SCORE_THRESH,
        details=details,
    )


def name_row(cfg: CfgNode, backbone: BackboneFile | None) -> BackboneIdentity:
    """Whose result this is: the backbone with the class labels.

    With hard labels it is the backbone's own, and joins what else was measured of it; with others a row of its own.
    """
    own = name_backbone(cfg, backbone)
    label = f"{own.label}, {label_name(cfg.CLASS_LABELS)}"
    if are_hard(cfg.CLASS_LABELS):
        return BackboneIdentity(label, own.method, own.seed, own.hash)
    settings = config_hash({"name": cfg.CLASS_LABELS.NAME, **label_settings(cfg.CLASS_LABELS)})
    # Of one backbone, several detectors differ in their seed.
    seeded = f"{own.hash}-{settings}" if backbone is None else f"{own.hash}-{settings}-{cfg.SEED}"
    return BackboneIdentity(label, f"{own.method}+{cfg.CLASS_LABELS.NAME}", own.seed, seeded)


@torch.inference_mode()
def detect_all(cfg: CfgNode, task: YOLOTask, data: DetectionData, device: torch.device) -> list[dict[str, Any]]:
    """Every detection on `data` as COCO results, sorted by image; complete on every process."""
    task.eval()
    batches = inference_batches(
        InferenceImages(data.records, cfg.TEST.SIZES),
        batch_size=cfg.TEST.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=device.type == "cuda",
    )
    test = cfg.TEST
    rules = Rules(test.SCORE_THRESH, test.NMS_THRESH, test.DETECTIONS_PER_IMAGE, test.MAX_CANDIDATES, test.MULTI_LABEL)
    category_ids = [category["id"] for category in data.categories]
    mine = []
    with FiniteOutputs([task.model]) as finite:
        for indices, squares in batches:
            records = [data.records[index] for index in indices]
            views = build_views(task, squares, flip=test.FLIP, device=device)
            sizes = torch.tensor([[record.width, record.height] for record in records], device=device)
            outputs = detect(task.model, views, sizes, task.loss.anchors, task.loss.strides, rules)
            finite.check([str(record.path) for record in records])
            for record, output in zip(records, outputs, strict=True):
                mine.append((record.image_id, to_coco_results(record.image_id, output, category_ids)))
    return gather_detections(mine, data.records)


def build_views(task: YOLOTask, squares: list[Square], *, flip: bool, device: torch.device) -> list[View]:
    """One view for every size, and another for its mirror image."""
    views = []
    for square in squares:
        images = task.normalise(square.images.to(device, non_blocking=True))
        scale, offset = square.scale.to(device), square.offset.to(device)
        views.append(View(images, scale, offset))
        if flip:
            views.append(View(images.flip(3), scale, offset, flipped=True))
    return views


def to_coco_results(image_id: int, output: dict[str, Tensor], category_ids: list[int]) -> list[dict[str, Any]]:
    """COCO results of one image."""
    boxes = output["boxes"]
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    labels, scores = output["labels"].tolist(), output["scores"].tolist()
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, label, score in zip(sides, labels, scores, strict=True)
    ]
