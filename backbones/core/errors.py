"""Errors that the user can fix: one line with what is wrong, where, and what to do.

`backbones.core.entry.run_tool` turns them into their exit code without a traceback.
"""

import difflib
import errno
from collections.abc import Iterable

# Error numbers of a full disk and of an exhausted quota.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """Something the user gave is wrong.  The message says what, where (file, key, id) and what to do.

    exit_code: of the tool that ends with it.
    """

    exit_code = 2


class Diverged(InputError):
    """Losses, weights or logits of a network in training are not finite; with the same settings they would be again."""

    exit_code = 3


class ConnectionLost(InputError):
    """Another process of this training has ended, or cannot be reached any more: what is wrong is said elsewhere."""

    exit_code = 1


class Interrupted(InputError):
    """A signal has stopped a process that this one started, which has said what it saved; exit_code: its exit code."""

    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line)
        self.exit_code = exit_code


def suggestion(name: str, choices: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the closest choice, or all of them."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if not near:  # a name in the wrong case is a close match that difflib misses
        near = [c for c in choices if c.lower() == name.lower()]
    known = ", ".join(c or "''" for c in choices)
    return f"; did you mean '{near[0]}'?" if near else f"; choices: {known}"
