"""Select the best of several finished pretrainings by its validation, and write it as a run of its own.

    python tools/select_run.py --by nll --key METHOD.LS.amount --label LS --output-dir runs/ls runs/ls-0.1 runs/ls-0.2

The folder receives the selected backbone under the new label, its results, and selection.json, which lists all
candidates with their values.  tools/benchmark.py calls this for a row with a GRID.
"""

import argparse
from pathlib import Path

import yaml

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.choices import GRID, choice, chosen_on
from backbones.core.config import load_yaml
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.files import save_json, save_text
from backbones.core.imports import with_copies
from backbones.core.locking import lock_run
from backbones.core.results import load_results, refuse_other_stage, save_results
from backbones.core.runs import CONFIG_FILE
from suites.selection import CRITERIA, FILE_NAME, describe, select


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    refuse_other_stage(args.output_dir, "pretraining")
    if args.output_dir.resolve() in [run.resolve() for run in args.runs]:
        raise InputError(
            f"--output-dir {args.output_dir} is one of the candidates and would be overwritten; choose another"
        )
    found = select(args.runs, args.key, args.by)
    chosen = found["chosen"]
    with lock_run(args.output_dir):
        save_json(args.output_dir / FILE_NAME, found)
        copy_run(args.runs[chosen["candidate"]], args.output_dir, args.label, found)
    for item in found["candidates"]:
        print(f"  {describe(item['values']):<48} {item['reason'] or format(item[args.by], '.4f')}")
    for warning in found["warnings"]:
        print(f"warning: {warning['what']}")
    print(f"chosen: {describe(chosen['values'])}, {args.by} {chosen[args.by]:.4f}")
    return 0


def copy_run(source: Path, target: Path, label: str, selection: dict) -> None:
    """Copy the backbone, config and results of a run under another label; the hash of the weights is unchanged."""
    from backbones.core.checkpoint import load_checkpoint, save_checkpoint  # slow: imported on use
    from backbones.models.weights import FILE_NAME as BACKBONE

    tree = with_copies(load_yaml(source / CONFIG_FILE), target)
    save_text(target / CONFIG_FILE, yaml.safe_dump(tree | {"LABEL": label}, sort_keys=False))
    backbone = load_checkpoint(source / BACKBONE)
    save_checkpoint(target / BACKBONE, **backbone | {"provenance": backbone["provenance"] | {"label": label}})
    results = load_results(source)
    results["backbone"]["label"] = label
    details, split = results["details"], list(results["data"])[-1]  # the one that the candidates were validated on
    details["selection"] = selection
    details["choices"] = [*details.get("choices", []), choice(GRID, split)]
    details["chosen_on_measured"] = chosen_on(details["choices"], [split])
    results["warnings"] += selection["warnings"]
    results["files"] = {"backbone": BACKBONE, "selection": FILE_NAME}
    save_results(target, results)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=path_argument, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="folder for the chosen run")
    parser.add_argument("--by", choices=CRITERIA, default="nll", help="metric to minimise (default %(default)s)")
    parser.add_argument("--label", required=True, help="name of the row in every table")
    parser.add_argument("--key", action="append", default=[], help="config key in which the runs differ; repeatable")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
