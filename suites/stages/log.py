"""The log of a stage: what its tool prints, after a line with the command."""

from pathlib import Path

# First character of the line that holds the command.
COMMAND_MARK = "$"
_TAIL, _LONG_TAIL = 1 << 12, 1 << 16  # bytes that are searched


def last_line(log: Path, start: str = "") -> str:
    """What the tool said last, empty if nothing; progress bars end their lines with a carriage return.

    Args:
        start: of the line that is wanted, which may have others after it.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (_LONG_TAIL if start else _TAIL)))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    said = next((line for line in reversed(lines) if line and line.startswith((start, COMMAND_MARK))), "")
    return "" if said.startswith(COMMAND_MARK) else said
