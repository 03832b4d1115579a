"""The arguments of tools/validate_data.py."""

import argparse

from backbones.core.arguments import ArgumentParser, data_argument, path_argument, root_argument


def add_arguments(parser: ArgumentParser) -> ArgumentParser:
    """Add the arguments of the tool."""
    add = parser.add_argument
    add(
        "--data", action="append", type=data_argument, default=[], metavar="NAME",
        help="a name as in DATASETS (detection/data/catalog.py), or a DATA.NAME of pretraining; repeatable",
    )  # fmt: skip
    add("--config-file", type=path_argument, help="check all data of a pretraining, a detector or a suite")
    add("--root", type=root_argument, help="folder (default: $SMOOTH2DET_DATA, $DETECTRON2_DATASETS)")
    add("--split", default="train", help="split of classification data (default %(default)s)")
    add("--num-classes", type=int, help="NUM_CLASSES of the planned training")
    add("--fast", action="store_true", help="read image headers only; misses truncated files")
    add("--no-images", action="store_true", help="check only the annotations")
    add("--no-pictures", dest="no_images", action="store_true", help=argparse.SUPPRESS)  # of earlier versions
    add("--workers", type=int, default=0, help="threads that read images (default: automatic)")
    add("--json", action="store_true", help="print the reports as JSON")
    return parser
