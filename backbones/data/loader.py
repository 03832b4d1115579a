"""Loaders of this process's share of the training or evaluation batches."""

from torch.utils.data import BatchSampler, Subset

from backbones.core import distributed
from backbones.core.loading import GuardedLoader
from backbones.core.sampling import StatelessBatchSampler
from backbones.data.batch import Batch
from backbones.data.evaluation_set import EvaluationSet
from backbones.data.items import collate
from backbones.data.training_set import TrainingSet


def training_batches(
    dataset: TrainingSet,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> GuardedLoader[Batch]:
    """Return a loader of this process's share of the batches of iterations start .. stop - 1.

    Args:
        batch_size: samples per iteration over all processes.
        seed: seed of the order; the augmentation uses the seed of the data set.
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
    return GuardedLoader(dataset, sampler, collate, num_workers=num_workers, pin_memory=pin_memory)


def evaluation_batches(
    dataset: EvaluationSet | Subset, *, batch_size: int, num_workers: int = 0, pin_memory: bool = False
) -> GuardedLoader[Batch]:
    """Return a loader in which process r takes samples r, r + world size, ..., each exactly once, without padding.

    The number of batches can differ between processes: reduce sums and counts, never means.

    dataset: an `EvaluationSet`, or a `Subset` of one (`index` still refers to the whole set).
    """
    mine = range(distributed.rank(), len(dataset), distributed.world_size())
    keys = BatchSampler(mine, batch_size, drop_last=False)
    return GuardedLoader(dataset, keys, collate, num_workers=num_workers, pin_memory=pin_memory)
