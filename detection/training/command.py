"""Body of the fine-tuning tools: arguments, checks, processes, the run, and the printed numbers."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backbones.core.arguments import ArgumentParser, add_keep, backbone_argument, path_argument
from backbones.core.entry import fast_imports
from backbones.core.launch import launch, wants_launch
from backbones.core.machines import add_launch_arguments

EVAL_ONLY = (
    "evaluate the run's checkpoint without training; with another DATASETS.TEST or other TEST keys, write to the "
    "folder evaluation-DATASET of the run, whose own files stay"
)


class Tool(NamedTuple):
    """The differences between the tools.

    script: the tool's file, which is started again for several processes.
    description: shown by --help.
    keys: file that explains the config keys.
    engine: used if the config names none; the config can name any engine (detection/engines/__init__.py).
    shown: names of the metrics to print; those that a run does not have are skipped.
    """

    script: str
    description: str | None
    keys: str
    engine: str
    shown: Sequence[str]


def run_command(tool: Tool, argv: list[str] | None) -> int:
    """Fine-tune as given on the command line.

    Returns:
        exit code: 1 if the results differ from TEST.EXPECTED_RESULTS.
    """
    args = parse_arguments(tool, argv)
    if wants_launch(args):
        return launch(args, tool.script, sys.argv[1:] if argv is None else argv)
    with fast_imports():  # slow: after --help and the launcher
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
        modes = {"resume": args.resume, "eval_only": args.eval_only, "keep": args.keep}
        results = finetune(cfg, backbone, args.output_dir, **modes, truth_dir=args.truth_dir)
    if is_main():
        print(summarise(results, tool.shown, args.output_dir))
    wrong = differences(results)
    if wrong:
        print(f"differs from TEST.EXPECTED_RESULTS: {'; '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def summarise(results: Mapping[str, Any], shown: Sequence[str], run_dir: Path) -> str:
    """Return two lines: the metrics of the row and what chose its weights, and the path of the results."""
    from detection.training.run_folder import results_file

    metrics = results["metrics"]
    numbers = "  ".join(f"{name} {show(metrics[name])}" for name in shown if name in metrics)
    numbers += describe_choice(results)
    return f"{results['backbone']['label']}: {numbers}\nresults in {results_file(run_dir, results)}"


def describe_choice(results: Mapping[str, Any]) -> str:
    """Return which iteration the numbers are of, if TEST.BEST chose it; "" otherwise."""
    choice = results["details"].get("best")
    if not choice:
        return ""
    mark = ", on test images: too good" if results["data"]["chosen_on_test_images"] else ""
    return f"  (iteration {choice['iteration']}, chosen by {choice['metric']} on {choice['data']}{mark})"


def show(value: float | None) -> str:
    """Format a value with three decimals, None as a dash."""
    return "-" if value is None else f"{value:.3f}"


def parse_arguments(tool: Tool, argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of a fine-tuning tool."""
    parser = ArgumentParser(description=tool.description)
    parser.add_argument("--config-file", required=True, type=path_argument, help=f"yaml file; keys: {tool.keys}")
    parser.add_argument("--backbone", required=True, type=backbone_argument, help="a run, a backbone file, or 'random'")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="resume from the run's checkpoint, if it has one")
    parser.add_argument("--eval-only", action="store_true", help=EVAL_ONLY)
    parser.add_argument(
        "--truth-dir", type=path_argument, metavar="DIR",
        help="folder that gets the test set's ground truth as COCO json, once for all runs that share it",
    )  # fmt: skip
    add_keep(parser)
    add_launch_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="change config keys")
    return parser.parse_intermixed_args(argv)
