"""Build YOLO from its config and a backbone file, accounting for every tensor, and the task that trains it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.checks import check_choice
from backbones.core.config import CfgNode
from backbones.core.distributed import world_size
from backbones.core.engine import Step
from backbones.core.errors import InputError
from backbones.models import build_model
from backbones.models.base import build_norm
from backbones.models.weights import BackboneFile
from detection.engines.torchvision.building import freeze_norms
from detection.engines.yolo.anchors import check_anchors
from detection.engines.yolo.config import label_settings
from detection.engines.yolo.data import YoloBatch
from detection.engines.yolo.labels import CLASS_LABELS, ClassLabels
from detection.engines.yolo.loss import YOLOLoss
from detection.engines.yolo.network import YOLO, measure_features
from detection.exchange.loading import LoadReport, split_dropped
from detection.exchange.proof import prove_features

NORMS = ("BN", "FrozenBN", "SyncBN", "GN")
PROOF_SIDE = 64  # side in pixels of the images for which both networks must give the same features
PIXEL_TOLERANCE = 0.05  # grey levels of 255: allows for rounding, not for the mean of another data set


def build_yolo(model: CfgNode, backbone: BackboneFile | None, *, trained: bool = False) -> tuple[YOLO, LoadReport]:
    """Build the detector with the backbone's weights, or random ones; also return the account of what was loaded.

    Args:
        model: MODEL of the config.
            ARCH: name in MODELS.
            ANCHORS: three lists of (width, height), in units of the strides 8, 16, 32.
            NECK_WIDTH: channels of the neck at stride 32; half as many at 16, a quarter at 8.
            NORM: "BN", "FrozenBN" (the backbone's statistics; the neck has BN), "SyncBN" or "GN".
            FREEZE_AT: stages that do not train: 0 none, 1 stem, 2 + res2, ... 5 + res5.
            PIXEL_MEAN, PIXEL_STD: 0..255, RGB; compared with the backbone's.  NUM_CLASSES.
        backbone: None for random initialisation.
        trained: weights of a checkpoint will replace the random ones, which any setting allows.
    """
    check_anchors(model.ANCHORS)
    if not trained:
        check_backbone(model, backbone)
    norm = "GN" if model.NORM == "GN" else "BN"
    body: Any = build_model(model.ARCH, num_classes=2, norm=norm)
    del body.fc
    channels = measure_features(body, model.ARCH)
    report = LoadReport() if backbone is None else load_body(body, backbone)
    freeze(body, model.FREEZE_AT, norms=model.NORM == "FrozenBN")
    widths = [max(1, model.NECK_WIDTH // ratio) for ratio in (4, 2, 1)]
    network: Any = YOLO(body, channels, widths, model.NUM_CLASSES, model.ANCHORS, build_norm(norm))
    report.loaded = [f"backbone.{name}" for name in report.loaded]
    report.new = sorted(set(network.state_dict()) - set(report.loaded))
    if model.NORM == "SyncBN" and world_size() > 1 and not torch.cuda.is_available():
        raise InputError("MODEL.NORM: SyncBN: synchronises GPUs only; with several processes on the CPU use BN or GN")
    if model.NORM == "SyncBN":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network, report


def load_body(body: nn.Module, backbone: BackboneFile) -> LoadReport:
    """Load all weights of the file except the classifier's into a network without `fc`, and compare each afterwards.

    The proof: the features equal those of the classifier built from the file alone.

    Raises:
        InputError: a tensor that is missing, unexpected, or of another shape; features that differ.
    """
    wanted, dropped = split_dropped(backbone.state)
    own = body.state_dict()
    counters = [name for name in own if name.endswith("num_batches_tracked")]
    for what, names in (
        ("lacks", own.keys() - wanted.keys() - set(counters)),
        ("has a tensor without a place in the detector,", wanted.keys() - own.keys()),
        ("has another shape of", {k for k in wanted.keys() & own.keys() if wanted[k].shape != own[k].shape}),
    ):
        if names:
            raise InputError(f"backbone {backbone.hash} {what} {min(names)} ({len(names)} such); pretrain it again")
    body.load_state_dict(wanted, strict=False)
    wrong = [name for name, tensor in body.state_dict().items() if name in wanted and not tensor.equal(wanted[name])]
    if wrong:
        raise InputError(f"after loading backbone {backbone.hash}, the detector holds other values in {wrong[0]}")
    random = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, PROOF_SIDE, PROOF_SIDE, generator=random)
    training = body.training
    proof = prove_features(backbone.build().stages, body.eval().stages, images)  # type: ignore[operator]
    body.train(training)
    return LoadReport(sorted(wanted), sorted(dropped), sorted(counters), proof)


def freeze(body: Any, stages: int, *, norms: bool) -> None:
    """Freeze the first `stages` stages, stem included; with `norms` also batch norm statistics everywhere."""
    for stage in frozen_stages(body, stages).values():
        stage.requires_grad_(False)
    freeze_norms(body, everywhere=norms)


def frozen_stages(body: Any, freeze_at: int) -> dict[str, nn.Module]:
    """Return the stages that MODEL.FREEZE_AT freezes, by name: stem, res2 ... res5."""
    children = dict(body.named_children())
    later = {id(stage) for stage in body.stage_modules()} | {id(children.get("body"))}
    stem = nn.ModuleList(child for child in children.values() if id(child) not in later)
    stages = {"stem": stem, **{f"res{number}": stage for number, stage in enumerate(body.stage_modules(), start=2)}}
    return dict(list(stages.items())[:freeze_at])


def check_backbone(model: Mapping[str, Any], backbone: BackboneFile | None) -> None:
    """Refuse settings with other input normalisation or another network than those of the backbone."""
    norm = model["NORM"]
    check_choice("MODEL.NORM", norm, NORMS)
    if backbone is None:
        if norm == "FrozenBN":
            raise InputError("MODEL.NORM FrozenBN on random weights never normalises; use BN, SyncBN or GN")
        if model["FREEZE_AT"] > 0:
            raise InputError(
                f"MODEL.FREEZE_AT {model['FREEZE_AT']} on random weights leaves stages random; set it to 0"
            )
        return
    spec = backbone.spec
    if model["ARCH"] != spec["arch"]:
        raise InputError(
            f"MODEL.ARCH is {model['ARCH']}, the backbone is {spec['arch']}; set MODEL.ARCH {spec['arch']}"
        )
    if (norm == "GN") != (spec["norm"] == "GN"):
        raise InputError(
            f"MODEL.NORM is {norm}, the backbone was trained with {spec['norm']}; "
            f"set it to {'GN' if spec['norm'] == 'GN' else 'BN, FrozenBN or SyncBN'}"
        )
    if spec["channel_order"] != "RGB":
        raise InputError(f"the backbone was trained on {spec['channel_order']}; YOLO here reads RGB, pretrain it so")
    if spec["stride_in_1x1"]:
        raise InputError(
            "the backbone strides in its first 1x1 convolutions; YOLO's ResNets in the 3x3, pretrain it so"
        )
    for key, known in (("PIXEL_MEAN", spec["mean"]), ("PIXEL_STD", spec["std"])):
        scaled = [value * 255.0 / spec["pixel_range"] for value in known]
        if len(model[key]) != 3 or any(abs(a - b) > PIXEL_TOLERANCE for a, b in zip(model[key], scaled, strict=True)):
            raise InputError(
                f"MODEL.{key} is {list(model[key])}, the backbone was trained with {[round(v, 3) for v in scaled]}; "
                "set it so"
            )


class YOLOTask(nn.Module):
    """The module that the loop trains: maps a YoloBatch to the sum of its losses; labels learn from its predictions.

    Args:
        mean, std: per channel, in 0..255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, loss: YOLOLoss, labels: ClassLabels, mean: list, std: list) -> None:
        super().__init__()
        self.model, self.loss, self.labels = model, loss, labels
        self.learns_labels = type(labels).observe is not ClassLabels.observe
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise (B, 3, S, S) uint8 to float32, as in the backbone's training."""
        return (images - self.mean) / self.std

    def forward(self, batch: YoloBatch) -> Step:
        maps, losses = self.losses(batch)
        if self.learns_labels:
            self.labels.observe(*self.loss.classified(maps, batch.boxes, batch.labels, batch.weights))
        return Step(torch.stack(list(losses.values())).sum(), losses)

    def losses(self, batch: YoloBatch) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the raw maps and the losses, from which the labels do not learn."""
        maps = self.model(self.normalise(batch.images))
        targets = self.labels.targets(batch.labels)
        return maps, self.loss(maps, batch.boxes, batch.labels, batch.weights, targets)


def build_task(cfg: CfgNode, model: nn.Module) -> YOLOTask:
    """Build the task: the network with its loss and its class labels."""
    loss = YOLOLoss(
        cfg.MODEL.ANCHORS,
        assign_iou=cfg.LOSS.POSITIVE_IOU,
        ignore_iou=cfg.LOSS.IGNORE_IOU,
        gamma=cfg.LOSS.FOCAL_GAMMA,
    )
    labels = CLASS_LABELS.get(cfg.CLASS_LABELS.NAME)(cfg.MODEL.NUM_CLASSES, **label_settings(cfg.CLASS_LABELS))
    return YOLOTask(model, loss, labels, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
