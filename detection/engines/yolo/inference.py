"""Inference of YOLO, from raw maps to detections, over one or several sizes and their mirror images.

A view is a resized copy of a batch.  The candidates of all views are mapped back to the original images, joined, and
suppressed once, so that of duplicates the one with the highest score remains.

Letters: B images, n candidates per image, N cells times anchors of a view, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from backbones.core.config import CfgNode
from backbones.core.stopping import until_signal
from backbones.methods.functional import full_precision
from detection.data.records import DetectionData
from detection.engines.base import Detections
from detection.engines.finite import FiniteOutputs
from detection.engines.yolo.boxes import decode_map
from detection.engines.yolo.building import YOLOTask
from detection.engines.yolo.data import InferenceImages, Square, inference_batches
from detection.engines.yolo.loss import BOX, CLASSES, OBJECTNESS
from detection.training.gathering import gather_detections


@dataclass
class View:
    """A batch as input of the network: pixel x of the original is at x * scale + offset, then mirrored if `flipped`.

    images: (B, 3, H, W) normalised.
    scale, offset: (B, 2), for x and y.
    flipped: whether the view is mirrored about its vertical axis.
    """

    images: Tensor
    scale: Tensor
    offset: Tensor
    flipped: bool = False


@dataclass
class Candidates:
    """Boxes before suppression: boxes (B, n, 4), scores (B, n), labels (B, n)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass
class Rules:
    """Rules for turning candidates into detections.

    score_threshold: detections score above this (0.01 in the code that OLS builds on).
    nms_iou: of two boxes of a class with a larger IoU, the lower score is dropped (0.5 there, 0.45 with views).
    max_detections: largest number per image.
    max_candidates: number of best candidates per view before suppression; 0: all.
    multi_label: True: every class of a box is a candidate; False: only its best one, as in that code.
    """

    score_threshold: float = 0.01
    nms_iou: float = 0.5
    max_detections: int = 100
    max_candidates: int = 1000
    multi_label: bool = False


@torch.inference_mode()
def detect_all(cfg: CfgNode, task: YOLOTask, data: DetectionData, device: torch.device) -> Detections:
    """Return all detections on `data` as COCO results, sorted by image; complete on every process."""
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
        for indices, squares in until_signal(batches):
            records = [data.records[index] for index in indices]
            views = build_views(task, squares, flip=test.FLIP, device=device)
            sizes = torch.tensor([[record.width, record.height] for record in records], device=device)
            outputs = detect(task.model, views, sizes, task.loss.anchors, task.loss.strides, rules)
            finite.check([str(record.path) for record in records])
            for record, output in zip(records, outputs, strict=True):
                mine.append((record.image_id, to_coco_results(record.image_id, output, category_ids)))
    return gather_detections(mine, data.records)


def build_views(task: YOLOTask, squares: list[Square], *, flip: bool, device: torch.device) -> list[View]:
    """Build one view per size, and with `flip` another of its mirror image."""
    views = []
    for square in squares:
        images = task.normalise(square.images.to(device, non_blocking=True))
        scale, offset = square.scale.to(device), square.offset.to(device)
        views.append(View(images, scale, offset))
        if flip:
            views.append(View(images.flip(3), scale, offset, flipped=True))
    return views


def to_coco_results(image_id: int, output: dict[str, Tensor], category_ids: list[int]) -> Detections:
    """Convert the output for one image to COCO results."""
    boxes = output["boxes"]
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    labels, scores = output["labels"].tolist(), output["scores"].tolist()
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, label, score in zip(sides, labels, scores, strict=True)
    ]


@torch.no_grad()
def detect(
    network: Callable[[Tensor], Sequence[Tensor]],
    views: Sequence[View],
    sizes: Tensor,
    anchors: Tensor,
    strides: Sequence[int],
    rules: Rules,
) -> list[dict[str, Tensor]]:
    """Return per image `boxes` (d, 4) in its own pixels, `scores` (d,) in decreasing order, and `labels` (d,).

    Args:
        sizes: (B, 2) width and height of the original images.
        anchors: (scales, A, 2) in units of the strides.
    """
    found = []
    for view in views:
        candidates = find_candidates(network(view.images), anchors, strides, rules)
        candidates.boxes = to_original(candidates.boxes, view, sizes)
        found.append(candidates)
    return suppress(join_candidates(found), rules)


