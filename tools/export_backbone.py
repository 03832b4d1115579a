"""Export a backbone to a file for detectron2 or torchvision, and print how to load it.

python tools/export_backbone.py --backbone runs/als --to detectron2 --output als_detectron2.pth
python tools/export_backbone.py --backbone runs/als --to torchvision --output als_torchvision.pth
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
    from backbones.models.weights import load_backbone  # slow
    from detection.exchange.export import TARGETS, export_backbone, usage

    check_choice("--to", args.to, TARGETS)
    backbone = load_backbone(args.backbone)
    account = export_backbone(backbone, args.output, args.to)
    kinds = {"besides the ResNet's": account["besides"], "left out on purpose": account["dropped"]}
    print(f"{args.output}: {account['tensors']} tensors of a ResNet-{backbone.spec['depth']}, read back, bit-equal")
    for kind, names in kinds.items():
        if names:
            print(f"{len(names)} {kind}: {summary(names)}")
    print(f"backbone {backbone.hash} ({backbone.provenance['label']}); to load it:\n")
    print(usage(backbone.spec, args.output, args.to))
    return 0


def summary(names: list[str]) -> str:
    """List tensors by name, with the counters of batch normalisation as one entry."""
    counters = [name for name in names if name.endswith(".num_batches_tracked")]
    rest = [name for name in names if name not in counters]
    return ", ".join([*rest, *([f"{len(counters)} num_batches_tracked"] if counters else [])])


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True, type=path_argument, help="a pretraining run, or a backbone file")
    parser.add_argument("--to", required=True, help="target program: detectron2 or torchvision")
    parser.add_argument("--output", required=True, type=path_argument, help=".pth file to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
