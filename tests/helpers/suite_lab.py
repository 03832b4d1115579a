"""A suite in a folder of its own, with fake tools that log their calls and leave what the real ones would."""

import copy
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import yaml

from suites.config import load_suite
from suites.listing import describe
from suites.plan import build_plan
from suites.runner import run_plan

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("prepare_data", "pretrain", "select_run", "evaluate_backbone", "localize", "finetune_coco", "compare")
STAGES = {
    "pretrain": "pretraining",
    "select_run": "pretraining",
    "evaluate_backbone": "backbone",
    "localize": "localization",
    "finetune_coco": "detection",
}
# A pretraining's backbone has the hash that `weights` says, as have the results that read it; the label of a folder's
# name may have its own: {"CE": "1"}.
# `calls` gets a line a call; a call whose folder contains the text of the file `fail` or `hang` does that.
# A pretraining's nll is the sum of what `losses` holds for its overrides: {"KEY VALUE": nll}, null for a NaN, or
# "diverge"; nll_fitted the same with `fitted`.
FAKE = f"""
import json, os, sys, time
from pathlib import Path
me = Path(__file__)
arguments = sys.argv[1:]
out = Path(arguments[arguments.index("--output-dir") + 1])
with (me.parent / "calls").open("a") as file:
    print(json.dumps([me.stem, arguments]), file=file)
def told_to(what):
    order = me.parent / what
    return order.exists() and order.read_text() in str(out)
if told_to("hang"):
    (me.parent / "pid").write_text(str(os.getpid()))
    time.sleep(60)
if told_to("fail"):
    print("Traceback\\nerror: told to fail", file=sys.stderr)
    sys.exit(2)
if told_to("die"):
    os.kill(os.getpid(), 9)
out.mkdir(parents=True, exist_ok=True)
if me.stem == "prepare_data":
    (out / "scenes.json").write_text("{{}}")
elif me.stem == "compare":
    print("the table\\n\\nreport: elsewhere")
    (out / "index.html").write_text("")
elif not told_to("forget"):
    metrics = {{}}
    if me.stem == "pretrain":
        overrides = dict(zip(*[iter(arguments[arguments.index("--output-dir") + 2 :])] * 2))
        tree = {{}}
        for key, value in overrides.items():
            *parents, leaf = key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {{}})
            node[leaf] = json.loads(value) if value[0].isdigit() else value
        (out / "config.yaml").write_text(json.dumps(tree))
        for name in ("losses", "fitted"):
            table = json.loads((me.parent / name).read_text()) if (me.parent / name).exists() else {{}}
            parts = [table.get(f"{{key}} {{value}}", 0) for key, value in overrides.items()]
            if "diverge" in parts:
                print("error: the loss is not finite at iteration 7: {{}}", file=sys.stderr)
                sys.exit(2)
            metrics["nll_fitted" if name == "fitted" else "nll"] = None if None in parts else sum(parts)
    if me.stem == "select_run":
        sys.path.insert(0, os.getcwd())
        from suites.selection import select
        from backbones.core.errors import InputError
        of = lambda option: [b for a, b in zip(arguments, arguments[1:]) if a == option]
        folders = [text for text in arguments[arguments.index("--output-dir") + 2 :]]
        try:
            found = select(folders, of("--key"), of("--by")[0])
        except InputError as error:
            print(f"error: {{error}}", file=sys.stderr)
            sys.exit(2)
        (out / "selection.json").write_text(json.dumps(found))
        print(f"chosen: {{found['chosen']['values']}}")
    told = me.parent / "weights"
    backbone, details = {{}}, {{}}
    if told.exists():
        def left(folder):
            return json.loads((Path(folder) / "results.json").read_text())["backbone"]
        if me.stem == "pretrain":
            name = out.name.split("-")[0]
            backbone = dict(hash=json.loads(told.read_text()).get(name, name))
            if "TEACHER.RUN" in overrides:
                details = dict(teacher=left(overrides["TEACHER.RUN"])["hash"])
        elif me.stem == "select_run":
            backbone = left(folders[found["chosen"]["candidate"]])
        elif "--backbone" in arguments:
            source = arguments[arguments.index("--backbone") + 1]
            backbone = dict(hash="random") if source == "random" else left(source)
        else:
            backbone = left(arguments[arguments.index("--output-dir") + 2])
    results = dict(schema_version=1, stage={STAGES!r}[me.stem], metrics=metrics,
                   backbone=dict(dict(label="x", method="x", seed=0, hash=""), **backbone),
                   protocol=dict(name="p", hash="1"),
                   data={{}}, details=details, warnings=[], files={{}})
    (out / "results.json").write_text(json.dumps(results))
"""


