"""Blocks and entries of a yaml file as frozen dataclasses: a field is a key in lower case, with its type and default.

A field whose key is a keyword of Python has an underscore at its end: `import_` is IMPORT.  Lists become tuples; a
`tuple[str, ...]` holds texts, as on a command line.  The metadata of a field may name its reader:
`field(default=None, metadata={"read": f})`, where f(mapping, where) returns the value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from keyword import iskeyword
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from backbones.core.checks import check_choice
from backbones.core.config import CfgNode
from backbones.core.errors import InputError
from suites.references import as_text

T = TypeVar("T")
Texts = tuple[str, ...]


def key_of(name: str) -> str:
    """Return the key of a field."""
    return name.rstrip("_").upper()


def field_of(name: str) -> str:
    """Return the name of the field of a key in lower case."""
    return f"{name}_" if iskeyword(name) else name


def defaults_of(cls: type) -> CfgNode:
    """Return the keys and defaults of a dataclass as a tree for `load_config`."""
    return CfgNode(to_tree(cls()))


def to_tree(value: Any) -> Any:
    """Convert a value of these dataclasses to its yaml form; None becomes an empty mapping."""
    if is_dataclass(value):
        return {key_of(field.name): to_tree(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_tree(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_tree(item) for item in value]
    return {} if value is None else value


def read(cls: type[T], tree: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from a mapping whose keys and types have been checked."""
    hints, values = get_type_hints(cls), {}
    for field in fields(cls):  # type: ignore[arg-type]  # of a dataclass
        key = key_of(field.name)
        if key in tree:
            place = f"{where}: {key}" if where else key
            reader = field.metadata.get("read")
            values[field.name] = reader(tree[key], place) if reader else _convert(hints[field.name], tree[key], place)
    return cls(**values)


def check_keys(cls: type, tree: Mapping[Any, Any], where: str) -> None:
    """Raise `InputError` for a key that `cls` does not have, with the closest match."""
    for key in tree:
        check_choice("key", str(key), [key_of(field.name) for field in fields(cls)], where)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return read(hint, value, where)  # type: ignore[arg-type]  # a class
    if get_origin(hint) is not tuple:
        return value
    item = get_args(hint)[0]
    if is_dataclass(item):
        return _read_entries(item, value, where)  # type: ignore[arg-type]  # a class
    return tuple(as_text(one, where) for one in value) if item is str else tuple(value)


def _read_entries(cls: type[T], values: Sequence[Any], where: str) -> tuple[T, ...]:
    """Read the entries of a list; their first field is their name, which must be unique."""
    name_key = key_of(fields(cls)[0].name)  # type: ignore[arg-type]  # of a dataclass
    for number, value in enumerate(values):
        _check_entry(cls, value, f"{where}[{number}]", name_key)
    names = [value[name_key] for value in values]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: {name_key} '{name}' is duplicated; give every entry its own")
    return tuple(read(cls, value, f"{where} {name}") for name, value in zip(names, values, strict=True))


def _check_entry(cls: type, value: Any, where: str, name_key: str) -> None:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a mapping such as {{{name_key}: x}}, not {value!r}")
    check_keys(cls, value, where)
    for field in fields(cls):
        key, expected = key_of(field.name), _type_of(field.default)
        if key not in value:
            continue
        accepted = (int, float) if expected is float else expected
        if not isinstance(value[key], accepted) or (isinstance(value[key], bool) and expected is not bool):
            raise InputError(f"{where}: {key} must be of type {expected.__name__}, not {value[key]!r}")
    if not value.get(name_key):
        raise InputError(f"{where}: {name_key} is missing; every entry needs a name")


def _type_of(default: Any) -> type:
    """Return the type that a yaml file holds for a field with this default."""
    assert default is not MISSING
    return {tuple: list, type(None): dict}.get(type(default), type(default))
