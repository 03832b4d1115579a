"""The log of a stage: a line with the command, then the output of its tool."""

from pathlib import Path

# First character of the line that holds the command.
COMMAND_MARK = "$"
_TAIL, _LONG_TAIL = 1 << 12, 1 << 16  # bytes searched at the end of the log


def last_line(log: Path, start: str = "") -> str:
    """Return the last line that the tool printed, "" if none; progress bars end their lines with a carriage return.

    Args:
        start: return the last line that begins with this text, even if others follow.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (_LONG_TAIL if start else _TAIL)))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    said = next((line for line in reversed(lines) if line and line.startswith((start, COMMAND_MARK))), "")
    return "" if said.startswith(COMMAND_MARK) else said
