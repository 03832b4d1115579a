"""Images composed of parts of others: rectangles, and how many pixels of each object remain visible.

Letters: B batch, M boxes, H x W pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rectangle(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of an image, in pixels; half open."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def cut_rectangle(height: int, width: int, kept: float, centre_y: int, centre_x: int) -> Rectangle:
    """Return CutMix's rectangle: sides sqrt(1 - kept) times (H, W) around the centre, clipped to the image.

    kept: share of the image that is kept, before clipping, in [0, 1].
    """
    side = (1 - kept) ** 0.5
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    return Rectangle(
        max(centre_y - half_height, 0),
        min(centre_y + half_height, height),
        max(centre_x - half_width, 0),
        min(centre_x + half_width, width),
    )


def paste_rectangle(images: Tensor, order: Tensor, rectangle: Rectangle) -> Tensor:
    """Copy the rectangle of image order[i] into image i; return new images.

    images: (B, C, H, W). order: (B,) int64, a permutation.
    """
    top, bottom, left, right = rectangle
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].index_select(0, order)
    return mixed


def mix_quarters(images: Tensor, orders: Tensor, corners: list[tuple[int, int]], boundary: tuple[int, int]) -> Tensor:
    """Combine crops of four images (RICAP, Takahashi et al. 2018), one in each part around a boundary point.

    images: (B, C, H, W). orders: (4, B) int64, sources of the upper left, upper right, lower left and lower right
    part. corners: (y, x) of each crop in its image. boundary: (y, x), in [0, H] and [0, W].
    """
    height, width = images.shape[2:]
    mixed = torch.empty_like(images)
    for part, order, (y, x) in zip(quarters(height, width, boundary), orders, corners, strict=True):
        rows, columns = part.bottom - part.top, part.right - part.left
        crop = images[:, :, y : y + rows, x : x + columns]
        mixed[:, :, part.top : part.bottom, part.left : part.right] = crop.index_select(0, order)
    return mixed


def quarters(height: int, width: int, boundary: tuple[int, int]) -> list[Rectangle]:
    """Return the four parts around a boundary (y, x): upper left, upper right, lower left, lower right."""
    y, x = boundary
    rows, columns = ((0, y), (y, height)), ((0, x), (x, width))
    return [Rectangle(*row, *column) for row in rows for column in columns]


def cut_squares(images: Tensor, centre_y: Tensor, centre_x: Tensor, size: int) -> Tensor:
    """Zero a square of side `size` around each image's centre point (CutOut), clipped to the image.

    images: (B, C, H, W), normalised, so that 0 is the mean colour. centre_y, centre_x: (B,) int64.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - (centre_y - size // 2)[:, None]
    columns = torch.arange(width, device=images.device) - (centre_x - size // 2)[:, None]
    inside_y, inside_x = (rows >= 0) & (rows < size), (columns >= 0) & (columns < size)
    return images.masked_fill((inside_y[:, :, None] & inside_x[:, None, :])[:, None], 0)


def union_areas(boxes: Tensor) -> Tensor:
    """Return the exact area (B,) of the union of the M half-open boxes in each row of (B, M, 4).

    Empty boxes cover nothing.  Coordinate compression, as in geometry.union_area for one image: the edges cut the plane
    into cells.
    """
    xs, ys = boxes[..., 0::2].flatten(1).sort(dim=1)[0], boxes[..., 1::2].flatten(1).sort(dim=1)[0]  # (B, 2M)
    spans_x = (boxes[:, :, 0:1] <= xs[:, None, :-1]) & (xs[:, None, :-1] < boxes[:, :, 2:3])  # (B, M, columns)
    spans_y = (boxes[:, :, 1:2] <= ys[:, None, :-1]) & (ys[:, None, :-1] < boxes[:, :, 3:4])  # (B, M, rows)
    covered = torch.einsum("bmy,bmx->byx", spans_y.to(boxes), spans_x.to(boxes)) > 0
    return torch.einsum("by,byx,bx->b", ys.diff(dim=1), covered.to(boxes), xs.diff(dim=1))


def clip_to_rectangle(boxes: Tensor, rectangle: Rectangle) -> Tensor:
    """Clip boxes (B, M, 4) to a rectangle; a box outside gets no area."""
    top, bottom, left, right = rectangle
    x, y = boxes[..., 0::2].clamp(left, right), boxes[..., 1::2].clamp(top, bottom)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)
