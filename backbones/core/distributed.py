"""One process or many, with the same calls.

`torchrun` and backbones/core/launch.py announce a group in the environment, which `setup_distributed` reads; a function
that detectron2's `launch` or `torch.multiprocessing` started in a group of its own finds that group joined already.
"""

import atexit
import inspect
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbones.core.errors import InputError


def setup_distributed() -> torch.device:
    """Join the process group that the environment announces, unless this process is in one; return its device.

    Raises:
        InputError: more processes than GPUs.
    """
    cuda = torch.cuda.is_available()
    if cuda and dist.is_initialized() and "LOCAL_RANK" not in os.environ:
        return torch.device("cuda", torch.cuda.current_device())  # whoever made the group chose it
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        if device.index >= torch.cuda.device_count():
            raise InputError(
                f"process {device.index + 1} of this machine has no GPU of its own, there are "
                f"{torch.cuda.device_count()}; start as many processes (torchrun --nproc_per_node)"
            )
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)
    return device


def rank() -> int:
    """This process's number, 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True on the process that writes files."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()


def all_reduce_sum(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the processes, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def broadcast(*tensors: Tensor) -> None:
    """Replace each tensor by that of the main process, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def gather_objects(obj: Any) -> list[Any]:
    """Every process's picklable `obj`, in order of rank, on every process."""
    if not dist.is_initialized():
        return [obj]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, obj)
    return gathered


def wrap_ddp(module: nn.Module, device: torch.device) -> nn.Module:
    """Wrap for several processes; unchanged in a group of one.

    Buffers are not broadcast during the forward pass: a method's buffers hold local sums, which a broadcast from
    rank 0 would silently overwrite.
    """
    if world_size() == 1:
        return module
    # The argument was renamed in recent torch.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    argument = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {argument: False}
    return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None, **options)
