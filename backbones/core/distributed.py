"""Process groups: the same calls for one process and for many.

`torchrun` and backbones/core/launch.py describe the group in the environment, which `setup_distributed` reads.  A
function started by detectron2's `launch` or `torch.multiprocessing` has already joined a group and keeps it.

This module does not import torch, so that a tool that does not need torch can lock its folder and log without it.
"""

import atexit
import inspect
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from backbones.core.errors import InputError
from backbones.core.joining import JOINS, join_group

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


# In messages of gloo, NCCL and the store when another process has ended.
_BROKEN = (
    *("gloo/transport", "Connection closed", "Connection reset", "Broken pipe", "remote process exited"),
    *("failed to recv", "communicator was aborted", "Watchdog caught collective operation timeout"),
)


def _group() -> ModuleType | None:
    """Return `torch.distributed` if this process is in a group, else None; without torch, it is not in one."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_initialized() else None


def setup_distributed() -> "torch.device":
    """Join the process group described by the environment, unless already in one, and return this process's device.

    Raises:
        InputError: more processes than GPUs.
    """
    import torch
    import torch.distributed as dist

    cuda = torch.cuda.is_available()
    if cuda and dist.is_initialized() and "LOCAL_RANK" not in os.environ:
        return torch.device("cuda", torch.cuda.current_device())  # chosen by whoever created the group
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        if device.index >= torch.cuda.device_count():
            raise InputError(
                f"process {device.index + 1} of this machine has no GPU of its own: there are only "
                f"{torch.cuda.device_count()}; start as many processes as GPUs (torchrun --nproc_per_node)"
            )
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        backend = "nccl" if cuda else "gloo"
        (join_group if JOINS in os.environ else dist.init_process_group)(backend)
        atexit.register(dist.destroy_process_group)
    return device


def lost_connection(error: RuntimeError) -> str:
    """Return a line for an error that the end of another process has caused; "" for every other error."""
    group, text = _group(), " ".join(str(error).split())
    if group is None or world_size() == 1:
        return ""
    if not any(said in text for said in _BROKEN):
        return ""
    return (
        f"process {rank()} has lost the connection to another process of the training, which says why it has ended; "
        f"run the same command again to resume ({text.partition(' Exception raised from')[0][:150]})"
    )


def rank() -> int:
    """Return this process's rank; 0 without a group."""
    return group.get_rank() if (group := _group()) else 0


def world_size() -> int:
    """Return the number of processes."""
    return group.get_world_size() if (group := _group()) else 1


def is_main() -> bool:
    """Whether this is the main process, which writes the files."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if group := _group():
        group.barrier()


def all_reduce_sum(*tensors: "Tensor") -> None:
    """Replace each tensor with its sum over the processes, in place."""
    if group := _group():
        for tensor in tensors:
            group.all_reduce(tensor)


def broadcast(*tensors: "Tensor") -> None:
    """Replace each tensor with that of the main process, in place."""
    if group := _group():
        for tensor in tensors:
            group.broadcast(tensor, 0)


def gather_objects(obj: Any) -> list[Any]:
    """Return the picklable `obj` of every process, in rank order, on every process."""
    group = _group()
    if group is None:
        return [obj]
    gathered: list[Any] = [None] * world_size()
    group.all_gather_object(gathered, obj)
    return gathered


def wrap_ddp(module: "nn.Module", device: "torch.device") -> "nn.Module":
    """Wrap `module` for several processes; with one process, return it unchanged.

    Buffers are not broadcast during the forward pass: a method's buffers hold local sums, which a broadcast from
    rank 0 would silently overwrite.
    """
    if world_size() == 1:
        return module
    from torch.nn.parallel import DistributedDataParallel

    # The argument was renamed in recent torch.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    argument = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {argument: False}
    return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None, **options)
