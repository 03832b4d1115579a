"""What keeps the house tidy: tools that answer, files and functions of a readable size, no network at run time."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
SOURCES = sorted(
    path
    for name in ("backbones", "detection", "comparison", "suites", "tools", "benchmarks")
    for path in (ROOT / name).rglob("*.py")
)


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_answers_help(load_tool, capsys, name):
    with pytest.raises(SystemExit) as stopped:
        load_tool(name).main(["--help"])
    assert stopped.value.code == 0
    answer = capsys.readouterr().out
    assert answer.startswith("usage: ")
    assert f"tools/{name}.py" in answer  # an example to copy


SLOW = {"torch", "torchvision", "matplotlib", "detectron2", "scipy", "cv2"}
# In a process of its own, which no other test has filled with modules.
HELP = f"""
import contextlib, importlib.util, sys
from pathlib import Path

for path in sorted(Path("tools").glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit):
        tool.main(["--help"])
    print(path.stem, *sorted({SLOW!r} & sys.modules.keys()), sep=",")
"""


def test_no_slow_library_is_imported_before_the_arguments_are_right():
    """`--help` and a mistyped option are answered in a blink, where torch takes seconds."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == TOOLS


@pytest.mark.parametrize("name", TOOLS)
def test_tools_only_parse_build_call_and_report(name):
    assert len((ROOT / "tools" / f"{name}.py").read_text().splitlines()) < 85


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_have_a_readable_size(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_weights_are_downloaded(path):
    """`weights=` of a model zoo would fetch a file at run time."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            assert not (name.startswith(("resnet", "fasterrcnn")) and any(k.arg == "weights" for k in node.keywords))
