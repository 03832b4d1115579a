"""Read one split of a VOC folder despite its problems, and report them all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError, suggestion
from backbones.core.findings import ERROR, WARNING, Findings, Kind
from backbones.core.image_checks import MISSING, StatedImage
from detection.data.categories import check_names
from detection.data.coco.scan import REPAIRED
from detection.data.image_files import SUFFIXES, Listing, is_hidden, split_suffix
from detection.data.scan import Scan
from detection.data.voc.annotation import BROKEN_XML, NO_CLASS, REPEATED_ELEMENT, Annotation, Box, read_annotation
from detection.data.voc.split import BROKEN_SPLIT, read_split, read_stems

UNKNOWN_CLASS = Kind(ERROR, "objects of a class that is not in the list", "correct the name or list the class")
HIDDEN = Kind(WARNING, "files of macOS (._*, .DS_Store)", "they are ignored")
SEVERAL_FILES = Kind(WARNING, "names with several image files", "one of them is read; remove the others")
BY_FILENAME = Kind(WARNING, "images found only by <filename>", "name them like their annotations")


def scan_voc(
    folder: Path, listing: Path, classes: Sequence[str] | None, findings: Findings, *, look_for_images: bool = True
) -> Scan | None:
    """Read the split that `listing` names; None for a file that is not text.

    Args:
        folder: holds Annotations and JPEGImages.
        classes: None: every name in the folder's XML, sorted.
        look_for_images: look for the image files; False: JPEGImages need not exist.
    """
    try:
        lines = read_split(listing)
    except InputError as error:
        findings.add(BROKEN_SPLIT, str(error))
        return None
    xml, images = Listing(folder / "Annotations"), Listing(folder / "JPEGImages")
    _count_hidden(xml, images, lines, findings)
    stems = read_stems(lines, listing, lambda stem: 2 * xml.has(f"{stem}.xml") + bool(images.images(stem)), findings)
    read = {stem: read_annotation(_xml_path(xml, stem, findings)) for stem in stems}
    for found in read.values():
        for kind, where in found.problems:
            findings.add(kind, where)
    if not classes:
        classes = _all_names(xml, read, findings)
    paths = (
        _find_images(images, read, findings) if look_for_images else [str(images.folder / f"{s}.jpg") for s in stems]
    )
    listed = [
        StatedImage(path, *found.size, f"image id {n}")
        for n, (path, found) in enumerate(zip(paths, read.values(), strict=True), start=1)
    ]
    return _place_boxes(read, listed, list(classes), findings)


def _place_boxes(
    read: Mapping[str, Annotation], images: list[StatedImage], classes: list[str], findings: Findings
) -> Scan:
    found: list[tuple[int, str, Box]] = [
        (n, stem, box) for n, (stem, annotation) in enumerate(read.items()) for box in annotation.boxes
    ]
    place = {name: n for n, name in enumerate(classes)}
    corners = np.array([box.corners for _, _, box in found], np.float64).reshape(-1, 4)
    # Pixels are counted from 1 and the last one is included.
    low = corners[:, :2] - 1
    with np.errstate(over="ignore", invalid="ignore"):
        bbox = np.concatenate([low, corners[:, 2:] - low], axis=1)
        area = bbox[:, 2] * bbox[:, 3]

    def describe(n: int) -> str:
        return f"{found[n][1]}.xml: {found[n][2].name} {corners[n].tolist()}"

    scan = Scan(
        images=images,
        image_ids=list(range(1, len(images) + 1)),
        categories=classes,
        category_ids=list(range(1, len(classes) + 1)),
        image=np.array([n for n, _, _ in found], np.int64),
        label=np.array([place.get(box.name, -1) for _, _, box in found], np.int64),
        bbox=bbox,
        # A corner that is an infinite number stays infinite here; NaN marks text that is not a number.
        malformed=np.asarray(np.isnan(corners).any(axis=1)),
        area=area,
        iscrowd=np.array([box.difficult for _, _, box in found], bool),
        describe=describe,
        corners=corners,
    )
    unknown = [n for n in np.flatnonzero(scan.label < 0).tolist() if found[n][2].name]
    hints = (f"{describe(n)}{suggestion(found[n][2].name, classes) if len(classes) < 50 else ''}" for n in unknown)
    findings.add(UNKNOWN_CLASS, hints, len(unknown))
    return scan


def _count_hidden(xml: Listing, images: Listing, lines: Sequence[str], findings: Findings) -> None:
    hidden = [str(files.folder / name) for files in (xml, images) for name in sorted(files.names()) if is_hidden(name)]
    findings.add(HIDDEN, [*hidden, *(f"line '{line}'" for line in lines if is_hidden(line))])


def _xml_path(xml: Listing, stem: str, findings: Findings) -> Path:
    """Return the annotation file of a name, whose Unicode form or case may differ."""
    name = f"{stem}.xml"
    if not xml.has(name) and (other := xml.folded(name)):
        findings.add(REPAIRED, f"'{name}' is '{other}'")
        name = other
    return xml.folder / name


def _all_names(xml: Listing, read: Mapping[str, Annotation], findings: Findings) -> list[str]:
    """Return the class names that occur in the folder, sorted; report files of other splits that could hide a name."""
    others = sorted(name for name in xml.names() if name.endswith(".xml") and not is_hidden(name))
    unlisted = [read_annotation(xml.folder / name) for name in others if name.removesuffix(".xml") not in read]
    for annotation in unlisted:
        for kind, where in annotation.problems:
            if kind in (BROKEN_XML, NO_CLASS, REPEATED_ELEMENT):
                findings.add(kind, where)
    names = sorted({box.name for one in (*read.values(), *unlisted) for box in one.boxes if box.name})
    check_names(names, findings)
    return names


def _find_images(images: Listing, read: Mapping[str, Annotation], findings: Findings) -> list[str]:
    """Return the path of each image, "" if missing; other names than <name>.jpg and duplicates are counted."""
    found = {stem: _find_image(images, stem, annotation.filename, findings) for stem, annotation in read.items()}
    owners = Counter(name for name in found.values() if name)
    paths = []
    for n, (stem, name) in enumerate(found.items(), start=1):
        where = f"{images.folder / stem}.jpg (image id {n})"
        if not name:
            filename = read[stem].filename
            tried = f"{', '.join(SUFFIXES[1:])} in any case" + (f" and <filename> '{filename}'" if filename else "")
            findings.add(MISSING, f"{where}: no such file; also tried {tried}")
        elif owners[name] > 1:
            findings.add(MISSING, f"{where}: '{name}' exists, but several names refer to it")
            name = None
        paths.append(str(images.folder / name) if name else "")
    return paths


def _find_image(images: Listing, stem: str, filename: str, findings: Findings) -> str | None:
    """Return the image file of a name: <name>.jpg, else another suffix, else <filename>, which is often stale."""
    files = images.images(stem)
    stated = filename.replace("\\", "/").rpartition("/")[2]
    if len(files) > 1:
        findings.add(SEVERAL_FILES, ", ".join(files))
    if files:
        below = stem.rpartition("/")[0]
        preferred = (f"{stem}.jpg", f"{below}/{stated}" if below else stated, files[0])
        return next(name for name in preferred if name in files)
    spelled = [name for suffix in SUFFIXES if (name := images.folded(f"{stem}{suffix}"))]
    if len(spelled) == 1:
        findings.add(REPAIRED, f"'{stem}' is '{spelled[0]}'")
        return spelled[0]
    if split_suffix(stated)[1] and images.has(stated):
        findings.add(BY_FILENAME, f"'{stem}' is '{stated}'")
        return stated
    return None
