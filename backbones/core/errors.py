"""Errors that the user can mend: one clear line, exit code 2, no traceback."""

import difflib
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn


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
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; run the same command with --resume to go on", file=sys.stderr)
        sys.exit(130)
