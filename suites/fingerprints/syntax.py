"""Syntax of a source file: its definitions, what they refer to, and their text without comments."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from backbones.core.errors import InputError

# Fields of syntax nodes without effect: the `u` of u"text", type comments.
_WITHOUT_MEANING = ("kind", "type_comment")


class Module(NamedTuple):
    """A parsed file: top-level statements by the name they bind, imports by their local name, modules imported by *.

    A relative import keeps its dots.
    """

    statements: tuple[ast.stmt, ...]
    definitions: Mapping[str, tuple[ast.stmt, ...]]
    imports: Mapping[str, str]
    stars: tuple[str, ...]


def canonical(node: Any) -> str:
    """Convert syntax to text without comments, docstrings and layout; the same for every version of Python."""
    if isinstance(node, ast.AST):
        fields = [(key, value) for key, value in ast.iter_fields(node) if key not in _WITHOUT_MEANING]
        shown = [f"{key}={canonical(value)}" for key, value in fields if value is not None and value != []]
        return f"{type(node).__name__}({', '.join(shown)})"
    if isinstance(node, list):
        return f"[{', '.join(canonical(item) for item in node if not _is_text(item))}]"
    return repr(node)


@lru_cache(maxsize=4096)
def text_of(statement: ast.stmt) -> str:
    """Like `canonical`, computed once per statement."""
    return canonical(statement)


@lru_cache(maxsize=4096)
def names_in(statement: ast.stmt) -> frozenset[tuple[str, ...]]:
    """Return every name in a statement with its attributes: ("a", "b") for `a.b`."""
    return frozenset(chains(statement))


def _is_text(node: Any) -> bool:
    """Whether a statement is only a text, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@lru_cache(maxsize=512)
def parse(path: str, time: int, size: int) -> Module:
    """Parse the file `path` as of `time`."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"cannot read the source {path}: {error}; correct it") from None
    definitions: dict[str, tuple[ast.stmt, ...]] = {}
    for statement in tree.body:
        own = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        for name in dict.fromkeys(_bound([statement] if isinstance(statement, own) else ast.walk(statement))):
            definitions[name] = (*definitions.get(name, ()), statement)
    return Module(tuple(tree.body), definitions, *_imports(tree))


def _imports(tree: ast.Module) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return `imports` and `stars` of a module, including those inside functions."""
    imports: dict[str, str] = {}
    stars: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {a.asname: a.name for a in node.names if a.asname}
            imports |= {a.name.split(".")[0]: a.name.split(".")[0] for a in node.names if not a.asname}
        elif isinstance(node, ast.ImportFrom):
            origin = f"{'.' * node.level}{node.module or ''}"
            stars += [origin for alias in node.names if alias.name == "*"]
            inside_of = origin if origin.endswith(".") else f"{origin}."
            imports |= {a.asname or a.name: f"{inside_of}{a.name}" for a in node.names if a.name != "*"}
    return imports, tuple(stars)


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield names that the nodes of a statement define or change: `a`, `a.b = 1`, `a[0] = 1`, `a.add(1)`."""
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            yield from _root(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _root(node.value.func)


def _root(node: ast.AST) -> Iterator[str]:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name):
        yield node.id


def chain_of(node: ast.AST) -> tuple[str, ...]:
    """Return ("a", "b", "c") for `a.b.c`, () for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


def chains(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield every name in a piece of syntax, with its attributes."""
    if chain := chain_of(node):
        yield chain
        return
    for child in ast.iter_child_nodes(node):
        yield from chains(child)
