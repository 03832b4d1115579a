"""Fingerprint of the source of the class that makes a training's labels, a part of the stage's hash.

Our version represents the code as a whole.  Methods, however, are edited between versions, and a suite that kept the
results of the old formula would show them as those of the new one.  The fingerprint covers the class that the config
names (METHOD.NAME, CLASS_LABELS.NAME), its base classes, the functions and constants below FOLLOWED that these refer to
by name, directly or indirectly, and the class's defaults; it does not cover comments, docstrings, layout or file paths.
Files are read as text and never imported.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from backbones.core.errors import InputError, suggestion
from backbones.core.files import fingerprint
from suites.fingerprints.syntax import Module, chain_of, chains, names_in, parse, text_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("backbones", "detection")
# Modules whose functions and constants are followed; base classes are followed in all our packages.
FOLLOWED = ("backbones.methods", "detection.engines.yolo")


class Registered(NamedTuple):
    """Where a tool finds its label class.

    key: config key that names the class; default: its default value; package: where the classes are registered.
    defaults: module that assigns the class's arguments, if its `__init__` does not; block: the names before the class's
        name in the target of the assignment.
    """

    key: str
    default: str
    package: str
    defaults: str = ""
    block: tuple[str, ...] = ()


BY_TOOL = {
    "pretrain": Registered("METHOD.NAME", "CE", "backbones.methods"),
    "finetune_voc": Registered(
        "CLASS_LABELS.NAME", "Hard", "detection.engines.yolo", "detection.engines.yolo.config", ("_C", "CLASS_LABELS")
    ),
}


_File = tuple[str, int, int]  # path, time and size


def named_class(tool: str, settings: Mapping[str, Any] | None, overrides: Sequence[str]) -> str:
    """Return the class that a call of `tool` with this config and KEY VALUE pairs names; "" for a tool without one."""
    if tool not in BY_TOOL:
        return ""
    block, _, leaf = BY_TOOL[tool].key.partition(".")
    found: Any = BY_TOOL[tool].default
    trees = [settings or {}, *(_tree(key, text) for key, text in zip(overrides[::2], overrides[1::2], strict=False))]
    for tree in trees:
        here = tree.get(block)
        found = here.get(leaf, found) if isinstance(here, Mapping) else found
    return str(found)


def class_source(tool: str, name: str, imports: tuple[Path, ...] = ()) -> str:
    """Return 12 hex digits over the source of the class `name` of `tool`; "" for a tool without one.

    imports: files of the user in which the class can be, as if they were in the package where classes are registered.

    Raises:
        InputError: unknown class (with the closest match), or a file that cannot be parsed.
    """
    if tool not in BY_TOOL:
        return ""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return _class_source(ROOT, _stamp(files), _stamp(path for path in imports if path.is_file()), tool, name)


def _stamp(files: Iterable[Path]) -> tuple[_File, ...]:
    return tuple((str(path), (status := path.stat()).st_mtime_ns, status.st_size) for path in files)


@lru_cache(maxsize=1024)
def _class_source(root: Path, stamp: tuple[_File, ...], imports: tuple[_File, ...], tool: str, name: str) -> str:
    """Like `class_source`, computed once per state of the files (`stamp`, `imports`)."""
    return _Search(root, stamp, imports, BY_TOOL[tool]).source(name)


class _Search:
    """Follows names from one definition to the next."""

    def __init__(self, root: Path, files: Sequence[_File], imports: Sequence[_File], registered: Registered) -> None:
        self.registered = registered
        self.files = {_dotted(Path(file[0]).relative_to(root)): file for file in files}  # by module
        self.files |= {f"{registered.package}.imported {Path(file[0]).stem}": file for file in imports}

    def source(self, name: str) -> str:
        """Return the fingerprint of the class `name` and all that it refers to."""
        classes = self._classes()
        if name not in classes:
            raise InputError(f"unknown {self.registered.key} '{name}'{suggestion(name, classes)}")
        reached, to_do = {(classes[name], name)}, [(classes[name], name)]
        texts = [text_of(statement) for statement in self._defaults(name)]
        while to_do:
            module, target = to_do.pop()
            for statement in self._module(module).definitions[target]:
                texts.append(f"{target} {text_of(statement)}")
                more = set(self._references(module, statement)) - reached
                reached |= more
                to_do += more
        return fingerprint("\n".join(sorted(texts)))

    def _module(self, name: str) -> Module:
        return parse(*self.files[name])

    def _classes(self) -> dict[str, str]:
        """Return name -> module of every registered class."""
        return {
            statement.name: name
            for name in self.files
            if _below(name, [self.registered.package])
            for statement in self._module(name).statements
            if isinstance(statement, ast.ClassDef) and any(map(_registers, statement.decorator_list))
        }

    def _defaults(self, name: str) -> Iterator[ast.stmt]:
        where, block = self.registered.defaults, (*self.registered.block, name)
        for statement in self._module(where).statements if where in self.files else ():
            if isinstance(statement, ast.Assign) and chain_of(statement.targets[0])[: len(block)] == block:
                yield statement

    def _references(self, module: str, statement: ast.stmt) -> Iterator[tuple[str, str]]:
        """Yield (module, name) of every definition of ours that `statement` refers to and that is covered."""
        bases = statement.bases if isinstance(statement, ast.ClassDef) else []
        for base in bases:
            for chain in chains(base):
                yield from self._resolve(module, chain)
        for chain in names_in(statement):
            for where, name in self._resolve(module, chain):
                if where == module or _below(where, FOLLOWED):
                    yield where, name

    def _resolve(
        self, module: str, chain: Sequence[str], passed: tuple[tuple[str, str], ...] = ()
    ) -> Iterator[tuple[str, str]]:
        """Resolve `a.b.c` in a module to definitions there or in an imported module; a module's name means all of it.

        Args:
            passed: (module, name) pairs tried before, so that circular imports end.
        """
        head, *rest = chain
        here, passed = self._module(module), (*passed, (module, head))
        if head in here.definitions:
            yield module, head
        elif head in here.imports:
            yield from self._find([*self._absolute(module, here.imports[head]).split("."), *rest], passed)
        else:
            for star in here.stars:
                if (origin := self._absolute(module, star)) in self.files and (origin, head) not in passed:
                    yield from self._resolve(origin, [head], passed)

    def _find(self, path: Sequence[str], passed: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
        """Resolve the dotted `path`; its longest prefix that is a module is taken as the module."""
        end = next((end for end in range(len(path), 0, -1) if ".".join(path[:end]) in self.files), 0)
        name, rest = ".".join(path[:end]), path[end:]
        if name and not rest:
            yield from ((name, one) for one in self._module(name).definitions)
        elif name and (name, rest[0]) not in passed:
            yield from self._resolve(name, rest, passed)

    def _absolute(self, module: str, name: str) -> str:
        """Convert a `name` that a module imports from relative to absolute."""
        dots = len(name) - len(name.lstrip("."))
        parts = module.split(".")
        package = parts if Path(self.files[module][0]).name == "__init__.py" else parts[:-1]
        return ".".join([*package[: len(package) + 1 - dots], name.lstrip(".")] if dots else [name])


def _dotted(path: Path) -> str:
    """Return the name of the module in a file."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _registers(decorator: ast.AST) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and called.attr == "register"


def _below(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _tree(key: str, text: str) -> dict[str, Any]:
    """Convert `METHOD.NAME ALS` to a tree; invalid yaml is refused later, when the whole config is read."""
    value: Any
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
