"""Run a suite: pretrain, measure and fine-tune a backbone for every row, and compare them.

    python tools/benchmark.py --config-file configs/suites/quick.yaml --output-dir runs/quick
    python tools/benchmark.py --config-file configs/suites/quick.yaml --output-dir runs/quick --dry-run

The same command goes on after an interruption, skips what is complete, and tries again what failed.  A change of a
setting reruns the stages that it concerns.  The keys of a suite are explained in comparison/suite_config.py.
"""

import argparse

import backbones.config
import detection.config
from backbones.core.config import CfgNode, load_config
from backbones.core.errors import InputError, run_tool
from backbones.measuring import check_splits
from comparison.suite import build_plan
from comparison.suite_config import load_suite
from comparison.suite_runner import describe, run_plan
from comparison.suite_stage import Stage

SETTINGS = {
    "grid": backbones.config,
    "pretrain": backbones.config,
    "evaluate": backbones.config,
    "localize": backbones.config,
    "finetune": detection.config,
}


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    plan = build_plan(load_suite(args.config_file, args.overrides), args.output_dir)
    for stage in plan.stages:
        check_settings(stage)
    if args.dry_run:
        print(describe(plan))
        return 0
    return run_plan(plan)


def check_settings(stage: Stage) -> None:
    """A mistyped key of the last row, or a choice on what is reported, stops a suite before it starts."""
    if stage.kind not in SETTINGS:
        return
    settings = SETTINGS[stage.kind]
    try:
        cfg = load_config(settings.get_defaults(), stage.config, stage.overrides)
        settings.validate(cfg)
        if stage.kind == "evaluate":
            check_splits(cfg)
    except InputError as error:
        raise InputError(f"{stage.title}: {error}") from None
    if stage.kind == "evaluate":
        check_choice(stage.title, "epoch", stage.inputs[0], cfg)
        check_choice(stage.title, "GRID", stage.selection, cfg)


def check_choice(title: str, what: str, training: Stage | None, cfg: CfgNode) -> None:
    """`InputError` where `cfg` measures a split on which the epoch to report or the point of a grid is chosen."""
    trained = training and load_config(backbones.config.get_defaults(), training.config, training.overrides)
    if not trained or (what == "epoch" and trained.EVAL.REPORT != "best"):
        return
    if (split := trained.DATA.VAL_SPLIT) in (cfg.DATA.VAL_SPLIT, cfg.DATA.SHIFTED_SPLIT):
        said = f"its {what} is selected on DATA.VAL_SPLIT '{split}', which EVALUATE would report"
        raise InputError(f"{title}: {said}; measure another split: EVALUATE.OVERRIDES [DATA.VAL_SPLIT, test]")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="yaml file of a suite")
    parser.add_argument("--output-dir", required=True, help="folder for data, runs and report")
    parser.add_argument("--dry-run", action="store_true", help="list every command and folder; start nothing")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="change keys of the suite")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
