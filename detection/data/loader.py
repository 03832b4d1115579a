"""Batches of images for the detectors; order, sizes and flips are pure functions of the seed.

Letters: B images, 3 x H x W pixels of the padded batch, n boxes of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from backbones.core.distributed import rank, world_size
from backbones.core.errors import InputError
from backbones.core.loading import GuardedLoader
from backbones.core.run_log import get_logger
from backbones.core.sampling import Position, StatelessBatchSampler, position_rng
from detection.data.images import load_resized, resized_size
from detection.data.records import DetectionData, Record

# Padded sizes are multiples of it, so that every level of a feature pyramid up to stride 32 has an integer size.
SIZE_DIVISOR = 32


@dataclass
class DetectionBatch:
    """B images.

    Attributes:
        images: (B, 3, H, W) uint8 RGB; each image is in the top left corner, the rest is padding.
        sizes: (height, width) of each image in the batch.
        originals: (height, width) of each image file.
        image_ids: ids in the data set.
        boxes: B times (n, 4) float32 x0, y0, x1, y1 in pixels of the batch; empty at inference.
        labels: B times (n,) int64.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    originals: list[tuple[int, int]]
    image_ids: list[int]
    boxes: list[Tensor]
    labels: list[Tensor]

    def to(self, device: torch.device, non_blocking: bool = False) -> "DetectionBatch":
        """Return the batch with its tensors on `device`."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(self, images=move(self.images), boxes=[*map(move, self.boxes)], labels=[*map(move, self.labels)])

    def pin_memory(self) -> "DetectionBatch":
        """Return the batch in pinned memory; the loader calls it for a GPU."""
        return replace(
            self,
            images=self.images.pin_memory(),
            boxes=[box.pin_memory() for box in self.boxes],
            labels=[label.pin_memory() for label in self.labels],
        )


@dataclass
class Item:
    """One image: image (3, h, w) uint8, boxes (n, 4) float32 in its pixels, labels (n,) int64."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    record: Record


def trainable(data: DetectionData, filter_empty: bool) -> list[Record]:
    """Return the records without crowd boxes; if `filter_empty`, without images that have no other boxes."""
    records = []
    for record in data.records:
        kept = ~record.iscrowd
        if kept.any() or not filter_empty:
            fields = {name: getattr(record, name)[kept] for name in ("bbox", "labels", "iscrowd", "area")}
            records.append(replace(record, **fields))
    if not records:
        raise InputError(f"{data.annotations_path}: no image has a box to train on")
    return records


class TrainingImages(Dataset):
    """Map a Position to an Item, resized and randomly flipped as determined by (seed, epoch, index).

    Args:
        short_sides: lengths in pixels, of which one is drawn per image (INPUT.MIN_SIZE_TRAIN).
        flip: mirror each image with probability 1/2.
        cache: keep resized images in memory; requires a single short side.
    """

    def __init__(
        self, records: list[Record], *, short_sides: tuple[int, ...], longest: int, flip: bool, seed: int, cache: bool
    ) -> None:
        self.records, self.short_sides, self.longest = records, tuple(short_sides), longest
        self.flip, self.seed = flip, seed
        self.cached: dict[int, Tensor] | None = {} if cache else None

    def __getitem__(self, position: Position) -> Item:
        record = self.records[position.index]
        rng = position_rng(self.seed, position.epoch, position.index)
        short_side = int(rng.choice(self.short_sides))
        size = resized_size(record.width, record.height, short_side, self.longest)
        image = self._load(position.index, record, size)
        boxes = scale_boxes(record, size)
        if self.flip and rng.random() < 0.5:
            image, boxes = image.flip(2), flip_boxes(boxes, size[0])
        return Item(image, torch.from_numpy(boxes), torch.from_numpy(record.labels), record)

    def _load(self, index: int, record: Record, size: tuple[int, int]) -> Tensor:
        if self.cached is None:
            return load_resized(record.path, (record.width, record.height), size)
        if index not in self.cached:
            self.cached[index] = load_resized(record.path, (record.width, record.height), size)
        return self.cached[index]