def find_candidates(maps: Sequence[Tensor], anchors: Tensor, strides: Sequence[int], rules: Rules) -> Candidates:
    """Return the best candidates per image in one view, in pixels of that view; n depends only on shapes.

    The score is objectness times class probability.
    """
    boxes, scores = [], []
    for raw, own, stride in zip(maps, anchors, strides, strict=True):
        values = full_precision(raw)
        boxes.append(decode_map(values[..., BOX], own.to(values), stride).flatten(1, 3))
        probability = values[..., OBJECTNESS, None].sigmoid() * values[..., CLASSES].sigmoid()
        scores.append(probability.flatten(1, 3))
    return _best(torch.cat(boxes, dim=1), torch.cat(scores, dim=1), rules)


def to_original(boxes: Tensor, view: View, sizes: Tensor) -> Tensor:
    """Map boxes (B, n, 4) of a view to pixels of the original images, clipped to them."""
    if view.flipped:
        x0, y0, x1, y1 = boxes.unbind(dim=-1)
        width = view.images.shape[3]
        boxes = torch.stack([width - x1, y0, width - x0, y1], dim=-1)
    scale, offset, limit = (part.to(boxes).repeat(1, 2)[:, None] for part in (view.scale, view.offset, sizes))
    return ((boxes - offset) / scale).clamp(min=0).minimum(limit)


def join_candidates(parts: Sequence[Candidates]) -> Candidates:
    """Join the candidates of all views per image."""
    fields = ("boxes", "scores", "labels")
    return Candidates(*(torch.cat([getattr(part, field) for part in parts], dim=1) for field in fields))


def suppress(candidates: Candidates, rules: Rules) -> list[dict[str, Tensor]]:
    """Apply non-maximum suppression per class and image, for the whole batch at once."""
    number = len(candidates.boxes)
    empty = (candidates.boxes[..., 2:] <= candidates.boxes[..., :2]).any(dim=-1)
    kept = (candidates.scores > rules.score_threshold) & ~empty
    image = kept.nonzero()[:, 0]
    boxes, scores, labels = candidates.boxes[kept], candidates.scores[kept], candidates.labels[kept]
    groups = image * (int(labels.max()) + 1 if len(labels) else 1) + labels
    # In float64, because torchvision separates groups by offsets, which costs precision.
    best = batched_nms(boxes.double(), scores.double(), groups, rules.nms_iou)  # in decreasing order of score
    best = best[image[best].argsort(stable=True)]
    counts = torch.bincount(image[best], minlength=number)
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(best), device=best.device) - first[image[best]]
    best = best[rank < rules.max_detections]
    lengths = counts.clamp(max=rules.max_detections).tolist()
    columns = zip(*(part[best].split(lengths) for part in (boxes, scores, labels)), strict=True)
    return [dict(zip(("boxes", "scores", "labels"), column, strict=True)) for column in columns]


def _best(boxes: Tensor, scores: Tensor, rules: Rules) -> Candidates:
    """Return at most `max_candidates` per image of boxes (B, N, 4) with scores (B, N, K)."""
    if rules.multi_label:
        number = scores.shape[2]
        flat = scores.flatten(1)
        top, place = flat.topk(min(rules.max_candidates or flat.shape[1], flat.shape[1]), dim=1)
        box, labels = place // number, place % number
    else:
        best, label = scores.max(dim=2)
        top, box = best.topk(min(rules.max_candidates or best.shape[1], best.shape[1]), dim=1)
        labels = label.gather(1, box)
    return Candidates(boxes.gather(1, box[..., None].expand(-1, -1, 4)), top, labels)
