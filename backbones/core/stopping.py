"""SIGTERM and Ctrl-C: a training saves a checkpoint at the end of its iteration; anything else ends where it is.

`run_tool` catches both signals, which raise `Stopped` wherever the tool is.  While a training loop holds them
(`hold_signals`), they are only noted; at the end of an iteration all processes agree (`agreed_signal`), save, and raise
`Stopped`.  A second signal ends the process at once.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from backbones.core.distributed import all_reduce_sum, gather_objects, world_size

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
# Iterations after which several processes agree, unless they communicate earlier.
AGREE_PERIOD = 20
# A signal that a launcher or scheduler passes on reaches a process twice; within these seconds it counts once.
REPEAT_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """A signal has ended the tool; number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 + number of the signal: 143, or 130 for Ctrl-C."""
        return 128 + self.number


class Unfinished(Exception):
    """An evaluation during a training was cut off by a signal, on all processes."""


@dataclass
class _State:
    """Of this process, as signals are.

    noted: the first signal, 0 for none; since: when it came.
    installed: whether the handler is installed; owner: the process that did so.
    held: whether signals are only noted.
    saved: (finished, total) iterations in the checkpoint of this call, if any.
    """

    noted: int = 0
    since: float = 0.0
    installed: bool = False
    owner: int = 0
    held: bool = False
    saved: tuple[int, int] | None = None


_state = _State()


@contextmanager
def catch_signals() -> Iterator[None]:
    """Raise `Stopped` on the first SIGTERM or SIGINT; those that are ignored stay so, as under nohup."""
    if _state.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in NAMES if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _take) for number in numbers}
    _state.installed, _state.owner, _state.noted, _state.saved = True, os.getpid(), 0, None
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.installed, _state.noted = False, 0


@contextmanager
def hold_signals() -> Iterator[None]:
    """Only note signals; if there was one, raise `Stopped` at the end."""
    with catch_signals():
        outer, _state.held = _state.held, True
        try:
            yield
        finally:
            _state.held = outer
        if _state.noted:
            raise Stopped(_state.noted)


def also_stops(number: int) -> None:
    """Have another signal count as SIGTERM from now on, and nothing once one has been noted."""
    signal.signal(number, lambda _, frame: None if _state.noted else _take(signal.SIGTERM, frame))


def _take(number: int, frame: FrameType | None) -> None:
    forked = os.getpid() != _state.owner  # a worker, which lives as long as a training needs its batches
    if forked and not _state.held:
        _die(number)
    if _state.noted:
        if time.monotonic() - _state.since > REPEAT_SECONDS:
            _die(number)
        return
    _state.noted, _state.since = number, time.monotonic()
    if not _state.held:
        raise Stopped(number)


def _die(number: int) -> None:
    """End this process as the signal does without a handler."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def noted_signal() -> int:
    """Return the signal that was noted while held; 0 for none."""
    return _state.noted if _state.held else 0


def agreed_signal(finished: int, device: "torch.device", *, due: bool) -> int:
    """Return the signal on which all processes stop after `finished` iterations, 0 for none.

    A single process only looks at its own; several communicate every `AGREE_PERIOD` iterations, and where `due`.
    """
    if world_size() == 1:
        return noted_signal()
    if not due and finished % AGREE_PERIOD:
        return 0
    import torch

    counts = torch.tensor([float(noted_signal() == number) for number in NAMES], device=device)
    all_reduce_sum(counts)
    return next((int(number) for number, count in zip(NAMES, counts.tolist(), strict=True) if count), 0)


def until_signal(batches: Iterable[T]) -> Iterator[T]:
    """Yield the batches of an evaluation until a signal is noted."""
    for batch in batches:
        if noted_signal():
            return
        yield batch


def gather_finished(obj: Any) -> list[Any]:
    """Return the result of an evaluation of every process, as `gather_objects` does.

    Raises:
        Unfinished: a process has noted a signal.
    """
    signals, parts = zip(*gather_objects((noted_signal(), obj)), strict=True)
    if any(signals):
        raise Unfinished
    return list(parts)


def note_saved(finished: int, total: int) -> None:
    """Note that the run's checkpoint holds `finished` of `total` iterations."""
    _state.saved = (finished, total)


def describe_stop(number: int, resume: str) -> str:
    """Return the line that says what a stopped training has saved, and what to do.

    Args:
        resume: how to resume from a checkpoint.
    """
    name = NAMES[signal.Signals(number)]
    if _state.saved is None:
        return f"stopped by {name}: this call has saved nothing; run the same command again"
    return f"stopped by {name}: iteration {_state.saved[0]} of {_state.saved[1]} is saved; {resume}"