class InferenceImages(Dataset):
    """Map an index to an Item without boxes."""

    def __init__(self, records: list[Record], *, short_side: int, longest: int) -> None:
        self.records, self.short_side, self.longest = records, short_side, longest

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        record = self.records[index]
        size = resized_size(record.width, record.height, self.short_side, self.longest)
        image = load_resized(record.path, (record.width, record.height), size)
        return Item(image, torch.empty(0, 4), torch.empty(0, dtype=torch.int64), record)


def scale_boxes(record: Record, size: tuple[int, int]) -> np.ndarray:
    """Return the (n, 4) float32 boxes of a record in pixels of the image resized to `size`, (width, height)."""
    factor = np.array([size[0] / record.width, size[1] / record.height] * 2, np.float32)
    return record.boxes * factor


def flip_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """Mirror (n, 4) boxes horizontally in an image of `width` pixels."""
    flipped = boxes.copy()
    flipped[:, 0], flipped[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return flipped


def collate(items: list[Item]) -> DetectionBatch:
    """Stack images into a batch, zero-padded at the right and the bottom.

    The padded sides are those of the largest image, rounded up to a multiple of SIZE_DIVISOR; boxes are unchanged."""
    sizes = [(item.image.shape[1], item.image.shape[2]) for item in items]
    height, width = (-(-max(side) // SIZE_DIVISOR) * SIZE_DIVISOR for side in zip(*sizes, strict=True))
    images = torch.zeros(len(items), 3, height, width, dtype=torch.uint8)
    for padded, item in zip(images, items, strict=True):
        padded[:, : item.image.shape[1], : item.image.shape[2]] = item.image
    return DetectionBatch(
        images=images,
        sizes=sizes,
        originals=[(item.record.height, item.record.width) for item in items],
        image_ids=[item.record.image_id for item in items],
        boxes=[item.boxes for item in items],
        labels=[item.labels for item in items],
    )


def training_batches(
    images: TrainingImages,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    group_by_shape: bool,
    num_workers: int,
    pin_memory: bool,
) -> GuardedLoader[DetectionBatch]:
    """Return this process's share of the batches of iterations `start` .. `stop - 1`.

    Args:
        batch_size: images per batch over all processes.
        group_by_shape: keep wide and tall images in separate batches.
    """
    groups = np.array([record.width >= record.height for record in images.records], np.int64)
    groups = groups if group_by_shape else np.zeros_like(groups)
    warn_of_small_groups(groups, batch_size)
    sampler = StatelessBatchSampler(
        len(images.records),
        batch_size,
        seed=seed,
        start=start,
        stop=stop,
        rank=rank(),
        world_size=world_size(),
        groups=groups,
    )
    return GuardedLoader(images, sampler, collate, num_workers=num_workers, pin_memory=pin_memory)


def warn_of_small_groups(groups: np.ndarray, batch_size: int) -> None:
    """Warn about images that are never trained on, because their group (1: wide, 0: tall) does not fill a batch."""
    for group in np.unique(groups):
        members = int((groups == group).sum())
        if members < batch_size:
            get_logger().warning(
                "%d %s images do not fill a batch of %d and are never trained on; "
                "set DATALOADER.ASPECT_RATIO_GROUPING False",
                members, "wide" if group else "tall", batch_size,
            )  # fmt: skip


def inference_batches(
    images: InferenceImages, *, batch_size: int, num_workers: int, pin_memory: bool
) -> GuardedLoader[DetectionBatch]:
    """Return batches that hold every image once over all processes (`shape_batches`)."""
    keys = shape_batches(images.records, batch_size)
    return GuardedLoader(images, keys, collate, num_workers=num_workers, pin_memory=pin_memory)


def validation_batches(
    images: TrainingImages, *, batch_size: int, num_workers: int, pin_memory: bool
) -> GuardedLoader[DetectionBatch]:
    """Return batches with boxes that hold every image once over all processes (`shape_batches`)."""
    keys = [[Position(0, index) for index in batch] for batch in shape_batches(images.records, batch_size)]
    return GuardedLoader(images, keys, collate, num_workers=num_workers, pin_memory=pin_memory)


def shape_batches(records: Sequence[Record], batch_size: int) -> list[list[int]]:
    """Return this process's test batches: every record once over all processes, similar aspect ratios together.

    The batches do not depend on the number of processes, because an image's padding affects its features.
    """
    order = np.argsort([record.width / record.height for record in records], kind="stable").tolist()
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    return batches[rank() :: world_size()]
