"""Attack a pretrained classifier with FGSM, PGD from the image and from random starts, and PGD on the logit margin.

python tools/attack_backbone.py runs/als                      writes runs/als/robustness/results.json
python tools/attack_backbone.py runs/als ATTACK.BOUNDS "[8.0]" ATTACK.MAX_IMAGES 0 ATTACK.RESTARTS 1

Cost per image: bounds x steps x (1 + 2 x restarts) forward and backward passes, about 900 by default.
"""

import numpy as np

from backbones.core.distributed import setup_distributed
from backbones.core.entry import run_tool
from backbones.core.imports import describe_imports
from backbones.core.per_image import ImageGroup, Mean, save_per_image
from backbones.core.results import make_results, save_results
from backbones.core.run_arguments import RunArguments, takes_run
from backbones.core.run_log import get_logger
from backbones.core.runs import open_run
from backbones.core.warning_counter import WarningCounter


@takes_run(__doc__, "robustness", "robustness")
def main(args: RunArguments) -> int:
    from torch.utils.data import Subset  # slow: imported after the arguments are checked

    from backbones.data.evaluation_set import EvaluationSet
    from backbones.data.loader import evaluation_batches
    from backbones.measuring import run as shared
    from backbones.measuring.localization import evenly_spaced
    from backbones.measuring.robustness import build_attacks, find_errors
    from backbones.models.weights import identity

    cfg, backbone = shared.load_run(args.run, args.overrides)
    settings = cfg.ATTACK
    attacks = build_attacks(settings.METHODS, settings.BOUNDS, settings.STEPS, settings.RESTARTS)
    warnings = WarningCounter()
    found = shared.find_choices(args.run, cfg, [settings.SPLIT], warnings)
    samples = shared.build_samples(cfg, settings.SPLIT, backbone, warnings)
    inputs = shared.build_inputs(cfg, setup_distributed())
    model = backbone.build().to(inputs.device, inputs.dtype)
    run_dir = open_run(args.output_dir, cfg)
    warnings.log(get_logger())
    chosen = evenly_spaced(np.arange(len(samples)), settings.MAX_IMAGES or len(samples))
    images = Subset(EvaluationSet(samples, **inputs.size()), chosen.tolist())
    batches = evaluation_batches(images, batch_size=settings.BATCH_SIZE, num_workers=inputs.num_workers)
    errors = find_errors(
        model, batches, attacks, mean=inputs.mean, std=inputs.std, dtype=inputs.dtype, device=inputs.device,
        seed=cfg.SEED, names=samples.paths,
    )  # fmt: skip
    numbers = {name: Mean(wrong) for name, wrong in errors.per_image().items()}
    per_image = ImageGroup("attacked", samples.identify(chosen), chosen, numbers)
    data, metrics = shared.describe_data([samples]), errors.metrics()
    asked = {"images": len(chosen), "attacks": {a.name: dict(a._asdict()) for a in attacks}}
    # How many images a drawn split has depends on the seed.
    limit = {"images": settings.MAX_IMAGES} if samples.drawn else {}
    protocol = shared.describe_protocol("attacks", inputs.protocol() | asked | limit, [samples])
    results = make_results(
        "robustness", identity(backbone), protocol, metrics, data=data,
        details=asked | {"seed": cfg.SEED} | found | describe_imports(cfg), warnings=warnings.as_list(),
        files=save_per_image(run_dir, [per_image]),
    )  # fmt: skip
    save_results(run_dir, results)
    shared.print_table(identity(backbone).label, results["metrics"], [n for n in metrics if n.endswith("top1_error")])
    print(f"all {len(metrics)} metrics: {run_dir}")
    return 0


if __name__ == "__main__":
    run_tool(main)
