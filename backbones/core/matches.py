"""matches.npz: every detection and object of one evaluation, from which AP and AR of any resample of images follow.

The evaluation of detections writes the file, the bootstrap of the comparison reads it.  matches_voc.npz has the same
layout, with the outcomes by Pascal VOC's rule; its only area range is "all", and it has READ and category_names only.
Detections are sorted by class, image and descending score, objects are in the order of the ground truth;
`image`, `category` and their `object_` counterparts are positions in `image_ids` and `category_ids`:

    image, category, score (N,); rank (N,) within image and class; outcome (N, A, T)       -- detections
    object_image, object_category (G,); object_counts (G, A): ground truth that counts in an area range
    index (N,) position in the list of detections; partner (N,) object matched at IoU 0.5 and any area, or -1
    own_iou, other_iou (N,) largest IoU with a non-crowd object of the detection's class, and of another class;
        own_object, other_object (N,) those objects, or -1     -- for the kind of error of a false positive
    partner_iou (N,) IoU with `partner`, or 0; any_partner (N,) object matched at IoU 0.5 whatever its class, or -1;
        object_area (G,), image_area (I,) square pixels      -- optional: earlier versions did not write them, and
        ground truth need not state the size of images
    image_ids (I,), category_ids, category_names (K,); area_names (A,); iou_thresholds (T,); max_detections (M,)
    score_threshold (): AP counts detections with scores above it, all of them if 0; format_version ()

Letters: I images, K classes, N detections, G objects, A area ranges, T IoU thresholds, M limits on detections.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint, save_arrays

MATCHES_FILE, VOC_MATCHES_FILE = "matches.npz", "matches_voc.npz"
FORMAT_VERSION = 1
TRUE_POSITIVE, FALSE_POSITIVE, IGNORED = 1, 0, -1  # outcomes; an ignored detection does not count

# Name -> (type, axes), in the order of the file.
LAYOUT = {
    "format_version": ("int64", ""),
    "image": ("int32", "N"),
    "category": ("int32", "N"),
    "score": ("float64", "N"),
    "rank": ("int16", "N"),
    "outcome": ("int8", "NAT"),
    "partner": ("int32", "N"),
    "object_image": ("int32", "G"),
    "object_category": ("int32", "G"),
    "object_counts": ("bool", "GA"),
    "image_ids": ("int64", "I"),
    "category_ids": ("int64", "K"),
    "category_names": ("str", "K"),
    "area_names": ("str", "A"),
    "iou_thresholds": ("float64", "T"),
    "max_detections": ("int64", "M"),
    "score_threshold": ("float64", ""),
    "index": ("int32", "N"),
    "own_iou": ("float32", "N"),
    "own_object": ("int32", "N"),
    "other_iou": ("float32", "N"),
    "other_object": ("int32", "N"),
    "partner_iou": ("float32", "N"),
    "any_partner": ("int32", "N"),
    "object_area": ("float64", "G"),
    "image_area": ("float64", "I"),
}
# Arrays that files written before version 0.4 lack.
ADDED = {"partner_iou", "any_partner", "object_area", "image_area"}
# The arrays that every file has; files of the first release, and those of VOC, lack the others.
READ = (
    *("image", "category", "score", "rank", "outcome", "object_image", "object_category", "object_counts"),
    *("image_ids", "category_ids", "area_names", "iou_thresholds", "score_threshold"),
)
# Those that only the diagnosis of errors needs; `Matches.detail` says so where a file lacks one.
DETAILS = (
    *("partner", "own_iou", "own_object", "other_iou", "other_object"),
    *("partner_iou", "any_partner", "object_area", "image_area", "category_names"),
)
_POSITIONS = {"image": "I", "category": "K", "object_image": "I", "object_category": "K"}
_OBJECTS = {"partner", "own_object", "other_object", "any_partner"}  # positions of objects, or -1
_KINDS = {"bool": "b", "str": "U"}


@dataclass(frozen=True)
class Matches:
    """The arrays of matches.npz, with images sorted by id, detections and objects by class and image.

    details: those of DETAILS that the file has.
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    outcome: np.ndarray
    object_image: np.ndarray
    object_category: np.ndarray
    object_counts: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    area_names: tuple[str, ...]
    iou_thresholds: np.ndarray
    score_threshold: float
    where: str
    details: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Hash of all arrays but details; it tells whether numbers that were kept are still those of the matches."""
        known = [getattr(self, one.name) for one in fields(self) if one.name not in ("where", "details")]
        return fingerprint(*(part if isinstance(part, np.ndarray) else repr(part) for part in known))

    @cached_property
    def details_digest(self) -> str:
        """Hash of the details."""
        return fingerprint(*(part for name in sorted(self.details) for part in (name, self.details[name])))

    def detail(self, name: str) -> np.ndarray:
        """Return an array of DETAILS; raise `InputError` if the file lacks it."""
        if name not in self.details:
            raise InputError(f"{self.where}: no {name}, which earlier versions did not write; evaluate again")
        return self.details[name]

    def area(self, name: str) -> int:
        """Return the position of an area range; raise `InputError` with a list of the ranges if it is unknown."""
        if name not in self.area_names:
            raise InputError(f"{self.where}: no area range '{name}'; choices: {', '.join(self.area_names)}")
        return self.area_names.index(name)

    def same_detections(self, other: "Matches") -> bool:
        """Whether the detections of both have the same images, classes, scores and outcomes; boxes are not kept."""
        names = ("image_ids", "category_ids", "image", "category", "score", "rank", "outcome")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)


def save_matches(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write matches.npz atomically.

    Args:
        arrays: the arrays READ, and any others of LAYOUT but format_version, of types that convert to those of LAYOUT.

    Raises:
        InputError: the file cannot be written.
    """
    given = {"format_version": np.array(FORMAT_VERSION), **arrays}
    assert {*READ} <= given.keys() <= LAYOUT.keys(), sorted({*READ} - given.keys() | given.keys() - LAYOUT.keys())
    typed = {name: np.asarray(given[name], dtype=dtype) for name, (dtype, _) in LAYOUT.items() if name in given}
    save_arrays(path, typed)


