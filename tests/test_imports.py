"""The map of the code: who may import whom, no import circle, and which folder needs a heavy library.

An import counts wherever it stands: in a function and under TYPE_CHECKING, too.  A module does not import the packages
that it lies in, though Python runs their `__init__` first; their own imports count as theirs.
"""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("backbones", "detection", "comparison", "suites")
OURS = (*PACKAGES, "tools", "benchmarks", "tests")
STDLIB = sys.stdlib_module_names

# What each package may import of ours.
ALLOWED = {
    "backbones/core": {"backbones.core"},
    "backbones": {"backbones"},
    "detection": {
        "detection",
        "backbones.core",
        "backbones.models",
        "backbones.methods.functional",
        "backbones.methods.tables",
        "backbones.data.geometry",
    },
    "comparison": {"comparison", "backbones.core"},
    "suites": {"suites", "backbones.core"},
}
# Which of these a folder's modules may import at their top, which all who import them pay for.  detectron2 is optional.
HEAVY = {"torch", "torchvision", "matplotlib", "detectron2"}
AT_TOP = {
    "backbones": set(),
    "backbones/contract": {"torch"},
    "backbones/core": {"torch"},
    "backbones/data": {"torch", "torchvision"},
    "backbones/data/scenes": set(),
    "backbones/gaussian": {"torch", "matplotlib"},
    "backbones/measuring": {"torch", "matplotlib"},
    "backbones/methods": {"torch"},
    "backbones/models": {"torch", "torchvision"},
    "backbones/pretraining": {"torch"},
    "detection": set(),
    "detection/data": {"torch"},
    "detection/data/coco": set(),
    "detection/data/voc": set(),
    "detection/drawing": set(),
    "detection/engines": {"torch"},
    "detection/engines/detectron2": {"torch"},
    "detection/engines/torchvision": {"torch", "torchvision"},
    "detection/engines/yolo": {"torch", "torchvision"},
    "detection/evaluation": set(),
    "detection/exchange": {"torch", "torchvision"},
    "detection/training": {"torch"},
    "comparison": set(),
    "comparison/answers": set(),
    "comparison/evidence": set(),
    "comparison/page": set(),
    "comparison/diagnosis": set(),
    "comparison/papers": set(),
    "comparison/ranking": {"matplotlib"},
    "comparison/verdicts": set(),
    "comparison/resampling": set(),
    "comparison/tables": set(),
    "suites": set(),
    "suites/cluster": set(),
    "suites/execution": set(),
    "suites/fingerprints": set(),
    "suites/stages": set(),
    "tools": set(),
}
# The one file that may name detectron2 at all.
DETECTRON2 = "detection/engines/detectron2/engine.py"


def module_name(path, root=ROOT):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path, root=ROOT, *, at_top=False):
    """Yield (module, name or None) of every import of a file; at_top: only of those that run when it is imported."""
    for node in top_nodes(ast.parse(path.read_text())) if at_top else ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative to the package that the module lies in
                package = path.relative_to(root).parent.parts
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            yield from ((base, alias.name) for alias in node.names)


def top_nodes(node):
    """All nodes outside functions and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from (n for other in child.orelse for n in (other, *top_nodes(other)))
            continue
        yield child
        yield from top_nodes(child)


def import_graph(root, packages, *, at_top=False):
    """Module -> the modules of ours that it imports."""
    paths = {module_name(path, root): path for name in packages for path in sorted((root / name).rglob("*.py"))}
    graph = {}
    for module, path in paths.items():
        found = set()
        for base, name in imported(path, root, at_top=at_top):
            found |= {f"{base}.{name}"} & paths.keys() or {base} & paths.keys()
        graph[module] = found - {module}
    return graph


def find_circle(graph):
    """The modules of one circle, each imported by the next; empty without one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


# ---- who may import whom ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        for base, name in imported(path):
            module = base if name is None else f"{base}.{name}"
            if base.split(".")[0] not in OURS or module == "backbones.__version__":
                continue
            allowed = any(module == a or module.startswith(f"{a}.") for a in ALLOWED[package])
            assert allowed, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("place", [".", "tools", "benchmarks", "tests"])
