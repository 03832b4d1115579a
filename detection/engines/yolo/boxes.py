"""Geometry of boxes, and the code in which the network predicts them.

A box is (x0, y0, x1, y1) in pixels of the network's input, half-open.  Its code is relative to a cell and an anchor
(Redmon & Farhadi 2018, arXiv:1804.02767, Sec. 2.1):

    centre = (sigmoid(x, y) + cell) * stride        size = exp(w, h) * anchor * stride

Letters: B images, N and M boxes per image, A anchors per scale, H x W cells.
"""

import torch
from torch import Tensor

LARGEST_EXPONENT = 8.0  # exp(8) is 2,981 anchors: larger than any box, and keeps a diverging network finite
FRACTION_MARGIN = 1e-6  # sigmoid reaches neither 0 nor 1


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes (..., 4), broadcast against each other; 0 if both are empty."""
    overlap, union, _ = _areas(a, b)
    return overlap / union


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of all pairs: (B, N, 4), (B, M, 4) -> (B, N, M)."""
    return box_iou(a[..., :, None, :], b[..., None, :, :])


def box_giou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU of boxes (..., 4), in (-1, 1] (Rezatofighi et al. 2019, arXiv:1902.09630).

    IoU - (C - U) / C, U: area of the union, C: area of the smallest box around both.
    """
    overlap, union, hull = _areas(a, b)
    return overlap / union - (hull - union) / hull


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of shapes (width, height) (..., 2) with a common centre; 0 if both are empty."""
    overlap = torch.minimum(a, b).prod(dim=-1)
    union = a.prod(dim=-1) + b.prod(dim=-1) - overlap
    return overlap / union.clamp(min=torch.finfo(union.dtype).tiny)


def decode_boxes(code: Tensor, anchors: Tensor, cells: Tensor, stride: int) -> Tensor:
    """Decode codes (..., 4) to boxes (..., 4).

    Args:
        anchors: (..., 2) width and height in units of the stride.
        cells: (..., 2) column and row.
    """
    centre = (code[..., :2].sigmoid() + cells) * stride
    half = code[..., 2:4].clamp(max=LARGEST_EXPONENT).exp() * anchors * (stride / 2)
    return torch.cat([centre - half, centre + half], dim=-1)


def encode_boxes(boxes: Tensor, anchors: Tensor, cells: Tensor, stride: int) -> Tensor:
    """Encode boxes (..., 4) whose centres are in their `cells` to codes (..., 4): the inverse of `decode_boxes`."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / (2 * stride) - cells
    fraction = centre.clamp(FRACTION_MARGIN, 1 - FRACTION_MARGIN)
    size = (boxes[..., 2:] - boxes[..., :2]) / (stride * anchors)
    return torch.cat([fraction.logit(), size.log()], dim=-1)


def decode_map(code: Tensor, anchors: Tensor, stride: int) -> Tensor:
    """Decode a map of codes (B, A, H, W, 4) to boxes (B, A, H, W, 4); anchors (A, 2) in units of the stride."""
    height, width = code.shape[2:4]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=code.device), torch.arange(width, device=code.device), indexing="ij"
    )
    cells = torch.stack([columns, rows], dim=-1).to(code)
    return decode_boxes(code, anchors[:, None, None].to(code), cells, stride)


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the areas of the intersection, the union and the smallest box around both; the latter two are above 0."""
    # One plane per coordinate: the innermost axis of pairs stays contiguous, which is several times faster on a CPU.
    ax0, ay0, ax1, ay1 = a.movedim(-1, 0).contiguous()
    bx0, by0, bx1, by1 = b.movedim(-1, 0).contiguous()
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    overlap = width * height
    least = torch.finfo(overlap.dtype).tiny
    union = ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - overlap).clamp(min=least)
    hull = (torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)) * (torch.maximum(ay1, by1) - torch.minimum(ay0, by0))
    return overlap, union, hull.clamp(min=least)
