"""A tiny fine-tuning of every engine, as (main, argv): argv(out, *overrides, flags=...)."""

from functools import partial

from helpers import detectron2_tiny, finetuning, yolo_tiny

PRECISE = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2)


def tiny_run(engine, scenes, folder, load_tool, *options):
    """Return the tool's main and the arguments of a run on the `small_scenes` fixture, or on VOC scenes for YOLO."""
    if engine == "yolo":
        root = yolo_tiny.write_data(folder / "data")
        options = ("TEST.SCORE_THRESH", 0.0, *options)
        return load_tool("finetune_voc").main, partial(_argv, yolo_tiny.arguments, root, options)
    if engine == "detectron2":
        detectron2_tiny.load_detectron2()
        options = ("SOLVER.AMP.ENABLED", False, *options)  # detectron2 supports it only on GPUs
    options = ("ENGINE", engine, "DATALOADER.CACHE_IMAGES", False, *options)
    return load_tool("finetune_coco").main, partial(_argv, finetuning.arguments, scenes, options)


def _argv(arguments, data, options, out, *overrides, flags=()):
    return arguments(data, out, *options, *overrides, flags=flags)
