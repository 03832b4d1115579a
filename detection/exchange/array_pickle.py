"""Pickles of NumPy arrays, as detectron2 writes its weights (.pkl), read without running anything that they name.

A pickle is a program: it names functions and has them called.  Here every name but those below is refused, and those
stand for functions of this module, none of NumPy's: what a file can make is NumPy arrays and scalars of plain types,
dict, list, tuple, str, bytes and numbers.
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
    """Read a pickle of NumPy arrays and plain types; arrays come as `np.ndarray`, in the values of dicts and lists.

    Raises:
        InputError: a file that names anything else, or that is truncated.
    """
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"no checkpoint file at {path}; check --checkpoint") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check --checkpoint") from None
    try:
        # Text of Python 2 is bytes, and so are its arrays: latin-1 keeps each.
        return complete_arrays(_Reader(io.BytesIO(content), encoding="latin1").load())
    except _Refused as refused:
        raise InputError(
            f"{path} holds {refused} besides arrays of numbers, which is not loaded, because it could run code; "
            "if you trust it, save its arrays alone as a dict, with pickle.dump"
        ) from None
    except Exception:  # what a foreign byte leads to may be any error
        raise InputError(f"{path} is truncated or no pickle of NumPy arrays; check --checkpoint") from None


class _Refused(Exception):
    """A name that is not admitted."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # Python 2's, and of protocols before 3
        # NumPy 2 calls numpy.core numpy._core; each reads what the other wrote.
        found = _ADMITTED.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise _Refused(name_code(module, name))
        return found


class _DType:
    """The type of an array: one letter and a size; NumPy's own state would let a file describe memory."""

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
    """An array that is being read; `state` completes it."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        """(version, shape, type, whether in Fortran's order, bytes); the version may be missing."""
        shape, dtype, fortran, content = state[-4:]
        self.values = _make_array(content, dtype, shape, "F" if fortran else "C")


def _make_array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An own copy of the bytes, of exactly the shape's size."""
    kind, content = dtype.make(), content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"no shape: {shape!r}")
    if len(content) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(content)} bytes for {shape}")
    return np.frombuffer(bytearray(content), kind).reshape(shape, order="F" if order == "F" else "C")


class _Call:
    """An admitted function, which nothing in a file can change."""

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
    """How Python 3 writes bytes for protocol 2 and earlier."""
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError("not bytes as pickle writes them")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """How it writes empty ones."""
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
# The same for torch's own reader of pickles (torch.serialization.safe_globals), which knows the rest itself.
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
    """The arrays themselves, in dicts and lists in place; each of these once, as a file may repeat it."""
    done = {} if done is None else done
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict | list) and id(value) not in done:
        done[id(value)] = value
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = complete_arrays(part, done)
    return value
