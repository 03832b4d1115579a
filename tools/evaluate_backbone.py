"""Measure a pretrained classifier: accuracy, calibration, confidence on context alone.

python tools/evaluate_backbone.py runs/als                         writes runs/als/evaluation/results.json
python tools/evaluate_backbone.py runs/als DATA.ROOT /elsewhere    with another place for the data
"""

from backbones.core.config import config_hash
from backbones.core.distributed import setup_distributed
from backbones.core.errors import run_tool
from backbones.core.logging import get_logger
from backbones.core.results import make_results, save_results
from backbones.core.runs import open_run
from backbones.core.warnings import WarningCounter
from backbones.evaluation import evaluate_backbone
from backbones.measuring import (
    build_inputs,
    build_samples,
    describe_samples,
    load_run,
    parse_run_arguments,
    print_table,
    save_predictions,
)
from backbones.models.weights import identity

PREDICTIONS = "predictions.npz"
SHOWN = ("top1", "top1_shifted", "nll", "ece15", "cwece15", "average_confidence", "context_average_confidence")


def main(argv: list[str] | None = None) -> int:
    args = parse_run_arguments(__doc__, "evaluation", "backbone", argv)
    cfg, backbone = load_run(args.run, args.overrides)
    warnings = WarningCounter()
    val = build_samples(cfg, cfg.DATA.VAL_SPLIT, backbone, warnings)
    shifted = build_samples(cfg, cfg.DATA.SHIFTED_SPLIT, backbone, warnings) if cfg.DATA.SHIFTED_SPLIT else None
    run_dir = open_run(args.output_dir, cfg)
    warnings.log(get_logger())
    inputs = build_inputs(cfg, setup_distributed())
    model = backbone.build().to(inputs.device, inputs.dtype)
    measured = evaluate_backbone(model, val, shifted, inputs, context=cfg.EVAL.CONTEXT)
    save_predictions(run_dir / PREDICTIONS, measured.predictions)
    data = {samples.split: describe_samples(samples) for samples in (val, shifted) if samples is not None}
    results = make_results(
        "backbone",
        identity(backbone),
        {"name": "backbone-eval", "hash": config_hash(inputs.protocol() | data | {"context": cfg.EVAL.CONTEXT})},
        measured.metrics,
        data=data,
        details=measured.details,
        warnings=warnings.as_list(),
        files={"predictions": PREDICTIONS},
    )
    path = save_results(run_dir, results)
    print_table(identity(backbone).label, results["metrics"], SHOWN)
    print(f"all {len(results['metrics'])} numbers: {path}")
    return 0


if __name__ == "__main__":
    run_tool(main)
