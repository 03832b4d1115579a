"""Export what others need to evaluate a run's detections: the test set's ground truth, and VOC's competition files.

A run's predictions.json are COCO results; their image ids are those of the run, which numbers the images of a data set
that is not COCO json.  The ground truth holds them with the names of the images.
"""

import re
from pathlib import Path
from typing import Any

from backbones.core.config import load_yaml
from backbones.core.errors import InputError
from backbones.core.files import save_json
from backbones.core.results import load_results
from backbones.core.runs import CONFIG_FILE
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import load_data
from detection.data.records import DetectionData
from detection.evaluation.reading import load_detections
from detection.evaluation.voc_results import save_comp4

TRUTH_FILE = "ground_truth.json"


def save_truth(test: DetectionData, path: Path) -> None:
    """Write the ground truth of a test set as COCO instances json; "info" names the data set and its form."""
    info = {"data_set": test.name, "fingerprint": test.fingerprint, "form": test.form}
    save_json(path, {"info": info, **test.to_coco()}, indent=None)


def save_truth_once(test: DetectionData, folder: Path) -> Path:
    """Write the ground truth to `folder`, which several runs share, unless it is there; return its path."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "_", test.name)
    path = folder / f"{name}-{test.fingerprint}.json"
    if not path.exists():
        save_truth(test, path)
    return path


def export_detections(run: Path, output_dir: Path, *, root: str | None = None, split: str | None = None) -> list[Path]:
    """Write ground_truth.json of the test set of a finished fine-tuning, and its detections as comp4 files.

    Args:
        run: folder of a fine-tuning, or of its evaluation on another data set.
        root: replaces DATASETS.ROOT.
        split: part of the names of the comp4 files; None: none are written.
    Returns:
        the written files.
    Raises:
        InputError: the folder is not that of a finished fine-tuning, or its test set has changed since.
    """
    results = load_results(run)
    if results["stage"] != "detection" or "predictions" not in results["files"]:
        raise InputError(f"{run}: not a fine-tuning with predictions; give the folder of a finished fine-tuning")
    test = load_test_set(run, root)
    save_truth(test, output_dir / TRUTH_FILE)
    if split is None:
        return [output_dir / TRUTH_FILE]
    detections = load_detections(run / results["files"]["predictions"])
    return [output_dir / TRUTH_FILE, *save_comp4(output_dir, split, detections, test.to_coco())]


def load_test_set(run: Path, root: str | None) -> DetectionData:
    """Read the test set of a fine-tuning by its config; raise `InputError` if it is not that of its results.

    root: replaces DATASETS.ROOT.
    """
    cfg = load_yaml(run / CONFIG_FILE)
    block: Any = cfg.get("DATASETS")
    if not isinstance(block, dict) or not {"ROOT", "TEST"} <= block.keys():
        raise InputError(f"{run / CONFIG_FILE}: no DATASETS.ROOT or DATASETS.TEST; give the folder of a fine-tuning")
    test = load_data(block["TEST"], root or block["ROOT"], WarningCounter())
    stated = load_results(run)["data"].get("test", {}).get("fingerprint")
    if stated != test.fingerprint:
        raise InputError(
            f"{run} was tested on data of the fingerprint {stated}, but {test.annotations_path} now has "
            f"{test.fingerprint}; restore the data, or give their folder with --root"
        )
    return test
