"""Write reference.json, the numbers of tidecv on `helpers.tide_problem`, and its two known faults.

tidecv needs opencv-python, which must not be installed beside opencv-python-headless; so in an environment of its own:

    python -m venv /tmp/tide && /tmp/tide/bin/pip install tidecv==1.0.1
    /tmp/tide/bin/python tests/files/tide/reference.py
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from helpers.tide_problem import tide_problem, with_a_class_of_detections_only  # noqa: E402
from tidecv import TIDE, Data, datasets  # noqa: E402
from tidecv.errors.qualifiers import AREA  # noqa: E402

SEEDS = range(6)


def run(truth, detections):
    """Return what tidecv computes, as fractions: AP50, dAP of every error, and of the errors of every size."""
    objects, found = Data("truth"), Data("found")
    for image in truth["images"]:
        objects.add_image(image["id"], str(image["id"]))
    for one in truth["annotations"]:
        add = objects.add_ignore_region if one["iscrowd"] else objects.add_ground_truth
        add(one["image_id"], one["category_id"], one["bbox"])
    for one in detections:
        found.add_detection(one["image_id"], one["category_id"], one["score"], one["bbox"])
    done = TIDE().evaluate(objects, found, mode=TIDE.BOX)
    gains = done.fix_main_errors() | done.fix_special_errors()
    sizes = {size.name.lower(): done.fix_main_errors(qual=size) for size in AREA}
    short = {"FalsePos": "FP", "FalseNeg": "FN"}
    named = {
        area: {short.get(error.short_name, error.short_name): float(gain) / 100 for error, gain in own.items()}
        for area, own in {"all": gains, **sizes}.items()
    }
    named["all"]["AP50"] = float(done.ap) / 100
    return named


def crash_without_segmentation():
    """Return the error of tidecv's reader for a json of boxes."""
    truth, _ = tide_problem(0)
    for image in truth["images"]:
        image["file_name"] = f"{image['id']}.jpg"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "boxes.json"
        path.write_text(json.dumps(truth))
        try:
            datasets.COCO(str(path))
        except Exception as error:
            return repr(error)
    return None


if __name__ == "__main__":
    result = {
        "command": "python tests/files/tide/reference.py",
        "versions": {name: version(name) for name in ("tidecv", "numpy", "pycocotools")},
        "python": sys.version.split()[0],
        "right": {str(seed): run(*tide_problem(seed)) for seed in SEEDS},
        "class_of_detections_only": run(*with_a_class_of_detections_only(*tide_problem(0))),
        "boxes_without_segmentation": crash_without_segmentation(),
    }
    (HERE / "reference.json").write_text(json.dumps(result, indent=1) + "\n")
