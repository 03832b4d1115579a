"""A suite in its own folder, with the fake tools of suite_fakes.py."""

import copy
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import yaml

from backbones.core.errors import InputError
from helpers import suite_fakes
from helpers.suite_fakes import SCRIPT
from suites.execution.executor import Ended
from suites.execution.local import LocalExecutor
from suites.execution.runner import run_plan
from suites.execution.slots import Slot
from suites.listing import describe
from suites.loading import load_suite
from suites.plan import build_plan
from suites.stages.log import describe_command

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    *("prepare_data", "pretrain", "select_run", "evaluate_backbone", "localize", "attack_backbone"),
    *("finetune_coco", "import_backbone", "compare"),
)


class Here:
    """Executor that calls the fake tools in this process, one after the other."""

    slots = 1

    def __init__(self, call):
        self.call, self.ended = call, []

    @property
    def free(self):
        return not self.ended

    def start(self, stages):
        self.ended = [Ended(stage, self.call(stage), 0.0) for stage in stages]

    def look(self, seconds):
        ended, self.ended = self.ended, []
        return ended

    def cancel(self, hurry):
        assert not self.ended


def local(slots, **options):
    """Return what builds an executor of this machine with so many slots, whatever the number of cores."""
    return lambda plan, lock: LocalExecutor([Slot(number) for number in range(slots)], lock, **options)


