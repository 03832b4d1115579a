"""per_image.npz: the numbers of one stage image by image, from which their values on any resample of images follow.

The measures of a classifier write the file, the bootstrap of the comparison reads it.  It describes itself: a reader
needs no knowledge of a number but its kind, with weights w of the images (all 1: the number in results.json):

    mean        value (n,), NaN for an image that does not count; the weighted mean over those that count
    binned      gap (n,), bin (n,); sum over bins of |sum of w gap|, divided by the sum of w
    best_share  hits (n, L, B) uint8, the bits of 8 B thresholds at each of L levels; the weighted share of images that
                hit, at the best threshold of each level, mean over levels.  Unused bits are 0: never the largest share

Numbers belong to groups of images.  Two runs are paired in a number if the `identity` of its group is the same: that of
the images and labels, not of the network.  The arrays of the file:

    format_version (); groups, identities (Q,): names and identities of the groups
    numbers, kinds (M,): names and kinds of the numbers; group (M,): positions of their groups in `groups`
    GROUP/images (n,): the images of a group, positions in the data set, ascending
    NUMBER/value, NUMBER/gap, NUMBER/bin, NUMBER/hits: the arrays of a number, by its kind

cwece15 is left out: it has a value per image and class, which is as large as the predictions.  An image of uniform
colour is a single one, and has no sampling of images.

Letters: n images of a group, L levels, B bytes, Q groups, M numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import save_arrays

PER_IMAGE_FILE = "per_image.npz"
FORMAT_VERSION = 1
_AGAIN = "measure the backbone again"


@dataclass(frozen=True)
class Mean:
    """A mean over images; value: (n,) float64, NaN for an image that does not count."""

    value: np.ndarray


@dataclass(frozen=True)
class Binned:
    """A calibration error; gap: (n,) float64, outcome minus confidence; bin: (n,) number of its bin, from 0."""

    gap: np.ndarray
    bin: np.ndarray


@dataclass(frozen=True)
class BestShare:
    """A share of images at the best threshold, mean over levels; hits: (n, L, B) uint8 from `pack_hits`."""

    hits: np.ndarray


Number = Mean | Binned | BestShare
KINDS: dict[str, type] = {"mean": Mean, "binned": Binned, "best_share": BestShare}
# Field of a number -> (type, number of axes, the first of which is n).
_LAYOUT = {"value": ("float64", 1), "gap": ("float64", 1), "bin": ("int16", 1), "hits": ("uint8", 3)}
_TEXTS = ("groups", "identities", "numbers", "kinds")


@dataclass(frozen=True)
class ImageGroup:
    """Numbers of the same images.

    identity: equal for the same images, whatever the network; images: (n,) ascending positions in the data set;
    numbers: by their names in results.json.
    """

    name: str
    identity: str
    images: np.ndarray
    numbers: Mapping[str, Number]


def pack_hits(levels: Sequence[np.ndarray]) -> np.ndarray:
    """Return (n, L, B) uint8 from L arrays (n, T) bool, n >= 1; of thresholds with equal columns, one is kept."""
    kept = [np.unique(hits, axis=1) for hits in levels]
    most = max(hits.shape[1] for hits in kept)
    padded = [np.pad(hits, ((0, 0), (0, most - hits.shape[1]))) for hits in kept]
    return np.packbits(np.stack(padded, axis=1), axis=2)


def save_per_image(folder: str | Path, groups: Sequence[ImageGroup]) -> dict[str, str]:
    """Write per_image.npz atomically, and return its entry in "files" of results.json; neither without a number.

    Raises:
        InputError: the file cannot be written.
    """
    groups = [group for group in groups if len(group.images) and group.numbers]
    if not groups:
        return {}
    kind_of = {kind: name for name, kind in KINDS.items()}
    numbers = [(name, q, number) for q, group in enumerate(groups) for name, number in group.numbers.items()]
    arrays = {
        "format_version": np.array(FORMAT_VERSION),
        "groups": np.array([group.name for group in groups]),
        "identities": np.array([group.identity for group in groups]),
        "numbers": np.array([name for name, _, _ in numbers]),
        "kinds": np.array([kind_of[type(number)] for _, _, number in numbers]),
        "group": np.array([q for _, q, _ in numbers]),
    }
    arrays |= {f"{group.name}/images": np.asarray(group.images, np.int64) for group in groups}
    for name, _, number in numbers:
        for field in fields(number):
            array = np.asarray(getattr(number, field.name), dtype=_LAYOUT[field.name][0])
            arrays[f"{name}/{field.name}"] = array
    _build(arrays, PER_IMAGE_FILE)
    save_arrays(Path(folder) / PER_IMAGE_FILE, arrays)
    return {"per_image": PER_IMAGE_FILE}


def load_per_image(path: str | Path) -> list[ImageGroup]:
    """Read per_image.npz.

    Raises:
        InputError: the file is missing, broken, inconsistent or of another version.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            version = int(file["format_version"])
            arrays = {name: file[name] for name in file.files} if version == FORMAT_VERSION else {}
    except FileNotFoundError:
        raise InputError(f"no such file: {path}; {_AGAIN}") from None
    except Exception as error:  # zipfile, numpy and zlib raise errors of their own for a truncated file
        raise InputError(f"cannot read {path} as numbers per image: {error}; {_AGAIN}") from None
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: format {version}, this version reads {FORMAT_VERSION}; {_AGAIN}")
    return _build(arrays, str(path))


