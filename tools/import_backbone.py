"""Convert a foreign checkpoint, a ResNet with torchvision's names from a declared source, to a backbone file.

python tools/import_backbone.py --checkpoint moco_v2.pth.tar --source moco --arch resnet50 --label MoCo --output x.pth
    --config-file configs/pretrain/imagenet.yaml  also writes config.yaml; add --classes for tools/evaluate_backbone.py
python tools/import_backbone.py --checkpoint runs/als --source smooth2det --label mine --output-dir runs/mine
"""

import argparse
from pathlib import Path

from backbones.core.arguments import ArgumentParser
from backbones.core.config import CfgNode
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.files import save_json, save_text
from backbones.core.imports import load_config_with_imports, with_copies
from backbones.core.locking import lock_run
from backbones.core.results import FILE_NAME as RESULTS
from backbones.core.results import IMPORT_FILE
from backbones.core.runs import CONFIG_FILE
from detection.exchange.declaring import add_arguments, choices_of_run, join_imports, read_declared


def main(argv: list[str] | None = None) -> int:
    args = add_arguments(ArgumentParser(description=__doc__)).parse_intermixed_args(argv)
    path = args.output or args.output_dir / "backbone.pth"
    refuse_existing(args, path)
    if args.overrides and not args.config_file:
        raise InputError(f"'{args.overrides[0]}' overrides a key of --config-file, which is missing; add it")
    from backbones.config import get_defaults  # slow: imported after the arguments are checked
    from backbones.measuring.run import compare_with_data
    from backbones.models.weights import identity, save_backbone_state

    cfg = load_config_with_imports(get_defaults, args.config_file, args.overrides) if args.config_file else None
    backbone, said = read_declared(args)
    cfg = cfg and complete_config(cfg, backbone.spec, args.label)
    compared = f"; {compare_with_data(cfg, backbone)}" if cfg else ""
    with lock_run(path.parent):
        if tree := {**(cfg or {}), **join_imports(args, cfg)}:
            save_text(path.parent / CONFIG_FILE, CfgNode(with_copies(tree, path.parent)).dump(sort_keys=False))
        save_backbone_state(path, backbone.state, backbone.spec, backbone.provenance)
        if args.output_dir:  # last: the folder is complete
            about = {"source": args.source, "file": args.checkpoint.name, "choices": choices_of_run(args)}
            save_json(path.parent / IMPORT_FILE, {"backbone": vars(identity(backbone)), **about})
    print(f"{said}{compared}\nbackbone {backbone.hash} ({args.label}): {path}")
    return 0


def refuse_existing(args: argparse.Namespace, path: Path) -> None:
    """Raise `InputError` for files that would be overwritten; those of a training always."""
    option = "--output-dir" if args.output_dir else "--output"
    config = [path.parent / CONFIG_FILE] if args.config_file or join_imports(args, None) else []
    present = [one for one in (path, *config) if one.exists()]
    if (args.output_dir or config or present) and (path.parent / RESULTS).exists():
        raise InputError(f"{path.parent} holds the results of a training; choose another {option}")
    if present and not args.overwrite:
        raise InputError(f"{present[0]} exists; choose another {option}")


def complete_config(cfg: CfgNode, spec: dict, label: str) -> CfgNode:
    """Return `cfg`, the config of the data, completed with the network and input statistics of the backbone file."""
    from backbones.config import validate

    cfg.LABEL, cfg.MODEL.ARCH, cfg.MODEL.NORM = label, spec["arch"], spec["norm"]
    cfg.DATA.MEAN, cfg.DATA.STD = list(spec["mean"]), list(spec["std"])
    validate(cfg)
    return cfg


if __name__ == "__main__":
    run_tool(main)
