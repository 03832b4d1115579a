"""Check data sets before a long run: all problems, counted by kind, and one verdict per data set.

    python tools/validate_data.py --data coco_2017_train --data coco_2017_val
    python tools/validate_data.py --config-file configs/detection/quick.yaml --root data     its data sets, NUM_CLASSES
    python tools/validate_data.py --data coco:annotations.json:images --num-classes 80
    python tools/validate_data.py --data voc:VOCdevkit/VOC2007:trainval --fast
    python tools/validate_data.py --data tiny_imagenet --root FOLDER --split val             classification data

Exit code: 0 sound (possibly with warnings), 1 errors found, 2 data not found.  An error stops a training or makes its
results wrong; a warning is fixed by the readers, or is for information.
"""

import argparse
import json

from backbones.core.arguments import ArgumentParser, data_argument, path_argument, root_argument
from backbones.core.checks import check_range
from backbones.core.config import expand_path
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.findings import Report
from backbones.core.imports import load_config_with_imports


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    reports = collect(args)
    if args.json:
        print(json.dumps([report.as_dict() for report in reports], indent=1))
    else:
        for report in reports:
            print("\n".join([report.name, *("  " + line for line in [*report.lines, *report.findings.lines()])]))
        print("\n".join(report.verdict() for report in reports))
    return 0 if all(report.sound for report in reports) else 1


def collect(args: argparse.Namespace) -> list[Report]:
    """Return one report per data set."""
    if not args.data and not args.config_file:
        raise InputError("nothing to check; give --data NAME or --config-file FILE")
    check_range("--workers", args.workers, 0)
    if args.num_classes is not None and not args.data:
        raise InputError(f"--num-classes {args.num_classes}: the config sets it; leave it out, or check with --data")
    from backbones.data.checks import HUMAN_LABELS, check_samples  # slow: imported on use
    from backbones.data.samples import DATASETS
    from detection.config import get_defaults
    from detection.data.checks import Options, check_config_data, check_detection

    options = Options(images=not args.no_images, decode=not args.fast, workers=args.workers)
    reports = []
    if args.config_file:
        reports += check_config_data(load_config_with_imports(get_defaults, args.config_file), args.root, options)
    root = args.root or get_defaults().DATASETS.ROOT
    for name in args.data:
        if name in (*DATASETS.names(), HUMAN_LABELS):
            if not args.root:
                raise InputError(f"'{name}' is classification data; give its folder as --root")
            reports.append(check_samples(name, expand_path(args.root), args.split, **vars(options)))
        else:
            reports.append(check_detection(name, root, options, args.num_classes)[0])
    return reports


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", type=data_argument, default=[], metavar="NAME", help="a name of "
                        "detection/data/catalog.py, coco:<json>:<image folder>, voc:<folder>:<split>, or a DATA.NAME "
                        "of pretraining; repeatable")  # fmt: skip
    parser.add_argument("--config-file", type=path_argument, help="check all DATASETS of a fine-tuning config")
    parser.add_argument("--root", type=root_argument, help="folder (default: $SMOOTH2DET_DATA, $DETECTRON2_DATASETS)")
    parser.add_argument("--split", default="train", help="split of classification data (default %(default)s)")
    parser.add_argument("--num-classes", type=int, help="NUM_CLASSES of the planned training")
    parser.add_argument("--fast", action="store_true", help="read image headers only; misses truncated files")
    parser.add_argument("--no-images", "--no-pictures", action="store_true", help="check only the annotations")
    parser.add_argument("--workers", type=int, default=0, help="threads that read images (default: automatic)")
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
