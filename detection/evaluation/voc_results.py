"""Read and write VOC's competition files, comp4_det_<split>_<class>.txt, as COCO results.

A line is "<image> <score> <xmin> <ymin> <xmax> <ymax>", pixels counted from 1 and the last one included, as in the
annotations: x = xmin - 1, w = xmax - x.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_text, save_text
from detection.data.fields import parse_number

_START = "comp4_det_"
NAMES: dict[str, Callable[[str], str]] = {
    "file_name": str,
    "path": lambda file: PurePosixPath(file).with_suffix("").as_posix(),
    "stem": lambda file: PurePosixPath(file).stem,
}


def load_comp4(folder: str | Path, split: str, ground_truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Load COCO results (image_id, category_id, bbox, score) from one file per class; a class can have none.

    Args:
        folder: folder of the files; split: part of their names, such as "test".
        ground_truth: COCO instances; file names name the images (`_comp4_names`), categories the classes.
    Raises:
        InputError: no file found; a line that is not a name and five numbers, or of an unknown image; a file that is
            not text; two images of one name.
    """
    image_ids = _comp4_names(ground_truth["images"])
    found = {
        category["id"]: path
        for category in ground_truth["categories"]
        if (path := Path(folder) / f"{_START}{split}_{category['name']}.txt").is_file()
    }
    if not found:
        raise InputError(f"{folder}: no file comp4_det_{split}_<class>.txt for any class; check the folder and split")
    return [result for category_id, path in found.items() for result in _read(path, category_id, image_ids)]


def save_comp4(
    folder: Path, split: str, detections: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]
) -> list[Path]:
    """Write COCO results as one file per class, without rounding; return the files.

    Raises:
        InputError: a name of a class that cannot be part of a file name; two images of one name.
    """
    names = {image_id: name for name, image_id in _comp4_names(ground_truth["images"]).items()}
    lines: dict[int, list[str]] = {category["id"]: [] for category in ground_truth["categories"]}
    for one in detections:
        x, y, width, height = one["bbox"]
        corners = f"{x + 1!r} {y + 1!r} {x + width!r} {y + height!r}"
        lines[one["category_id"]].append(f"{names[one['image_id']]} {one['score']!r} {corners}\n")
    paths = []
    for category in ground_truth["categories"]:
        path = folder / f"{_START}{split}_{category['name']}.txt"
        if path.parent != folder:
            raise InputError(f"class '{category['name']}': a / cannot be part of a file name; rename the class")
        save_text(path, "".join(lines[category["id"]]))
        paths.append(path)
    return paths


def find_split(folder: str | Path, classes: Sequence[str]) -> str:
    """Return the split that the names of the comp4 files in a folder state.

    Raises:
        InputError: no such file, one of an unknown class, or files of several splits.
    """
    splits = set()
    for path in sorted(Path(folder).glob(f"{_START}*.txt")):
        stem = path.name.removeprefix(_START).removesuffix(".txt")
        ends = [name for name in classes if stem.endswith(f"_{name}") and len(stem) > len(name) + 1]
        if not ends:
            raise InputError(f"{path}: the ground truth has no class by which this name ends; correct or move the file")
        splits.add(stem.removesuffix(f"_{max(ends, key=len)}"))
    if len(splits) != 1:
        found = f"comp4 files of several splits ({', '.join(sorted(splits))})" if splits else "no comp4 file"
        raise InputError(f"{folder}: {found}; give a folder of {_START}<split>_<class>.txt of one split")
    return splits.pop()


def name_images(images: Sequence[Mapping[str, Any]], where: str, by: str = "stem") -> dict[str, int]:
    """Return image ids by what `by` says.

    Args:
        by: "file_name", "path" (file_name without suffix), or "stem" (without folder and suffix).
    Raises:
        InputError: an image without file_name, or two of one name; `where` names their file.
    """
    image_ids: dict[str, int] = {}
    for image in images:
        file = image.get("file_name")
        if not isinstance(file, str):
            raise InputError(f"{where}: image id {image['id']} has no file_name, by which results name it; add it")
        name = NAMES[by](file)
        if name in image_ids:
            raise InputError(
                f"{where}: image ids {image_ids[name]} and {image['id']} have the same name '{name}', "
                "by which results tell them apart; rename one"
            )
        image_ids[name] = image["id"]
    return image_ids


def _comp4_names(images: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return image ids by file name without folder and suffix.

    If names in several folders are equal, the folder is part of all names; without it, such a name is then unknown.
    """
    files = [str(image.get("file_name")) for image in images]
    stems = Counter(map(NAMES["stem"], files))
    shared = {stem for stem, count in stems.items() if count > 1}
    told = shared and shared.isdisjoint(map(NAMES["path"], files))
    return name_images(images, "ground truth", "path" if told else "stem")


def _read(path: Path, category_id: int, image_ids: Mapping[str, int]) -> list[dict[str, Any]]:
    results = []
    for number, line in enumerate(load_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        image, *fields = line.strip().rsplit(None, 5)  # names can contain spaces
        numbers = _numbers(fields)
        if image not in image_ids or numbers is None:
            what = f"unknown image '{image}'" if numbers else "not '<image> <score> <xmin> <ymin> <xmax> <ymax>'"
            raise InputError(f"{path}: line {number}: {what}; correct the file")
        score, xmin, ymin, xmax, ymax = numbers
        box = [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]
        results.append({"image_id": image_ids[image], "category_id": category_id, "bbox": box, "score": score})
    return results


def _numbers(fields: list[str]) -> list[float] | None:
    """Parse five finite numbers; None if invalid."""
    numbers = [parse_number(field) for field in fields]
    return numbers if len(numbers) == 5 and np.isfinite(numbers).all() else None
