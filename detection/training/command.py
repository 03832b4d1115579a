"""The body of the tools that fine-tune: arguments, checks, processes, the run, and the numbers that are printed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backbones.core.arguments import ArgumentParser, backbone_argument, path_argument
from backbones.core.launch import add_launch_arguments, launch, wants_launch

EVAL_ONLY = (
    "evaluate the run's checkpoint, without training; with another DATASETS.TEST or other TEST keys into the folder "
    "evaluation-DATASET of the run, whose own files stay"
)


class Tool(NamedTuple):
    """What differs between the tools.

    script: the tool's file; it is started again for several processes.
    description: shown by --help.
    keys: where the keys of the config are explained.
    engine: used where the config names none; any engine can be named (detection/engines/__init__.py).
    shown: names of the metrics that are printed, those that a run has.
    """

    script: str
    description: str | None
    keys: str
    engine: str
    shown: Sequence[str]


def run_command(tool: Tool, argv: list[str] | None) -> int:
    """Fine-tune as the command line says.

    Returns:
        exit code: 1 where the run does not end as TEST.EXPECTED_RESULTS says.
    """
    args = parse_arguments(tool, argv)
    if wants_launch(args):
        return launch(args, tool.script, sys.argv[1:] if argv is None else argv)
    # Slow imports, after --help and the launcher.
    from backbones.core.distributed import is_main, setup_distributed
    from backbones.core.locking import lock_run
    from detection.engines import load_engine_config
    from detection.evaluation.expected import differences
    from detection.training.run import finetune, load_checked

    setup_distributed()
    cfg = load_engine_config(args.config_file, args.overrides, otherwise=tool.engine)
    backbone = load_checked(cfg, args.backbone)
    cfg.freeze()
    with lock_run(args.output_dir):
        results = finetune(cfg, backbone, args.output_dir, resume=args.resume, eval_only=args.eval_only)
    if is_main():
        print(summarise(results, tool.shown, args.output_dir))
    wrong = differences(results)
    if wrong:
        print(f"not as TEST.EXPECTED_RESULTS has it: {'; '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def summarise(results: Mapping[str, Any], shown: Sequence[str], run_dir: Path) -> str:
    """Two lines: the row's numbers, and where they are."""
    from detection.training.run_folder import results_file

    metrics = results["metrics"]
    numbers = "  ".join(f"{name} {show(metrics[name])}" for name in shown if name in metrics)
    return f"{results['backbone']['label']}: {numbers}\nresults in {results_file(run_dir, results)}"


def show(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def parse_arguments(tool: Tool, argv: list[str] | None) -> argparse.Namespace:
    """The options of every tool that fine-tunes."""
    parser = ArgumentParser(description=tool.description)
    parser.add_argument("--config-file", required=True, type=path_argument, help=f"yaml file; keys: {tool.keys}")
    parser.add_argument("--backbone", required=True, type=backbone_argument, help="a run, a backbone file, or 'random'")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="resume from the run's checkpoint, if it has one")
    parser.add_argument("--eval-only", action="store_true", help=EVAL_ONLY)
    add_launch_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="change config keys")
    return parser.parse_intermixed_args(argv)
