"""Strict configuration of every tool: fvcore's CfgNode with `_BASE_`, and errors that name the key.

A config file can name its parents in `_BASE_` (one path or a list, relative to the file).  Unknown keys, duplicate
yaml keys and values of another type raise `InputError` before any work starts.  A list can also be written as a Python
tuple or list, as in detectron2's files: `DATASETS.TRAIN "('coco_2017_train',)"`.
"""

import ast
import contextlib
import copy
import functools
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import BASE_KEY
from fvcore.common.config import CfgNode as CfgNode

from backbones.core.errors import InputError, suggestion
from backbones.core.files import fingerprint

# Spellings of "no value" in yaml and Python.
_NOTHING = ("null", "Null", "NULL", "~", "None")
# Key of every config: files of the user to import first (backbones/core/imports.py).
IMPORTS = "IMPORTS"
_COMMAND_LINE = "command line"  # the origin of a value, in messages
_LARGEST_WHOLE = 2**63 - 1  # the largest 64-bit integer
_EMPTY_TEXT = "'' (two quotes)"


class _StrictLoader(yaml.SafeLoader):
    """A yaml loader that refuses duplicate keys; in plain yaml the last one wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise InputError(f"{node.start_mark.name}: line {line} has {key!r} as a key; a key must be a string")
            if key in seen:
                raise InputError(
                    f"{node.start_mark.name}: key '{key}' is duplicated, in lines {seen[key]} and {line}; delete one"
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


def load_config(
    defaults: CfgNode, path: str | Path | None, overrides: Sequence[str] = (), *, tree: Mapping | None = None
) -> CfgNode:
    """Merge `defaults`, the file at `path` with its `_BASE_` files, and the `KEY VALUE` pairs, in this order.

    Args:
        tree: content of the file, if it has been read already; a pipe can be read only once.

    Returns:
        A new, unfrozen CfgNode; the caller validates and freezes it.

    Raises:
        InputError: unknown key (with the closest match), duplicate key, wrong type, unreadable file.
    """
    cfg = defaults.clone()
    if path is not None:
        _merge(cfg, defaults, load_yaml(path) if tree is None else tree, str(path))
    types = dict(flatten(defaults))
    if len(overrides) % 2:
        raise InputError(f"overrides come as KEY VALUE pairs; '{overrides[-1]}' has no value{_equals_hint(overrides)}")
    for key, text in zip(overrides[0::2], overrides[1::2], strict=True):
        value = _parse_value(key, text, types.get(key))
        _merge(cfg, defaults, _nested(key.split("."), value), _COMMAND_LINE)
    return cfg


def load_yaml(
    path: str | Path, locate: Callable[[dict, Path], Any] | None = None, _children: tuple[Path, ...] = ()
) -> dict:
    """Read a yaml file and its `_BASE_` files into one tree; later files win over earlier ones.

    The paths in IMPORTS become absolute; they are relative to the file that names them.

    Args:
        locate: called with the content of each file and its folder, to do the same for other keys, in place.
    """
    path = Path(path)
    if path.resolve() in _children:
        raise InputError(f"{path}: {BASE_KEY} leads back to the file itself; remove the cycle")
    try:
        tree = _parse(path) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid yaml: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} must hold KEY: value lines, not a {type(tree).__name__}")
    bases = tree.pop(BASE_KEY, [])
    merged: dict = {}
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{path}: {BASE_KEY} must be a path or a list of paths, not {bases!r}")
    for base in bases:
        _overlay(merged, load_yaml(path.parent / expand_path(base), locate, (*_children, path.resolve())))
    _locate_imports(tree, path.parent)
    if locate:
        locate(tree, path.parent)
    _overlay(merged, tree)
    return merged


def _locate_imports(tree: Any, folder: Path) -> None:
    """Make the paths in IMPORTS absolute, wherever a file has this key."""
    if isinstance(tree, dict) and isinstance(stated := tree.get(IMPORTS), list):
        tree[IMPORTS] = [str((folder / expand_path(x)).absolute()) if isinstance(x, str) else x for x in stated]
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        _locate_imports(part, folder)


def config_hash(tree: Mapping) -> str:
    """Return the hash of a config's content as 12 hex digits; tuples and lists hash alike."""
    return fingerprint(json.dumps(tree, sort_keys=True, default=list))


