"""Time indexing of ILSVRC annotations against reading them with ElementTree, on one core with a warm page cache.

    OMP_NUM_THREADS=1 python benchmarks/annotation_index.py [--files N] [--folder DIR]

Writes N synthetic images (tiny JPEGs) with ILSVRC XML of 1 to 3 objects each to a temporary folder, in classes of 1000,
then reads all of them once so that they are cached.  Both sides do the same work, without a cached index: list the
folders, read each XML and each image header, clip the boxes.

    index           the pass of `tools/prepare_data.py imagenet-boxes --workers 1`, including shards and index file
    elementtree     ElementTree for the XML and PIL for the header, file by file; on every 10th class

Target: 5000 files (XML with its image) per second and core.  About 2 minutes, most of it writing and deleting.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.data.annotation_index import build_index
from backbones.data.geometry import clip_boxes
from backbones.data.ilsvrc_xml import parse_any

SPLIT, CLASS_SIZE, SIZES = "train", 1000, ((500, 375), (375, 500), (500, 333), (640, 480))
HEAD = """<annotation>
\t<folder>{name}</folder>
\t<filename>{stem}</filename>
\t<source>
\t\t<database>ILSVRC_2012</database>
\t</source>
\t<size>
\t\t<width>{width}</width>
\t\t<height>{height}</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
"""
OBJECT = """\t<object>
\t\t<name>{name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{x0}</xmin>
\t\t\t<ymin>{y0}</ymin>
\t\t\t<xmax>{x1}</xmax>
\t\t\t<ymax>{y1}</ymax>
\t\t</bndbox>
\t</object>
"""


def main(arguments: list[str] | None = None) -> None:
    """Write the data, measure, and print the result as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="annotations to write")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder; default: the system's folder")
    args = parser.parse_args(arguments)
    if args.files < 1:
        raise InputError(f"--files is {args.files}; give 1 or more")
    root = Path(tempfile.mkdtemp(prefix="annotation_index_", dir=args.folder))
    try:
        names = write_files(root, args.files)
        for folder in (root / SPLIT, root / "annotations"):
            warm_up(folder)
        started = time.perf_counter()
        ours, boxes = time_index(root)
        wall = time.perf_counter() - started
        theirs, read = time_elementtree(root, names[::10])
    finally:
        shutil.rmtree(root)
    speed, reference = args.files / ours, read / theirs
    details = {
        "index": speed,
        "elementtree": reference,
        "files": args.files,
        "boxes": boxes,
        "wall_seconds": wall,
        "target": 5000,
    }
    result = {"benchmark": "annotation_index", "ratios": {"index_over_elementtree": speed / reference},
              "files_per_second_and_core": speed, "device": "cpu, 1 process", "details": details}  # fmt: skip
    print(json.dumps(result))


def write_files(root: Path, count: int) -> list[str]:
    """Write the data set, and return its classes.  All images of one size are hard links to one file."""
    rng, names = np.random.default_rng(0), [f"n{k:08d}" for k in range(-(-count // CLASS_SIZE))]
    for kind, size in enumerate(SIZES):
        Image.new("RGB", size).save(root / f"{kind}.JPEG")
    for k, name in enumerate(names):
        images, annotations = root / SPLIT / name, root / "annotations" / SPLIT / name
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for i in range(min(CLASS_SIZE, count - k * CLASS_SIZE)):
            stem, kind = f"{name}_{i}", int(rng.integers(len(SIZES)))
            os.link(root / f"{kind}.JPEG", images / f"{stem}.JPEG")
            (annotations / f"{stem}.xml").write_text(annotation(rng, name, stem, SIZES[kind]))
    return names


def annotation(rng: np.random.Generator, name: str, stem: str, size: tuple[int, int]) -> str:
    """Return an XML annotation with 1 to 3 objects."""
    width, height = size
    text = HEAD.format(name=name, stem=stem, width=width, height=height)
    for _ in range(int(rng.integers(1, 4))):
        x0, y0 = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
        x1, y1 = int(rng.integers(x0 + 1, width)), int(rng.integers(y0 + 1, height))
        text += OBJECT.format(name=name, x0=x0, y0=y0, x1=x1, y1=y1)
    return text + "</annotation>\n"


def warm_up(folder: Path) -> None:
    """Read every file once."""
    for path, _, files in os.walk(folder):
        for file in files:
            Path(path, file).read_bytes()


def time_index(root: Path) -> tuple[float, int]:
    """Return the CPU seconds of this process for the whole index, and the number of boxes in it."""
    started = time.process_time()
    classes = build_index(root, SPLIT, workers=1, overwrite=False)
    return time.process_time() - started, sum(len(c.boxes) for c in classes)


def time_elementtree(root: Path, names: list[str]) -> tuple[float, int]:
    """Return CPU seconds and number of files for the reference implementation on the classes `names`."""
    started, count = time.process_time(), 0
    for name in names:
        for file in sorted((root / SPLIT / name).iterdir()):
            with Image.open(file) as image:
                width, height = image.size
            path = root / "annotations" / SPLIT / name / f"{file.stem}.xml"
            if path.is_file():
                boxes, _ = parse_any(path.read_bytes(), name)
                clip_boxes(np.array(boxes, np.float32).reshape(-1, 4), width, height)
            count += 1
    return time.process_time() - started, count


if __name__ == "__main__":
    run_tool(main)
