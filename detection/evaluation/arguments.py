"""Command-line arguments for results files of any detector.

Imports nothing that reads data at its top, so that a tool can offer the arguments without a slow start.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from backbones.core.arguments import data_argument, path_argument
from backbones.core.errors import InputError
from detection.evaluation.declared import BOX_FORMS, CATEGORY_KEYS, FORMS, IMAGE_KEYS, VOC, Declared, ResultsFile

_SHAPE = "NAME=FILE or NAME@SEED=FILE"


def truth_argument(text: str) -> Path | str:
    """Return the expanded path of a json, or voc:<folder>:<split> with an expanded folder."""
    return data_argument(text) if text.startswith(VOC) else path_argument(text)


def results_argument(text: str) -> ResultsFile:
    """Parse NAME=FILE or NAME@SEED=FILE; the first = ends the name."""
    title, equals, file = text.partition("=")
    name, at, seed = title.partition("@")
    if not equals or not name.strip() or not file:
        raise argparse.ArgumentTypeError(f"'{text}' is not {_SHAPE}; write the method's name, =, and its results")
    if at and not (seed.isascii() and seed.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"'{text}': the seed '{seed}' is not a whole number from 0; write {_SHAPE}, without another @ in the name"
        )
    path = path_argument(file)
    if not path.exists():
        more = " (the first = ends the name, which cannot hold one)" if "=" in file else ""
        raise argparse.ArgumentTypeError(f"no such file or folder: {path}{more}; check the path")
    return ResultsFile(name.strip(), int(seed or 0), path)


def add_results_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --truth, --results and the options that declare what the results hold."""
    group = parser.add_argument_group("results of other detectors")
    group.add_argument(
        "--truth", type=truth_argument, metavar="JSON",
        help="their ground truth: COCO instances json, or voc:<folder>:<split>",
    )  # fmt: skip
    group.add_argument(
        "--results", type=results_argument, action="append", default=[], metavar="NAME[@SEED]=FILE",
        help="COCO results json, or folder of comp4 files (VOC); repeat for methods and seeds (default: seed 0)",
    )  # fmt: skip
    group.add_argument("--images", type=path_argument, metavar="FOLDER", help="of the images of --truth, to draw them")
    group.add_argument("--box-form", default="xywh", choices=BOX_FORMS, help="boxes in the json files (%(default)s)")
    group.add_argument("--image-by", default="id", choices=IMAGE_KEYS, help="what image_id holds (%(default)s)")
    group.add_argument(
        "--category-by", default="id", choices=CATEGORY_KEYS,
        help="what category_id holds; index: from 0 in the order of the truth's ids (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--form", choices=FORMS,
        help="voc: also VOC's numbers, iscrowd is `difficult` (default: voc if truth, files or runs are VOC's)",
    )  # fmt: skip


def evaluate_arguments(args: argparse.Namespace, beside: Sequence[Path] = ()) -> list[Path]:
    """Evaluate the files of --results, and return a run folder for each, below `args.output_dir`.

    Args:
        beside: folders of detection results that they are compared with.
    Raises:
        InputError: as `results_files.evaluate_files`; --results without --truth, or the reverse.
    """
    if bool(args.truth) != bool(args.results):
        given, missing = ("--truth", "--results") if args.truth else ("--results", "--truth")
        raise InputError(f"{given} without {missing}; give both, or neither")
    if not args.results:
        return []
    from detection.evaluation.results_files import RESULTS, evaluate_files

    declared = Declared(args.box_form, args.image_by, args.category_by)
    found = evaluate_files(
        args.truth, args.results, args.output_dir / RESULTS, declared=declared, form=args.form, beside=beside
    )
    return [one.folder for one in found]
