"""Fake tools of a suite: they log their calls and write the files of the real ones, in this or in another process.

Files next to the tools control them:
    calls               receives one line per call
    fail, hang, die, forget   affects calls whose output folder contains a line of the file; one that hangs leaves its
                        process id in pids/
    weights             {"CE": "1"}: hashes of backbones by label, also in the results that read them; a label that is
                        missing is its own hash.  Without this file results name no backbone
    heavy               trainings write files with weights; whatever reads a backbone fails without its file
    losses, fitted      nll and nll_fitted of a pretraining are the sums of these over its overrides:
                        {"KEY VALUE": number}, null for NaN, or "diverge"
"""

import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from backbones.core.errors import Diverged, InputError

STAGES = {
    "pretrain": "pretraining",
    "select_run": "pretraining",
    "evaluate_backbone": "backbone",
    "localize": "localization",
    "attack_backbone": "robustness",
    "finetune_coco": "detection",
    "finetune_voc": "detection",
}
TRAININGS = ("pretrain", "finetune_coco", "finetune_voc")
# Source of a tool that runs in a separate process; the tool's name is that of the file.
SCRIPT = f"""
import sys
sys.path[:0] = {[str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]!r}
from backbones.core.entry import run_tool
from helpers.suite_fakes import call
run_tool(lambda _: call(__file__, sys.argv[1:], sys.stdout, sys.stderr))
"""


def call(script: str | Path, arguments: list[str], out: IO[str], err: IO[str], *, alone: bool = True) -> int:
    """Simulate one call of the tool `script`; return its exit code.

    Args:
        alone: whether it runs in a separate process, which can hang and be killed.

    Raises:
        InputError: the call is set to fail or to diverge, or cannot select a run.
    """
    folder, tool = Path(script).parent, Path(script).stem
    output = Path(arguments[arguments.index("--output-dir") + 1])
    with (folder / "calls").open("a") as file:
        print(json.dumps([tool, arguments]), file=file)

    def told_to(what: str) -> bool:
        order = folder / what
        return order.exists() and any(line in str(output) for line in order.read_text().splitlines())

    if told_to("hang"):
        assert alone
        (folder / "pids").mkdir(exist_ok=True)
        (folder / "pids" / str(os.getpid())).touch()
        time.sleep(60)
    if told_to("fail"):
        print("Traceback", file=err)
        raise InputError("told to fail")
    if told_to("die"):
        if alone:
            os.kill(os.getpid(), signal.SIGKILL)
        return -signal.SIGKILL
    output.mkdir(parents=True, exist_ok=True)
    if tool == "prepare_data":
        (output / "scenes.json").write_text("{}")
    elif tool == "compare":
        print("the table\n\nreport: elsewhere", file=out)
        (output / "index.html").write_text("")
    elif tool == "import_backbone":
        _leave_import(folder, arguments, output)
    elif not told_to("forget"):
        _leave_results(folder, tool, arguments, output, out)
    return 0


def _leave_results(folder: Path, tool: str, arguments: list[str], output: Path, out: IO[str]) -> None:
    rest = arguments[arguments.index("--output-dir") + 2 :]
    metrics: dict[str, Any] = {}
    found: dict[str, Any] = {}
    if tool == "pretrain":
        overrides = _pairs(rest)
        (output / "config.yaml").write_text(json.dumps(_tree(overrides)))
        for name, metric in (("losses", "nll"), ("fitted", "nll_fitted")):
            table = _told(folder / name) or {}
            parts = [table.get(f"{key} {value}", 0) for key, value in overrides.items()]
            if "diverge" in parts:
                raise Diverged("the loss is not finite at iteration 7: {}")
            metrics[metric] = None if None in parts else sum(parts)
    if tool == "select_run":
        from suites.selection import select  # slow: imported for this tool only

        found = select(rest, _options(arguments, "--key"), _options(arguments, "--by")[0])
        (output / "selection.json").write_text(json.dumps(found))
        print(f"chosen: {found['chosen']['values']}", file=out)
    backbone, details = _weights(folder, tool, arguments, rest, output, found)
    protocol: dict[str, Any] = {"name": "p", "hash": "1"}
    if backbone and tool == "pretrain" and (start := _pairs(rest).get("MODEL.WEIGHTS")):
        protocol["settings"] = {"MODEL.WEIGHTS": _backbone(start.removesuffix("/backbone.pth"))["hash"]}
    files = _leave_weights(tool, arguments, rest, output, found) if (folder / "heavy").exists() else {}
    results = {
        "schema_version": 1, "stage": STAGES[tool], "metrics": metrics,
        "backbone": {"label": "x", "method": "x", "seed": 0, "hash": "", **backbone},
        "protocol": protocol, "data": {}, "details": details, "warnings": [], "files": files,
    }  # fmt: skip
    (output / "results.json").write_text(json.dumps(results))


