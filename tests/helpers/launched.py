"""Tool that test_launch.py starts in several processes."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from backbones.core.entry import run_tool
from backbones.core.errors import Diverged, InputError
from backbones.core.launch import launch, wants_launch
from backbones.core.machines import add_launch_arguments


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("folder", type=Path)
    add_launch_arguments(parser)
    args = parser.parse_args(argv)
    if wants_launch(args):
        return launch(args, __file__, sys.argv[1:] if argv is None else argv)
    own = int(os.environ["RANK"])
    (args.folder / f"{args.what}-{own}").write_text(str(os.getpid()))
    if args.what == "refuse":
        raise InputError("the key is wrong;\nset it right")
    if args.what == "diverge":
        raise Diverged("the loss is not finite")
    if own == 1 and args.what == "image":
        raise InputError("image 7 is broken; restore it")
    if own == 1 and args.what == "crash":
        return 7
    if own == 1 and args.what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if args.what in ("sum", "leave"):
        import torch  # slow, and only needed here

        from backbones.core.distributed import all_reduce_sum, rank, setup_distributed, world_size

        setup_distributed()
        total = torch.tensor([2.0**own])
        all_reduce_sum(total)
        print(f"{rank()}/{world_size()}: {total.item():g}", flush=True)
        if own == 1 and args.what == "leave":
            os._exit(7)
        for _ in range(99 if args.what == "leave" else 0):
            all_reduce_sum(total)
        return 0
    time.sleep(100)
    return 0


if __name__ == "__main__":
    run_tool(main)