class Lab:
    """A suite file, its configs and the fake tools in one folder."""

    def __init__(self, folder):
        self.folder, self.tools, self.output, self.name = folder, folder / "tools", folder / "out", "suite"
        self.tools.mkdir(parents=True)
        for name in NAMES:
            (self.tools / f"{name}.py").write_text(FAKE)
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
        """Exit code, and everything the suite said."""
        stream = io.StringIO()
        return run_plan(self.plan(*overrides), stream), stream.getvalue()

    def tell(self, what, text):
        (self.tools / what).write_text(text)

    def to_run(self):
        """`ALS pretrain` for every stage that a dry run lists as not complete."""
        heads = [line for line in describe(self.plan()).splitlines() if line.startswith("[")]
        return [re.sub(r"^\S+ |:| \(.*\)", "", head.removesuffix(": to run")) for head in heads if "to run" in head]

    def calls(self):
        """(tool, arguments) of every call since the last time."""
        path = self.tools / "calls"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def called(self):
        """`ALS pretrain` for every call since the last time."""
        return [short(call) for call in self.calls()]

    def start(self):
        """The suite in a process of its own, which can be killed."""
        code = (
            "import sys; from pathlib import Path; from suites.plan import build_plan;"
            "from suites.config import load_suite; from suites.runner import run_plan;"
            "sys.exit(run_plan(build_plan(load_suite(sys.argv[1]), sys.argv[2], tools=Path(sys.argv[3]))))"
        )
        command = [sys.executable, "-c", code, str(self.write()), str(self.output), str(self.tools)]
        # A test run in the background ignores SIGINT, and its children would inherit that.
        restore = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, preexec_fn=restore)

    def child(self):
        """Process number of the fake tool that hangs."""
        assert wait_for(lambda: (self.tools / "pid").exists() and (self.tools / "pid").read_text())
        return int((self.tools / "pid").read_text())


def output_of(arguments):
    return Path(arguments[arguments.index("--output-dir") + 1])


def run_of(arguments):
    """The run that a measure reads."""
    return Path(arguments[arguments.index("--output-dir") + 2])


def short(call):
    tool, arguments = call
    label = output_of(arguments).name.split("-")[0]
    return tool if tool in ("compare", "prepare_data") else f"{label} {tool}"


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_gone(pid):
    """No such process, or one that only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


PER_ROW = ["pretrain", "evaluate_backbone", "localize", "finetune_coco"]
OF_CE, OF_ALS = [f"CE {tool}" for tool in PER_ROW], [f"ALS {tool}" for tool in PER_ROW]
EVERYTHING = ["prepare_data", "random finetune_coco", *OF_CE, *OF_ALS, "compare"]


# The same as titles of a dry run.
PER_STAGE = ["pretrain", "evaluate", "localize", "finetune"]
CE, ALS = [f"CE {kind}" for kind in PER_STAGE], [f"ALS {kind}" for kind in PER_STAGE]
FINETUNE = [f"{label} finetune" for label in ("random", "CE", "ALS")]
ALL = ["data scenes prepare", "random finetune", *CE, *ALS, "compare"]


def set_row(lab):
    lab.tree["ROWS"][2]["OVERRIDES"] += ["METHOD.ALS.beta", 0.5]


def set_compare(lab):
    lab.tree["COMPARE"] = {"ARGUMENTS": ["--resamples", 10]}
