"""`scenes` in the layout of Pascal VOC's devkit: detection images, or tiled classification images, with boxes.

ROOT/JPEGImages/<split>_<number>.jpg
ROOT/Annotations/<split>_<number>.xml     corners inclusive and counted from 1, as in VOC
ROOT/ImageSets/Main/<split>.txt
ROOT/scenes-voc.json                      parameters and fingerprint; if it exists, the set is complete
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from backbones.core.disk import write_error
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json, save_json, save_text
from backbones.data.scenes.drawing import Box, draw_detection_image, draw_object_image, image_rng
from backbones.data.scenes.parameters import VocParameters
from backbones.data.scenes.sets import INDEPENDENT
from backbones.data.scenes.writing import drawing_processes, jpeg_bytes, run_chunks

VERSION = 1  # raise it when images or annotations change for the same parameters
RECORD = "scenes-voc.json"
TILE = 64  # pixels
Named = tuple[str, Box]  # class and box of an object
FOLDERS = ("JPEGImages", "Annotations", "ImageSets")

XML = """\
<annotation>
\t<folder>scenes</folder>
\t<filename>{stem}.jpg</filename>
\t<size>
\t\t<width>{size}</width>
\t\t<height>{size}</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
{objects}</annotation>
"""
OBJECT = """\
\t<object>
\t\t<name>{name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{xmin}</xmin>
\t\t\t<ymin>{ymin}</ymin>
\t\t\t<xmax>{xmax}</xmax>
\t\t\t<ymax>{ymax}</ymax>
\t\t</bndbox>
\t</object>
"""


def image_xml(size: int, objects: Sequence[Named], stem: str) -> str:
    """Return the annotation of an image in VOC's format."""
    items = ""
    for name, (x0, y0, x1, y1) in objects:
        items += OBJECT.format(name=name, xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)
    return XML.format(stem=stem, size=size, objects=items)


def draw_scene(seed: int, split: str, index: int) -> tuple[np.ndarray, list[Named]]:
    """Draw a detection image (512, 512, 3) and its objects."""
    scene = draw_detection_image(seed, split, index)
    return scene.image, [(item.class_name, item.box) for item in scene.objects]


def draw_tiles(seed: int, split: str, index: int, tiles: int) -> tuple[np.ndarray, list[Named]]:
    """Draw `tiles` x `tiles` classification images of TILE px as one image, and their objects."""
    split = f"{split} tiles"
    numbers = image_rng(seed, split, index).integers(2**31, size=(tiles, tiles)).tolist()
    rows, objects = [], []
    for y, row in enumerate(numbers):
        drawn = [draw_object_image(seed, split, number, size=TILE, correlation=INDEPENDENT) for number in row]
        rows.append(np.hstack([scene.image for scene in drawn]))
        for x, scene in enumerate(drawn):
            shift = (x * TILE, y * TILE, x * TILE, y * TILE)
            objects.append((scene.class_name, tuple(int(a + b) for a, b in zip(scene.box, shift, strict=True))))
    return np.vstack(rows), objects


def write_scenes_voc(root: Path, parameters: VocParameters, *, workers: int, overwrite: bool) -> tuple[dict, bool]:
    """Write the set below `root`, unless it exists; RECORD is deleted first and written last.

    Returns:
        The content of scenes-voc.json, and whether anything was drawn.

    Raises:
        InputError: the folder holds another set or foreign folders and `overwrite` is False, or it cannot be written.
    """
    wanted = {"version": VERSION, "parameters": asdict(parameters)}
    held = load_json(root / RECORD) if (root / RECORD).exists() else {}
    if not overwrite and {key: held.get(key) for key in wanted} == wanted:
        return held, False
    there = [name for name in (RECORD, *FOLDERS) if (root / name).exists()]
    if there and not overwrite:
        raise InputError(f"{root} holds another '{there[0]}'; choose another --output-dir, or add --overwrite")
    try:
        (root / RECORD).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name / ("Main" if name == "ImageSets" else "")).mkdir(parents=True)
        prints = _write(root, parameters, workers)
    except OSError as error:
        raise write_error(root, error) from None
    summary = {**wanted, "files": 2 * (parameters.train + parameters.val), "fingerprint": fingerprint(*prints)}
    save_json(root / RECORD, summary)
    return summary, True


def _write(root: Path, parameters: VocParameters, workers: int) -> list[str]:
    prints = []
    with drawing_processes(workers) as run_map:
        for split, count in (("train", parameters.train), ("val", parameters.val)):
            task = partial(_write_images, root=str(root), seed=parameters.seed, split=split, tiles=parameters.tiles)
            prints += run_chunks(run_map, task, count, f"scenes-voc {split}")
            stems = "".join(f"{_stem(split, index)}\n" for index in range(count))
            save_text(root / "ImageSets" / "Main" / f"{split}.txt", stems)
    return prints


def _write_images(indices: range, root: str, seed: int, split: str, tiles: int) -> list[str]:
    """Draw and write images; return a fingerprint of each image with its annotation."""
    prints = []
    for index in indices:
        image, objects = draw_tiles(seed, split, index, tiles) if tiles else draw_scene(seed, split, index)
        stem = _stem(split, index)
        data, xml = jpeg_bytes(image), image_xml(len(image), objects, stem)
        Path(root, "JPEGImages", f"{stem}.jpg").write_bytes(data)
        Path(root, "Annotations", f"{stem}.xml").write_text(xml)
        prints.append(fingerprint(data, xml))
    return prints


def _stem(split: str, index: int) -> str:
    return f"{split}_{index + 1:06d}"