def flatten(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def expand_path(text: str | Path) -> Path:
    """Expand `~`, `$NAME` and `${NAME}`; raise `InputError` for an unset variable or unknown user."""
    expanded = os.path.expanduser(os.path.expandvars(str(text)))
    unset = re.search(r"\$\{?(\w+)", expanded)
    if unset:
        raise InputError(f"the environment variable {unset[1]} of '{text}' is not set; export {unset[1]}=FOLDER first")
    if expanded.startswith("~"):
        user = expanded.split("/")[0][1:]
        raise InputError(f"'{text}': no user '{user}' has a home folder; write ./{text} for what is here")
    return Path(expanded)


def _equals_hint(overrides: Sequence[str]) -> str:
    joined = next((text for text in overrides[0::2] if re.match(r"[A-Z][A-Z0-9_.]*=", text)), "")
    return f"; write {joined.replace('=', ' ', 1)}" if joined else ""


def _parse_value(key: str, text: str, default: Any) -> Any:
    """Return the value of the command-line `text` for a key with this default."""
    if isinstance(default, str) and text.strip() in ("", *_NOTHING):
        if not text:
            return ""
        meant = shlex.quote(json.dumps(text))
        raise InputError(
            f"{_COMMAND_LINE}: {key} {text!r} gives no value; give {_EMPTY_TEXT} to leave it empty, or {meant}"
        )
    if isinstance(default, (list, tuple)) and (read := _read_literal(text)) is not None:
        return read
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.YAMLError:
        advice = _hint(key, text, default, _COMMAND_LINE) or "; quote it"
        raise InputError(f"{_COMMAND_LINE}: the value {text!r} of {key} is not valid yaml{advice}") from None


def _read_literal(text: str) -> list | None:
    """Parse a tuple or list in Python's notation, as detectron2 writes them; return None for any other text.

    yaml reads ('a', 'b') as one string, and [('a', 1)] as a list of the strings "('a'" and "1)".
    """
    if "(" not in text:
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return _as_list(value) if isinstance(value, (list, tuple)) else None


def _as_list(value: Any) -> Any:
    return [_as_list(item) for item in value] if isinstance(value, (list, tuple)) else value


def _hint(key: str, value: Any, default: Any, where: str) -> str:
    """Return advice on how to write `value`, or the default, for a key that holds a list; empty for other keys."""
    if not isinstance(default, (list, tuple)):
        return ""
    example = _as_list(default)
    if value not in (None, "") and not isinstance(value, Mapping):
        with contextlib.suppress(yaml.YAMLError, InputError):  # not parsable: show the default
            inner = re.sub(r"[()\[\]]", " ", str(value))
            example = _as_list(_coerce(yaml.load(f"[{inner}]", _StrictLoader), default, key, where))
    text = json.dumps(example, ensure_ascii=False)
    return f"; write {key} {shlex.quote(text)}" if where == _COMMAND_LINE else f"; write {text}"


def _parse(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the config file {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"the config file {path} is not UTF-8 text; save it as UTF-8") from None
    return copy.deepcopy(_parse_text(text, str(path)))


@functools.lru_cache(maxsize=256)  # a suite of a thousand stages reads the same few files for each
def _parse_text(text: str, name: str) -> Any:
    loader = _StrictLoader(text)
    loader.name = name  # yaml shows it in its messages
    return loader.get_single_data()


def _overlay(base: dict, top: dict) -> None:
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _overlay(base[key], value)
        else:
            base[key] = value


def _nested(keys: list[str], value: Any) -> dict:
    return {keys[0]: _nested(keys[1:], value) if keys[1:] else value}


def _merge(cfg: CfgNode, defaults: CfgNode, tree: Mapping, where: str) -> None:
    """Set the leaves of `tree` in `cfg`, with the types of `defaults`."""
    types = dict(flatten(defaults))
    for key, _ in flatten(tree):
        if key not in types:
            raise InputError(f"{where}: unknown key '{key}'{_nearest_key(key, cfg)}")
    for key, value in flatten(tree):
        node = cfg
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = _coerce(value, types[key], key, where)


def _nearest_key(key: str, cfg: CfgNode) -> str:
    """Suggest the closest of all keys, or list the keys of the deepest existing block."""
    known = [k for k, _ in flatten(cfg)]
    hint = suggestion(key, known)
    if hint.startswith("; did"):
        return hint
    block: Any = cfg
    for part in key.split(".")[:-1]:
        block = block[part] if isinstance(block, CfgNode) and part in block else block
    return f"; keys here: {', '.join(block)}" if isinstance(block, CfgNode) else hint


def _coerce(value: Any, default: Any, key: str, where: str) -> Any:
    """Return `value` with the type of `default`, or raise; `1e-3`, which yaml reads as text, counts as a number."""
    if value is None and default is not None:
        wanted = _hint(key, value, default, where) or f"; give a value of type {_name(default)}, such as {default!r}"
        empty = f"; give {_EMPTY_TEXT} to leave it empty"
        raise InputError(f"{where}: {key} has no value (null){empty if isinstance(default, str) else wanted}")
    if isinstance(default, (list, tuple)) and isinstance(value, str):
        value = read if (read := _read_literal(value)) is not None else value
    if isinstance(value, str) and isinstance(default, (int, float)) and not isinstance(default, bool):
        with contextlib.suppress(ValueError):  # text that is not a number is refused below
            value = float(value)
    if isinstance(value, float) and not math.isfinite(value):  # NaN would pass every later check by comparison
        raise InputError(f"{where}: {key} must be a finite number, not {value}")
    if isinstance(value, int) and abs(value) > (sys.float_info.max if isinstance(default, float) else _LARGEST_WHOLE):
        raise InputError(f"{where}: {key} holds an integer of {len(str(abs(value)))} digits; give a smaller one")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, int) and not isinstance(default, bool) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        if any(isinstance(item, str) and item.count("(") != item.count(")") for item in value):
            raise InputError(f"{where}: {key} holds tuples, which yaml reads as strings: {value!r}; write [ ] for ( )")
        # The elements get the type of the default's first element, if it has one.
        return type(default)(_coerce(item, default[0], key, where) if default else item for item in value)
    if type(value) is not type(default):
        hint = _hint(key, value, default, where)
        such = "" if hint else f" (such as {default!r})"
        raise InputError(f"{where}: {key} must be of type {_name(default)}{such}, not {value!r}{hint}")
    return value


def _name(default: Any) -> str:
    return "list" if isinstance(default, (list, tuple)) else type(default).__name__
