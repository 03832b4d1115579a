"""Command-line parsing of every tool: paths expand as in configs, and an error is one line."""

import argparse
import re
from pathlib import Path
from typing import NoReturn

from backbones.core.config import expand_path
from backbones.core.errors import InputError, suggestion

# Given instead of a path: no backbone, random initialisation.
RANDOM = "random"
# The environment variable with the data folder; if unset, a second one is read (detection/data/roots.py).
ROOT_VARIABLE = "SMOOTH2DET_DATA"


# --keep of a training: what checkpoint.pth holds once its last iteration is done.
KEEP_ALL, KEEP_WEIGHTS = "all", "weights"


class ArgumentParser(argparse.ArgumentParser):
    """Argument parser that prints the tool's docstring unwrapped, reports an error in one line and suggests the
    closest option."""

    def __init__(self, **options: object) -> None:
        options = {"formatter_class": argparse.RawDescriptionHelpFormatter} | options
        super().__init__(**options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with code 2."""
        if unknown := re.match(r"unrecognized arguments: (-[^\s=]+)", message):
            message = f"unknown option {unknown[1]}{suggestion(unknown[1], self._option_string_actions)}"
        elif wrong := re.match(r"(argument .*: )invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            choices = re.findall(r"[^\s,']+", wrong[3])
            message = f"{wrong[1]}unknown '{wrong[2]}'{suggestion(wrong[2], choices)}"
        self.exit(2, f"error: {message}\n")


def add_keep(parser: argparse.ArgumentParser) -> None:
    """Add the option --keep."""
    parser.add_argument(
        "--keep", choices=(KEEP_ALL, KEEP_WEIGHTS), default=KEEP_ALL,
        help="weights: the last checkpoint holds no optimizer state, which takes half of it or more (default: all)",
    )  # fmt: skip


def path_argument(text: str) -> Path:
    """Return a path with `~`, `$NAME` and `${NAME}` expanded; shells do not expand `--output-dir=~/x`."""
    if not text:  # such as a quoted variable that is not set
        raise argparse.ArgumentTypeError("the path is empty; give one, or . for the current folder")
    try:
        return expand_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def backbone_argument(text: str) -> str:
    """Return RANDOM, or the expanded path of a backbone."""
    return text if text == RANDOM else str(path_argument(text))


def root_argument(text: str) -> str:
    """Return a path for DATASETS.ROOT, expanded unless it holds ROOT_VARIABLE, which the data reader resolves."""
    return text if ROOT_VARIABLE in text else str(path_argument(text))


def data_argument(text: str) -> str:
    """Return a data set name, or `coco:<json>:<folder>` or `voc:<folder>:<split>[:<file>]` with expanded paths."""
    form, *parts = text.split(":")
    return ":".join([form, *(str(path_argument(part)) if part else part for part in parts)])