# ---- checks -------------------------------------------------------------------------------------------------------


def _build(arrays: Mapping[str, Any], where: str) -> list[ImageGroup]:
    """Build the groups from the arrays of the file; raise `InputError` if they contradict the layout."""
    texts = {name: _array(arrays, name, "U", 1, where).tolist() for name in _TEXTS}
    group = _array(arrays, "group", "iu", 1, where)
    for name, of in (("identities", "groups"), ("kinds", "numbers"), ("group", "numbers")):
        if len(arrays[name]) != len(arrays[of]):
            raise InputError(f"{where}: {name} has {len(arrays[name])} entries, not {len(arrays[of])}; {_AGAIN}")
    for name in ("groups", "numbers"):
        if len(set(texts[name])) < len(texts[name]):
            raise InputError(f"{where}: {name} has duplicates; {_AGAIN}")
    if ((group < 0) | (group >= len(texts["groups"]))).any():
        raise InputError(f"{where}: group has values outside 0 to {len(texts['groups']) - 1}; {_AGAIN}")
    images = [_images(arrays, name, where) for name in texts["groups"]]
    found: list[dict[str, Number]] = [{} for _ in images]
    for name, kind, q in zip(texts["numbers"], texts["kinds"], group.tolist(), strict=True):
        if kind not in KINDS:
            raise InputError(f"{where}: unknown kind '{kind}' of {name}; choices: {', '.join(KINDS)}; {_AGAIN}")
        parts = {field.name: _part(arrays, name, field.name, len(images[q]), where) for field in fields(KINDS[kind])}
        found[q][name] = KINDS[kind](**parts)
    named = zip(texts["groups"], texts["identities"], images, found, strict=True)
    return [ImageGroup(name, identity, own, numbers) for name, identity, own, numbers in named]


def _array(arrays: Mapping[str, Any], name: str, kinds: str, axes: int, where: str) -> np.ndarray:
    """Return an array of one of the kinds of NumPy and with this number of axes."""
    if name not in arrays:
        raise InputError(f"{where}: {name} is missing; {_AGAIN}")
    array = arrays[name]
    if array.dtype.kind not in kinds or array.ndim != axes:
        raise InputError(f"{where}: {name} is {array.dtype} of shape {array.shape}; {_AGAIN}")
    return array


def _images(arrays: Mapping[str, Any], group: str, where: str) -> np.ndarray:
    images = _array(arrays, f"{group}/images", "iu", 1, where)
    if not len(images) or images[0] < 0 or (images[1:] <= images[:-1]).any():
        raise InputError(f"{where}: {group}/images must be ascending and at least 0, of one image or more; {_AGAIN}")
    return images


def _part(arrays: Mapping[str, Any], number: str, field: str, images: int, where: str) -> np.ndarray:
    """Return one array of a number of so many images."""
    name, (dtype, axes) = f"{number}/{field}", _LAYOUT[field]
    array = _array(arrays, name, "f" if dtype == "float64" else "iu", axes, where)
    if len(array) != images:
        raise InputError(f"{where}: {name} has {len(array)} images, not {images}; {_AGAIN}")
    if (field == "hits" and array.dtype != np.uint8) or not array.size:
        raise InputError(f"{where}: {name} is {array.dtype} of shape {array.shape}; {_AGAIN}")
    if field == "bin" and (array < 0).any():
        raise InputError(f"{where}: {name} has values below 0; {_AGAIN}")
    if np.isinf(array).any() or (field == "gap" and np.isnan(array).any()):
        raise InputError(f"{where}: {name} has values that are not finite; {_AGAIN}")
    return array
