"""Readers of Open Images' original files: boxes and classes (csv), hierarchy (json).  Letters: R rows (boxes)."""

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_json

CHUNK = 5_000  # small enough not to trigger Python's garbage collector
NEEDED = ("ImageID", "LabelName", "XMin", "YMin", "XMax", "YMax")
FLAGS = ("IsGroupOf", "IsDepiction", "IsInside")  # reduced copies of the files lack them
FLAG_VALUES = (-1, 0, 1)  # -1: unknown


@dataclass(frozen=True)
class Rows:
    """Rows of a box file.

    images: names, in the order of their first row. image: (R,) int64 indices into `images`.
    labels: (R,) int64 number of the row's class in the given list, -1 for all others.
    boxes: (R, 4) float64 x0, y0, x1, y1 in [0, 1]. flags: name -> (R,) bool, for the existing columns.
    """

    images: list[str]
    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    flags: dict[str, np.ndarray]


def read_boxes(path: Path, labels: Sequence[str]) -> Rows:
    """Read `<split>-annotations-bbox.csv`, with columns in any order; columns that are not needed are skipped.

    Args:
        labels: LabelNames (/m/...) by number.
    """
    known = {label: number for number, label in enumerate(labels)}
    images: dict[str, int] = {}
    parts: list[tuple[np.ndarray, ...]] = []
    with open_text(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if missing := [name for name in NEEDED if name not in header]:
            raise InputError(f"{path} lacks the column {', '.join(missing)}; restore the original file")
        flags = [name for name in FLAGS if name in header]
        columns = [header.index(name) for name in (*NEEDED, *flags)]
        for start, chunk in _chunks(reader):
            try:
                names, called, *numbers = ([row[column] for row in chunk] for column in columns)
                values = np.array([list(map(float, column)) for column in numbers])
                if not (np.isfinite(values).all() and np.isin(values[4:], FLAG_VALUES).all()):
                    raise ValueError
            except (IndexError, ValueError):
                raise InputError(_broken_row(path, start, chunk, columns)) from None
            parts.append(
                (
                    np.array([images.setdefault(name, len(images)) for name in names], np.int64),
                    np.array([known.get(label, -1) for label in called], np.int64),
                    values,
                )
            )
    if not parts:
        raise InputError(f"{path} holds no box; restore the original file")
    image, numbers, values = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    found = {name: values[4 + i] == 1 for i, name in enumerate(flags)}
    return Rows([Path(name).stem for name in images], image, numbers, values[:4].T, found)


def _chunks(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[list[str]]]]:
    start = 2  # line numbers count from 1, after the header
    while chunk := list(islice(reader, CHUNK)):
        yield start, chunk
        start += len(chunk)


def _broken_row(path: Path, start: int, chunk: list[list[str]], columns: list[int]) -> str:
    for number, row in enumerate(chunk, start):
        try:
            values = [float(row[column]) for column in columns[2:]]
            if not (all(map(math.isfinite, values)) and all(flag in FLAG_VALUES for flag in values[4:])):
                raise ValueError
        except (IndexError, ValueError):
            return f"{path}, line {number}: cannot read '{','.join(row)[:80]}'; correct or remove it"
    return f"cannot read {path}; restore the original file"


def read_class_names(path: Path) -> dict[str, str]:
    """Read LabelName -> readable name from class-descriptions-boxable.csv, with or without a header."""
    with open_text(path) as file:
        rows = [row for row in csv.reader(file) if row]
    if short := [row for row in rows if len(row) < 2]:
        raise InputError(f"{path} lacks the column of names in '{','.join(short[0])}'; restore the original file")
    names: dict[str, str] = {}
    for label, name, *_ in rows:
        if label.startswith("/") and names.setdefault(label, name) != name:
            raise InputError(f"{path} gives {label} the names '{names[label]}' and '{name}'; restore the original file")
    if not names:
        raise InputError(f"{path} names no class (such as /m/011k07,Tortoise); restore the original file")
    return names


def leaf_labels(path: Path) -> set[str]:
    """Return LabelNames without subcategory in bbox_labels_600_hierarchy.json; parts ("Human arm") are classes, too."""
    leaves, inner = set(), set()

    def visit(node: dict) -> None:
        children = node.get("Subcategory", [])
        (inner if children else leaves).add(node["LabelName"])
        for child in [*children, *node.get("Part", [])]:
            visit(child)

    try:
        visit(load_json(path))
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{path} is not a valid hierarchy (LabelName, Subcategory); restore the original file"
        ) from None
    return leaves - inner


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a file for reading as csv, with or without a byte order mark; every error names the file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; put the original file there") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a csv file in UTF-8 ({error}); put the original file there") from None
