"""The config block and the manual of each method, read from its class.

The keyword-only arguments of `__init__`, with their defaults, are the block METHOD.<NAME> of the config; the section
`Args:` of its docstring is their manual.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from backbones.core.config import CfgNode
from backbones.core.errors import InputError
from backbones.methods.base import METHODS, Method

# Default of METHOD.NAME: hard labels.
DEFAULT = "CE"
_TYPES = (bool, int, float, str)
_WIDTH = 120  # characters per line of `list_methods`


@dataclass(frozen=True)
class Argument:
    """A keyword-only argument of a method, the key METHOD.<NAME>.<name>.

    meaning: range, neutral value, unit and source, in one line; empty if the docstring does not describe it.
    """

    name: str
    default: bool | int | float | str
    meaning: str


def method_defaults() -> CfgNode:
    """Return the config block METHOD: NAME, and one block per registered method, sorted by name.

    Raises:
        InputError: an argument that a config cannot set; names the class and the argument.
    """
    blocks = {name: read_arguments(METHODS.get(name)) for name in METHODS.names()}
    values = {name: CfgNode({a.name: a.default for a in arguments}) for name, arguments in blocks.items()}
    return CfgNode({"NAME": DEFAULT, **values})


def read_arguments(method: type[Method]) -> list[Argument]:
    """Return the arguments of a method in the order of its `__init__`, which can be inherited.

    An int default of an argument annotated as float is converted to float, as config values are.

    Raises:
        InputError: an argument that is not keyword-only, or whose default is missing or not a bool, int, float or str.
    """
    meanings = dict(_read_section(inspect.getdoc(method.__init__) or ""))
    _model, _num_classes, *others = inspect.signature(method).parameters.values()
    return [Argument(one.name, _read_default(method, one), meanings.get(one.name, "")) for one in others]


def list_methods() -> str:
    """Return the manual as text: every method in one line, and each argument with its default and meaning."""
    return "\n\n".join("\n".join(_describe(name)) for name in METHODS.names())


def _read_default(method: type[Method], argument: inspect.Parameter) -> bool | int | float | str:
    key = f"METHOD.{method.__name__}.{argument.name}"
    if argument.kind is not argument.KEYWORD_ONLY:
        raise InputError(f"{key}: arguments other than model, num_classes must be keyword-only; write `*,` before it")
    if argument.default is argument.empty:
        raise InputError(f"{key} has no default, which would be its value in the config; give it one")
    if type(argument.default) is int and argument.annotation in (float, "float"):
        return float(argument.default)
    if type(argument.default) not in _TYPES:
        raise InputError(f"{key}: the default must be a bool, int, float or str, not {argument.default!r}")
    return argument.default


def _read_section(doc: str) -> Iterator[tuple[str, str]]:
    """Yield name and meaning of every entry in the section `Args:` of a dedented docstring."""
    section = re.search(r"^Args:\n((?: +.*\n?|\n)*)", doc, flags=re.MULTILINE)
    for entry in re.split(r"^(?=\S)", textwrap.dedent(section[1]) if section else "", flags=re.MULTILINE):
        name, colon, meaning = entry.partition(":")
        if colon:
            yield name, " ".join(meaning.split())


def _describe(name: str) -> Iterator[str]:
    method = METHODS.get(name)
    first = (inspect.getdoc(method) or "").partition("\n")[0]
    needs = f" [needs {', '.join(sorted(method.needs))}]" if method.needs else ""
    yield from textwrap.wrap(f"{name}: {first}{needs}", _WIDTH, subsequent_indent="    ")
    arguments = read_arguments(method)
    rows = [(argument.name, str(argument.default), argument.meaning) for argument in arguments]
    names, defaults = (max((len(row[n]) for row in rows), default=0) for n in (0, 1))
    for argument, default, meaning in rows:
        start = f"    {argument:<{names}}  {default:<{defaults}}  "
        yield from textwrap.wrap(f"{start}{meaning}", _WIDTH, subsequent_indent=" " * len(start)) or [start.rstrip()]
