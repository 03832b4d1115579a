"""Read a COCO instances json despite its problems, and report them all."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING, Findings, Kind
from backbones.core.image_checks import MISSING, StatedImage
from detection.data.categories import ROOT, check_names, find_roots, read_names
from detection.data.coco.instances import Annotations, load_instances, read_annotations, sort_entries, unique_entries
from detection.data.fields import ABSENT, column, is_encodable, read_ids, read_sides, say
from detection.data.image_files import Listing
from detection.data.scan import NO_AREA, ZERO_AREA, Scan

BROKEN = Kind(ERROR, "broken annotation file", "restore it; it must be a COCO instances json")
INCOMPLETE = Kind(ERROR, "images without file_name, width or height", "add them")
WRONG_TYPE = Kind(ERROR, "wrong values of file_name, width or height", "correct them")
REPEATED_FILE = Kind(WARNING, "files listed under several image ids", "each entry is trained and tested on")
REPAIRED = Kind(WARNING, "file names spelled differently from the files", "the files are read; correct the names")


def scan_coco(annotations: Path, images: Path, findings: Findings, *, look_for_images: bool = True) -> Scan | None:
    """Read the whole file; None for a file that is not a COCO instances json.

    Args:
        images: folder that its `file_name`s are relative to.
        look_for_images: look for the files in that folder; False: it need not exist.
    """
    try:
        lists = load_instances(annotations)
    except InputError as error:
        findings.add(BROKEN, str(error))
        return None
    entries, ids = sort_entries(*unique_entries(lists["images"], "images", findings))
    categories, category_ids = sort_entries(*unique_entries(lists["categories"], "categories", findings))
    names = read_names(categories, category_ids, findings)
    used, no_id = read_ids(column(filter(_is_object, lists["annotations"]), "category_id"))
    kept = ~find_roots(categories, category_ids, names, set(used[~no_id].tolist()))
    roots = np.flatnonzero(~kept).tolist()
    findings.add(ROOT, [f"categories: id {category_ids[n]} '{names[n]}'" for n in roots])
    names = [name for name, keep in zip(names, kept, strict=True) if keep]
    check_names(names, findings)
    listed = _read_images(entries, ids, images, findings, look_for_images)
    read = read_annotations(lists["annotations"], ids, category_ids[kept], findings)
    _check_areas(read, findings)
    return Scan(
        images=listed,
        image_ids=ids.tolist(),
        categories=names,
        category_ids=category_ids[kept].tolist(),
        image=read.image,
        label=read.category,
        bbox=read.bbox,
        malformed=read.malformed,
        area=read.area,
        iscrowd=read.iscrowd,
        describe=read.describe,
    )


def _read_images(
    entries: Sequence[Mapping], ids: np.ndarray, images: Path, findings: Findings, look: bool
) -> list[StatedImage]:
    files = column(entries, "file_name")
    (widths, no_width), (heights, no_height) = (read_sides(column(entries, key)) for key in ("width", "height"))
    bad = np.array([not _is_file_name(file) for file in files], bool) | no_width | no_height
    for n in np.flatnonzero(bad).tolist():
        _name_wrong_field(entries[n], int(ids[n]), findings)
    names = [file if isinstance(file, str) and file else "" for file in files]
    first = {name: n for n, name in reversed(list(enumerate(names)))}
    again = [n for n, name in enumerate(names) if name and first[name] != n]
    findings.add(REPEATED_FILE, (f"{names[n]} (image id {ids[n]})" for n in again), len(again))
    keys = [f"image id {key}" for key in ids.tolist()]
    paths = (
        _find_files(names, keys, images, findings) if look else [str(images / name) if name else "" for name in names]
    )
    widths[bad], heights[bad] = 0, 0
    return list(map(StatedImage, paths, widths.tolist(), heights.tolist(), keys))


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value.strip() != "" and is_encodable(value)


def _name_wrong_field(entry: Mapping, key: int, findings: Findings) -> None:
    for field, expected in (("file_name", "a text"), ("width", "a whole number"), ("height", "a whole number")):
        value = entry.get(field, ABSENT)
        good = _is_file_name(value) if field == "file_name" else not read_sides([value])[1][0]
        if value is ABSENT:
            findings.add(INCOMPLETE, f"images: id {key} has no '{field}'")
        elif not good:
            findings.add(WRONG_TYPE, f"images: id {key}: {field} must be {expected}, is {say(value)}")


def _find_files(names: Sequence[str], keys: Sequence[str], images: Path, findings: Findings) -> list[str]:
    """Return the path of each file, "" if missing; a file found under another spelling is counted."""
    listing = Listing(images)
    paths = [str(images / name) if name and listing.has(name) else "" for name in names]
    lost = [n for n, path in enumerate(paths) if names[n] and not path]
    owners = defaultdict(set)  # file found under another spelling -> the names that refer to it
    found = {n: listing.repaired(names[n]) for n in lost}
    for n in lost:
        owners[found[n]].add(names[n])
    exact = {names[n] for n, path in enumerate(paths) if path}
    for n in lost:
        target, where = found[n], f"{images / names[n]} ({keys[n]})"
        if target is None:
            findings.add(MISSING, where)
        elif len(owners[target]) > 1 or target in exact:
            findings.add(MISSING, f"{where}: '{target}' exists, but several names refer to it")
        else:
            findings.add(REPAIRED, f"'{names[n]}' is '{target}'")
            paths[n] = str(images / target)
    return paths


def _check_areas(read: Annotations, findings: Findings) -> None:
    for kind, rows in ((NO_AREA, read.no_area), (ZERO_AREA, read.area == 0)):
        found = np.flatnonzero(rows).tolist()
        findings.add(kind, (f"annotations: id {read.ids[n]}" for n in found), len(found))


def _is_object(item: object) -> bool:
    return isinstance(item, Mapping)
