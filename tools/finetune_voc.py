"""Fine-tune a backbone in a YOLO and evaluate it by Pascal VOC's and COCO's numbers.

python tools/finetune_voc.py --config-file configs/yolo/voc0712.yaml --backbone runs/mobilenetv2 --output-dir runs/yolo
    CLASS_LABELS.NAME OLS  smooths the labels of the class loss
    --backbone random      starts from random initialisation
    --num-gpus 8           trains in 8 processes; SOLVER.IMS_PER_BATCH is the total
"""

import argparse
import sys

from backbones.core.arguments import ArgumentParser, backbone_argument, path_argument
from backbones.core.config import load_config
from backbones.core.distributed import is_main, setup_distributed
from backbones.core.entry import run_tool
from backbones.core.launch import add_launch_arguments, launch, wants_launch
from backbones.core.locking import lock_run
from detection.engines.yolo.config import get_defaults
from detection.engines.yolo.engine import finetune, load_checked
from detection.training.run_folder import results_file

SHOWN = ("VOC_mAP50", "VOC_mAP50_11", "VOC_mAP75", "AP", "AP50", "AP75", "AR100")

EVAL_ONLY = (
    "evaluate the run's checkpoint, without training; with another DATASETS.TEST or other TEST keys into the folder "
    "evaluation-DATASET of the run, whose own files stay"
)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    if wants_launch(args):
        return launch(args, __file__, sys.argv[1:] if argv is None else argv)
    setup_distributed()
    cfg = load_config(get_defaults(), args.config_file, args.overrides)
    backbone = load_checked(cfg, args.backbone)
    cfg.freeze()
    with lock_run(args.output_dir):
        results = finetune(cfg, backbone, args.output_dir, resume=args.resume, eval_only=args.eval_only)
    if is_main():
        metrics = results["metrics"]  # VOC's are there for data in VOC's layout
        numbers = "  ".join(f"{name} {show(metrics[name])}" for name in SHOWN if name in metrics)
        print(f"{results['backbone']['label']}: {numbers}\nresults in {results_file(args.output_dir, results)}")
    return 0


def show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config-file", required=True, type=path_argument, help="yaml file; keys: detection/engines/yolo/config.py"
    )
    parser.add_argument("--backbone", required=True, type=backbone_argument, help="a run, a backbone file, or 'random'")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="resume from the run's checkpoint, if it has one")
    parser.add_argument("--eval-only", action="store_true", help=EVAL_ONLY)
    add_launch_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="change config keys")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    run_tool(main, resume="run the same command with --resume to resume")
