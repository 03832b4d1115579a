"""Batches for detectron2, with its mapper and our order of images.

detectron2 shuffles in the sampler, groups by shape after mapping, and draws flips from the state of each
worker; none of that can be resumed exactly.  Here batches are grouped before mapping, and the random
numbers of an image are a pure function of (seed, epoch, image).

This module does not import detectron2: it receives a `DatasetMapper`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from backbones.core.distributed import rank, world_size
from backbones.core.errors import InputError
from backbones.core.loading import GuardedLoader
from backbones.core.sampling import Position, StatelessBatchSampler, position_rng
from detection.data.loader import shape_batches, warn_of_small_groups
from detection.data.records import Record

XYWH_ABS = 1  # detectron2.structures.BoxMode.XYWH_ABS
Mapper = Callable[[dict[str, Any]], dict[str, Any]]


def to_dataset_dict(record: Record) -> dict[str, Any]:
    """Convert a record to detectron2's dataset dict; its mapper skips crowds."""
    annotations = [
        {"bbox": box, "bbox_mode": XYWH_ABS, "category_id": int(label), "iscrowd": int(crowd)}
        for box, label, crowd in zip(record.bbox.tolist(), record.labels, record.iscrowd, strict=True)
    ]
    return {
        "file_name": record.path,
        "image_id": record.image_id,
        "width": record.width,
        "height": record.height,
        "annotations": annotations,
    }


class MappedRecords(Dataset):
    """Records mapped by detectron2's mapper.

    An index is a `Position` in training (which alone determines the mapper's random numbers) and a number
    at inference.

    Raises:
        InputError: an image that cannot be read.
    """

    def __init__(self, records: Sequence[Record], mapper: Mapper, seed: int) -> None:
        self.records, self.mapper, self.seed = records, mapper, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: Position | int) -> dict[str, Any]:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        record = self.records[index]
        try:
            with _numpy_seeded(position_rng(self.seed, epoch, index)):
                return self.mapper(to_dataset_dict(record))
        except (OSError, SyntaxError, ValueError) as error:  # raised by PIL, depending on format and damage
            raise InputError(f"cannot use the image {record.path} ({error}); restore or remove it") from None


def training_batches(
    records: Sequence[Record],
    mapper: Mapper,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    group_by_aspect: bool,
    num_workers: int,
    pin_memory: bool,
) -> GuardedLoader[list[dict[str, Any]]]:
    """Return this process's share of the batches of iterations `start` .. `stop - 1`.

    Args:
        batch_size: images per iteration over all processes.
        group_by_aspect: never put wide and tall images into one batch.
    """
    wide = np.array([record.width > record.height for record in records], np.int64)
    if group_by_aspect:
        warn_of_small_groups(wide, batch_size)
    sampler = StatelessBatchSampler(
        len(records),
        batch_size,
        seed=seed,
        start=start,
        stop=stop,
        rank=rank(),
        world_size=world_size(),
        groups=wide if group_by_aspect else None,
    )
    mapped = MappedRecords(records, mapper, seed)
    return GuardedLoader(mapped, sampler, list, num_workers=num_workers, pin_memory=pin_memory)


def test_batches(
    records: Sequence[Record], mapper: Mapper, *, batch_size: int, num_workers: int, pin_memory: bool
) -> GuardedLoader[list[dict[str, Any]]]:
    """Return batches that cover every test image once over all processes (`shape_batches`)."""
    mapped, keys = MappedRecords(records, mapper, 0), shape_batches(records, batch_size)
    return GuardedLoader(mapped, keys, list, num_workers=num_workers, pin_memory=pin_memory)


@contextlib.contextmanager
def _numpy_seeded(rng: np.random.Generator) -> Iterator[None]:
    """Seed numpy's global generator, which detectron2's augmentations use, and restore its state afterwards."""
    before = np.random.get_state()
    np.random.seed(rng.integers(2**32, dtype=np.uint32))
    try:
        yield
    finally:
        np.random.set_state(before)
