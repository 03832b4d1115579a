"""Publish the results of a suite: keep its result files, compare them, and write the pages that report them.

    python tools/publish.py configs/suites/answers_scenes.yaml runs/answers   add the complete runs of a suite
    python tools/publish.py --study runs/gaussian                             add the numbers of the synthetic study
    python tools/publish.py                            write the pages again; --check: exit code 2 if one is outdated

A suite can be published in parts, such as one seed after another: runs are added to those in docs/results, and all are
compared.  Weights, images and predictions are not kept, nor, with --numbers-only, for real images and large suites,
per-image data, without which intervals are over seeds only.  Written: docs/results.md, docs/claims.md, README.md.
"""

import argparse
from pathlib import Path
from typing import Any

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.checks import check_choice
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from suites.execution.timings import Timings
from suites.loading import load_suite
from suites.plan import build_plan

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    from comparison.answers.claims import read_claims  # slow: imported after the arguments are checked
    from comparison.answers.page import SOURCE, write_pages
    from comparison.answers.store import FOLDER
    from comparison.answers.study import STUDY, publish_study

    questions = read_claims(args.root / SOURCE)
    if args.suite:
        publish(args.root, questions, args.suite, args.output_dir, numbers_only=args.numbers_only)
    if args.study:
        publish_study(args.root / FOLDER / STUDY, args.study)
    written = write_pages(args.root, questions, check=args.check)
    print(f"{', '.join(written)}: {'up to date' if args.check else 'written'}")
    return 0


def publish(root: Path, questions: Any, suite: Path, output_dir: Path, *, numbers_only: bool) -> None:
    """Add the complete runs of a suite to docs/results, and compare all that are there."""
    from comparison.answers.store import FOLDER, add_runs, compare_published, record

    name = check_choice("suite", suite.stem, questions.suites, "docs/claims.yaml: suites")
    plan = build_plan(load_suite(suite, []), output_dir, name=name)
    done = [stage for stage in plan.stages if stage.compared and stage.run and stage.complete()]
    if not done:
        raise InputError(f"{output_dir} has no complete run of {name}; run tools/benchmark.py first")
    folder, timings = root / FOLDER / name, Timings(plan.output / f"timings{plan.suffix}.json")
    names = {plan.output: "OUTPUT_DIR"}
    names |= {source.folder: reference for reference, source in plan.data.items() if source.stage is None}
    add_runs(folder, [stage.output for stage in done], names, numbers_only=numbers_only)
    made = {stage.title: (stage.output, timings.seconds(stage)) for stage in done}
    added = record(folder, made, f"tools/benchmark.py --config-file configs/suites/{name}.yaml")
    goal = {"primary": plan.suite.compare.primary, "margin": plan.suite.compare.margin}
    goal |= {"allow_mixed_protocols": len(plan.suite.finetune) > 1, **timings.seed_hours(plan.stages)._asdict()}
    compare_published(folder, questions.baselines(name), goal)
    print(f"{added} runs added to {folder}, {len(done)} of {name} are complete in {output_dir}")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("suite", nargs="?", type=path_argument, metavar="SUITE.yaml", help="config of the suite")
    parser.add_argument("output_dir", nargs="?", type=path_argument, metavar="FOLDER", help="its output folder")
    parser.add_argument("--study", type=path_argument, metavar="FOLDER", help="folder of tools/gaussian_study.py")
    parser.add_argument("--numbers-only", action="store_true", help="of per-image data, keep hashes instead")
    parser.add_argument("--check", action="store_true", help="write nothing; report a page that is not up to date")
    parser.add_argument("--root", type=path_argument, default=ROOT, help="root of the repository (default: this one)")
    args = parser.parse_args(argv)
    if args.suite and not args.output_dir:
        parser.error("give the output folder of the suite, too")
    if args.numbers_only and not args.suite:
        parser.error("--numbers-only is for a suite; name the suite and its output folder")
    if args.check and (args.suite or args.study):
        parser.error("--check publishes nothing; leave out the suite and the study")
    return args


if __name__ == "__main__":
    run_tool(main)