def test_no_import_circle(place):
    """The folders of scripts are roots of their own: their modules import each other without the folder's name."""
    graph = import_graph(ROOT / place, PACKAGES if place == "." else ["."])
    assert graph
    circle = find_circle(graph)
    assert not circle, " <- ".join(circle)


@pytest.mark.parametrize(
    "back",
    [
        "import one.a",
        "from one import a",
        "from one.a import name",
        "from . import a",
        "from .a import name",
        "from ..one import a",
        "def f():\n    from one import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from one.a import Name",
        "class A:\n    try:\n        import one.a as other\n    except ImportError:\n        pass",
    ],
)
def test_a_circle_is_found_wherever_an_import_stands(tmp_path, back):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "__init__.py").write_text("")
    (tmp_path / "one" / "a.py").write_text("from one import b")
    (tmp_path / "one" / "b.py").write_text("import one.c")
    (tmp_path / "one" / "c.py").write_text(back)
    assert set(find_circle(import_graph(tmp_path, ["one"]))) == {"one.a", "one.b", "one.c"}
    (tmp_path / "one" / "c.py").write_text("import onea, a\nfrom one import other")
    assert find_circle(import_graph(tmp_path, ["one"])) == []


def test_no_module_is_called_like_one_of_the_standard_library():
    for name in OURS:
        for path in (ROOT / name).rglob("*.py"):
            assert not STDLIB & set(path.relative_to(ROOT).with_suffix("").parts), path


# ---- tests --------------------------------------------------------------------------------------------------------


def named_helpers(path):
    """Modules of tests/helpers/ that a file takes as a plugin, or runs by the name of their file."""
    for node in ast.walk(ast.parse(path.read_text())):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and (match := re.fullmatch(r"helpers\.(\w+)|(\w+)\.py", text)):
            yield f"helpers.{match[1] or match[2]}"


def test_no_test_imports_a_test():
    """What several test files need is in tests/helpers/."""
    graph = import_graph(ROOT / "tests", ["."])
    assert len(graph) > 100
    assert not [(module, other) for module in graph for other in graph[module] if other.startswith("test_")]


def test_every_helper_is_used_by_a_test():
    graph = import_graph(ROOT / "tests", ["."])
    helpers = {module for module in graph if module.startswith("helpers.")}
    waiting, used = [module for module in graph if "." not in module], set()
    while waiting:
        module = waiting.pop()
        path = (ROOT / "tests" / module.replace(".", "/")).with_suffix(".py")
        new = (graph[module] | set(named_helpers(path) if path.exists() else ())) & helpers - used
        used |= new
        waiting += new
    assert used == helpers


# ---- heavy libraries ----------------------------------------------------------------------------------------------


def heavy_at_top(path):
    return {base.split(".")[0] for base, _ in imported(path, at_top=True)} & HEAVY


def test_heavy_libraries_are_imported_where_the_table_says():
    """A folder without a row fails, and so does a permission that nobody uses."""
    used = {}
    for name in (*PACKAGES, "tools"):
        for path in (ROOT / name).rglob("*.py"):
            used.setdefault(str(path.parent.relative_to(ROOT)), set()).update(heavy_at_top(path))
    assert used == AT_TOP


@pytest.mark.parametrize("package", ["comparison"])
def test_comparing_needs_no_torch(package):
    """Nor does anything of ours that it imports at its top."""
    graph = import_graph(ROOT, PACKAGES, at_top=True)
    paths = {module_name(path): path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    waiting = [(module, module) for module in graph if module.startswith(package.replace("/", "."))]
    seen = set()
    while waiting:
        module, route = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        assert not heavy_at_top(paths[module]) & {"torch", "torchvision", "detectron2"}, route
        waiting += [(other, f"{route} -> {other}") for other in graph[module]]


def test_detectron2_is_imported_in_one_file():
    for name in (*PACKAGES, "tools", "benchmarks"):
        for path in (ROOT / name).rglob("*.py"):
            if str(path.relative_to(ROOT)) != DETECTRON2:
                assert not any(base.split(".")[0] == "detectron2" for base, _ in imported(path)), path
