"""Estimate YOLO's anchors from the boxes of a data set, and print the block to paste into a config.

python tools/estimate_anchors.py --root ~/data --data bccd_trainval --size 416
    --data voc_2007_trainval voc_2012_trainval      joins several data sets
Images are assumed to be letterboxed to SIZE x SIZE pixels; for multi-scale training, give the middle size.
"""

import argparse
from typing import TYPE_CHECKING

import numpy as np

from backbones.core.arguments import ArgumentParser, data_argument, root_argument
from backbones.core.checks import check_range
from backbones.core.entry import run_tool
from backbones.core.run_log import get_logger
from backbones.core.warning_counter import WarningCounter
from detection.engines.yolo.anchors import STRIDES, estimate_anchors, split_scales

if TYPE_CHECKING:
    from detection.data.records import DetectionData


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    from detection.data.catalog import load_data  # slow

    warnings = WarningCounter()
    data = load_data(args.data, args.root, warnings)
    warnings.log(get_logger())
    shapes = letterboxed_shapes(data, args.size)
    anchors, quality = estimate_anchors(shapes, len(STRIDES) * args.per_scale, args.seed)
    print(f"# {data.name}: {len(shapes)} boxes at {args.size} px, mean best IoU {quality:.4f}, seed {args.seed}")
    print("MODEL:\n  ANCHORS:  # (width, height) in units of the strides 8, 16, 32")
    for scale in split_scales(anchors):
        print(f"    - {scale}")
    return 0


def letterboxed_shapes(data: "DetectionData", size: int) -> np.ndarray:
    """Return widths and heights, (N, 2) in pixels, of the boxes that are trained on."""
    parts = [r.bbox[~r.iscrowd, 2:] * (size / max(r.width, r.height)) for r in data.records]
    return np.concatenate(parts)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, type=data_argument, help="names as in DATASETS.TRAIN")
    parser.add_argument("--root", type=root_argument, default="$SMOOTH2DET_DATA", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=416, help="side of the network's input in pixels")
    parser.add_argument("--per-scale", type=int, default=3, help="anchors per scale, of which there are three")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    for name in ("size", "per_scale"):
        check_range(f"--{name.replace('_', '-')}", getattr(args, name), 1)
    check_range("--seed", args.seed, 0)
    return args


if __name__ == "__main__":
    run_tool(main)
