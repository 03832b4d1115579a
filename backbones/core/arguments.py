"""The command line of every tool: paths that expand as those of configs do, and one line for what is wrong."""

import argparse
import re
from pathlib import Path
from typing import NoReturn

from backbones.core.config import expand_path
from backbones.core.errors import InputError, suggestion

# Stands for no backbone where a path is expected.
RANDOM = "random"
# The variable that names the data's folder; where it is not set, another one does (detection/data/roots.py).
ROOT_VARIABLE = "SMOOTH2DET_DATA"


class ArgumentParser(argparse.ArgumentParser):
    """A parser that shows the tool's docstring as it is, says an error in one line, and suggests the nearest option."""

    def __init__(self, **options: object) -> None:
        options = {"formatter_class": argparse.RawDescriptionHelpFormatter} | options
        super().__init__(**options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        if unknown := re.match(r"unrecognized arguments: (-[^\s=]+)", message):
            message = f"unknown option {unknown[1]}{suggestion(unknown[1], self._option_string_actions)}"
        elif wrong := re.match(r"(argument .*: )invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            choices = re.findall(r"[^\s,']+", wrong[3])
            message = f"{wrong[1]}unknown '{wrong[2]}'{suggestion(wrong[2], choices)}"
        self.exit(2, f"error: {message}\n")


def path_argument(text: str) -> Path:
    """A path of the command line: `~`, `$NAME` and `${NAME}` expand, as in `--output-dir=~/x` no shell does."""
    if not text:  # as of an unset variable in quotes
        raise argparse.ArgumentTypeError("the path is empty; give one, or . for the present folder")
    try:
        return expand_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def backbone_argument(text: str) -> str:
    """RANDOM, or the path of a backbone."""
    return text if text == RANDOM else str(path_argument(text))


def root_argument(text: str) -> str:
    """DATASETS.ROOT: a path, whose variable ROOT_VARIABLE has a stand-in and is left to the reader."""
    return text if ROOT_VARIABLE in text else str(path_argument(text))


def data_argument(text: str) -> str:
    """The name of a data set, or `coco:<json>:<folder>` or `voc:<folder>:<split>` with paths that expand."""
    form, *parts = text.split(":")
    return ":".join([form, *(str(path_argument(part)) if part else part for part in parts)])
