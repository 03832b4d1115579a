"""Data sets to batches, in this process or in loader processes, with the same result.

A broken file is found by a loader process; its `InputError` travels to the training process as a value and is raised
there, so that the user reads one line and not the traceback of a process that he does not know.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from backbones.core import distributed
from backbones.core.errors import InputError
from backbones.core.sampling import StatelessBatchSampler
from backbones.data.batch import Batch
from backbones.data.evaluation_set import EvaluationSet
from backbones.data.items import Item, collate
from backbones.data.training_set import TrainingSet


class Batches:
    """An iterable of `Batch` with a length, which raises the `InputError` of a loader process in this one."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def training_batches(
    dataset: TrainingSet,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Batches:
    """This process's share of the batches of iterations start .. stop - 1.

    Args:
        batch_size: samples of one iteration over all processes.
        seed: of the order; the augmentation's is the data set's.
        num_workers: loader processes; 0 loads in this process.
    """
    sampler = StatelessBatchSampler(
        len(dataset),
        batch_size,
        seed=seed,
        start=start,
        stop=stop,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    return _build_batches(dataset, num_workers, pin_memory, batch_sampler=sampler)


def evaluation_batches(
    dataset: EvaluationSet | Subset, *, batch_size: int, num_workers: int = 0, pin_memory: bool = False
) -> Batches:
    """Every sample exactly once over all processes: process r takes samples r, r + world size, ... without padding.

    dataset: an `EvaluationSet`, or a `Subset` of one (its `index` stays that of the whole set).
    Processes may get different numbers of batches: reduce sums and counts, never means.
    """
    mine = range(distributed.rank(), len(dataset), distributed.world_size())
    return _build_batches(dataset, num_workers, pin_memory, sampler=mine, batch_size=batch_size)


def _build_batches(dataset: Dataset, num_workers: int, pin_memory: bool, **sampling: Any) -> Batches:
    loader = DataLoader(
        _ErrorsAsValues(dataset),
        collate_fn=_collate_or_error,
        num_workers=num_workers,
        pin_memory=pin_memory and torch.cuda.is_available(),
        worker_init_fn=_init_worker,
        # Of its own, or starting the loader would draw from the global generator.
        generator=torch.Generator(),
        **sampling,
    )
    return Batches(loader)


class _ErrorsAsValues(Dataset):
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Item | InputError:
        try:
            return self.dataset[index]
        except InputError as error:
            return error


def _collate_or_error(items: Sequence[Item | InputError]) -> Batch | InputError:
    try:
        for item in items:
            if isinstance(item, InputError):
                return item
        return collate(items)  # type: ignore[arg-type]
    except InputError as error:
        return error


def _init_worker(worker: int) -> None:
    # One thread a loader process: more would fight over the cores that the other processes have.
    torch.set_num_threads(1)