def load_matches(path: str | Path) -> Matches:
    """Read matches.npz.

    Raises:
        InputError: the file is missing, broken, inconsistent or of another version.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            version = int(file["format_version"])
            wanted = (*READ, *(name for name in DETAILS if name in file.files))
            arrays = {name: file[name] for name in wanted} if version == FORMAT_VERSION else {}
    except FileNotFoundError:
        raise InputError(f"no such file: {path}; evaluate the detections again") from None
    except Exception as error:  # zipfile, numpy and zlib raise errors of their own for a truncated file
        raise InputError(f"cannot read {path} as matches: {error}; evaluate the detections again") from None
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: format {version}, this version reads {FORMAT_VERSION}; evaluate again")
    return build_matches(arrays, where=str(path))


def build_matches(arrays: Mapping[str, np.ndarray], *, where: str = "matches") -> Matches:
    """Build Matches from the arrays READ and those of DETAILS that there are, with images sorted by id.

    Raises:
        InputError: an array has the wrong type or shape, or holds values that no evaluation writes.
    """
    _check(arrays, where)
    known = [name for name in DETAILS if name in arrays]
    order = np.argsort(arrays["image_ids"], kind="stable")
    position = np.argsort(order)
    image = position[arrays["image"]]
    detections = _sorting(arrays["category"].astype(np.int64) * len(order) + image, arrays["rank"])
    objects = np.lexsort((position[arrays["object_image"]], arrays["object_category"]))
    moved = np.append(np.argsort(objects), -1)  # where an object is after sorting; -1 remains
    sort = {
        "N": lambda array: array[detections], "G": lambda array: array[objects], "I": lambda array: array[order],
        "K": lambda array: array,
    }  # fmt: skip
    details = {name: sort[LAYOUT[name][1]](arrays[name]) for name in known}
    return Matches(
        image=image[detections],
        object_image=position[arrays["object_image"]][objects],
        image_ids=arrays["image_ids"][order],
        category_ids=arrays["category_ids"],
        iou_thresholds=arrays["iou_thresholds"],
        area_names=tuple(str(name) for name in arrays["area_names"]),
        score_threshold=float(arrays["score_threshold"]),
        where=where,
        details={name: moved[array] if name in _OBJECTS else array for name, array in details.items()},
        **{name: arrays[name][detections] for name in ("category", "score", "rank", "outcome")},
        **{name: arrays[name][objects] for name in ("object_category", "object_counts")},
    )


def _sorting(group: np.ndarray, rank: np.ndarray) -> np.ndarray | slice:
    """Return what sorts by group and rank: everything as it is if it is sorted, as evaluations write it."""
    step = np.diff(group)
    if ((step > 0) | ((step == 0) & (np.diff(rank) > 0))).all():
        return slice(None)
    return np.lexsort((rank, group))


def _check(arrays: Mapping[str, np.ndarray], where: str) -> None:
    sizes: dict[str, int] = {}
    known = [name for name in DETAILS if name in arrays]
    for name in (*READ, *known):
        dtype, axes = LAYOUT[name]
        array = np.asarray(arrays[name])
        kind = _KINDS.get(dtype, "f" if dtype.startswith("float") else "iu")
        if array.dtype.kind not in kind or array.ndim != len(axes):
            stated = f"{array.dtype} of shape {array.shape}"
            raise InputError(f"{where}: {name} is {stated}, not {dtype} ({', '.join(axes)}); evaluate again")
        for axis, size in zip(axes, array.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise InputError(f"{where}: {name} has {size} entries along {axis}, not {sizes[axis]}; evaluate again")
    limits = {name: (0, sizes[axis] - 1) for name, axis in _POSITIONS.items()}
    limits |= {"rank": (0, np.inf), "outcome": (IGNORED, TRUE_POSITIVE)}
    least = {"partner_iou": 0, "object_area": 0, "image_area": np.finfo(np.float64).tiny}
    limits |= {name: (low, np.inf) for name, low in least.items() if name in known}
    limits |= {name: (-1, sizes["G"] - 1) for name in known if name in _OBJECTS}
    for name, (low, high) in limits.items():
        if ((arrays[name] < low) | (arrays[name] > high)).any():
            raise InputError(f"{where}: {name} has values outside {low} to {high}; evaluate again")
    for name in ("score", "iou_thresholds", "score_threshold", *(set(known) - _OBJECTS - {"category_names"})):
        if not np.isfinite(arrays[name]).all():
            raise InputError(f"{where}: {name} has values that are not finite; evaluate again")
