"""Samples to tensors: augmented for training, fixed for evaluation.  Pictures stay uint8: the device normalises them.

Every random draw of a training sample comes from `position_rng(seed, epoch, index)`, so a sample is the same whichever
process loads it and after whatever restart.  Objectness is computed from the crop rectangle, never from a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from backbones.core.errors import InputError
from backbones.core.pictures import decode_picture
from backbones.core.sampling import Position, position_rng
from backbones.data.batch import Batch
from backbones.data.geometry import Crop, map_boxes, objectness, sample_crop
from backbones.data.images import resize_crop
from backbones.data.samples import Samples


@dataclass(slots=True)
class Item:
    """One sample, and what `collate` needs to fill the optional fields of its batch.

    image: (3, H, W) uint8.  needs: those fields.  boxes: (m, 4) of the source picture.  crop: the part of the source
    that the image shows, before a flip.  source_size: width, height.
    """

    image: Tensor
    label: int
    index: int
    needs: frozenset[str]
    boxes: np.ndarray
    crop: Crop
    flip: bool
    source_size: tuple[int, int]


class TrainingSet(Dataset):
    """Random crop, resize and flip, as torchvision's RandomResizedCrop and RandomHorizontalFlip.

    Args:
        size: side of the crop in pixels after resizing.
        crop_area: share of the picture's area, low and high, in (0, 1].
        crop_ratio: width / height of the crop in the source, low and high.
        flip: probability of a horizontal flip.
        needs: optional fields of the batch to fill: "objectness", "boxes"; `index` always is.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        size: int,
        crop_area: tuple[float, float],
        crop_ratio: tuple[float, float],
        flip: float,
        seed: int,
        needs: frozenset[str] = frozenset(),
    ) -> None:
        if not 0 < crop_area[0] <= crop_area[1] <= 1:
            raise InputError(f"DATA.CROP_AREA {list(crop_area)}: must be a range within (0, 1]")
        if not 0 < crop_ratio[0] <= crop_ratio[1]:
            raise InputError(f"DATA.CROP_RATIO {list(crop_ratio)}: must be a range of positive numbers")
        if needs & {"objectness", "boxes"}:
            samples.require_boxes()
        self.samples, self.size, self.flip, self.seed, self.needs = samples, size, flip, seed, needs
        self.crop_area, self.crop_ratio = crop_area, crop_ratio

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: Position) -> Item:
        epoch, index = position
        rng = position_rng(self.seed, epoch, index)
        image = decode_picture(self.samples.paths[index])
        crop = sample_crop(rng, image.shape[1], image.shape[0], self.crop_area, self.crop_ratio)
        flip = rng.random() < self.flip
        pixels = resize_crop(image, crop, self.size, self.size)
        if flip:
            pixels = pixels.flip(2)
        label, boxes = int(self.samples.labels[index]), self.samples.boxes_of(index)
        return Item(pixels, label, index, self.needs, boxes, crop, flip, (image.shape[1], image.shape[0]))


class EvaluationSet(Dataset):
    """Every sample as it is evaluated: resized and centre-cropped, or resized to a square.  Boxes go along.

    Args:
        resize: length of the shorter side in pixels; 0: as it is.
        crop: side of the centre crop in pixels; 0: none.
        square: instead of both, resize directly to square x square (localisation, evaluation.md section 13).
        paint_boxes: RGB (0..255) that covers every box of the source picture (context-only evaluation, section 5).
        with_objectness: fill `objectness` (of the evaluated pixels) and `objectness_full` (of the source picture).
    """

    def __init__(
        self,
        samples: Samples,
        *,
        resize: int = 0,
        crop: int = 0,
        square: int = 0,
        paint_boxes: tuple[int, int, int] | None = None,
        with_objectness: bool = False,
    ) -> None:
        if square and (resize or crop):
            raise ValueError("square replaces resize and crop: leave them 0")
        if with_objectness:
            samples.require_boxes()
        self.samples, self.resize, self.crop, self.square = samples, resize, crop, square
        self.paint_boxes = paint_boxes
        self.needs = frozenset({"boxes"} | ({"objectness", "objectness_full"} if with_objectness else set()))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        image = decode_picture(self.samples.paths[index])
        boxes = self.samples.boxes_of(index)
        if self.paint_boxes is not None:
            paint(image, boxes, self.paint_boxes)
        pixels, seen = self._evaluated_pixels(image, self.samples.paths[index])
        label, size = int(self.samples.labels[index]), (image.shape[1], image.shape[0])
        return Item(pixels, label, index, self.needs, boxes, seen, False, size)

    def _evaluated_pixels(self, image: np.ndarray, path: str) -> tuple[Tensor, Crop]:
        """The pixels, and the part of the source picture that they show (x, y, width, height, fractional)."""
        height, width = image.shape[:2]
        new_width, new_height = self._resized(width, height)
        pixels = resize_crop(image, (0, 0, width, height), new_width, new_height)
        side_x, side_y = (self.crop, self.crop) if self.crop else (new_width, new_height)
        if side_x > new_width or side_y > new_height:
            raise InputError(
                f"{path} has {new_width} x {new_height} pixels, less than the centre crop of {self.crop}; "
                "raise DATA.EVAL_RESIZE or lower DATA.EVAL_CROP"
            )
        x, y = round((new_width - side_x) / 2), round((new_height - side_y) / 2)  # as torchvision rounds
        scale_x, scale_y = width / new_width, height / new_height
        seen = (x * scale_x, y * scale_y, side_x * scale_x, side_y * scale_y)
        return pixels[:, y : y + side_y, x : x + side_x], seen

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.square:
            return self.square, self.square
        if not self.resize:
            return width, height
        # As torchvision: the longer side is rounded down.
        short = min(width, height)
        return int(self.resize * width / short), int(self.resize * height / short)


def paint(image: np.ndarray, boxes: np.ndarray, colour: Sequence[int]) -> None:
    """Cover every pixel of (H, W, 3) that a box touches, in place."""
    for x0, y0, x1, y1 in zip(*np.floor(boxes[:, :2]).T, *np.ceil(boxes[:, 2:]).T, strict=True):
        image[int(y0) : int(y1), int(x0) : int(x1)] = colour


def collate(items: Sequence[Item]) -> Batch:
    """Items to a batch; boxes are padded with zero rows to the longest list.

    Objectness is computed here and not sample by sample: between two pictures, whose pixels have emptied the
    processor's cache, it would take several times longer.
    """
    shapes = {tuple(item.image.shape) for item in items}
    if len(shapes) > 1:
        sizes = ", ".join(f"{s[2]} x {s[1]}" for s in sorted(shapes)[:3])
        raise InputError(f"pictures of one batch differ in size ({sizes}); set DATA.EVAL_RESIZE and DATA.EVAL_CROP")
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
    return batch


def _pad(boxes: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    counts = [len(b) for b in boxes]
    padded = torch.zeros(len(boxes), max(counts), 4)
    for row, own in zip(padded, boxes, strict=True):
        row[: len(own)] = torch.from_numpy(own)
    return padded, torch.tensor(counts, dtype=torch.int64)
