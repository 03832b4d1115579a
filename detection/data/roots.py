"""The root folder of data sets: DATASETS.ROOT, and the environment variables that set it.

The default of DATASETS.ROOT is $SMOOTH2DET_DATA.  If that variable is not set, detectron2's DETECTRON2_DATASETS is
used.  So the order is: a folder given in DATASETS.ROOT, SMOOTH2DET_DATA, DETECTRON2_DATASETS.
"""

import functools
import os
import re
from pathlib import Path

from backbones.core.config import expand_path
from backbones.core.errors import InputError
from backbones.core.run_log import get_logger

VARIABLES = ("SMOOTH2DET_DATA", "DETECTRON2_DATASETS")  # the first that is set is used
_OURS = re.compile(rf"\$(?:{VARIABLES[0]}\b|\{{{VARIABLES[0]}\}})")


def data_root(text: str, needed_by: str) -> Path:
    """Return the folder that DATASETS.ROOT refers to, and log the variable that set it.

    Args:
        text: DATASETS.ROOT.
        needed_by: name of the data set, for the message.

    Raises:
        InputError: neither variable is set, or the folder does not exist.
    """
    folder, variable = expand_root(text)
    if not folder.is_dir():
        to_set = f"set {variable} or DATASETS.ROOT" if variable else "set DATASETS.ROOT"
        raise InputError(f"DATASETS.ROOT: no folder {folder} (needed by '{needed_by}'); {to_set} to the data's folder")
    if variable:
        _log_root(folder, variable)
    return folder


def expand_root(text: str) -> tuple[Path, str]:
    """Return `expand_path`, and the variable that set the folder ("" if none did)."""
    if not _OURS.search(text):
        return expand_path(text), ""
    variable = next((name for name in VARIABLES if os.environ.get(name)), "")
    if not variable:
        raise InputError(
            f"the environment variable {VARIABLES[0]} of DATASETS.ROOT is not set, nor is {VARIABLES[1]}; "
            f"export {VARIABLES[0]}=FOLDER first, or set DATASETS.ROOT"
        )
    return expand_path(_OURS.sub(lambda _: os.environ[variable], text)), variable


@functools.cache  # log once, not for every data set
def _log_root(folder: Path, variable: str) -> None:
    absent = "" if variable == VARIABLES[0] else f" ({VARIABLES[0]} is not set)"
    get_logger().info("data root: %s, from %s%s", folder, variable, absent)
