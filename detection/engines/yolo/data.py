"""Batches for YOLO: square letterboxed images.

Order and sizes are pure functions of (seed, iteration), augmentations of (seed, epoch, index).

Letters: B images of S x S pixels, M: largest number of boxes in an image of the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from backbones.core.distributed import rank, world_size
from backbones.core.errors import InputError
from backbones.core.images import DECODE_FLAGS, decode_image
from backbones.core.loading import GuardedLoader
from backbones.core.sampling import Position, StatelessBatchSampler, draw_rng, position_rng
from detection.data.records import Record
from detection.engines.yolo.augmentation import (
    flip,
    letterbox,
    letterbox_boxes,
    letterbox_image,
    mix,
    random_crop,
    random_shift,
)

SIZE_STREAM = 7  # random stream of the sizes, distinct from other streams of a run
NO_BOX = -1  # label of padding


@dataclass
class YoloBatch:
    """A batch of B images.

    Attributes:
        images: (B, 3, S, S) uint8 RGB.
        boxes: (B, M, 4) float32 x0, y0, x1, y1 in pixels of the batch.
        labels: (B, M) int64, -1 for padding.
        weights: (B, M) float32, the share of the box's image in the blend; 1 without mixup, 0 for padding.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "YoloBatch":
        """Return the batch on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "YoloBatch":
        """Pin the batch; called by the loader for a GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Any) -> "YoloBatch":
        names = ("images", "boxes", "labels", "weights")
        return replace(self, **{name: function(getattr(self, name)) for name in names})


class Item(NamedTuple):
    """One image: image (S, S, 3) uint8, boxes (n, 4) float32, labels (n,) int64, weights (n,) float32."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Augmentation:
    """Probabilities, and the parameter of mixup's Beta distribution; see INPUT in config.py."""

    flip: float
    crop: float
    shift: float
    mixup: float
    mixup_alpha: float


class Key(NamedTuple):
    """Index of a training image: its position (epoch and index), which defines the augmentation, and the input side."""

    position: Position
    side: int


