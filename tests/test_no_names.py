"""Code asks what a thing can do, never what it is called: no comparison with a registered name.

Found are literals on either side of a comparison (==, in, ...) and in `case`, and constants of the module that hold
them.  A class may name itself, and a registry's module may name its entries.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from backbones.data.samples import DATASETS
from backbones.measuring.cam import CAMS
from backbones.methods.base import METHODS
from backbones.models import MODELS
from detection.engines.yolo.labels import CLASS_LABELS
from suites.stages import KINDS

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("backbones", "detection", "comparison", "suites", "tools", "benchmarks")

# What is registered, by what it is -> (module of the registry, names).
REGISTERED = {
    "method": ("backbones/methods/base.py", METHODS.names()),
    "class labels": ("detection/engines/yolo/labels.py", CLASS_LABELS.names()),
    "network": ("backbones/models/base.py", MODELS.names()),
    "data set": ("backbones/data/samples.py", DATASETS.names()),
    "kind of stage": ("suites/stages/__init__.py", list(KINDS)),
    "class activation map": ("backbones/measuring/cam.py", CAMS.names()),
}
# (file, name) that may be compared with, and why.
ALLOWED = {
    ("suites/fingerprints/sources.py", "pretrain"): "a table of tools; the kind is called like its tool",
    ("comparison/rows.py", "CE"): "result files name a method and nothing else of it; the baseline of all is CE",
    ("comparison/rows.py", "LS"): "the order of a table's rows begins with the baselines",
}


def texts(node: ast.AST) -> Iterator[str]:
    """The texts of a literal: of one, or of a tuple, list or set of them; of a mapping its keys."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for element in node.elts:
            yield from texts(element)
    elif isinstance(node, ast.Dict):
        for key in node.keys:
            yield from texts(key) if key else ()
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("frozenset", "set", "tuple", "list"):
        for argument in node.args:
            yield from texts(argument)


def compared(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of everything that the file compares with; not a class's own name inside of it."""
    constants: dict[str, list[str]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            constants |= {target.id: list(texts(statement.value)) for target in targets if isinstance(target, ast.Name)}

    def walk(node: ast.AST, own: tuple[str, ...]) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.ClassDef):
            own = (*own, node.name)
        sides: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        for side in sides:
            found = constants.get(side.id, []) if isinstance(side, ast.Name) else texts(side)
            yield from ((node.lineno, text) for text in found if text not in own)  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            yield from walk(child, own)

    yield from walk(tree, ())


def offences(root: Path, registered: dict[str, tuple[str, list[str]]]) -> Iterator[tuple[str, str, str]]:
    """(file, name, message) of every comparison with a registered name."""
    for path in sorted(path for name in SOURCES for path in (root / name).rglob("*.py")):
        file = str(path.relative_to(root))
        for line, text in compared(ast.parse(path.read_text())):
            for kind, (home, names) in registered.items():
                if text in names and file != home:
                    yield file, text, f"{file}:{line} compares with the {kind} '{text}'; ask the class instead"


def test_nothing_is_compared_with_a_registered_name():
    found = list(offences(ROOT, REGISTERED))
    assert all(names and all(isinstance(name, str) for name in names) for _, names in REGISTERED.values())
    assert not [message for file, name, message in found if (file, name) not in ALLOWED]
    assert ALLOWED.keys() == {(file, name) for file, name, _ in found}, "a permission that nobody uses"


@pytest.mark.parametrize(
    ("code", "counts"),
    [
        ("x == 'OLS'", True),
        ("'OLS' != x", True),
        ("x in ('CE', 'OLS')", True),
        ("x not in {'OLS'}", True),
        ("NAMES = frozenset({'OLS'})\ndef f(x):\n    return x in NAMES", True),
        ("NAMES: dict = {'OLS': 1}\nx in NAMES", True),
        ("match x:\n    case 'OLS':\n        pass", True),
        ("class OLS:\n    def f(self, x):\n        return x == 'OLS'", False),
        ("class Other:\n    def f(self, x):\n        return x == 'OLS'", True),
        ("x == 'OLSX'", False),
        ("x = 'OLS'", False),
        ("NAMES = {'a': 'OLS'}\nx in NAMES", False),
    ],
)
def test_every_way_to_compare_is_found(tmp_path, code, counts):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "planted.py").write_text(code)
    names = {"method": ("backbones/methods/base.py", ["CE", "OLS"]), "other": ("suites/planted.py", ["OLS"])}
    found = {(file, name) for file, name, message in offences(tmp_path, names) if "the method" in message}
    assert (("suites/planted.py", "OLS") in found) == counts
    assert not [message for _, _, message in offences(tmp_path, names) if "the other" in message]
