"""Why a stage failed, in one line, from the exit code of its process and the end of its log."""

import signal

from backbones.core.disk import shortage
from suites.stages.base import Stage
from suites.stages.log import last_line


def reason_of(code: int, stage: Stage) -> str:
    """Return in one line why a stage failed whose process ended with `code`."""
    said = last_line(stage.log)
    if stage.processes > 1 and code > 0:  # torchrun prints a page after the output of its processes
        said = last_line(stage.log, "error: ") or said
    if code < 0:
        return f"ended by {_name(-code)}"
    if code == 0:
        return "ended without writing its results"
    return said or f"ended with exit code {code} and no output{shortage(stage.log)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals
        return f"signal {number}"