class TrainingImages(Dataset):
    """Maps a Key to an Item, a pure function of (seed, epoch, index) and the side.

    Args:
        largest: the largest requested side; larger images are decoded at a fraction of their size.
        cache: keep decoded images in memory.
    """

    def __init__(
        self, records: Sequence[Record], augmentation: Augmentation, *, largest: int, seed: int, cache: bool
    ) -> None:
        self.records, self.augmentation, self.largest, self.seed = records, augmentation, largest, seed
        self.cached: dict[int, np.ndarray] | None = {} if cache else None

    def __getitem__(self, key: Key) -> Item:
        rng = position_rng(self.seed, *key.position)
        image, boxes, labels = self._augmented(key.position.index, key.side, rng)
        ones = np.ones(len(labels), np.float32)
        if rng.random() >= self.augmentation.mixup:
            return Item(image, boxes, labels, ones)
        weight = rng.beta(self.augmentation.mixup_alpha, self.augmentation.mixup_alpha)
        other, other_boxes, other_labels = self._augmented(int(rng.integers(len(self.records))), key.side, rng)
        return Item(
            mix(image, other, weight),
            np.concatenate([boxes, other_boxes]),
            np.concatenate([labels, other_labels]),
            np.concatenate([weight * ones, np.full(len(other_labels), 1 - weight)]).astype(np.float32),
        )

    def _augmented(self, index: int, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        record = self.records[index]
        image = self._load(index)
        boxes = record.boxes * np.array([image.shape[1] / record.width, image.shape[0] / record.height] * 2, np.float32)
        # Always drawn, so that one augmentation does not depend on the probability of another.
        flips, crops, shifts = rng.random(3) < (self.augmentation.flip, self.augmentation.crop, self.augmentation.shift)
        if flips:
            image, boxes = flip(image, boxes)
        if crops:
            image, boxes = random_crop(image, boxes, rng)
        if shifts:
            image, boxes = random_shift(image, boxes, rng)
        placed = letterbox(image.shape[1], image.shape[0], side)
        return letterbox_image(image, placed, side), letterbox_boxes(boxes, placed), record.labels

    def _load(self, index: int) -> np.ndarray:
        if self.cached is None:
            return load_image(self.records[index], self.largest)
        if index not in self.cached:
            self.cached[index] = load_image(self.records[index], self.largest)
        return self.cached[index]


class Square(NamedTuple):
    """Test images at one side, (B, 3, S, S) uint8: pixel x of the file is at x * scale + offset; both (B, 2)."""

    images: Tensor
    scale: Tensor
    offset: Tensor


class InferenceImages(Dataset):
    """Maps an index to (index, one Square per side), the Squares without their first dimension."""

    def __init__(self, records: Sequence[Record], sides: Sequence[int]) -> None:
        self.records, self.sides = records, sides

    def __getitem__(self, index: int) -> tuple[int, list[Square]]:
        record = self.records[index]
        image = load_image(record, max(self.sides))
        return index, [self._square(image, record, side) for side in self.sides]

    def _square(self, image: np.ndarray, record: Record, side: int) -> Square:
        placed = letterbox(image.shape[1], image.shape[0], side)
        pixels = torch.from_numpy(letterbox_image(image, placed, side)).permute(2, 0, 1)
        scale = torch.tensor([placed.width / record.width, placed.height / record.height])
        return Square(pixels, scale, torch.tensor([placed.left, placed.top], dtype=torch.float32))


def load_image(record: Record, largest: int) -> np.ndarray:
    """Load an image, (h, w, 3) uint8 RGB, decoded at the smallest fraction whose longer side has `largest` pixels.

    Raises:
        InputError: a file that is unreadable, or whose size differs from its annotation.
    """
    longest = max(record.width, record.height)
    reduction = max((r for r in DECODE_FLAGS if longest >= r * largest), default=1)
    image = decode_image(record.path, reduction)
    if image.shape[1::-1] != (-(-record.width // reduction), -(-record.height // reduction)):
        said = f"{record.width}x{record.height}"
        raise InputError(f"the image {record.path} does not have the size {said} of its annotation; correct it")
    return image


class SizedBatchSampler:
    """StatelessBatchSampler with a side that is drawn every `period` iterations, the same on all processes."""

    def __init__(self, batches: StatelessBatchSampler, sides: Sequence[int], period: int, seed: int) -> None:
        self.batches, self.sides, self.period, self.seed = batches, sides, period, seed

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for iteration, positions in enumerate(self.batches, start=self.batches.start):
            side = draw_side(self.seed, iteration // self.period, self.sides)
            yield [Key(position, side) for position in positions]


def draw_side(seed: int, number: int, sides: Sequence[int]) -> int:
    """Return the side of the network input in period `number`."""
    return sides[int(draw_rng(seed, SIZE_STREAM * 2**32 + number).integers(len(sides)))]


def collate(items: Sequence[Item]) -> YoloBatch:
    """Stack images and pad boxes."""
    most = max((len(item.labels) for item in items), default=0)
    boxes = np.zeros((len(items), most, 4), np.float32)
    labels = np.full((len(items), most), NO_BOX, np.int64)
    weights = np.zeros((len(items), most), np.float32)
    for n, item in enumerate(items):
        count = len(item.labels)
        boxes[n, :count], labels[n, :count], weights[n, :count] = item.boxes, item.labels, item.weights
    images = np.ascontiguousarray(np.stack([item.image for item in items]).transpose(0, 3, 1, 2))
    return YoloBatch(*map(torch.from_numpy, (images, boxes, labels, weights)))


def validation_batches(
    records: Sequence[Record], side: int, *, batch_size: int, num_workers: int, pin_memory: bool
) -> GuardedLoader[YoloBatch]:
    """Return batches without augmentation that cover every image once over all processes."""
    images = TrainingImages(records, Augmentation(0, 0, 0, 0, 1), largest=side, seed=0, cache=False)
    keys = [[Key(Position(0, index), side) for index in batch] for batch in share_batches(len(records), batch_size)]
    return GuardedLoader(images, keys, collate, num_workers=num_workers, pin_memory=pin_memory)


def share_batches(images: int, batch_size: int) -> list[range]:
    """Return this process's batches of indices, which cover every image once over all processes."""
    batches = [range(first, min(first + batch_size, images)) for first in range(0, images, batch_size)]
    return batches[rank() :: world_size()]


def collate_inference(items: Sequence[tuple[int, list[Square]]]) -> tuple[list[int], list[Square]]:
    """Collect the indices, and stack one Square per side."""
    indices, squares = zip(*items, strict=True)
    return list(indices), [Square(*map(torch.stack, zip(*same, strict=True))) for same in zip(*squares, strict=True)]


def inference_batches(
    images: InferenceImages, *, batch_size: int, num_workers: int, pin_memory: bool
) -> GuardedLoader[tuple[list[int], list[Square]]]:
    """Return batches that cover every image once over all processes."""
    mine = share_batches(len(images.records), batch_size)
    return GuardedLoader(images, mine, collate_inference, num_workers=num_workers, pin_memory=pin_memory)
