"""What keeps the house tidy: tools that answer, files and functions of a readable size, no network at run time."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import conftest
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
    said = dict(line.partition(",")[::2] for line in done.stdout.split())
    assert said.keys() == set(TOOLS)
    assert {name: imported for name, imported in said.items() if imported} == {}


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


# ---- the whole tree -----------------------------------------------------------------------------------------------

TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
FUNCTIONS = [
    (path, node)
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]


def share_within(sizes, limit):
    return sum(size <= limit for size in sizes) / len(sizes)


def test_files_and_functions_are_short_in_the_middle():
    files = [len(path.read_text().splitlines()) for path in SOURCES]
    functions = [(node.end_lineno or 0) - node.lineno + 1 for _, node in FUNCTIONS]
    assert statistics.median(files) <= 130
    assert share_within(files, 230) >= 0.9
    assert statistics.median(functions) <= 8
    assert share_within(functions, 22) >= 0.9


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES}), ids=lambda path: str(path))
def test_a_package_fits_on_one_screen(folder):
    """The three that are lists by nature, of methods, readers and small tools, may be longer."""
    if folder.name not in ("core", "data", "methods", "tools"):
        assert sum(path.stem != "__init__" for path in folder.glob("*.py")) <= 15


def test_every_function_says_what_it_returns():
    assert [f"{path.relative_to(ROOT)}: {node.name}" for path, node in FUNCTIONS if node.returns is None] == []


def public_names():
    """Yield (name, node, class or None) of the functions and classes of every module, and of their classes' methods."""
    for path, tree in TREES.items():
        module = path.relative_to(ROOT).with_suffix("").as_posix()
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                yield f"{module}: {node.name}", node, None
                for one in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(one, ast.FunctionDef) and not one.name.startswith("_"):
                        yield f"{module}: {node.name}.{one.name}", one, node


def inherits_docstring(method, owner, classes):
    """Whether a class of ours that `owner` is derived from documents the method that it overrides."""
    for base in owner.bases:
        for path, parent in classes.get(ast.unparse(base).rpartition(".")[2], ()):
            own = [one for one in parent.body if isinstance(one, ast.FunctionDef) and one.name == method.name]
            above = {name: [pair for pair in pairs if pair != (path, parent)] for name, pairs in classes.items()}
            if any(ast.get_docstring(one) for one in own) or inherits_docstring(method, parent, above):
                return True
    return False


def test_what_others_call_is_documented():
    """An override keeps the contract of the method that it replaces, and need not repeat it."""
    classes = {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append((path, node))
    names = list(public_names())
    silent = [
        name
        for name, node, owner in names
        if not ast.get_docstring(node) and not (owner and inherits_docstring(node, owner, classes))
    ]
    assert len(names) > 1000
    assert len(silent) <= 0.05 * len(names), silent


def test_the_files_that_run_first_exist():
    assert all((ROOT / "tests" / f"{name}.py").exists() for name in conftest.SECONDS)
    assert "--no-loadscope-reorder" in (ROOT / "Makefile").read_text()  # which would put files of many tests first


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_annotations_are_evaluated(path):
    """A file that postpones them means other things by its dataclass fields and defaults than its neighbours."""
    assert "from __future__ import annotations" not in path.read_text()
