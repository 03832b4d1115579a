"""The signals that end a suite."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def note_signals() -> Iterator[list[int]]:
    """Yield a list that receives SIGTERM, SIGINT and SIGHUP: they end a suite between two looks at its stages.

    Those that are ignored stay so: SIGHUP under nohup.
    """
    received: list[int] = []
    ending = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last is not on Windows
    numbers = [one for one in ending if signal.getsignal(one) is not signal.SIG_IGN]
    before = [signal.signal(number, lambda number, _: received.append(number)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
