"""Fine-tune a Faster R-CNN on a backbone, and evaluate it with the COCO metrics.

python tools/finetune_coco.py --config-file configs/detection/quick.yaml --backbone runs/ce --output-dir runs/ce-det
    --backbone random      starts from random initialisation
    --num-gpus 8           trains in 8 processes; SOLVER.IMS_PER_BATCH is the total
    --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT    on each of two machines, with its own rank
    ENGINE detectron2      trains with detectron2; also the name of your own detector (detection/engines/__init__.py)
torchrun --nproc_per_node 8 tools/finetune_coco.py ... is equivalent, as is detectron2.engine.launch(main, 8, ...).
"""

from backbones.core.entry import run_tool
from detection.training.command import Tool, run_command

SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "ARs", "ARm", "ARl", "VOC_mAP50", "VOC_mAP50_11")
TOOL = Tool(__file__, __doc__, "detection/config.py", "torchvision", SHOWN)


def main(argv: list[str] | None = None) -> int:
    return run_command(TOOL, argv)


if __name__ == "__main__":
    run_tool(main, resume="run the same command with --resume to resume", saves=True)
