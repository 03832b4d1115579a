"""Convert a foreign checkpoint, a ResNet with torchvision's names from a declared source, to a backbone file.

python tools/import_backbone.py --checkpoint moco_v2.pth.tar --source moco --arch resnet50 --label MoCo --output x.pth
    --config-file configs/pretrain/imagenet.yaml  also writes config.yaml; add --classes for tools/evaluate_backbone.py
"""

import argparse

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.config import CfgNode
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.files import save_text
from backbones.core.imports import load_config_with_imports, with_copies
from backbones.core.runs import CONFIG_FILE
from detection.exchange.resnets import ARCHITECTURES
from detection.exchange.sources import SOURCES

DECLARED = ("norm", "mean", "std", "pixel_range", "channel_order", "stride_in_1x1", "image_size")


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    written = [args.output, *([args.output.parent / CONFIG_FILE] if args.config_file else [])]
    if present := [path for path in written if path.exists()]:
        raise InputError(f"{present[0]} exists; choose another --output")
    if args.overrides and not args.config_file:
        raise InputError(f"'{args.overrides[0]}' overrides a key of --config-file, which is missing; add it")
    from backbones.config import get_defaults  # slow: imported after the arguments are checked
    from backbones.measuring.run import compare_with_data
    from backbones.models.weights import save_backbone_state
    from detection.exchange.importing import declare_spec, describe, import_backbone, load_classes

    cfg = load_config_with_imports(get_defaults, args.config_file, args.overrides) if args.config_file else None
    spec = declare_spec(args.arch, **{key: getattr(args, key) for key in DECLARED})
    options = {key: getattr(args, key) for key in ("label", "method", "seed", "classifier")}
    options["classes"] = args.classes and load_classes(args.classes)
    backbone, report = import_backbone(args.checkpoint, args.source, spec, **options)
    cfg = cfg and complete_config(cfg, backbone.spec, args.label)
    compared = f"; {compare_with_data(cfg, backbone)}" if cfg else ""
    save_backbone_state(args.output, backbone.state, backbone.spec, backbone.provenance)
    if cfg:
        save_text(written[1], CfgNode(with_copies(cfg, written[1].parent)).dump(sort_keys=False))
    print(f"{describe(backbone, report)}{compared}\nbackbone {backbone.hash} ({args.label}): {args.output}")
    return 0


def complete_config(cfg: CfgNode, spec: dict, label: str) -> CfgNode:
    """Return `cfg`, the config of the data, completed with the network and input statistics of the backbone file."""
    from backbones.config import validate

    cfg.LABEL, cfg.MODEL.ARCH, cfg.MODEL.NORM = label, spec["arch"], spec["norm"]
    cfg.DATA.MEAN, cfg.DATA.STD = list(spec["mean"]), list(spec["std"])
    validate(cfg)
    return cfg


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, type=path_argument, help="file of the other program")
    add("--source", required=True, help="; ".join(f"{name}: {source.made_by}" for name, source in SOURCES.items()))
    add("--arch", required=True, help=", ".join(ARCHITECTURES))
    add("--label", required=True, help="label of its rows in tables")
    add("--output", required=True, type=path_argument, help="file to write, such as backbone.pth in a new folder")
    add("--method", default="imported", help="method of its rows in tables")
    add("--seed", type=int, default=0, help="distinguishes trainings with the same label")
    add("--norm", default="BN", choices=("BN", "GN"))
    add("--mean", type=float, nargs=3, help="per channel, in --channel-order; default: ImageNet's")
    add("--std", type=float, nargs=3, help="as --mean")
    add("--pixel-range", type=float, default=1.0, choices=(1.0, 255.0), help="value of a white pixel")
    add("--channel-order", default="RGB", choices=("RGB", "BGR"))
    add("--stride-in-1x1", action="store_true", help="bottlenecks have their stride in the first 1x1 (MSRA, Caffe)")
    add("--image-size", type=int, default=224, help="side of the training images in pixels")
    add("--no-classifier", dest="classifier", action="store_false", help="leave out fc.*")
    add("--classes", type=path_argument, help="text file with the class names, one per line")
    add("--config-file", type=path_argument, help="pretraining config of the data set")
    add("overrides", nargs="*", metavar="KEY VALUE", help="change keys of --config-file")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    run_tool(main)
