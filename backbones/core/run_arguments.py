"""Command line of the tools that measure a finished pretraining run."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.errors import InputError
from backbones.core.locking import lock_run
from backbones.core.results import refuse_other_stage
from backbones.core.run_log import own_log


class RunArguments(argparse.Namespace):
    """Command line of a tool that measures a run: `RUN [--output-dir DIR] [KEY VALUE ...]` in any order."""

    run: Path
    output_dir: Path
    overrides: list[str]


def takes_run(
    doc: str | None, folder: str, stage: str
) -> Callable[[Callable[[RunArguments], int]], Callable[[Sequence[str] | None], int]]:
    """Return a decorator that turns a function of parsed arguments into the `main(argv)` of a tool.

    `main` parses the arguments, refuses a folder with results of another stage, and locks the output folder.  Calls in
    one process, one after the other, give the results of separate processes, each with its own log file.

    Args:
        doc: help text of the tool.
        folder: default of --output-dir, relative to the run.
        stage: the stage whose results the output folder can already hold.
    """

    def wrap(measure: Callable[[RunArguments], int]) -> Callable[[Sequence[str] | None], int]:
        def main(argv: Sequence[str] | None = None) -> int:
            args = _parse(doc, folder, argv)
            refuse_other_stage(args.output_dir, stage)
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise InputError("this tool runs in a single process; start it without torchrun")
            with lock_run(args.output_dir), own_log():
                return measure(args)

        return main

    return wrap


def _parse(doc: str | None, folder: str, argv: Sequence[str] | None) -> RunArguments:
    parser = ArgumentParser(description=doc)
    parser.add_argument("run", type=path_argument, help="folder of a finished pretraining run")
    parser.add_argument("--output-dir", type=path_argument, help=f"default: RUN/{folder}")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="change config keys")
    args = parser.parse_intermixed_args(argv, RunArguments())
    args.output_dir = args.output_dir or args.run / folder
    return args