class Lab:
    """A suite file, its configs and the fake tools in one folder.

    processes: number of slots in which the tools run in separate processes, which takes ten times as long; 0: here.
    exit_codes: {exit code of a tool: its replacement}, used without separate processes.
    """

    processes, exit_codes = 0, {}

    def __init__(self, folder):
        self.folder, self.tools, self.output, self.name = folder, folder / "tools", folder / "out", "suite"
        self.tools.mkdir(parents=True)
        for name in NAMES:
            (self.tools / f"{name}.py").write_text(SCRIPT)
        (folder / "photos").mkdir()
        (folder / "photos" / "a.jpg").write_text("a")
        (folder / "base.yaml").write_text("DEPTH: 18\n")
        (folder / "pretrain.yaml").write_text("LR: 1\n")
        (folder / "finetune.yaml").write_text("_BASE_: base.yaml\nLR: 2\n")
        self.tree = {
            "DATA": [{"NAME": "scenes", "PREPARE": ["scenes", "--seed", 1]}],
            "PRETRAIN": {"CONFIG": f"{folder}/pretrain.yaml", "OVERRIDES": ["DATA.ROOT", "{data:scenes}"]},
            "FINETUNE": [
                {"NAME": "quick", "CONFIG": f"{folder}/finetune.yaml", "OVERRIDES": ["A", "{data:scenes}/.."]}
            ],
            "LAUNCH": {"JOBS": 1, "RETRIES": 0},
            "ROWS": [
                {"LABEL": "random", "BACKBONE": "random"},
                {"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]},
                {"LABEL": "ALS", "OVERRIDES": ["METHOD.NAME", "ALS"]},
            ],
        }

    def copy(self, folder):
        other = copy.copy(self)
        shutil.copytree(self.folder, folder)
        other.folder, other.tools, other.output = folder, folder / "tools", folder / "out"
        other.tree = json.loads(json.dumps(self.tree).replace(str(self.folder), str(folder)))
        return other

    def write(self):
        path = self.folder / "suite.yaml"
        path.write_text(yaml.safe_dump(self.tree, sort_keys=False))
        return path

    def plan(self, *overrides):
        return build_plan(load_suite(self.write(), overrides), self.output, tools=self.tools, name=self.name)

    def run(self, *overrides):
        """Run the suite; return its exit code and all of its output."""
        return self.run_plan(self.plan(*overrides))

    def run_plan(self, plan):
        """Run a plan; return the exit code and all of the output."""
        stream = io.StringIO()
        here = lambda plan, lock: Here(self.call_here)  # noqa: E731
        code = run_plan(plan, stream, local(self.processes) if self.processes else here)
        return code, stream.getvalue()

    def tell(self, what, text):
        (self.tools / what).write_text(text)

    def call_here(self, stage):
        """Call the fake tool of `stage`; return its exit code."""
        _, script, *arguments = stage.command
        stage.log.parent.mkdir(parents=True, exist_ok=True)
        with stage.log.open("a") as log, ExitStack() as files:
            log.write(describe_command(stage.command))
            apart = stage.standard_output != stage.log
            out = files.enter_context(stage.standard_output.open("w")) if apart else log
            try:
                code = suite_fakes.call(script, arguments, out, log, alone=False)
            except InputError as error:
                print(f"error: {error}", file=log)
                code = error.exit_code
        return self.exit_codes.get(code, code)

    def to_run(self):
        """Return such as `ALS pretrain` for every stage that a dry run lists as not complete."""
        heads = [line for line in describe(self.plan()).splitlines() if line.startswith("[")]
        return [re.sub(r"^\S+ |:| \(.*\)", "", head.removesuffix(": to run")) for head in heads if "to run" in head]

    def calls(self):
        """Return (tool, arguments) of every call since the last query."""
        path = self.tools / "calls"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def called(self):
        """Return such as `ALS pretrain` for every call since the last query."""
        return [short(call) for call in self.calls()]

    def command(self, slots=1):
        """Return the command that runs the suite as a program."""
        code = (
            "import sys; from pathlib import Path; from suites.plan import build_plan;"
            "from suites.loading import load_suite; from suites.execution.runner import run_plan;"
            "from backbones.core.entry import run_tool; from helpers.suite_lab import local;"
            "file, output, tools, slots = sys.argv[1:];"
            "plan = build_plan(load_suite(file), output, tools=Path(tools));"
            "run_tool(lambda _: run_plan(plan, None, local(int(slots))))"
        )
        code = f"import sys; sys.path.append({str(ROOT / 'tests')!r}); {code}"
        return [sys.executable, "-c", code, str(self.write()), str(self.output), str(self.tools), str(slots)]

    def start(self, slots=1, stdout=subprocess.DEVNULL):
        """Start the suite in a separate process, which can be killed."""
        # A test run in the background ignores SIGINT, and its children would inherit that.
        restore = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(self.command(slots), cwd=ROOT, stdout=stdout, preexec_fn=restore)

    def child(self):
        """Return the process id of the fake tool that hangs."""
        return self.children(1)[0]

    def children(self, count):
        """Wait until `count` fake tools hang; return their process ids."""
        assert wait_for(lambda: len(list((self.tools / "pids").glob("*"))) == count)
        return [int(path.name) for path in (self.tools / "pids").iterdir()]


def output_of(arguments):
    return Path(arguments[arguments.index("--output-dir") + 1])


def run_of(arguments):
    """Return the run that a measuring tool reads."""
    return Path(arguments[arguments.index("--output-dir") + 2])


def short(call):
    tool, arguments = call
    label = output_of(arguments).name.split("-")[0]
    return tool if tool in ("compare", "prepare_data") else f"{label} {tool}"


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_gone(pid):
    """Whether the process does not exist or is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


PER_ROW = ["pretrain", "evaluate_backbone", "localize", "finetune_coco"]
OF_CE, OF_ALS = [f"CE {tool}" for tool in PER_ROW], [f"ALS {tool}" for tool in PER_ROW]
EVERYTHING = ["prepare_data", "random finetune_coco", *OF_CE, *OF_ALS, "compare"]


# The same, as titles of a dry run.
PER_STAGE = ["pretrain", "evaluate", "localize", "finetune"]
CE, ALS = [f"CE {kind}" for kind in PER_STAGE], [f"ALS {kind}" for kind in PER_STAGE]
FINETUNE = [f"{label} finetune" for label in ("random", "CE", "ALS")]
ALL = ["data scenes prepare", "random finetune", *CE, *ALS, "compare"]


def set_row(lab):
    lab.tree["ROWS"][2]["OVERRIDES"] += ["METHOD.ALS.beta", 0.5]


def set_compare(lab):
    lab.tree["COMPARE"] = {"ARGUMENTS": ["--resamples", 10]}
