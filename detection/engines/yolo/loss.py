"""Loss of YOLO (OLS's detection experiment, Zhang et al. 2021, Sec. IV-D, and the YOLOv3 that it trains).

Per scale, summed over everything and divided by the number of images:

    box         (2 - w h / S^2) (1 - GIoU) at each positive, S^2 the pixels of the input
    objectness  focal binary cross-entropy, |t - p|^gamma BCE(p, t), at the positives (t = 1) and at the negatives
                (t = 0) whose predicted box has an IoU below the ignore threshold with every annotated one
    class       binary cross-entropy with the (soft) target, summed over the classes, at each positive

The terms of a positive are multiplied by the weight of its box (mixup).

Letters: B images, M boxes per image (padded), A anchors per scale, H x W cells, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from backbones.methods.functional import full_precision
from detection.engines.yolo.assignment import Assignment, assign
from detection.engines.yolo.boxes import box_giou, decode_boxes, decode_map, pairwise_iou

PADDING = -1  # label of padding
BOX, OBJECTNESS = slice(0, 4), 4
CLASSES = slice(5, None)


class YOLOLoss(nn.Module):
    """Maps raw maps and annotated boxes to the three parts of the loss; without parameters or state."""

    anchors: Tensor

    def __init__(
        self,
        anchors: Sequence[Sequence[Sequence[float]]],
        strides: Sequence[int] = (8, 16, 32),
        *,
        assign_iou: float = 0.3,
        ignore_iou: float = 0.5,
        gamma: float = 2.0,
    ) -> None:
        """
        Args:
            anchors: for each scale its (width, height), in units of the stride.
            assign_iou: an anchor learns a box if the IoU of their shapes is above this.
            ignore_iou: a prediction with at least this IoU with a box is not trained as background.
            gamma: exponent of the focal loss; 0 is plain cross-entropy.
        """
        super().__init__()
        self.strides, self.assign_iou, self.ignore_iou, self.gamma = tuple(strides), assign_iou, ignore_iou, gamma
        self.register_buffer("anchors", torch.tensor(anchors), persistent=False)  # (scales, A, 2)

    def forward(
        self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor, weights: Tensor, class_targets: Tensor
    ) -> dict[str, Tensor]:
        """Return the parts `loss_box`, `loss_objectness` and `loss_class`, each (), in float32 or better.

        Args:
            maps: per scale (B, A, H, W, 5 + K): x, y, w, h, objectness, classes.
            boxes: (B, M, 4) pixels of the input.
            labels: (B, M) int64, -1 for padding.
            weights: (B, M) in [0, 1].
            class_targets: (B, M, K); any finite value for padding.
        """
        boxes, labels, weights, class_targets = _at_least_one_box(boxes, labels, weights, class_targets)
        valid = labels != PADDING
        boxes = torch.where(valid[..., None], full_precision(boxes), 0)
        with torch.autocast(boxes.device.type, enabled=False):
            parts = [
                self._scale_loss(raw, anchors, stride, assignment, boxes, weights, class_targets)
                for raw, anchors, stride, assignment in zip(
                    maps, self.anchors, self.strides, self._assign(maps, boxes, valid), strict=True
                )
            ]
        total = torch.stack(parts).sum(dim=0) / len(boxes)
        return dict(zip(("loss_box", "loss_objectness", "loss_class"), total, strict=True))

    @torch.no_grad()
    def classified(
        self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the input of soft labels: class logits (n, K) of the anchors that can learn a box, and labels (n,).

        The label is -1 if the anchor learns nothing or its box is from a mixed image (weight below 1); n depends only
        on shapes.
        """
        boxes, labels, weights = _at_least_one_box(boxes, labels, weights)
        valid = labels != PADDING
        boxes = torch.where(valid[..., None], full_precision(boxes), 0)
        unmixed = torch.where(weights < 1, PADDING, labels)
        logits, found = [], []
        for raw, assignment in zip(maps, self._assign(maps, boxes, valid), strict=True):
            logits.append(gather_predictions(raw, assignment)[..., CLASSES].flatten(0, 2))
            found.append(torch.where(assignment.positive, unmixed[..., None], PADDING).flatten())
        return full_precision(torch.cat(logits)), torch.cat(found)

    def _assign(self, maps: Sequence[Tensor], boxes: Tensor, valid: Tensor) -> list[Assignment]:
        sizes = [(raw.shape[2], raw.shape[3]) for raw in maps]
        return assign(boxes, valid, list(self.anchors.to(boxes)), self.strides, sizes, self.assign_iou)

    def _scale_loss(
        self,
        raw: Tensor,
        anchors: Tensor,
        stride: int,
        found: Assignment,
        boxes: Tensor,
        weights: Tensor,
        class_targets: Tensor,
    ) -> Tensor:
        """Return (3,): box, objectness and class loss, summed over the batch."""
        own = full_precision(gather_predictions(raw, found))
        weight = found.positive * weights[..., None].to(own)
        cells = torch.stack([found.column, found.row], dim=-1)[:, :, None].to(own)
        predicted = decode_boxes(own[..., BOX], anchors.to(own), cells, stride)
        truth = boxes[:, :, None].to(own)
        area = (truth[..., 2:] - truth[..., :2]).prod(dim=-1) / (raw.shape[2] * raw.shape[3] * stride**2)
        box = (2 - area) * (1 - box_giou(predicted, truth))
        targets = class_targets[:, :, None].to(own).expand(*own.shape[:3], -1)
        classes = binary_cross_entropy_with_logits(own[..., CLASSES], targets, reduction="none").sum(dim=-1)
        positive = focal_loss(own[..., OBJECTNESS], 1.0, self.gamma)
        with torch.no_grad():
            background = ~found.taken & ~self._overlapping(full_precision(raw[..., BOX]), anchors, stride, boxes)
        negative = focal_loss(full_precision(raw[..., OBJECTNESS]), 0.0, self.gamma)
        objectness = (weight * positive).sum() + (negative * background).sum()
        return torch.stack([(weight * box).sum(), objectness, (weight * classes).sum()])

    def _overlapping(self, code: Tensor, anchors: Tensor, stride: int, boxes: Tensor) -> Tensor:
        """Return a mask (B, A, H, W) of predicted boxes whose IoU with an annotated one is at least `ignore_iou`."""
        predicted = decode_map(code, anchors, stride)
        iou = pairwise_iou(predicted.flatten(1, 3), boxes.to(code))  # 0 for padding, which is empty
        return (iou.amax(dim=2) >= self.ignore_iou).view(predicted.shape[:4])


def focal_loss(logits: Tensor, target: float, gamma: float) -> Tensor:
    """Return |t - p|^gamma BCE(p, t) for a target t of 0 or 1 (Lin et al. 2017, arXiv:1708.02002, without alpha)."""
    wrong = logits if target == 0 else -logits  # logit of the probability of the other answer
    return wrong.sigmoid() ** gamma * nn.functional.softplus(wrong)


def gather_predictions(raw: Tensor, found: Assignment) -> Tensor:
    """Return the predictions (B, M, A, 5 + K) of each box's cell in a map (B, A, H, W, 5 + K)."""
    batch, _, anchors = found.positive.shape
    images = torch.arange(batch, device=raw.device)[:, None, None]
    return raw[images, torch.arange(anchors, device=raw.device), found.row[..., None], found.column[..., None]]


def _at_least_one_box(boxes: Tensor, labels: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Pad a batch of images without boxes to one box each, since maxima need one."""
    if boxes.shape[1]:
        return boxes, labels, *others
    padded = [nn.functional.pad(part, [0, 0] * (part.ndim - 2) + [0, 1]) for part in (boxes, *others)]
    return padded[0], nn.functional.pad(labels, [0, 1], value=PADDING), *padded[1:]
