"""Precise batch normalisation: statistics of the final weights, instead of a running mean over changing ones.

Wu and Johnson 2021, "Rethinking Batch in BatchNorm" (arXiv:2105.07576), Sec. 3; MoCo's protocol.  The batches are
those that follow in the training order after MAX_ITER: a pure function of the seed, so that a resumed run gets the same
statistics.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from backbones.core.config import CfgNode
from backbones.core.distributed import all_reduce_sum, world_size
from backbones.core.engine import seed_step
from backbones.core.run_log import get_logger


def measure_statistics(task: nn.Module, batches: Iterable[Any], cfg: CfgNode) -> None:
    """Replace the statistics of every batch norm in training mode by those over PRECISE_BN.NUM_ITER batches.

    With several processes, the statistics are the mean over the batches of all processes, the same on each of them.

    Args:
        task: maps a batch to its losses; not wrapped in DDP.
        batches: this process's share of each batch.
    """
    # Imported here, because the import shows torch's warning about its jit to every user of the engines.
    from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats

    first, count = cfg.SOLVER.MAX_ITER, cfg.TEST.PRECISE_BN.NUM_ITER
    get_logger().info("precise batch norm over %d batches of %d images", count, cfg.SOLVER.IMS_PER_BATCH)

    def seeded() -> Iterator[Any]:
        for iteration, batch in enumerate(batches, start=first):
            seed_step(cfg.SEED, iteration)  # the proposals that a C4 head normalises are sampled
            yield batch

    task.train()
    update_bn_stats(task, seeded(), count)
    norms: list[Any] = get_bn_modules(task)
    for norm in norms:
        mean = norm.running_mean.double()
        square = norm.running_var.double() + mean.square()
        all_reduce_sum(mean, square)
        mean, square = mean / world_size(), square / world_size()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square - mean.square()).clamp(min=0))
