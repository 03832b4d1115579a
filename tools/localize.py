"""Localise objects with a classifier: class activation maps scored with the ground-truth boxes, and a gallery.

python tools/localize.py runs/als                             writes runs/als/localization: results.json, gallery.png
python tools/localize.py runs/als LOCALIZE.METHOD GradCAMPlusPlus LOCALIZE.MAX_IMAGES 500
"""

from dataclasses import replace

import numpy as np

from backbones.core.distributed import setup_distributed
from backbones.core.entry import fast_imports, run_tool
from backbones.core.imports import describe_imports
from backbones.core.per_image import ImageGroup, save_per_image
from backbones.core.results import make_results, save_results
from backbones.core.run_arguments import RunArguments, takes_run
from backbones.core.run_log import get_logger
from backbones.core.runs import open_run
from backbones.core.warning_counter import WarningCounter

SIZE = 224  # pixels, at any training size: the last feature map of a ResNet is then 7 x 7
SHOWN = ("max_box_acc", "max_box_acc_v2", "pointing", "pointing_exact", "energy_in_box")


@takes_run(__doc__, "localization", "localization")
def main(args: RunArguments) -> int:
    with fast_imports():  # slow: imported after the arguments are checked
        from backbones.measuring import run as shared
        from backbones.measuring.cam import ClassMaps, localize
        from backbones.measuring.gallery import make_tiles, save_gallery
        from backbones.measuring.localization import LocalizationEvaluator, evenly_spaced
        from backbones.measuring.predictions import predict_samples
        from backbones.models.weights import identity

    cfg, backbone = shared.load_run(args.run, args.overrides)
    inputs = replace(shared.build_inputs(cfg, setup_distributed()), batch_size=cfg.LOCALIZE.BATCH_SIZE)
    model = backbone.build().to(inputs.device, inputs.dtype)
    class_maps = ClassMaps(model, cfg.LOCALIZE.METHOD)
    warnings = WarningCounter()
    chosen = shared.find_choices(args.run, cfg, [cfg.LOCALIZE.SPLIT], warnings)
    samples = shared.build_samples(cfg, cfg.LOCALIZE.SPLIT, backbone, warnings)
    run_dir = open_run(args.output_dir, cfg)
    warnings.log(get_logger())
    boxed = np.flatnonzero(samples.box_counts() > 0)
    measured = evenly_spaced(boxed, cfg.LOCALIZE.MAX_IMAGES or len(boxed))
    evaluator = LocalizationEvaluator()
    for found in localize(class_maps, samples, measured, inputs, SIZE):
        evaluator.process(found.values, found.boxes, right=found.logits.argmax() == found.label)
    shown = evenly_spaced(boxed if len(boxed) else np.arange(len(samples)), cfg.LOCALIZE.GALLERY)
    tiles = []
    if len(shown):
        # The maps need 224 px; the predictions are made at the size of the training.
        said = predict_samples(model, samples, inputs, chosen=shown)
        tiles = make_tiles(localize(class_maps, samples, shown, inputs, SIZE), samples, said)

    who = identity(backbone)
    settings = {"method": cfg.LOCALIZE.METHOD, "size": SIZE, "max_images": cfg.LOCALIZE.MAX_IMAGES}
    title = f"{who.label}: {cfg.LOCALIZE.METHOD} of the true class at {SIZE} px; probabilities at {inputs.crop} px"
    per_image = ImageGroup("boxed", samples.identify(measured), measured, evaluator.per_image())
    files = (save_gallery(run_dir, tiles, title) if tiles else {}) | save_per_image(run_dir, [per_image])
    results = make_results(
        "localization",
        who,
        shared.describe_protocol(f"localization-{cfg.LOCALIZE.METHOD}", settings | inputs.normalization(), [samples]),
        evaluator.metrics(),
        data=shared.describe_data([samples]),
        details=settings | evaluator.details() | chosen | describe_imports(cfg),
        warnings=warnings.as_list(),
        files=files,
    )
    save_results(run_dir, results)
    shared.print_table(who.label, results["metrics"], SHOWN)
    print(f"metrics and images: {run_dir}")
    return 0


if __name__ == "__main__":
    run_tool(main)
