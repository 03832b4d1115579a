"""Read the results of any detector on a test set: COCO results, also with declared ids and boxes, or comp4 files.

What does not fit the test set is refused, with the declaration under which it would fit.
Letters: I images, N detections.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json
from backbones.core.findings import ERROR, Findings
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import load_data
from detection.data.categories import find_roots
from detection.data.fields import column, is_integer, read_numbers, say
from detection.data.scan import ASTRAY, CORNERS, NORMALISED, Scan, check_boxes, refuse
from detection.evaluation.declared import CATEGORY_KEYS, FORMS, IMAGE_KEYS, RELATIVE, VOC, Declared
from detection.evaluation.matching import Boxes
from detection.evaluation.reading import GroundTruth, adopt_ids, build_detections, load_detections, read_detections
from detection.evaluation.voc_results import find_split, load_comp4, name_images

DECLARED = Declared()
_BORDER = 0.5  # pixels by which a box may exceed its image


class TestSet:
    """A ground truth in memory, with what results files can name its images and categories by."""

    __test__ = False  # for pytest

    def __init__(self, source: Mapping[str, Any] | str | Path, *, box_areas: bool = False) -> None:
        """Read a ground truth; box_areas: as `GroundTruth`."""
        where = ""
        if isinstance(source, str) and source.startswith(VOC):
            source, where = _load_voc(source), source
        self.truth = GroundTruth(source, box_areas=box_areas)
        self.where = where or self.truth.where
        tree = load_json(source) if isinstance(source, str | Path) else source
        self.images = sorted(tree["images"], key=lambda image: image["id"])
        self.categories = sorted(tree["categories"], key=lambda category: category["id"])
        info = tree.get("info")
        form = info.get("form") if isinstance(info, Mapping) else None  # stated by our ground_truth.json
        self.form: str | None = form if form in FORMS else None

        _check_truth(self.truth, self.sizes(), self.where)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the ids, the class names and the objects."""
        truth, objects = self.truth, self.truth.objects
        arrays = (getattr(objects, name) for name in ("image", "category", "xywh", "area", "crowd"))
        return fingerprint(truth.image_ids, truth.category_ids, "\n".join(truth.category_names), *arrays)

    def sizes(self) -> np.ndarray:
        """Return (I, 2) float64 widths and heights; NaN if unknown."""
        sides = [read_numbers(column(self.images, key))[0] for key in ("width", "height")]
        return np.where(np.stack(sides, axis=1) > 0, np.stack(sides, axis=1), np.nan)

    @cached_property
    def in_training(self) -> "TestSet":
        """The test set as a run of ours reads its file; the object itself if nothing differs.

        Boxes are clipped to their images; empty ones and the unused root category of Roboflow are dropped.
        """
        ids, names = self.truth.category_ids, list(self.truth.names["category_id"].values())
        used = set(ids[self.truth.objects.category].tolist())
        roots = find_roots(self.categories, ids, names, used)
        truth = self.truth.as_in_training(self.sizes(), roots)
        if truth is self.truth:
            return self
        other = copy.copy(self)
        other.__dict__.pop("fingerprint", None)
        other.truth = truth
        other.categories = [one for one, root in zip(self.categories, roots.tolist(), strict=True) if not root]
        return other

    def image_names(self, by: str) -> Mapping[Any, int]:
        """Map what `image_id` can hold to the image's id."""
        if by == "id":
            return {key: key for key in self.truth.image_ids.tolist()}
        return name_images(self.images, self.where, by)

    def category_names(self, by: str) -> Mapping[Any, int]:
        """Map what `category_id` can hold to the category's id."""
        ids = self.truth.category_ids.tolist()
        names = {"id": ids, "name": self.truth.category_names, "index": range(len(ids))}[by]
        return dict(zip(names, ids, strict=True))


def _load_voc(name: str) -> dict[str, Any]:
    data = load_data([name], "", WarningCounter())
    return {"info": {"form": data.form}, **data.to_coco()}


