"""Small detection data sets that tests break on purpose, and the verdicts of the checker and of training on them."""

import copy
import json

import numpy as np
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import load_data
from detection.data.checks import Options, check_detection
from detection.data.loader import trainable
from detection.data.scan import FIXED

WIDTH, HEIGHT = 96, 72
# Two per image: x, y, width, height.
BOXES = [
    [[28, 36, 18, 29], [50, 15, 32, 18]],
    [[3, 25, 29, 25], [52, 11, 24, 20]],
    [[24, 33, 21, 18], [60, 37, 23, 26]],
]
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def save_image(path, size=(WIDTH, HEIGHT), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 9, 9)).save(path, **options)


def make_tree():
    """Return a sound instances json: three images of two boxes each, of the classes red and blue."""
    boxes = [(n, k, box) for n, pair in enumerate(BOXES, start=1) for k, box in enumerate(pair, start=1)]
    return {
        "images": [
            {"id": n, "file_name": f"p{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(1, len(BOXES) + 1)
        ],
        "annotations": [
            {"id": i, "image_id": n, "category_id": k, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
            for i, (n, k, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }


def write_coco(folder, change=None, encoding="utf-8"):
    """Write the images, and the json after `change(tree)`; return the name of the data set."""
    for n in range(1, len(BOXES) + 1):
        path = folder / "images" / f"p{n}.jpg"
        if not path.exists():
            save_image(path)
    tree = copy.deepcopy(make_tree())
    if change:
        change(tree)
    (folder / "ann.json").write_bytes(json.dumps(tree).encode(encoding))
    return f"coco:{folder / 'ann.json'}:{folder / 'images'}"


def objects(n, names=("red", "blue"), difficult="0", shift=1):
    """Return the objects of image n as VOC XML."""
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return "".join(
        f"<object><name>{name}</name>{flag}{bndbox(x + shift, y + shift, x + w, y + h)}</object>"
        for name, (x, y, w, h) in zip(names, BOXES[n], strict=True)
    )


def bndbox(*corners):
    inside = "".join(f"<{key}>{value}</{key}>" for key, value in zip(CORNERS, corners, strict=True))
    return f"<bndbox>{inside}</bndbox>"


def annotation(body, filename="", width=WIDTH, height=HEIGHT):
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{size}{body}</annotation>"


def write_voc(folder, change=lambda n, text: text, stems=("a", "b", "c"), lines=None, suffix=".jpg", encoding="utf-8"):
    """Write image and XML of each stem, after `change(n, text)`, and the split; return the name of the data set."""
    for n, stem in enumerate(stems):
        save_image(folder / "JPEGImages" / f"{stem}{suffix}")
        path = folder / "Annotations" / f"{stem}.xml"
        path.parent.mkdir(exist_ok=True)
        text = change(n, annotation(objects(n), f"{stem}{suffix}"))
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    split = folder / "ImageSets" / "Main" / "train.txt"
    split.parent.mkdir(parents=True, exist_ok=True)
    split.write_bytes(("\n".join(stems) if lines is None else lines).encode())
    return f"voc:{folder}:train"


def check(name):
    """Return (errors, warnings) of the checker, each as {what: first example}."""
    findings = check_detection(name, "", Options(decode=False))[0].findings
    return tuple({kind.what: findings.example(kind) for kind in findings.of(level)} for level in (ERROR, WARNING))


def train(name):
    """Return (data, {what: count} of the counted warnings, ""), or (None, {}, error message)."""
    warnings = WarningCounter()
    try:
        data = load_data([name], "", warnings)
        trainable(data, filter_empty=True)
    except InputError as error:
        return None, {}, str(error)
    return data, {entry["what"].split(":")[0]: entry["count"] for entry in warnings.as_list()}, ""


def judge(name):
    """Check that both verdicts agree; return (errors, counted warnings, data or None, message)."""
    errors, _ = check(name)
    data, counted, message = train(name)
    serious = [what for what in errors if what not in {kind.what for kind in FIXED}]
    assert (data is None) == bool(serious), (name, errors, message)
    if data is None:
        assert "\n" not in message
        assert any(what in message or "no image has a box" in message for what in serious), (errors, message)
    else:
        scan = check_detection(name, "", Options(images=False))[1]
        assert data.counts()["annotations"] + counted.get("box of zero area dropped", 0) == len(scan.label)
        assert [c["name"] for c in data.categories] == scan.categories
    return errors, counted, data, message


def rows(data):
    """Return boxes, labels and flags of all images as lists."""
    return [
        np.concatenate([getattr(record, field) for record in data.records]).tolist()
        for field in ("bbox", "labels", "iscrowd", "area")
    ]
