"""Index of an ILSVRC split: the results of one pass over its 1.28M images and annotations, in one file.

    ROOT/annotations/index_<split>.npz              read by `imagenet_xml` as long as the class folders are unchanged
    ROOT/annotations/index_<split>_classes.csv      images, images with usable boxes and boxes of every class
    ROOT/annotations/index_<split>_dropped.csv      every annotation without a usable box, and the reason

Paths in the index are relative, so that it can be moved with the data.  The header of every image is read: sizes in the
XML sometimes differ from those of the images, to which boxes are clipped, and one pass over the headers takes a small
part of the time of one epoch.  A killed pass leaves its finished classes in a folder beside the index, from which the
same command resumes.

Editing an annotation in place does not change its folder: index again with --overwrite.
"""

import csv
import io
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.bars import progress_bar
from backbones.core.errors import InputError
from backbones.core.files import save_atomic, save_text
from backbones.core.run_log import get_logger
from backbones.data.class_folders import ANNOTATIONS, REASONS, ClassImages, Stamp, is_unchanged, read_class
from backbones.data.reading import list_folders

VERSION = 2  # raise it when the content changes: older files are then rebuilt
COMMAND = "tools/prepare_data.py imagenet-boxes --root ROOT --split"
ARRAYS = ("sizes", "boxes", "counts", "flags", "clipped", "empty")
LISTS = ("files", "orphans", "others", "hidden")


def index_path(root: Path, split: str) -> Path:
    """Return the path of the index of a split."""
    return root / ANNOTATIONS / f"index_{split}.npz"


def build_index(root: Path, split: str, *, workers: int, overwrite: bool) -> list[ClassImages]:
    """Read the classes of a split, resuming a killed pass, and write the index and its tables.

    Args:
        workers: number of reading processes.
        overwrite: read all classes again, including those already read.
    """
    if not (root / split).is_dir():
        raise InputError(f"no folder {root / split}; give the folder that holds <split>/<class>/*.JPEG as --root")
    path, staging = index_path(root, split), root / ANNOTATIONS / f".index_{split}"
    if overwrite:
        path.unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
    names = list_folders(root / split)
    if not names:
        raise InputError(f"{root / split} holds no class folder; check --root and --split")
    done = {found.name: found for found in load_index(path) or []}
    classes = [done.get(name) or _staged(staging / f"{name}.npz") for name in names]
    known = {c.name: c for c in classes if c is not None and is_unchanged(root, split, c.name, c.stamp)}
    rest = [name for name in names if name not in known]
    get_logger().info("%s '%s': %d classes, %d of them already read", root, split, len(names), len(known))
    with _processes(workers) as run_map:
        for found in progress_bar(
            run_map(partial(_read_and_stage, root, split, staging), rest), total=len(rest), unit="class"
        ):
            known[found.name] = found
    read = [known[name] for name in names]
    save_atomic(path, lambda temporary: np.savez(temporary, **_to_arrays(read)))
    _save_tables(path, read)
    shutil.rmtree(staging, ignore_errors=True)
    return read


def fresh_index(root: Path, split: str, names: Sequence[str]) -> list[ClassImages] | None:
    """Return the index if it exists and is up to date with these classes, else None; a stale one is logged."""
    path = index_path(root, split)
    classes = load_index(path)
    if classes is None:
        return None
    listed = {c.name for c in classes}
    changed = sorted(listed ^ set(names)) or [c.name for c in classes if not is_unchanged(root, split, c.name, c.stamp)]
    if changed:
        get_logger().warning(
            f"{path} is stale ({len(changed)} classes changed, such as {changed[0]}): reading all files; "
            f"index again: {COMMAND} {split}"
        )
        return None
    return classes


