"""Prepare data sets: `scenes` draws the built-in procedural data set, `imagenet-boxes` indexes ImageNet's annotations.

    python tools/prepare_data.py scenes --output-dir DIR [--contact-sheet]
    python tools/prepare_data.py scenes-voc --output-dir DIR
    python tools/prepare_data.py imagenet-boxes --root ROOT [--split train] [--workers N]

scenes: the default data set (8,000 + 2 x 1,000 images of 64 px, 1,500 + 250 detection images of 512 px; 107 MB, which
take 161 MB in blocks of 4 KB) takes about half a minute on 2 cores.  A folder that already contains it is not changed.
scenes-voc: only the detection images, in the layout of Pascal VOC (the data set scenes_voc).
imagenet-boxes: reads every annotation and every image header once, about 1.28M files, in minutes from a fast disk; run
the same command again to resume.  The layout of ROOT is described in backbones/data/imagenet_xml.py.
"""

import argparse
from dataclasses import fields
from typing import Any

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.entry import run_tool
from backbones.core.locking import lock_run
from backbones.core.machine import count_cores
from backbones.data.scenes.parameters import SceneParameters, VocParameters


def add_drawn(commands: argparse._SubParsersAction, name: str, parameters: Any, meaning: str) -> None:
    """Add a command that draws a data set; its options are the fields of `parameters`, documented there."""
    parser = commands.add_parser(name, help=meaning)
    parser.add_argument("--output-dir", type=path_argument, required=True, help="folder to write")
    for field in fields(parameters):
        option = f"--{field.name.replace('_', '-')}"
        meaning = f"{parameters.options[field.name]} (default %(default)s)"
        parser.add_argument(option, type=type(field.default), default=field.default, help=meaning)
    if parameters is SceneParameters:
        parser.add_argument("--contact-sheet", action="store_true", help="also write contact_sheet*.png, an overview")
    parser.add_argument("--workers", type=int, default=count_cores(), help="number of worker processes")
    parser.add_argument("--overwrite", action="store_true", help="replace another data set in the folder")
    parser.set_defaults(run=prepare_drawn, parameters=parameters, name=name)


def prepare_drawn(args: argparse.Namespace) -> None:
    """Draw the data set, unless the folder already contains it."""
    from backbones.data.scenes import sets, sheet, voc_layout  # slow: imported after the arguments are checked

    parameters = args.parameters(**{field.name: getattr(args, field.name) for field in fields(args.parameters)})
    write = sets.write_scenes if args.parameters is SceneParameters else voc_layout.write_scenes_voc
    with lock_run(args.output_dir):
        summary, drawn = write(args.output_dir, parameters, workers=args.workers, overwrite=args.overwrite)
        if getattr(args, "contact_sheet", False):
            sheet.write_contact_sheets(args.output_dir, parameters)
    done = "written to" if drawn else "already complete in"
    print(f"{args.name} {summary['fingerprint']}: {summary['files']} files {done} {args.output_dir}")


def add_imagenet_boxes(commands: argparse._SubParsersAction) -> None:
    """Add the command `imagenet-boxes`."""
    parser = commands.add_parser("imagenet-boxes", help="index class folders with ILSVRC XML")
    parser.add_argument("--root", type=path_argument, required=True, help="folder of <split>/<class>/ and annotations/")
    parser.add_argument("--split", default="train", help="folder of class folders below ROOT (default %(default)s)")
    parser.add_argument("--workers", type=int, default=count_cores(), help="number of worker processes")
    parser.add_argument("--overwrite", action="store_true", help="read everything again, instead of resuming")
    parser.set_defaults(run=prepare_imagenet_boxes)


def prepare_imagenet_boxes(args: argparse.Namespace) -> None:
    """Index the split and print a summary."""
    from backbones.data.annotation_index import build_index, describe_index

    with lock_run(args.root):
        classes = build_index(args.root, args.split, workers=args.workers, overwrite=args.overwrite)
    print(describe_index(args.root, args.split, classes))


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="data set")
    add_drawn(commands, "scenes", SceneParameters, "draw the built-in procedural data set")
    add_drawn(commands, "scenes-voc", VocParameters, "draw its detection images in the layout of Pascal VOC")
    add_imagenet_boxes(commands)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    run_tool(main, resume="run the same command again to resume")
