"""Read a foreign checkpoint without running code in it, and name the kind of any other file."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from backbones.core.errors import InputError
from backbones.core.file_kinds import describe_kind, find_changed_record, find_named_code, is_torch_file
from detection.exchange.array_pickle import TORCH_GLOBALS, complete_arrays, load_array_pickle

_HARMLESS = [argparse.Namespace, *TORCH_GLOBALS]  # arguments and numbers that training scripts store
_CAFFE2 = re.compile(r"conv1_w|res2_0_branch2a_w")


def read_checkpoint(path: str | Path, *, array_pickles: bool = False) -> dict[str, Any]:
    """Read a foreign torch file onto the CPU.

    Args:
        array_pickles: accept a pickle of NumPy arrays, too.

    Raises:
        InputError: a file of another kind, which the message names, or one that refers to code.
    """
    if not Path(path).is_file():
        raise InputError(f"no checkpoint file at {path}; check --checkpoint")
    try:
        if array_pickles and _is_array_pickle(path):
            return _read_array_pickle(path)
        with torch.serialization.safe_globals(_HARMLESS):
            content = complete_arrays(torch.load(path, map_location="cpu", weights_only=True))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check --checkpoint") from None
    except Exception as error:  # a foreign byte can cause any error in torch's unpickler
        if kind := describe_kind(path):
            raise InputError(f"{path} is {kind}") from None
        code = find_named_code(str(error))
        odd = re.search(r"an array (?:of type|with) .+", str(error))  # refused by our replacements of NumPy's functions
        if code or odd:
            raise InputError(
                f"{path} holds {code or odd[0]} besides tensors, which is not loaded, because it could run code; "  # type: ignore[index]
                "if you trust it, save only its state dict with torch.save"
            ) from None
        raise InputError(f"{path} is truncated or not a torch file; check --checkpoint") from None
    if changed := find_changed_record(path):
        raise InputError(f"{path} is damaged: {changed} does not match its checksum; download it again")
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict; save `model.state_dict()`")
    return content  # type: ignore[return-value]  # an OrderedDict keeps its attributes


def _is_array_pickle(path: str | Path) -> bool:
    """Whether the file is a plain pickle, or of unknown kind: pickles before protocol 2 have no signature."""
    if is_torch_file(path):
        return False
    kind = describe_kind(path)
    return kind is None or kind.startswith("a pickle")


def _read_array_pickle(path: str | Path) -> dict[str, Any]:
    content = load_array_pickle(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not detectron2's dict; check --checkpoint")
    names = [str(name) for name in content]
    if "blobs" in names or any(_CAFFE2.fullmatch(name) for name in names):
        raise InputError(
            f"{path} is a Caffe2 file (Detectron 1, MSRA's R-50.pkl), whose batch norms are folded into scales without "
            "statistics; use one that detectron2's tools/convert-torchvision-to-d2.py wrote, or PyTorch's own weights"
        )
    return content  # type: ignore[return-value]
