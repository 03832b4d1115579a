"""Assignment of boxes to cells and anchors, for a whole padded batch at once.

On every scale, a box is learned at the cell that contains its centre, by every anchor whose shape fits it (IoU of the
shapes above the threshold), or by the best one if none does.  If two boxes claim the same anchor of a cell, the one
that fits better gets it; if both fit equally, the first.
NOTE: the code that the OLS experiment is based on gives the anchor to the last box, which makes the loss depend on the
order of the annotations; the paper does not specify this case.

Letters: B images, M boxes per image (padded), A anchors per scale, H x W cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detection.engines.yolo.boxes import shape_iou

LAST = 2**31 - 1


@dataclass
class Assignment:
    """The assignment of one scale.

    column, row: (B, M) int64, the cell of each box.
    positive: (B, M, A) bool, the anchors that learn it.
    taken: (B, A, H, W) bool, True where any box is learned.
    """

    column: Tensor
    row: Tensor
    positive: Tensor
    taken: Tensor


def assign(
    boxes: Tensor,
    valid: Tensor,
    anchors: Sequence[Tensor],
    strides: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    threshold: float,
) -> list[Assignment]:
    """Return the assignment of each scale, without synchronising with the device.

    Args:
        boxes: (B, M, 4) pixels; M at least 1.
        valid: (B, M) bool, False for padding.
        anchors: (A, 2) per scale, width and height in units of its stride.
        sizes: (H, W) of each scale's map.
        threshold: an anchor fits if its IoU is strictly above this.
    """
    pixels = torch.cat([own * stride for own, stride in zip(anchors, strides, strict=True)])
    fit = shape_iou((boxes[..., 2:] - boxes[..., :2])[:, :, None], pixels)  # (B, M, all anchors)
    chosen = choose_anchors(fit, threshold) & valid[..., None]
    counts = [len(own) for own in anchors]
    parts = zip(strides, sizes, fit.split(counts, dim=2), chosen.split(counts, dim=2), strict=True)
    return [_assign_scale(boxes, fits, claims, stride, size) for stride, size, fits, claims in parts]


def choose_anchors(fit: Tensor, threshold: float) -> Tensor:
    """Return a mask (..., n) of the anchors above the threshold, or of the (first) best if there are none."""
    above = fit > threshold
    best = torch.zeros_like(above).scatter_(-1, fit.argmax(dim=-1, keepdim=True), True)
    return torch.where(above.any(dim=-1, keepdim=True), above, best)


def _assign_scale(boxes: Tensor, fit: Tensor, claims: Tensor, stride: int, size: tuple[int, int]) -> Assignment:
    (height, width), (batch, number, anchors) = size, claims.shape
    centre = (boxes[..., :2] + boxes[..., 2:]) / (2 * stride)
    column = centre[..., 0].floor().long().clamp(0, width - 1)  # a centre can be on the border
    row = centre[..., 1].floor().long().clamp(0, height - 1)
    place = torch.arange(anchors, device=boxes.device) * (height * width) + (row * width + column)[..., None]
    place = place.view(batch, number * anchors)
    # The key of a claim orders by fit, then by the box's number, lowest number first: the bits of a non-negative float
    # have the order of its value, and a maximum does not depend on the order of writes.
    order = LAST - torch.arange(number, device=boxes.device)[:, None]
    key = (fit.float().contiguous().view(torch.int32).long() << 32) + order
    key = torch.where(claims, key, 0).view(batch, number * anchors)
    highest = key.new_zeros(batch, anchors * height * width).scatter_reduce_(1, place, key, "amax")
    positive = claims & (highest.gather(1, place) == key).view_as(claims)
    return Assignment(column, row, positive, (highest > 0).view(batch, anchors, height, width))
