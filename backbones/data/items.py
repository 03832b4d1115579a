"""A loaded sample, and the collation of samples to a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backbones.core.errors import InputError
from backbones.data.batch import Batch
from backbones.data.geometry import Crop, map_boxes, objectness


@dataclass(slots=True)
class Item:
    """One sample, with the data from which `collate` fills the optional fields of its batch.

    image: (3, H, W) uint8.  needs: names of the optional fields to fill.
    boxes: (m, 4) x0, y0, x1, y1 in pixels of the source image.
    crop: the visible part of the source image (x, y, w, h), before a flip; it can reach beyond the image (padding).
    source_size: width, height.  is_context: every object is painted over.
    second_view: (3, H, W) uint8, the sample under another augmentation.
    """

    image: Tensor
    label: int
    index: int
    needs: frozenset[str]
    boxes: np.ndarray
    crop: Crop
    flip: bool
    source_size: tuple[int, int]
    is_context: bool = False
    second_view: Tensor | None = None


def collate(items: Sequence[Item]) -> Batch:
    """Build a batch from items; boxes are padded with zero rows to the longest list.

    Objectness is computed here rather than per sample: between two images, whose pixels have filled the processor's
    cache, it would take several times longer.
    """
    shapes = {tuple(item.image.shape) for item in items}
    if len(shapes) > 1:
        sizes = ", ".join(f"{s[2]} x {s[1]}" for s in sorted(shapes)[:3])
        raise InputError(f"images of one batch differ in size ({sizes}); set DATA.EVAL_RESIZE and DATA.EVAL_CROP")
    batch = Batch(
        images=torch.stack([item.image for item in items]),
        labels=torch.tensor([item.label for item in items], dtype=torch.int64),
        index=torch.tensor([item.index for item in items], dtype=torch.int64),
    )
    needs = items[0].needs
    if "objectness" in needs:
        batch.objectness = torch.tensor([objectness(i.boxes, i.crop) for i in items], dtype=torch.float32)
    if "objectness_full" in needs:
        whole = [objectness(item.boxes, (0, 0, *item.source_size)) for item in items]
        batch.objectness_full = torch.tensor(whole, dtype=torch.float32)
    if "boxes" in needs:
        height, width = items[0].image.shape[1:]
        batch.boxes, batch.box_count = _pad([map_boxes(i.boxes, i.crop, width, height, flip=i.flip) for i in items])
    if "is_context" in needs:
        batch.is_context = torch.tensor([item.is_context for item in items], dtype=torch.bool)
    if "second_view" in needs:
        batch.second_view = torch.stack([item.second_view for item in items if item.second_view is not None])
    return batch


def _pad(boxes: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    counts = [len(b) for b in boxes]
    padded = torch.zeros(len(boxes), max(counts), 4)
    for row, own in zip(padded, boxes, strict=True):
        row[: len(own)] = torch.from_numpy(own)
    return padded, torch.tensor(counts, dtype=torch.int64)
