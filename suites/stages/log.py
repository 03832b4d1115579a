"""The log of a stage: the command, then the output of its tool."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

# First character of the lines that hold the command.
COMMAND_MARK = "$"
# What a terminal does not show: titles and links, colours and cursor movements, other control characters.
_CONTROL = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
_WIDTH = 120  # characters of such a line
_TAIL, _LONG_TAIL = 1 << 12, 1 << 16  # bytes searched at the end of the log


def describe_command(command: Sequence[str]) -> str:
    """Return the lines of a command, broken between its arguments: a comparison of many runs has thousands of them."""
    lines = [COMMAND_MARK]
    for argument in map(shlex.quote, command):
        if len(lines[-1]) + len(argument) > _WIDTH - 3:
            lines.append(f"{COMMAND_MARK}    ")
        lines[-1] += f" {argument}"
    return " \\\n".join(lines) + "\n"


def last_line(log: Path, start: str = "") -> str:
    """Return the last line that the tool printed, "" if none; progress bars end their lines with a carriage return.

    Args:
        start: return the last line that begins with this text, even if others follow.
    """
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (_LONG_TAIL if start else _TAIL)))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in _CONTROL.sub("", text).replace("\r", "\n").split("\n")]
    said = next((line for line in reversed(lines) if line and line.startswith((start, COMMAND_MARK))), "")
    return "" if said.startswith(COMMAND_MARK) else said
