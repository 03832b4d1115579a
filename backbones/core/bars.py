"""Progress bars: on a terminal a bar that moves, in a log file a line from time to time."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 10.0  # between two lines of a log file


class _Lines:
    """Stream that turns the updates of a bar, each of which begins with a carriage return, into lines."""

    def write(self, text: str) -> None:
        """Write a line, without what moves the cursor."""
        if line := text.replace("\x1b[A", "").strip():
            sys.stderr.write(f"{line}\n")

    def isatty(self) -> bool:
        """Return that it is not a terminal."""
        return False

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()


def progress_bar(iterable: Iterable[Any] | None = None, title: str | None = None, **options: Any) -> tqdm:
    """Return a progress bar on standard error.

    Args:
        options: those of `tqdm`.
    """
    if not sys.stderr.isatty():
        options |= {"file": _Lines(), "mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS}
    return tqdm(iterable, title, **options)
