"""Check data sets before a long run: all problems, counted by kind, and one verdict per data set.

    python tools/validate_data.py --data coco_2017_train --data coco_2017_val
    python tools/validate_data.py --config-file configs/detection/quick.yaml --root data     its data sets, NUM_CLASSES
    python tools/validate_data.py --config-file suite.yaml                                   or any other config
    python tools/validate_data.py --data coco:annotations.json:images --num-classes 80
    python tools/validate_data.py --data voc:VOCdevkit/VOC2007:trainval --fast
    python tools/validate_data.py --data tiny_imagenet --root FOLDER --split val             classification data

Exit code: 0 sound (possibly with warnings), 1 errors found, 2 data not found.  An error stops a training or makes its
results wrong; a warning is fixed by the readers, or is for information.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.core.arguments import ArgumentParser
from backbones.core.config import expand_path, load_yaml
from backbones.core.entry import run_tool
from backbones.core.findings import Report, describe
from backbones.core.imports import load_config_with_imports
from detection.data.check_arguments import SPLIT, add_arguments, check_arguments, check_kind
from suites.reading import stages_by_data


def main(argv: list[str] | None = None) -> int:
    args = add_arguments(ArgumentParser(description=__doc__)).parse_args(argv)
    reports = collect(args)
    print(json.dumps([one.as_dict() for one in reports], indent=1) if args.json else describe(reports))
    return 0 if all(report.sound for report in reports) else 1


def collect(args: argparse.Namespace) -> list[Report]:
    """Return one report per data set."""
    check_arguments(args)
    from backbones.data.checks import HUMAN_LABELS, check_samples  # slow: imported after the arguments are checked
    from backbones.data.samples import DATASETS
    from detection.config import get_defaults
    from detection.data.checks import Options, check_detection

    options = {"images": not args.no_images, "decode": not args.fast, "workers": args.workers}
    for name in args.data:
        check_kind(args, name, samples=name in DATASETS.names(), labels=name == HUMAN_LABELS)
    reports = check_config(args.config_file, args.root, options) if args.config_file else []
    for name in args.data:
        if name in (*DATASETS.names(), HUMAN_LABELS):
            reports.append(check_samples(name, expand_path(args.root), args.split or SPLIT, **options))
        else:
            root = args.root or get_defaults().DATASETS.ROOT
            reports.append(check_detection(name, root, Options(**options), args.num_classes or None)[0])
    return reports


def check_config(path: Path, root: str | None, options: Mapping[str, Any], changes: Sequence[str] = ()) -> list[Report]:
    """Return one report per data set of a config of any kind: of a pretraining, of a detector, or a suite."""
    from backbones.config import get_defaults  # slow: imported on use
    from backbones.data.checks import check_config_samples
    from detection.data.checks import Options, check_config_data
    from detection.engines import build_engine, closest_engine, load_engine_config

    if "ROWS" in (tree := load_yaml(path)):
        of_stages = [
            check_config(one.config, root, options, one.overrides) for one in stages_by_data(path) if one.config
        ]
        return [report for reports in of_stages for report in reports]
    if "DATASETS" not in tree:
        return check_config_samples(load_config_with_imports(get_defaults, path, changes, tree=tree), root, **options)
    cfg = load_engine_config(path, changes, otherwise=closest_engine(tree))
    return check_config_data(cfg, root, Options(**options), build_engine(cfg.ENGINE).num_classes)


if __name__ == "__main__":
    run_tool(main)
