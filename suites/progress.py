"""Progress of a running suite: one line per stage, and the estimated time left."""

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from suites.stages import Stage
from suites.stages.log import last_line

_KEPT = 5  # number of durations that an estimate uses


class Timings:
    """Durations per kind of stage, and of all stages together, in seconds; kept in `path` for the next call.

    seconds: {kind: the last durations}. spent_before: total over all stages started in earlier calls, including those
    that failed or were interrupted, but not one during which a call was killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = load_json(path) if path.exists() else {}
        try:
            self.seconds: dict[str, list[float]] = {key: [*map(float, v)] for key, v in kept.get("stages", {}).items()}
            self.spent_before = self.spent = float(kept.get("spent", 0.0))
        except (AttributeError, TypeError, ValueError):
            raise InputError(
                f"{path} does not hold durations; delete it, it is only used to estimate the time left"
            ) from None

    def add(self, key: str, seconds: float) -> None:
        """Record a duration of a kind."""
        self.seconds[key] = [*self.seconds.get(key, []), round(seconds, 2)][-_KEPT:]
        self._save()

    def spend(self, seconds: float) -> None:
        """Count the time of a stage, however it ended."""
        self.spent += seconds
        self._save()

    def _save(self) -> None:
        save_json(self.path, {"stages": self.seconds, "spent": round(self.spent, 2)})

    def estimate(self, stage: Stage) -> float | None:
        """Return the expected seconds: the median of the measured ones, else what the suite declares, else None."""
        measured = self.seconds.get(stage.timing_key)
        return statistics.median(measured) if measured else stage.cost or None

    def left(self, stages: Sequence[Stage], spent: float = 0.0) -> str:
        """Return "about 6 min left"; "at least 6 min left" if some of `stages` are unknown; "" if all are.

        Args:
            spent: seconds that the first of `stages` has been running.
        """
        estimates = [self.estimate(stage) for stage in stages]
        if estimates and estimates[0] is not None:
            estimates[0] = max(estimates[0] - spent, 0.0)
        known = [seconds for seconds in estimates if seconds is not None]
        if not known:
            return ""
        return f"{'about' if len(known) == len(estimates) else 'at least'} {minutes(sum(known))} left"


class Display:
    """The line `[7/22] ALS: finetune (quick) ... 63 s   about 6 min left`; on a terminal it is updated while it runs.

    Args:
        total: number of stages.
    """

    def __init__(self, stream: IO[str], total: int) -> None:
        self.stream, self.total, self.number, self.head = stream, total, 0, ""

    def begin(self, title: str) -> None:
        """Start the line of the next stage."""
        self.number += 1
        self.head = f"[{self.number}/{self.total}] {title} ... "
        print(self.head, end="", file=self.stream, flush=True)

    def note(self, text: str) -> None:
        """Print a note about the current stage, and start its line again."""
        self.end(text)
        print(self.head, end="", file=self.stream, flush=True)

    def tick(self, seconds: float, left: str, log: Path) -> None:
        """On a terminal, show how long the stage has been running, and the last line of its log."""
        if self.stream.isatty():
            text = f"{self.head}{seconds:.0f} s   {left}   {last_line(log)}"
            print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", file=self.stream, flush=True)

    def end(self, text: str) -> None:
        """Finish the line."""
        start = f"\r\x1b[K{self.head}" if self.stream.isatty() else ""
        print(f"{start}{text}", file=self.stream, flush=True)


def minutes(seconds: float) -> str:
    """Format a duration: `40 s`, `6 min`, `2 h 5 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    whole = round(seconds / 60)
    return f"{whole} min" if whole < 60 else f"{whole // 60} h {whole % 60} min"
