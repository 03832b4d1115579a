"""What keeps the house tidy: tools that answer, files and functions of a readable size, no network at run time."""

import ast
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


@pytest.mark.parametrize("name", TOOLS)
def test_tools_only_parse_build_call_and_report(name):
    assert len((ROOT / "tools" / f"{name}.py").read_text().splitlines()) < 80


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
