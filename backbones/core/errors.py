"""Errors that the user can mend: one clear line, exit code 2, no traceback."""

import difflib
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

# Names the folder where the processes of backbones/core/launch.py leave what they refuse, for the launcher to say once.
REPORTS = "SMOOTH2DET_REPORTS"
# Of several processes of torchrun that refuse the same, the first ends the others before they have said it too.
SECOND_VOICE_SECONDS = 1.0


class InputError(ValueError):
    """Something the user gave is wrong.  The message says what, where (file, key, id) and what to do."""


def suggestion(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest choice, or all of them."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if not near:  # a key pasted in the wrong case is nearer than its letters say
        near = [c for c in choices if c.lower() == name.lower()]
    return f"; did you mean '{near[0]}'?" if near else f"; choices: {', '.join(choices)}"


def run_tool(main: Callable[[list[str] | None], int | None]) -> NoReturn:
    """Call `main(None)`; an `InputError` becomes one line on standard error and exit code 2."""
    try:
        sys.exit(main(None))
    except InputError as error:
        _report(" ".join(str(error).split()))
        sys.exit(2)
    except KeyboardInterrupt:
        if REPORTS not in os.environ:
            print("interrupted; run the same command with --resume to go on", file=sys.stderr)
        sys.exit(130)


def _report(line: str) -> None:
    rank = os.environ.get("RANK", "0")
    if REPORTS in os.environ:
        part = Path(os.environ[REPORTS], rank)
        part.with_suffix(".part").write_text(line, encoding="utf-8")
        part.with_suffix(".part").rename(part)
        return
    if rank != "0":
        time.sleep(SECOND_VOICE_SECONDS)
    print(f"error: {line}", file=sys.stderr)
