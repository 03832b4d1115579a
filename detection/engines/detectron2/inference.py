"""Inference with a detectron2 detector, each image once over all processes.

This module does not import detectron2: it receives its subpackages from engine.py.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from backbones.core.config import CfgNode
from backbones.core.stopping import until_signal
from detection.data.records import DetectionData
from detection.engines.base import Detections
from detection.engines.detectron2.data import test_batches
from detection.engines.finite import FiniteOutputs
from detection.training.gathering import gather_detections


@torch.inference_mode()
def predict(
    d2: SimpleNamespace, d2_cfg: Any, cfg: CfgNode, model: nn.Module, data: DetectionData, device: torch.device
) -> Detections:
    """Return the COCO results of all test images, on every process, in the order of the data."""
    batches = test_batches(
        data.records,
        d2.data.DatasetMapper(d2_cfg, is_train=False),
        batch_size=cfg.TEST.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=device.type == "cuda",
    )
    category_ids = [category["id"] for category in data.categories]
    model.eval()
    heads: Any = model
    mine = []
    with FiniteOutputs([heads.proposal_generator.rpn_head, heads.roi_heads.box_predictor]) as finite:
        for batch in until_signal(batches):
            outputs = model(batch)
            finite.check([image["file_name"] for image in batch])
            for image, output in zip(batch, outputs, strict=True):
                image_id = image["image_id"]
                mine.append((image_id, to_results(image_id, output["instances"], category_ids)))
    return gather_detections(mine, data.records)


def to_results(image_id: int, instances: Any, category_ids: list[int]) -> Detections:
    """Convert detectron2's instances of one image (x0, y0, x1, y1) to COCO results (x, y, w, h)."""
    boxes = instances.pred_boxes.tensor.double().cpu()
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, label, score in zip(
            boxes.tolist(), instances.pred_classes.tolist(), instances.scores.double().tolist(), strict=True
        )
    ]
