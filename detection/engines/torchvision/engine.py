"""ENGINE torchvision: Faster R-CNN from the package index alone, trained by the project's own loop.

A resumed run equals an uninterrupted one bit for bit on the CPU: the order of images, flips and the
sampling of anchors are pure functions of (seed, iteration), and the checkpoint holds the rest.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead

from backbones.core.config import CfgNode
from backbones.core.engine import Step
from backbones.core.loading import GuardedLoader
from backbones.core.optimizer import build_optimizer
from backbones.core.run_log import get_logger
from backbones.core.stopping import until_signal
from backbones.models.weights import BackboneFile
from detection.data.loader import (
    DetectionBatch,
    InferenceImages,
    TrainingImages,
    inference_batches,
    trainable,
    training_batches,
    validation_batches,
)
from detection.data.records import DetectionData
from detection.engines.base import Detections, Detector
from detection.engines.faster_rcnn import FasterRCNNEngine
from detection.engines.finite import FiniteOutputs
from detection.engines.torchvision.building import build_detector, frozen_stages
from detection.engines.torchvision.faster_rcnn import BoxPredictor, FasterRCNN
from detection.engines.torchvision.keys import check_config
from detection.training.gathering import gather_detections
from detection.training.resuming import build_detector_schedule


class TorchvisionEngine(FasterRCNNEngine):
    """The torchvision engine; needs nothing beyond the project's own requirements."""

    def check_keys(self, cfg: CfgNode) -> None:
        check_config(cfg)

    def build(self, cfg: CfgNode, backbone: BackboneFile | None, device: torch.device) -> "TorchvisionDetector":
        model, report = build_detector(cfg.MODEL, cfg.TEST.DETECTIONS_PER_IMAGE, backbone)
        model.to(device)
        get_logger().info("backbone: %s", report.counts())
        return TorchvisionDetector(
            cfg=cfg,
            device=device,
            model=model,
            task=DetectionTask(model),
            optimizer=build_detector_optimizer(cfg.SOLVER, model),
            schedule=build_detector_schedule(cfg.SOLVER),
            report=report,
            frozen=frozen_stages(model.body, cfg.MODEL.BACKBONE.FREEZE_AT),
        )


ENGINE = TorchvisionEngine()


class TorchvisionDetector(Detector):
    """A `FasterRCNN`, trained by the project's loop."""

    def batches(self, data: DetectionData, start: int, stop: int) -> GuardedLoader[DetectionBatch]:
        cfg = self.cfg
        images = TrainingImages(
            trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
            short_sides=cfg.INPUT.MIN_SIZE_TRAIN,
            longest=cfg.INPUT.MAX_SIZE_TRAIN,
            flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
            seed=cfg.SEED,
            cache=cfg.DATALOADER.CACHE_IMAGES,
        )
        return training_batches(
            images,
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=cfg.SEED,
            start=start,
            stop=stop,
            group_by_shape=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            pin_memory=self.device.type == "cuda",
        )

    def detect(self, data: DetectionData) -> Detections:
        return detect(self.cfg, self.model, data, self.device)

    def losses(self, data: DetectionData) -> Iterator[tuple[int, dict[str, Tensor]]]:
        cfg = self.cfg
        images = TrainingImages(
            trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
            short_sides=(cfg.INPUT.MIN_SIZE_TEST,),
            longest=cfg.INPUT.MAX_SIZE_TEST,
            flip=False,
            seed=cfg.SEED,
            cache=False,
        )
        for batch in validation_batches(
            images,
            batch_size=cfg.TEST.IMS_PER_BATCH,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            pin_memory=self.device.type == "cuda",
        ):
            yield len(batch.image_ids), self.task(batch.to(self.device, non_blocking=True)).losses


class DetectionTask(nn.Module):
    """The module that the loop trains: maps a DetectionBatch to the sum of the detector's four losses."""

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: DetectionBatch) -> Step:
        targets = [
            # Class 0 of the detector is the background.
            {"boxes": boxes, "labels": labels + 1}
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        losses = self.detector(batch.images, batch.sizes, targets)
        return Step(torch.stack(list(losses.values())).sum(), losses)


def build_detector_optimizer(solver: CfgNode, detector: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of all trainable parameters.

    Normalisation layers have their own weight decay, and so have biases (those of normalisation layers included, as in
    detectron2) if WEIGHT_DECAY_BIAS is not negative.
    """
    groups: dict[float, list[Tensor]] = {}
    for module in detector.modules():
        is_norm = isinstance(module, (nn.BatchNorm2d, nn.GroupNorm))
        for name, parameter in module.named_parameters(recurse=False):
            decay = solver.WEIGHT_DECAY_NORM if is_norm else solver.WEIGHT_DECAY
            if name == "bias" and solver.WEIGHT_DECAY_BIAS >= 0:
                decay = solver.WEIGHT_DECAY_BIAS
            if parameter.requires_grad:
                groups.setdefault(decay, []).append(parameter)
    return build_optimizer(
        [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()],
        solver.OPTIMIZER,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
    )


@torch.inference_mode()
def detect(cfg: CfgNode, detector: nn.Module, data: DetectionData, device: torch.device) -> Detections:
    """Return all detections on `data` as COCO results, sorted by image; complete on every process."""
    detector.eval()
    images = InferenceImages(data.records, short_side=cfg.INPUT.MIN_SIZE_TEST, longest=cfg.INPUT.MAX_SIZE_TEST)
    batches = inference_batches(
        images,
        batch_size=cfg.TEST.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=device.type == "cuda",
    )
    category_ids = [category["id"] for category in data.categories]
    paths = {record.image_id: str(record.path) for record in data.records}
    mine = []
    heads = [module for module in detector.modules() if isinstance(module, RPNHead | BoxPredictor)]
    with FiniteOutputs(heads) as finite:
        for batch in until_signal(batches):
            outputs = detector(batch.images.to(device, non_blocking=True), batch.sizes)
            finite.check([paths[image_id] for image_id in batch.image_ids])
            for n, output in enumerate(outputs):
                scaled = scale_to_original(output["boxes"], batch.sizes[n], batch.originals[n])
                mine.append((batch.image_ids[n], to_coco_results(batch.image_ids[n], scaled, output, category_ids)))
    return gather_detections(mine, data.records)


def scale_to_original(boxes: Tensor, size: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """Map (n, 4) corners in an image resized to `size` (height, width) to corners in one of size `original`."""
    height, width = original
    factor = boxes.new_tensor([width / size[1], height / size[0]] * 2)
    return (boxes * factor).clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))


def to_coco_results(image_id: int, boxes: Tensor, output: dict[str, Tensor], category_ids: list[int]) -> Detections:
    """Convert the output for one image to COCO results; class 1 of the detector is the first category."""
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    labels, scores = output["labels"].tolist(), output["scores"].tolist()
    return [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, label, score in zip(sides, labels, scores, strict=True)
    ]
