"""A suite on a terminal: its live lines, Ctrl-C, and what terminals of other kinds are sent."""

import io
import os
import re
import select
import signal
import subprocess
import time

import pytest
from helpers.suite_lab import ROOT, is_gone

from suites.execution.progress import Display
from suites.stages.log import last_line

pytest_plugins = ["helpers.suite_fixtures"]
pty = pytest.importorskip("pty", reason="this system has no terminals of this kind")

SHOWN, HIDDEN = "\x1b[?25h", "\x1b[?25l"  # the cursor
LABEL = "LS [0.1] é漢"


class Terminal:
    """A suite whose controlling terminal this is."""

    def __init__(self, lab, slots, columns=80, lines=24, **environment):
        command = lab.command(slots)
        size = {"COLUMNS": str(columns), "LINES": str(lines)}
        self.pid, self.file = pty.fork()
        if not self.pid:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(ROOT)
            os.execve(command[0], command, {**os.environ, "TERM": "xterm", **size, **environment})
        self.said = ""

    def read(self, until=None, seconds=60.0):
        """Read to the end, or until a text has come."""
        deadline = time.monotonic() + seconds
        while not (until and until in self.said):
            assert time.monotonic() < deadline, self.said
            if select.select([self.file], [], [], 0.1)[0]:
                try:
                    found = os.read(self.file, 1 << 16)
                except OSError:  # Linux's way to say that the other side is closed
                    found = b""
                if not found:
                    break
                self.said += found.decode()
        return self.said

    def end(self):
        """Read to the end; return the exit code."""
        self.read()
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def brackets(lab):
    """A lab of one row, whose label looks like markup."""
    lab.tree["ROWS"] = [{"LABEL": LABEL, "OVERRIDES": ["METHOD.NAME", "LS"]}]
    lab.tree |= {"EVALUATE": {"ENABLED": False}, "LOCALIZE": {"ENABLED": False}}
    return lab


def test_ctrl_c_ends_the_stages_and_counts_none_as_failed(lab):
    lab.tell("hang", "CE-s0-pretrain\nALS-s0-pretrain")
    terminal = Terminal(lab, 2)
    children = lab.children(2)
    os.write(terminal.file, b"\x03")
    assert terminal.end() == 130
    assert all(map(is_gone, children))
    assert "stopping: CE: pretrain, ALS: pretrain" in terminal.said
    assert terminal.said.endswith("\r\nstopped; run the same command again to resume\r\n")
    assert "failed" not in terminal.said
    assert terminal.said.rindex(SHOWN) > terminal.said.rindex(HIDDEN)
    assert list(lab.output.rglob("attempt.json")) == []


def test_running_stages_are_shown_as_they_are_named(brackets):
    brackets.tell("hang", "finetune")
    terminal = Terminal(brackets, 1)
    [child] = brackets.children(1)
    terminal.read(f"  {LABEL}: finetune (quick) ... 1 s")
    os.kill(child, signal.SIGKILL)
    assert terminal.end() == 1
    assert f"[2/4] {LABEL}: pretrain ... " in terminal.said
    assert "2 complete, 1 running, 1 waiting" in terminal.said
    assert "[3/4]" in terminal.said
    assert "2 complete, 1 waiting, 1 failed" in terminal.said
    assert "at least 0 s" not in terminal.said


@pytest.mark.parametrize("columns", [20, 7])
def test_lines_fit_a_narrow_terminal(brackets, columns):
    brackets.tell("hang", "finetune")
    terminal = Terminal(brackets, 1, columns)
    [child] = brackets.children(1)
    terminal.read(f"  {LABEL}"[: columns - 1])
    time.sleep(1)
    os.kill(child, signal.SIGKILL)
    assert terminal.end() == 1
    live = [line for line in re.split(r"\r\n|\r", terminal.said) if "…" in line]
    assert live
    assert all(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) <= columns for line in live)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_terminals_without_colours_or_movements(brackets, environment):
    terminal = Terminal(brackets, 1, **environment)
    assert terminal.end() == 0
    assert f"[3/4] {LABEL}: finetune (quick) ... " in terminal.said
    assert re.search(r"\x1b\[[0-9;]*m", terminal.said) is None
    assert "TERM" not in environment or "\x1b" not in terminal.said


def test_a_reader_that_leaves_ends_no_suite(brackets):
    suite = brackets.start(stdout=subprocess.PIPE)
    assert suite.stdout.readline()
    suite.stdout.close()
    assert suite.wait(60) == 141
    assert brackets.called()[-1] == "compare"
    assert brackets.to_run() == []


def test_more_stages_than_lines(lab):
    class Screen(io.StringIO):
        isatty = lambda self: True  # noqa: E731

    stages = lab.plan().stages
    for height, shown in ((24, 10), (6, 2)):
        screen = Screen()
        display = Display(screen, 10)
        display.live.console.height = height
        display.show([(stage, 1.0) for stage in stages], "the counts")
        with display:
            display.show([(stage, 1.0) for stage in stages], "the counts")
            last = screen.getvalue().split("the counts")[-2]
        assert last.count(" ... 1 s") == shown
        assert ("and 8 more" in last) == (shown == 2)
    assert "..." not in screen.getvalue().replace(" ... 1 s", "")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[34m\x1b[1mtrain: \x1b[0mScanning é漢\x1b[K", "train: Scanning é漢"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07 \x1b[?25lrest\x08\x07", "link rest"),
        ("10%\x1b[A\n\x1b[0m\n", "10%"),
    ],
)
def test_last_line_of_a_log_without_what_a_terminal_would_do(tmp_path, written, shown):
    log = tmp_path / "x.log"
    log.write_text(f"$ python x.py\n{written}\n")
    assert last_line(log) == shown
