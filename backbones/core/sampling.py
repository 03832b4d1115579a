"""Stateless sampling: order and augmentation are pure functions of (seed, epoch, index).

A resumed run therefore repeats the uninterrupted one exactly, on every engine and for any number of workers.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backbones.core.errors import InputError


class Position(NamedTuple):
    """Key of a training set: sample `index`, augmented as in `epoch`."""

    epoch: int
    index: int


def position_rng(seed: int, epoch: int, index: int, stream: int = 0) -> np.random.Generator:
    """Return the generator of one sample's augmentation in one epoch; different values of `stream` are independent."""
    # numpy pads with zeros: stream 0 equals no stream.
    return np.random.Generator(np.random.PCG64([seed, epoch, index, stream] if stream else [seed, epoch, index]))


def draw_rng(seed: int, stream: int) -> np.random.Generator:
    """Return the generator of a draw that is made once per run; each kind of draw has its own `stream` above 0."""
    # More numbers than the seed of an order or a sample: [seed, stream] would be the generator of the order in epoch
    # `stream`, so that the samples drawn first would also come first in that epoch.
    return np.random.Generator(np.random.PCG64([seed, 0, 0, 0, stream]))


class StatelessBatchSampler:
    """Yields this process's share of the batch of positions of each iteration `start` .. `stop - 1`.

    An epoch visits every sample at most once; its last, partial batch is dropped, so that all batches have equal size.

    Args:
        length: number of samples.
        batch_size: samples per iteration over all processes; divisible by `world_size`.
        groups: (length,) int; a batch never mixes groups (aspect ratios), and each group drops its own partial batch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world_size: int = 1,
        groups: np.ndarray | None = None,
    ) -> None:
        if batch_size % world_size:
            raise InputError(f"the batch of {batch_size} cannot be shared by {world_size} processes; use a multiple")
        self.groups = np.zeros(length, np.int64) if groups is None else np.asarray(groups)
        self.batch_size, self.seed, self.start, self.stop = batch_size, seed, start, stop
        self.rank, self.world_size = rank, world_size
        sizes = np.unique(self.groups, return_counts=True)[1]
        self.iterations_per_epoch = int((sizes // batch_size).sum())
        if not self.iterations_per_epoch:
            raise InputError(_too_few(length, sizes.tolist(), batch_size))

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __iter__(self) -> Iterator[list[Position]]:
        order: np.ndarray | None = None
        share = self.batch_size // self.world_size
        for iteration in range(self.start, self.stop):
            epoch, within = divmod(iteration, self.iterations_per_epoch)
            if order is None or within == 0:
                order = self.epoch_batches(epoch)
            mine = order[within, self.rank * share : (self.rank + 1) * share]
            yield [Position(epoch, int(index)) for index in mine]

    def epoch_batches(self, epoch: int) -> np.ndarray:
        """Return the batches of one epoch over all processes: (iterations_per_epoch, batch_size) sample indices."""
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        batches = []
        for group in np.unique(self.groups):
            members = rng.permutation(np.flatnonzero(self.groups == group))
            whole = len(members) // self.batch_size * self.batch_size
            batches.append(members[:whole].reshape(-1, self.batch_size))
        return rng.permutation(np.concatenate(batches)) if len(batches) > 1 else batches[0]


def _too_few(length: int, sizes: list[int], batch_size: int) -> str:
    if length == 0:
        return "the training set holds no samples; check the data"
    largest = max(sizes)
    if len(sizes) == 1:
        return f"{length} samples do not fill one batch of {batch_size}; use a batch of {length} or less"
    parts = " and ".join(map(str, sizes))
    return (
        f"the {length} samples form groups of {parts} (wide and tall images are never mixed), none of which fills one "
        f"batch of {batch_size}; use a batch of {largest} or less, or set DATALOADER.ASPECT_RATIO_GROUPING False"
    )