def read_results(source: Sequence | Mapping | str | Path, test: TestSet, declared: Declared = DECLARED) -> Boxes:
    """Read the detections of one detector.

    Args:
        source: COCO results list, a mapping that holds it under "annotations", the path of either, or a folder of
            comp4 files, to which `declared` does not apply.
    Raises:
        InputError: they do not fit the test set; names the file and the declaration that would fit.
    """
    if isinstance(source, str | Path) and Path(source).is_dir():
        tree = {"images": test.images, "categories": _named(test)}
        return read_detections(load_comp4(source, find_split(source, test.truth.category_names), tree), test.truth)
    where = str(source) if isinstance(source, str | Path) else "detections"
    try:
        boxes = _read_json(source, test, declared, where)
    except InputError as error:
        raise InputError(f"{error}{_hint(source, test, declared)} (ground truth: {test.where})") from None
    _check_boxes(boxes, test, declared, where)
    return boxes


def adapt(detections: Boxes, test: TestSet, read: TestSet) -> Boxes:
    """Return the detections of a test set for `test.in_training`, without those of the classes that it leaves out."""
    ids, known = test.truth.category_ids[detections.category], read.truth.category_ids
    return replace(detections, category=np.searchsorted(known, ids)).take(np.isin(ids, known))


def _named(test: TestSet) -> list[dict[str, Any]]:
    return [{"id": key, "name": name} for name, key in test.category_names("name").items()]


# ---- ids ----------------------------------------------------------------------------------------------------------


def _read_json(source: Sequence | Mapping | str | Path, test: TestSet, declared: Declared, where: str) -> Boxes:
    if (declared.image_by, declared.category_by) == (DECLARED.image_by, DECLARED.category_by):
        boxes = read_detections(source, test.truth)
    else:
        keys = {"image_id": declared.image_by, "category_id": declared.category_by}
        by_id = [key for key, by in keys.items() if by == DECLARED.image_by]
        items = load_detections(adopt_ids(source, test.truth, where, by_id), where)
        known = {
            "image_id": (test.image_names(declared.image_by), declared.image_by),
            "category_id": (test.category_names(declared.category_by), declared.category_by),
        }
        ids = {key: _translate(column(items, key), key, *by, where) for key, by in known.items()}
        renamed = [
            {**item, "image_id": image, "category_id": category}
            for item, image, category in zip(items, ids["image_id"], ids["category_id"], strict=True)
        ]
        boxes = read_detections(renamed, test.truth, where)
    xywh = _as_xywh(boxes.xywh, declared.box_form, test.sizes()[boxes.image], test.where)
    return build_detections(boxes.image, boxes.category, xywh, boxes.score)


def _translate(values: Sequence[Any], key: str, known: Mapping[Any, int], by: str, where: str) -> list[int]:
    """Replace what results hold by ids; raise `InputError` for the first value that is unknown."""
    ids = [known.get(value) if _can_name(value) else None for value in values]
    if None in ids:
        n = ids.index(None)
        raise InputError(f"{where}: detection {n}: {key} is {say(values[n])}, which no {by} equals; correct it")
    return [key for key in ids if key is not None]


def _can_name(value: Any) -> bool:
    return isinstance(value, str) or is_integer(value)


def _hint(source: Sequence | Mapping | str | Path, test: TestSet, declared: Declared) -> str:
    """Return "; all fit with --image-by stem" if other declarations of the ids fit all detections, else ""."""
    try:
        items = load_detections(source)
        options = [
            *_fitting(column(items, "image_id"), "--image-by", declared.image_by, IMAGE_KEYS, test.image_names),
            *_fitting(
                column(items, "category_id"), "--category-by", declared.category_by, CATEGORY_KEYS, test.category_names
            ),
        ]
    except InputError:  # not a list of detections, or images without unique names
        return ""
    return f"; all detections fit with {' '.join(options)}" if items and options else ""


