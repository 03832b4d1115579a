"""Export the weights of a finished fine-tuning for torchvision or detectron2, and print how to load them.

python tools/export_detector.py --run runs/als-det --to torchvision --output als_torchvision.pth
python tools/export_detector.py --run runs/als-det --to detectron2 --output als_detectron2.pth

A Faster R-CNN with a feature pyramid can be exported to both; any other setting is refused by name.
"""

import argparse

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.checks import check_choice
from backbones.core.entry import run_tool
from backbones.core.errors import InputError


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    if args.output.exists():
        raise InputError(f"{args.output} exists; choose another --output")
    from detection.exchange.detector_weights import TARGETS, export_detector, usage  # slow
    from detection.training.trained import read_run

    check_choice("--to", args.to, TARGETS)
    cfg, state = read_run(args.run)
    tensors = export_detector(cfg, state["model"], args.output, args.to)
    print(f"{args.output}: {tensors} tensors of ENGINE {cfg.ENGINE}, read back, bit-equal; to load them:\n")
    print(usage(cfg, args.output, args.to))
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, type=path_argument, help="folder of a finished fine-tuning")
    parser.add_argument("--to", required=True, help="target program: torchvision or detectron2")
    parser.add_argument("--output", required=True, type=path_argument, help=".pth file to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
