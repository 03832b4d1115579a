"""The arguments of tools/validate_data.py."""

import argparse

from backbones.core.arguments import ArgumentParser, data_argument, path_argument, root_argument
from backbones.core.checks import check_range
from backbones.core.errors import InputError

SPLIT = "train"  # of classification data without --split


def add_arguments(parser: ArgumentParser) -> ArgumentParser:
    """Add the arguments of the tool."""
    add = parser.add_argument
    add(
        "--data", action="append", type=data_argument, default=[], metavar="NAME",
        help="a name as in DATASETS (detection/data/catalog.py), or a DATA.NAME of pretraining; repeatable",
    )  # fmt: skip
    add("--config-file", type=path_argument, help="check all data of a pretraining, a detector or a suite")
    add("--root", type=root_argument, help="folder (default: $SMOOTH2DET_DATA, $DETECTRON2_DATASETS)")
    add("--split", help=f"split of classification data (default {SPLIT})")
    add("--num-classes", type=int, help="NUM_CLASSES of the planned training; 0: that of the data")
    add("--fast", action="store_true", help="read image headers only; misses truncated files")
    add("--no-images", action="store_true", help="check only the annotations")
    add("--no-pictures", dest="no_images", action="store_true", help=argparse.SUPPRESS)  # of earlier versions
    add("--workers", type=int, default=0, help="threads that read images (default: automatic)")
    add("--json", action="store_true", help="print the reports as JSON")
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Raise `InputError` for a value that is not valid, or that has no effect whatever the data are."""
    if not args.data and not args.config_file:
        raise InputError("nothing to check; give --data NAME or --config-file FILE")
    check_range("--workers", args.workers, 0)
    for option, value in (("--num-classes", args.num_classes), ("--split", args.split)):
        if value is not None and not args.data:
            raise InputError(f"{option} {value}: the config sets it; leave it out, or check with --data")
    if args.num_classes is not None:
        check_range("--num-classes", args.num_classes, 0)


def check_kind(args: argparse.Namespace, name: str, *, samples: bool, labels: bool) -> None:
    """Raise `InputError` for an argument that the data set `name` needs, or that has no effect on it.

    Args:
        samples: it is a classification data set; labels: it is labels alone, without splits.
    """
    if samples or labels:
        if not args.root:
            raise InputError(f"'{name}' is classification data; give its folder as --root")
        if args.num_classes is not None:
            what = f"'{name}' is classification data, whose classes are not compared"
            raise InputError(f"--num-classes {args.num_classes}: {what}; leave it out")
    if args.split is None or samples:
        return
    if labels:
        raise InputError(f"--split {args.split}: '{name}' has no splits; leave it out")
    from detection.data.catalog import COCO_SETS, VOC_SETS  # slow

    if name in (*COCO_SETS, *VOC_SETS) or ":" in name:  # else it is unknown, which its reader says
        raise InputError(f"--split {args.split}: '{name}' is detection data, whose name states the split; leave it out")
