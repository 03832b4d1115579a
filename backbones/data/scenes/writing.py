"""Parallel writing of the splits of `scenes` in the formats of real data.

ROOT/<split>/<class>/<stem>.JPEG                    classification
ROOT/annotations/<split>/<class>/<stem>.xml         ILSVRC XML, coordinates inclusive and from 0
ROOT/classes.txt                                    one class per line, in label order
ROOT/detection/<split>/<number>.jpg                 detection
ROOT/detection/annotations/instances_<split>.json   COCO
"""

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from backbones.core.bars import progress_bar
from backbones.core.files import fingerprint, save_json, save_text
from backbones.data.scenes.drawing import FILE_SIZE, ObjectImage, draw_detection_image, draw_object_image
from backbones.data.scenes.shapes import CLASSES

JPEG_QUALITY = 92
CHUNK = 50  # images per task of the pool
RunMap = Callable[[Callable[[range], list], list[range]], Iterable[list]]  # like the built-in `map`

XML = """\
<annotation>
\t<folder>{name}</folder>
\t<filename>{stem}</filename>
\t<source>
\t\t<database>scenes</database>
\t</source>
\t<size>
\t\t<width>{size}</width>
\t\t<height>{size}</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>{name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>{truncated}</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{xmin}</xmin>
\t\t\t<ymin>{ymin}</ymin>
\t\t\t<xmax>{xmax}</xmax>
\t\t\t<ymax>{ymax}</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""  # the layout of ILSVRC 2012


def object_xml(scene: ObjectImage, stem: str) -> str:
    """Return the annotation of a classification image; its box becomes inclusive, `truncated` means partly hidden."""
    x0, y0, x1, y1 = scene.box
    return XML.format(name=scene.class_name, stem=stem, size=len(scene.image), truncated=int(scene.occluded),
                      xmin=x0, ymin=y0, xmax=x1 - 1, ymax=y1 - 1)  # fmt: skip


def jpeg_bytes(image: np.ndarray) -> bytes:
    """Encode an RGB image (H, W, 3) uint8 as JPEG."""
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok
    return data.tobytes()


def write_object_images(indices: range, root: str, seed: int, split: str, drawing: dict[str, Any]) -> list[str]:
    """Draw and write images of a classification split; return a fingerprint of each image with its annotation.

    drawing: keyword arguments of `draw_object_image`.
    """
    prints = []
    for index in indices:
        scene = draw_object_image(seed, split, index, **drawing)
        folder, stem = scene.class_name, f"{split}_{index:08d}"
        data = jpeg_bytes(scene.image)
        xml = object_xml(scene, stem)
        Path(root, split, folder, f"{stem}.JPEG").write_bytes(data)
        Path(root, "annotations", split, folder, f"{stem}.xml").write_text(xml)
        prints.append(fingerprint(data, xml))
    return prints


def write_detection_images(indices: range, folder: str, seed: int, split: str) -> list[tuple[dict, list[dict], str]]:
    """Draw and write detection images; return the COCO image, annotations (without ids) and fingerprint of each.

    `segmentation` is an empty list: the objects have only boxes and areas, a box as a polygon would be mistaken for a
    mask, and readers skip an empty list but fail on a missing key.
    """
    records = []
    for index in indices:
        scene = draw_detection_image(seed, split, index)
        image = {"id": index + 1, "file_name": f"{index + 1:012d}.jpg", "width": FILE_SIZE, "height": FILE_SIZE}
        annotations = []
        for item in scene.objects:
            x0, y0, x1, y1 = item.box
            annotations.append({"image_id": index + 1, "category_id": CLASSES.index(item.class_name) + 1,
                                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": item.area, "iscrowd": 0,
                                "segmentation": []})  # fmt: skip
        data = jpeg_bytes(scene.image)
        Path(folder, image["file_name"]).write_bytes(data)
        records.append((image, annotations, fingerprint(data, json.dumps(annotations))))
    return records


def start_worker() -> None:
    """Use one thread per process, as the pool already uses all cores."""
    cv2.setNumThreads(1)


@contextmanager
def drawing_processes(workers: int) -> Iterator[RunMap]:
    """Yield an ordered `map`: the built-in one, or one over `workers` processes."""
    if workers <= 1:
        yield map
        return
    # spawn: forking a process that already has threads (torch, OpenCV) can hang.
    with multiprocessing.get_context("spawn").Pool(workers, start_worker) as pool:
        yield pool.imap


def run_chunks(run_map: RunMap, task: Callable[[range], list], count: int, title: str) -> list:
    """Return the results of `task` for the images 0 .. count - 1, in order, with a progress bar."""
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    results: list = []
    with progress_bar(title=title, total=count, unit="image", mininterval=0.5) as bar:
        for found in run_map(task, chunks):
            results += found
            bar.update(len(found))
    return results


def classification_split(
    root: Path, split: str, count: int, run_map: RunMap, *, seed: int, drawing: dict[str, Any]
) -> str:
    """Do the work of `write_classification` with the given processes."""
    for name in CLASSES:
        (root / split / name).mkdir(parents=True, exist_ok=True)
        (root / "annotations" / split / name).mkdir(parents=True, exist_ok=True)
    save_text(root / "classes.txt", "\n".join(CLASSES) + "\n")
    task = partial(write_object_images, root=str(root), seed=seed, split=split, drawing=drawing)
    return fingerprint(*run_chunks(run_map, task, count, split))


def detection_split(root: Path, split: str, count: int, run_map: RunMap, *, seed: int) -> str:
    """Do the work of `write_detection` with the given processes."""
    folder = root / "detection" / split
    folder.mkdir(parents=True, exist_ok=True)
    task = partial(write_detection_images, folder=str(folder), seed=seed, split=split)
    records = run_chunks(run_map, task, count, f"detection {split}")
    annotations = [annotation for _, found, _ in records for annotation in found]
    instances = {
        "info": {"description": f"scenes, detection {split}", "version": "1.0"},
        "licenses": [],
        "images": [image for image, _, _ in records],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)],
        "categories": [{"id": i, "name": name, "supercategory": "scenes"} for i, name in enumerate(CLASSES, start=1)],
    }
    save_json(root / "detection" / "annotations" / f"instances_{split}.json", instances, indent=None)
    return fingerprint(*(content for _, _, content in records))


def write_classification(
    root: str | Path, split: str, count: int, *, seed: int, workers: int = 1, **drawing: Any
) -> str:
    """Write one classification split and classes.txt below `root`, and return the fingerprint of its content.

    drawing: keyword arguments of `draw_object_image`.
    """
    with drawing_processes(workers) as run_map:
        return classification_split(Path(root), split, count, run_map, seed=seed, drawing=drawing)


def write_detection(root: str | Path, split: str, count: int, *, seed: int, workers: int = 1) -> str:
    """Write one detection split below `root`/detection, and return the fingerprint of its content."""
    with drawing_processes(workers) as run_map:
        return detection_split(Path(root), split, count, run_map, seed=seed)
