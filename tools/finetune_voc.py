"""Fine-tune a YOLO on a backbone, and evaluate it with the Pascal VOC and COCO metrics.

python tools/finetune_voc.py --config-file configs/yolo/voc0712.yaml --backbone runs/mobilenetv2 --output-dir runs/yolo
    CLASS_LABELS.NAME OLS  smooths the labels of the class loss
    --backbone random      starts from random initialisation
    --num-gpus 8           trains in 8 processes; SOLVER.IMS_PER_BATCH is the total
"""

from backbones.core.entry import run_tool
from detection.training.command import Tool, run_command

SHOWN = ("VOC_mAP50", "VOC_mAP50_11", "VOC_mAP75", "AP", "AP50", "AP75", "AR100")  # VOC_*: for data in VOC's layout
TOOL = Tool(__file__, __doc__, "detection/engines/yolo/config.py", "yolo", SHOWN)


def main(argv: list[str] | None = None) -> int:
    return run_command(TOOL, argv)


if __name__ == "__main__":
    run_tool(main, resume="run the same command with --resume to resume", saves=True)
