"""Pretrain a backbone with the labels of one method.

python tools/pretrain.py --config-file configs/pretrain/quick_scenes.yaml --output-dir runs/ce DATA.ROOT data/scenes
    --num-gpus 8           trains in 8 processes; SOLVER.BATCH_SIZE is the total
    --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT    on each of two machines, with its own rank
srun --nodes 2 --ntasks-per-node 1 --kill-on-bad-exit=1 python tools/pretrain.py --num-gpus 8 ...    on two nodes of a
cluster; torchrun --nproc_per_node 8 tools/pretrain.py ... is equivalent to --num-gpus 8.
"""

import argparse
import sys

from backbones.core.arguments import ArgumentParser, add_keep, path_argument
from backbones.core.distributed import is_main, setup_distributed
from backbones.core.entry import fast_imports, run_tool
from backbones.core.errors import InputError
from backbones.core.imports import load_config_with_imports
from backbones.core.launch import launch, wants_launch
from backbones.core.locking import lock_run
from backbones.core.machines import add_launch_arguments


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    if args.list_methods:
        from backbones.methods.manual import list_methods

        print(list_methods())
        return 0
    if args.list_networks:
        from backbones.models import list_networks

        print(list_networks())
        return 0
    if not args.output_dir:
        raise InputError("--output-dir is missing; give the folder to write the run to")
    if wants_launch(args):
        return launch(args, __file__, sys.argv[1:] if argv is None else argv)
    with fast_imports():  # slow: imported after the arguments are checked
        from backbones.config import get_defaults, validate
        from backbones.pretraining.run import CHECKPOINT, pretrain

    cfg = load_config_with_imports(get_defaults, args.config_file, args.overrides)
    validate(cfg)
    cfg.freeze()
    setup_distributed()
    with lock_run(args.output_dir):
        if not args.resume and (args.output_dir / CHECKPOINT).exists():
            raise InputError(f"{args.output_dir} holds a run already; add --resume to resume, or choose another folder")
        results = pretrain(cfg, args.output_dir, resume=args.resume, keep=args.keep)
    if is_main():
        top1 = results["metrics"]["top1"]
        print(
            f"{results['backbone']['label']}: top-1 {top1:.4f} on {cfg.DATA.VAL_SPLIT}; backbone in {args.output_dir}"
        )
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", type=path_argument, help="yaml file; keys: backbones/config.py")
    parser.add_argument("--output-dir", type=path_argument, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint of the run, if it exists")
    add_keep(parser)
    parser.add_argument("--list-methods", action="store_true", help="print every method with its arguments and exit")
    parser.add_argument("--list-networks", action="store_true", help="print every network (MODEL.ARCH) and exit")
    add_launch_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="change config keys")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    run_tool(main, resume="run the same command with --resume to resume", saves=True)
