"""The arguments of tools/import_backbone.py, and the backbone that they declare; suites check it before they start."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.config import IMPORTS, load_yaml
from backbones.core.errors import InputError
from backbones.core.imports import find_imports
from backbones.core.results import FILE_NAME as RESULTS
from backbones.core.results import load_results
from detection.exchange.resnets import ARCHITECTURES
from detection.exchange.sources import SOURCES

if TYPE_CHECKING:
    from backbones.models.weights import BackboneFile

# The source of our own run folders and backbone files, which state everything that is declared for other files.
OWN = "smooth2det"
OWN_HELP = "smooth2det: a run folder or a backbone file of this project"
CONFIG_FILE = "config.yaml"
DECLARED = ("norm", "mean", "std", "pixel_range", "channel_order", "stride_in_1x1", "image_size")


def add_arguments(parser: ArgumentParser) -> ArgumentParser:
    """Add the arguments of the tool; what is not declared is None."""
    add, sources = parser.add_argument, [f"{name}: {source.made_by}" for name, source in SOURCES.items()]
    add("--checkpoint", required=True, type=path_argument, help="file of the other program")
    add("--source", required=True, help="; ".join([OWN_HELP, *sources]))
    add("--arch", help=", ".join(ARCHITECTURES))
    add("--label", required=True, help="label of its rows in tables")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=path_argument, help="file to write, such as backbone.pth in a new folder")
    target.add_argument("--output-dir", type=path_argument, help="folder to write: backbone.pth and import.json")
    add("--overwrite", action="store_true", help="replace existing files")
    add("--method", help="method of its rows in tables (default: imported, or that of the smooth2det file)")
    add("--seed", type=int, help="distinguishes trainings with the same label (default: 0, or that of the file)")
    add("--norm", choices=("BN", "GN"), help="default: BN")
    add("--mean", type=float, nargs=3, help="per channel, in --channel-order; default: ImageNet's")
    add("--std", type=float, nargs=3, help="as --mean")
    add("--pixel-range", type=float, choices=(1.0, 255.0), help="value of a white pixel (default: 1)")
    add("--channel-order", choices=("RGB", "BGR"), help="default: RGB")
    add("--stride-in-1x1", action="store_const", const=True, help="bottlenecks stride in their first 1x1 (MSRA, Caffe)")
    add("--image-size", type=int, help="side of the training images in pixels (default: 224)")
    add("--no-classifier", dest="classifier", action="store_false", help="leave out fc.*")
    add("--classes", type=path_argument, help="text file with the class names, one per line")
    add("--config-file", type=path_argument, help="pretraining config of the data set")
    add("overrides", nargs="*", metavar="KEY VALUE", help="change keys of --config-file")
    return parser


def parse_declaration(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of a planned call; raise `InputError` instead of ending the process."""
    return add_arguments(_RaisingParser()).parse_intermixed_args(argv)


def read_planned(argv: Sequence[str]) -> "BackboneFile":
    """Return the backbone that a call with these arguments would write; with --config-file, it must be measurable.

    Raises:
        InputError: as the call would, or the backbone cannot classify the images of the config.
    """
    from backbones.models.weights import refuse_other_form  # slow

    args = parse_declaration(argv)
    backbone, _ = read_declared(args)
    if args.config_file:
        if not backbone.spec["num_classes"]:
            raise InputError(f"{args.checkpoint} has no classifier to measure; delete the row's CONFIG")
        if args.source != OWN and args.classes is None:
            outputs = backbone.spec["num_classes"]
            raise InputError(
                f"--classes is missing: CONFIG measures the classifier, and the {outputs} outputs of {args.checkpoint} "
                "have no names; name a text file with one per line, in the order of the outputs"
            )
        refuse_other_form(backbone)
    return backbone


def read_declared(args: argparse.Namespace) -> tuple["BackboneFile", str]:
    """Return the backbone that the arguments declare, and a line that describes it.

    Raises:
        InputError: a file that cannot be read, or that is not what the arguments declare.
    """
    from detection.exchange.importing import declare_spec, describe, import_backbone, load_classes  # slow

    if args.source == OWN:
        return _read_own(args)
    if not args.arch:
        raise InputError(f"--arch is missing; choices: {', '.join(ARCHITECTURES)}")
    spec = declare_spec(args.arch, **{key: value for key in DECLARED if (value := getattr(args, key)) is not None})
    backbone, report = import_backbone(
        args.checkpoint,
        args.source,
        spec,
        label=args.label,
        method=args.method or "imported",
        seed=args.seed or 0,
        classifier=args.classifier,
        classes=args.classes and load_classes(args.classes),
    )
    return backbone, describe(backbone, report)


def _read_own(args: argparse.Namespace) -> tuple["BackboneFile", str]:
    """Return one of our own backbones under another label."""
    from backbones.models.weights import load_backbone  # slow

    given = [key for key in ("arch", *DECLARED, "classes") if getattr(args, key) is not None]
    if given := [*given, *([] if args.classifier else ["no_classifier"])]:
        raise InputError(f"--{given[0].replace('_', '-')}: with --source {OWN}, the file states it; leave it out")
    file = load_backbone(args.checkpoint)
    named = {key: value for key in ("label", "method", "seed") if (value := getattr(args, key)) is not None}
    said = f"{len(file.state)} tensors of {file.spec['arch']}, trained as {file.provenance['label']}"
    return replace(file, provenance={**file.provenance, **named}), said


def join_imports(args: argparse.Namespace, cfg: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Return {IMPORTS: paths}, those of `cfg` and those of our own run, such as its network; {} for none."""
    paths, config = find_imports(cfg), _folder(args) / CONFIG_FILE
    names = {path.name for path in paths}
    if args.source == OWN and config.is_file():
        paths += [path for path in find_imports(load_yaml(config)) if path.name not in names]
    return {IMPORTS: [str(path) for path in paths]} if paths else {}


def choices_of_run(args: argparse.Namespace) -> list[dict[str, str]]:
    """Return what our own run chose by validation (`details.choices` of its results)."""
    path = _folder(args) / RESULTS
    return load_results(path)["details"].get("choices", []) if args.source == OWN and path.is_file() else []


def _folder(args: argparse.Namespace) -> Path:
    return args.checkpoint if args.checkpoint.is_dir() else args.checkpoint.parent


class _RaisingParser(ArgumentParser):
    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise InputError((message or "").strip().removeprefix("error: "))
