"""Export the ground truth that a fine-tuning was tested on, and its detections in VOC's form, for other evaluators.

    python tools/export_detections.py RUN --output-dir D             D/ground_truth.json, for RUN/predictions.json
    python tools/export_detections.py RUN --output-dir D --comp4     also D/comp4_det_test_<class>.txt

RUN is the folder of a finished fine-tuning, or an evaluation folder in it.  ground_truth.json is COCO instances json
with the image ids of the run's predictions.json, which is a COCO results json.  Runs no detector; reads the
annotations of the test set, which must be unchanged.
"""

import argparse

from backbones.core.arguments import ArgumentParser, path_argument, root_argument
from backbones.core.entry import run_tool
from backbones.core.locking import lock_run


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    from detection.exchange.detections import export_detections  # slow

    with lock_run(args.output_dir):
        split = args.split if args.comp4 else None
        written = export_detections(args.run, args.output_dir, root=args.root, split=split)
    print("\n".join(map(str, written)))
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run", type=path_argument, metavar="RUN", help="folder of a finished fine-tuning")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="folder to write to")
    parser.add_argument("--comp4", action="store_true", help="also write comp4 files, one per class")
    parser.add_argument("--split", default="test", help="name of the split in their names (default %(default)s)")
    parser.add_argument("--root", type=root_argument, help="replaces the run's DATASETS.ROOT, if the data have moved")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
