"""Run a suite: pretrain, measure and fine-tune a backbone for every row, and compare them.

    python tools/benchmark.py --config-file configs/suites/quick.yaml --output-dir runs/quick
    python tools/benchmark.py --config-file configs/suites/quick.yaml --output-dir runs/quick --dry-run

--dry-run lists every command with its data, inputs, config and output folder; it needs no data.
The same command resumes after an interruption, skips what is complete, and tries again what failed.  A change of a
setting, of the data or of a method's source reruns the stages that it concerns.  Several suites may share a folder, and
with it their trainings: the report of the first is in report, that of another one in report-NAME.
The keys of a suite are explained in suites/config.py; LAUNCH.NUM_GPUS 8 after the command trains in 8 processes.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.config import CfgNode
from backbones.core.entry import run_tool
from suites.checks import Reader, check_settings, mixed_conventions
from suites.listing import describe
from suites.loading import load_suite
from suites.plan import build_plan
from suites.runner import run_plan
from suites.stages import Stage


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    suite, name = load_suite(args.config_file, args.overrides), Path(args.config_file).stem
    plan = build_plan(suite, args.output_dir, without_data=args.dry_run, name=name)
    settings = check_settings(plan, readers())
    if warning := mixed_conventions(settings):
        print(f"warning: {warning}", file=sys.stderr)
    if args.dry_run:
        print(describe(plan, settings))
        return 0
    return run_plan(plan)


class EngineReader(Reader):
    """Of a tool that fine-tunes: its config may name another engine than the tool's own."""

    def load(self, stage: Stage) -> CfgNode:
        from detection.engines import load_engine_config  # slow

        cfg = load_engine_config(stage.config, stage.overrides, otherwise=self.defaults().ENGINE)
        for check in self.checks:
            check(cfg)
        return cfg


def readers() -> dict[str, Reader]:
    """How each tool reads its settings, by the tool's name; imports slowly what the tools would."""
    import backbones.config
    from backbones.measuring.run import check_evaluation
    from backbones.pretraining.run import expect_backbone
    from detection.engines import build_engine, engine_defaults
    from detection.training.run import check_config

    def fine_tuning(engine: str) -> Reader:
        def check_start(backbone: Any, cfg: CfgNode) -> None:
            build_engine(cfg.ENGINE).check_backbone(cfg, backbone)

        return EngineReader(lambda: engine_defaults(engine), (check_config,), check_backbone=check_start)

    pretraining = Reader(backbones.config.get_defaults, (backbones.config.validate,), leaves=expect_backbone)
    return {
        "pretrain": pretraining,
        "evaluate_backbone": pretraining._replace(checks=(*pretraining.checks, check_evaluation)),
        "localize": pretraining,
        "finetune_coco": fine_tuning("torchvision"),
        "finetune_voc": fine_tuning("yolo"),
    }


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, type=path_argument, help="yaml file of a suite")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="folder for data, runs and report")
    parser.add_argument("--dry-run", action="store_true", help="list every command and folder; start nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="change keys of the suite")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    run_tool(main, resume="run the same command again to resume")
