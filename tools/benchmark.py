"""Run a suite: pretrain, measure and fine-tune a backbone for every row, and compare them.

    python tools/benchmark.py --config-file configs/suites/quick.yaml --output-dir runs/quick

Run the same command again to resume: complete stages are skipped, failed ones retried, and changed settings, data or
method sources rerun what depends on them.  suites/config.py explains the keys, docs/cluster.md SLURM.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.entry import run_tool
from backbones.core.imports import load_config_with_imports
from suites.checks import Reader, check_settings
from suites.execution.slots import check_system
from suites.listing import describe
from suites.loading import load_suite
from suites.places import MODES, manage_suite, refuse_alone, run_suite
from suites.plan import build_plan


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    check_system()
    suite = load_suite(args.config_file, args.overrides)
    plan = build_plan(suite, args.output_dir, without_data=args.dry_run, name=Path(args.config_file).stem)
    if args.status or args.cancel or args.clean:
        manage_suite(plan, status=args.status, cancel=args.cancel, confirm=args.yes)
        return 0
    from comparison.metrics import DIRECTED  # slow

    settings = check_settings(plan, readers(), DIRECTED)
    if args.dry_run:
        print(describe(plan, settings, commands=args.commands))
        return 0
    again = ["--config-file", str(Path(args.config_file).resolve()), "--output-dir", str(plan.output), *args.overrides]
    return run_suite(plan, [sys.executable, __file__, *again], wait=args.wait)


def readers() -> dict[str, Reader]:
    """Return how each tool reads its settings, by tool name."""
    import backbones.config as pretraining
    from backbones.measuring.run import check_evaluation
    from backbones.pretraining.description import expect_backbone
    from detection.engines import build_engine, load_engine_config
    from detection.exchange.declaring import read_planned
    from detection.training.run import check_config

    def fine_tuning(engine: str) -> Reader:
        fits = lambda backbone, cfg: build_engine(cfg.ENGINE).check_backbone(cfg, backbone)  # noqa: E731
        return Reader(partial(load_engine_config, otherwise=engine), (check_config,), check_backbone=fits)

    read = partial(load_config_with_imports, pretraining.get_defaults)
    classifier = Reader(read, (pretraining.validate,), leaves=lambda _, cfg: expect_backbone(cfg))
    return {
        "pretrain": classifier,
        "evaluate_backbone": classifier._replace(checks=(*classifier.checks, check_evaluation)),
        "import_backbone": classifier._replace(leaves=lambda arguments, _: read_planned(arguments)),
        **dict.fromkeys(("localize", "attack_backbone"), classifier),
        "finetune_coco": fine_tuning("torchvision"),
        "finetune_voc": fine_tuning("yolo"),
    }


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, type=path_argument, help="yaml file of a suite")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="folder for data, runs and report")
    parser.add_argument("--yes", action="store_true", help="with --clean: delete without asking")
    parser.add_argument("--commands", action="store_true", help="with --dry-run: also inputs, folders and commands")
    modes = parser.add_mutually_exclusive_group()
    for option, text in MODES.items():
        modes.add_argument(option, action="store_true", help=text)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="change keys of the suite")
    args = parser.parse_intermixed_args(argv)
    refuse_alone(parser, args)
    return args


if __name__ == "__main__":
    run_tool(main, resume="run the same command again to resume")
