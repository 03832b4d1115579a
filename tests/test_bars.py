"""Progress bars write lines to a log file, and a bar that moves to a terminal."""

import io
import sys

from backbones.core import bars
from backbones.core.bars import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def written(monkeypatch, stream, steps, seconds=bars.LINE_SECONDS):
    monkeypatch.setattr(bars, "LINE_SECONDS", seconds)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(total=steps, unit="it", dynamic_ncols=True, miniters=1) as bar:
        for number in range(steps):
            bar.set_postfix_str(f"loss {number}", refresh=False)
            bar.update()
    return stream.getvalue()


def test_a_log_gets_lines(monkeypatch):
    lines = written(monkeypatch, io.StringIO(), 3, seconds=0.0).splitlines()
    assert [line.partition("|")[0].strip() for line in lines] == ["0%", "33%", "67%", "100%", "100%"]
    assert "3/3" in lines[-1]
    assert "loss 2" in lines[-1]
    assert all("\r" not in line and len(line) < 120 for line in lines)


def test_a_log_gets_few_lines(monkeypatch):
    """The first, and the last; between them one per LINE_SECONDS."""
    lines = written(monkeypatch, io.StringIO(), 5000).splitlines()
    assert len(lines) == 2
    assert "5000/5000" in lines[-1]


def test_a_terminal_gets_a_bar(monkeypatch):
    text = written(monkeypatch, Terminal(), 3)
    assert text.startswith("\r")
    assert text.count("\n") == 1  # at the end


def test_a_bar_within_a_bar_leaves_no_empty_lines(monkeypatch):
    monkeypatch.setattr(bars, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    for _ in progress_bar(range(2), "outer"):
        for _ in progress_bar(range(2), "inner", leave=False):
            pass
    lines = stream.getvalue().splitlines()
    assert all(line.startswith(("outer: ", "inner: ")) for line in lines), lines
