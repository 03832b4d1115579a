"""Evaluate a pretrained classifier: accuracy, calibration, and confidence on the context without objects.

python tools/evaluate_backbone.py runs/als                         writes runs/als/evaluation/results.json
python tools/evaluate_backbone.py runs/als DATA.ROOT /elsewhere    with the data in another folder
"""

from backbones.core.config import expand_path
from backbones.core.distributed import setup_distributed
from backbones.core.entry import fast_imports, run_tool
from backbones.core.imports import describe_imports
from backbones.core.per_image import save_per_image
from backbones.core.results import make_results, save_results
from backbones.core.run_arguments import RunArguments, takes_run
from backbones.core.run_log import get_logger
from backbones.core.runs import open_run
from backbones.core.warning_counter import WarningCounter
from backbones.measuring.pycalib import Subsample

PREDICTIONS = "predictions.npz"
SHOWN = (
    *("top1", "top1_shifted", "nll", "ece15", "cwece15", "average_confidence"),
    *("context_top1", "context_average_confidence", "context_average_confidence_scaled"),
)


@takes_run(__doc__, "evaluation", "backbone")
def main(args: RunArguments) -> int:
    with fast_imports():  # slow: imported after the arguments are checked
        from backbones.data.cifar10h import check_agreement, load_cifar10h
        from backbones.measuring import run as shared
        from backbones.measuring.evaluation import evaluate_backbone
        from backbones.models.weights import identity

    cfg, backbone = shared.load_run(args.run, args.overrides)
    shared.check_evaluation(cfg)
    warnings = WarningCounter()
    chosen = shared.find_choices(args.run, cfg, [cfg.DATA.VAL_SPLIT, cfg.DATA.SHIFTED_SPLIT], warnings)
    val = shared.build_samples(cfg, cfg.DATA.VAL_SPLIT, backbone, warnings)
    shifted = shared.build_samples(cfg, cfg.DATA.SHIFTED_SPLIT, backbone, warnings) if cfg.DATA.SHIFTED_SPLIT else None
    fitting = cfg.EVAL.TEMPERATURE_SPLIT and shared.build_samples(cfg, cfg.EVAL.TEMPERATURE_SPLIT, backbone, warnings)
    fills = tuple(cfg.EVAL.CONTEXT_FILLS) if cfg.EVAL.CONTEXT else ()
    human = load_cifar10h(expand_path(cfg.EVAL.HUMAN_LABELS)) if cfg.EVAL.HUMAN_LABELS else None
    if human is not None:
        check_agreement(human, val.labels, len(val.classes))
    inputs = shared.build_inputs(cfg, setup_distributed())
    model = backbone.build().to(inputs.device, inputs.dtype)
    run_dir = open_run(args.output_dir, cfg)
    warnings.log(get_logger())
    subsets = Subsample(cfg.EVAL.PYCALIB_SPLITS, cfg.EVAL.PYCALIB_SIZE)
    measured = evaluate_backbone(
        model, val, shifted, inputs, context=fills, temperature=fitting or None, pycalib=subsets, human=human
    )
    shared.save_predictions(run_dir / PREDICTIONS, measured.predictions)
    splits = [samples for samples in (val, shifted, fitting) if samples]
    settings = inputs.protocol() | {"context": cfg.EVAL.CONTEXT} | shared.changed_settings(cfg, val)
    results = make_results(
        "backbone",
        identity(backbone),
        shared.describe_protocol("backbone-eval", settings, splits),
        measured.metrics,
        data=shared.describe_data(splits),
        details=measured.details | chosen | describe_imports(cfg),
        warnings=warnings.as_list(),
        files={"predictions": PREDICTIONS, **save_per_image(run_dir, measured.per_image)},
    )
    path = save_results(run_dir, results)
    shared.print_table(identity(backbone).label, results["metrics"], SHOWN)
    print(f"all {len(results['metrics'])} metrics: {path}")
    return 0


if __name__ == "__main__":
    run_tool(main)