def _fitting(
    values: Sequence[Any], option: str, own: str, choices: Sequence[str], names: Callable[[str], Mapping[Any, int]]
) -> list[str]:
    """Return the option with the first of the choices that fits all values; [] if the declared one does, or none."""

    def fits(by: str) -> bool:
        known = names(by)
        return all(_can_name(value) and value in known for value in values)

    if fits(own):
        return []
    return [f"{option} {by}" for by in choices if by != own and fits(by)][:1]


# ---- boxes --------------------------------------------------------------------------------------------------------


def _as_xywh(boxes: np.ndarray, form: str, sizes: np.ndarray, truth: str) -> np.ndarray:
    """Convert (N, 4) boxes of a declared form to x, y, w, h in pixels; sizes: (N, 2) width and height of the images."""
    shape, relative = form.removesuffix(RELATIVE), form.endswith(RELATIVE)
    first, second = boxes[:, :2], boxes[:, 2:]
    if relative:
        if np.isnan(sizes).any():
            raise InputError(f"{truth}: an image without width and height, which relative boxes need; state them")
        first, second = first * sizes, second * sizes
    if shape == "xyxy":
        second = second - first
    elif shape == "cxcywh":
        first = first - second / 2
    return np.concatenate([first, second], axis=1) if form != "xywh" else boxes


def _check_truth(truth: GroundTruth, sizes: np.ndarray, where: str) -> None:
    """Refuse objects in other units than pixels, or of other images, on which every detector has an AP of 0."""
    boxes, none = truth.objects, np.zeros(len(truth.objects), dtype=bool)
    scan = Scan(
        images=[], image_ids=[], categories=truth.category_names, category_ids=[], image=boxes.image,
        label=boxes.category, bbox=boxes.xywh, malformed=none, area=boxes.area, iscrowd=boxes.crowd,
        describe=lambda n: f"annotations[{n}]: bbox {boxes.xywh[n].tolist()}",
    )  # fmt: skip
    found, useless = Findings(), Findings()
    check_boxes(scan, np.nan_to_num(sizes), found)
    for kind in found.of(ERROR):
        if kind in (NORMALISED, CORNERS, ASTRAY):
            useless.add(kind, found.example(kind), found.of(ERROR)[kind])
    refuse(useless, where)


def _check_boxes(boxes: Boxes, test: TestSet, declared: Declared, where: str) -> None:
    """Refuse boxes that are plainly of another form than the declared one."""
    if not len(boxes):
        return
    xywh, size = boxes.xywh, test.sizes()[boxes.image]
    low, high = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    said = f"{where}: with --box-form {declared.box_form}"
    small = ((xywh >= 0) & (xywh <= 1 + 1e-6)).all()
    if small and not declared.box_form.endswith(RELATIVE) and (test.truth.objects.xywh > 1).any():
        forms = f"--box-form xywh{RELATIVE}, xyxy{RELATIVE} or cxcywh{RELATIVE}"
        raise InputError(f"{said}, all boxes lie in the first pixel: they are relative to the image; declare {forms}")
    with np.errstate(invalid="ignore"):  # images of unknown size
        astray = ((low < -_BORDER) | (high > size + _BORDER) | (xywh[:, 2:] < 0)).any(axis=1)
        corners = ((xywh[:, 2:] >= low) & (xywh[:, 2:] <= size + _BORDER)).all(axis=1)
    if 2 * astray.sum() <= len(boxes):
        return
    if declared.box_form in ("xywh", f"xywh{RELATIVE}") and corners.mean() >= 0.9:
        form = declared.box_form.replace("xywh", "xyxy")
        raise InputError(
            f"{said}, most boxes leave their images, and they fit as two corners; declare --box-form {form}"
        )
    if (xywh[:, 2:] < 0).any(axis=1).sum() * 2 > len(boxes):
        raise InputError(f"{said}, most boxes have a negative width or height; declare their form")