def load_index(path: Path) -> list[ClassImages] | None:
    """Return the classes of an index file; None if it does not exist or has another version."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return list(_from_arrays(arrays)) if arrays["version"] == VERSION else None
    except Exception as error:  # for damaged files: OSError, ValueError, EOFError, BadZipFile, zlib.error ...
        raise InputError(f"cannot read the index {path}: {error}; delete it, or index again with --overwrite") from None


def _staged(path: Path) -> ClassImages | None:
    found = load_index(path)
    return found[0] if found else None


def _read_and_stage(root: Path, split: str, staging: Path, name: str) -> ClassImages:
    found = read_class(root, split, name)
    save_atomic(staging / f"{name}.npz", lambda temporary: np.savez(temporary, **_to_arrays([found])))
    return found


@contextmanager
def _processes(workers: int) -> Iterator[Callable]:
    if workers <= 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:  # forking a process with threads can hang
        yield pool.imap_unordered


def _to_arrays(classes: Sequence[ClassImages]) -> dict[str, Any]:
    """Convert classes to flat arrays; strings become UTF-8 bytes, one per line, so that nothing is pickled."""
    lines = {
        "names": [c.name for c in classes],
        "digests": [c.stamp.names for c in classes],
        **{key: [text for c in classes for text in getattr(c, key)] for key in LISTS},
    }
    return {
        "version": np.array(VERSION),
        "lengths": np.array([[len(getattr(c, key)) for key in ("boxes", *LISTS)] for c in classes], np.int64),
        "times": np.array([[c.stamp.images, c.stamp.annotations] for c in classes], np.int64),
        **{name: np.frombuffer("\n".join(texts).encode(), np.uint8) for name, texts in lines.items()},
        **{name: np.concatenate([getattr(c, name) for c in classes]) for name in ARRAYS},
    }


def _from_arrays(arrays: dict[str, np.ndarray]) -> Iterator[ClassImages]:
    texts = {
        name: arrays[name].tobytes().decode().split("\n") if arrays[name].size else []
        for name in ("names", "digests", *LISTS)
    }
    at = np.zeros(1 + len(LISTS), np.int64)
    for name, digest, times, length in zip(
        texts["names"], texts["digests"], arrays["times"].tolist(), arrays["lengths"], strict=True
    ):
        boxes, *lists = (slice(start, start + count) for start, count in zip(at, length, strict=True))
        at = at + length
        content: dict[str, Any] = {key: texts[key][own] for key, own in zip(LISTS, lists, strict=True)}
        content |= {key: arrays[key][boxes if key == "boxes" else lists[0]] for key in ARRAYS}
        yield ClassImages(name=name, stamp=Stamp(times[0], times[1], digest), **content)


def _save_tables(path: Path, classes: Sequence[ClassImages]) -> None:
    counts = [(c.name, len(c.files), int((c.counts > 0).sum()), len(c.boxes)) for c in classes]
    _save_csv(path, "classes", ("class", "images", "images_with_boxes", "boxes"), counts)
    dropped = [
        (f"{c.name}/{c.files[i]}", reason)
        for c in classes
        for bit, reason in REASONS.items()
        for i in np.flatnonzero(c.flags & bit)
    ]
    dropped += [(orphan, "no image of that name") for c in classes for orphan in c.orphans]
    _save_csv(path, "dropped", ("annotation_of", "reason"), dropped)


def _save_csv(path: Path, name: str, header: tuple[str, ...], rows: Sequence[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    save_text(path.with_name(f"{path.stem}_{name}.csv"), text.getvalue())


def describe_index(root: Path, split: str, classes: Sequence[ClassImages]) -> str:
    """Return a summary in a few lines: the counts, and the files with more detail."""
    flags = np.concatenate([c.flags for c in classes])
    boxed = np.array([(c.counts > 0).sum() for c in classes])
    lines = [
        f"{split}: {len(flags):,} images of {len(classes)} classes, {boxed.sum():,} of them with "
        f"{sum(len(c.boxes) for c in classes):,} usable boxes; {boxed.min():,} to {boxed.max():,} per class",
        *(f"annotations dropped, {reason}: {(flags & bit > 0).sum():,}" for bit, reason in REASONS.items()),
        f"annotations dropped, no image of that name: {sum(len(c.orphans) for c in classes):,}",
        f"index: {index_path(root, split)}, beside it a table of the classes and one of the dropped annotations",
    ]
    return "\n".join(lines)
