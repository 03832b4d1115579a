"""Progress of a running suite: a line per stage that has ended, and on a terminal one per stage that runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from backbones.core.errors import InputError
from suites.stages import Stage
from suites.stages.log import last_line

_KEPT_LINES = 3  # lines of a terminal that are not for running stages: the counts, the prompt, one that has ended


class Display:
    """The lines `[7/22] ALS: finetune (quick) ... 63 s   about 6 min left`; on a terminal also the running stages.

    Args:
        total: number of stages.

    Attributes:
        live: the lines of the running stages; None where the output is not a terminal.
    """

    def __init__(self, stream: IO[str], total: int) -> None:
        self.stream, self.total, self.number = stream, total, 0
        self.live: Live | None = None
        if stream.isatty():
            self.live = Live(console=Console(file=stream), auto_refresh=False, transient=True)

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def end(self, stage: Stage, text: str) -> None:
        """Print the line of a stage that needs no more work."""
        self.number += 1
        self.print(f"[{self.number}/{self.total}] {stage.title} ... {text}")

    def print(self, text: str) -> None:
        """Print lines above those of the running stages."""
        if self.live:
            self.live.console.print(Text(text), soft_wrap=True)
        else:
            print(text, file=self.stream, flush=True)

    @contextmanager
    def warning(self) -> Iterator[None]:
        """Print an error in the body, which concerns nothing that a stage needs, as a warning."""
        try:
            yield
        except InputError as error:
            self.print(f"warning: {error}")

    def show(self, running: Sequence[tuple[Stage, float]], counts: str) -> None:
        """On a terminal, show the running stages with their seconds and the last lines of their logs, then `counts`."""
        if self.live:
            shown = running
            if len(running) > (room := max(self.live.console.height - _KEPT_LINES, 1)):
                shown = running[: room - 1]
            lines = [f"  {stage.title} ... {minutes(seconds)}   {last_line(stage.log)}" for stage, seconds in shown]
            if len(shown) < len(running):
                lines.append(f"  and {len(running) - len(shown)} more")
            texts = [Text(line.rstrip(), no_wrap=True, overflow="ellipsis") for line in [*lines, counts]]
            self.live.update(Group(*texts), refresh=True)


def minutes(seconds: float) -> str:
    """Format a duration: `40 s`, `6 min`, `2 h 5 min`, `36 days`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds >= 100 * 3600:
        return f"{seconds / 86400:.1f} days"
    whole = round(seconds / 60)
    return f"{whole} min" if whole < 60 else f"{whole // 60} h {whole % 60} min"