def _leave_weights(
    tool: str, arguments: list[str], rest: list[str], output: Path, found: dict[str, Any]
) -> dict[str, str]:
    """Write the files with weights, one of them unnamed in the results as for the real tools; return those named."""
    teacher = _pairs(rest).get("TEACHER.RUN") if tool == "pretrain" else None
    read = [*_options(arguments, "--backbone"), *([teacher] if teacher else [])]
    read += [rest[found["chosen"]["candidate"]] if found else rest[0]] if tool not in (*TRAININGS, "compare") else []
    for source in read:
        if source != "random" and not (Path(source) / "backbone.pth").is_file():
            raise InputError(f"no backbone in {source}")
    names = {"pretrain": ("backbone.pth", "checkpoint.pth"), "select_run": ("backbone.pth",)}
    for name in names.get(tool, ("checkpoint.pth",) if tool in TRAININGS else ()):
        (output / name).write_text("0" * (8_192 if "--keep" in arguments else 20_480))
    return {"backbone": "backbone.pth"} if tool in names else {}


def _leave_import(folder: Path, arguments: list[str], output: Path) -> None:
    """Write a backbone whose hash is the content of the file if `weights` is set."""
    source = Path(_options(arguments, "--checkpoint")[0])
    file = source / "backbone.pth" if source.is_dir() else source
    who = {"label": _options(arguments, "--label")[0], "method": "x", "seed": 0, "hash": ""}
    who["hash"] = file.read_text() if (folder / "weights").exists() else ""
    (output / "backbone.pth").write_text(file.read_text())
    if _options(arguments, "--config-file"):
        (output / "config.yaml").write_text("{}")
    (output / "import.json").write_text(json.dumps({"backbone": who}))


def _weights(
    folder: Path, tool: str, arguments: list[str], rest: list[str], output: Path, found: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the blocks `backbone` and `details` of the results; hashes are included if `weights` is set."""
    told = _told(folder / "weights")
    if told is None:
        return {}, {}
    if tool == "pretrain":
        name, overrides = output.name.split("-")[0], _pairs(rest)
        teacher = overrides.get("TEACHER.RUN")
        return {"hash": told.get(name, name)}, {"teacher": _backbone(teacher)["hash"]} if teacher else {}
    if tool == "select_run":
        return _backbone(rest[found["chosen"]["candidate"]]), {}
    if source := _options(arguments, "--backbone"):
        return ({"hash": "random"} if source == ["random"] else _backbone(source[0])), {}
    return _backbone(rest[0]), {}


def _backbone(folder: str) -> dict[str, Any]:
    names = ("results.json", "import.json")
    path = next(path for name in names if (path := Path(folder) / name).exists())
    return json.loads(path.read_text())["backbone"]


def _told(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _pairs(texts: list[str]) -> dict[str, str]:
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _options(arguments: list[str], name: str) -> list[str]:
    return [value for option, value in pairwise(arguments) if option == name]


def _tree(overrides: dict[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in overrides.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = json.loads(value) if value[0].isdigit() else value
    return tree
