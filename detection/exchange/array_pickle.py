"""Read pickles of NumPy arrays, as detectron2 writes its weights (.pkl), without running code that they name.

A pickle is a program: it names functions and calls them.  Here every name except those below is refused, and those are
replaced by functions of this module, not NumPy's: a file can only create NumPy arrays and scalars of plain types, dict,
list, tuple, str, bytes and numbers.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.file_kinds import name_code

_PLAIN = re.compile(r"([<>|=]?)([biufc])(\d{1,2})|([<>|=]?)\?")  # no objects, strings, records


def load_array_pickle(path: str | Path) -> Any:
    """Read a pickle of NumPy arrays and plain types; arrays are `np.ndarray`, also inside dicts and lists.

    Raises:
        InputError: the pickle refers to any other class or function, or is truncated.
    """
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"no checkpoint file at {path}; check --checkpoint") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check --checkpoint") from None
    try:
        # Strings of Python 2 are bytes, and array contents are strings: latin-1 keeps every byte.
        return complete_arrays(_Reader(io.BytesIO(content), encoding="latin1").load())
    except _Refused as refused:
        raise InputError(
            f"{path} holds {refused} besides arrays of numbers, which is not loaded, because it could run code; "
            "if you trust it, save only its arrays as a dict, with pickle.dump"
        ) from None
    except Exception:  # a foreign byte can cause any error
        raise InputError(f"{path} is truncated or not a pickle of NumPy arrays; check --checkpoint") from None


class _Refused(Exception):
    """A name or value that is not admitted."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # in Python 2 and in protocols before 3
        # NumPy 2 renamed numpy.core to numpy._core; either name is accepted.
        found = _ADMITTED.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise _Refused(name_code(module, name))
        return found


class _DType:
    """The dtype of an array: one letter and a size; NumPy's own state would let a file describe memory."""

    __slots__ = ("text",)

    def __init__(self, text: str, *_: Any) -> None:
        if not isinstance(text, str) or not _PLAIN.fullmatch(text):
            raise _Refused(f"an array of type {text!r}")
        self.text = text

    def __setstate__(self, state: tuple) -> None:
        """(version, byte order, subtype, names, fields, size, alignment, flags, ...)"""
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise _Refused("an array with fields or parts")
        self.text = state[1] + self.text.lstrip("<>|=")

    def make(self) -> np.dtype:
        return np.dtype(self.text)


class _Array:
    """An array that is being read; `__setstate__` completes it."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        """Set the array from (version, shape, dtype, Fortran order, bytes); the version can be missing."""
        shape, dtype, fortran, content = state[-4:]
        self.values = _make_array(content, dtype, shape, "F" if fortran else "C")


def _make_array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """Return an array with a copy of the bytes, whose number must match the shape."""
    kind, content = dtype.make(), content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"not a shape: {shape!r}")
    if len(content) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(content)} bytes for {shape}")
    return np.frombuffer(bytearray(content), kind).reshape(shape, order="F" if order == "F" else "C")


class _Call:
    """An admitted function, which a file cannot modify."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        object.__setattr__(self, "_run", run)

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


def _scalar(dtype: _DType, content: Any) -> Any:
    return _make_array(content, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    """Replace `_codecs.encode`, by which Python 3 writes bytes in protocol 2 and earlier."""
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError("not bytes as pickle writes them")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """Replace `bytes()`, by which Python 3 writes empty bytes in protocol 2 and earlier."""
    if arguments:
        raise ValueError("not bytes as pickle writes them")
    return b""


def _refuse(*_: Any) -> Any:
    raise ValueError("not how an array is written")


_NDARRAY = _Call(_refuse)  # only ever an argument of _reconstruct
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Call(lambda kind, *_: _Array() if kind is _NDARRAY else _refuse()),
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Call(_make_array),  # protocol 5
    ("_codecs", "encode"): _Call(_encode),
    ("builtins", "bytes"): _Call(_no_bytes),
    ("collections", "OrderedDict"): _Call(lambda *items: OrderedDict(*items)),
}
# The same for torch's own unpickler (torch.serialization.safe_globals), which already admits the rest.
TORCH_GLOBALS: list[Any] = [
    *(
        (stand_in, f"{core}.{name}")
        for (module, name), stand_in in _ADMITTED.items()
        if module.startswith("numpy")
        for core in dict.fromkeys((module, module.replace("numpy.core", "numpy._core")))
    ),
    _Array,
]


def complete_arrays(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Replace every `_Array` by its array, in dicts and lists in place; each is visited only once."""
    done = {} if done is None else done
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict | list) and id(value) not in done:
        done[id(value)] = value
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = complete_arrays(part, done)
    return value
