"""Write the results of a fine-tuning for the comparison: predictions.json, matches.npz and results.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.core.config import CfgNode, load_yaml
from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from backbones.core.imports import describe_imports
from backbones.core.matches import MATCHES_FILE
from backbones.core.results import make_results, save_results
from backbones.core.runs import CONFIG_FILE
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile
from detection.data.catalog import load_data
from detection.data.records import DetectionData, RunData, shared_images
from detection.engines import build_engine
from detection.evaluation.evaluators import Measured, measure
from detection.evaluation.expected import check_run
from detection.training.best import measured_with
from detection.training.fitting import LOADING_FILE, Fitted
from detection.training.run_folder import RunFolder

PREDICTIONS = "predictions.json"
UNREADABLE = "data set of the choice by TEST.BEST is not readable: its images may be among the test images"


def save_evaluation(
    cfg: CfgNode,
    backbone: BackboneFile | None,
    data: RunData,
    found: Fitted,
    place: RunFolder,
    warnings: WarningCounter,
) -> dict[str, Any]:
    """Evaluate the predictions, write the run's files, and compare with TEST.EXPECTED_RESULTS, if any.

    Returns:
        the content of results.json.
    """
    engine, folder = build_engine(cfg.ENGINE), place.results
    save_json(folder / PREDICTIONS, found.detections, indent=None)
    measured = measure(data.test, found.detections, cfg.TEST.AP_SCORE_THRESH, folder / MATCHES_FILE)
    loading = load_json(folder / LOADING_FILE) if (folder / LOADING_FILE).exists() else {}
    files = {"predictions": PREDICTIONS, **measured.files}
    chosen = find_chosen_on(cfg, place.run, data, found.choice, warnings) if found.choice else None
    results = make_results(
        "detection",
        engine.name_row(cfg, backbone),
        engine.describe_protocol(cfg, data.train.fingerprint, data.test.fingerprint, *chosen_on(cfg, found.choice)),
        measured.metrics,
        data=describe_data(data, measured, found.choice, chosen),
        details={
            **{"engine": cfg.ENGINE, "seed": cfg.SEED, **engine.details(cfg, backbone, place.run)},
            **place.details(),
            **measured.details,
            **({"best": found.choice} if found.choice else {}),
            **describe_imports(cfg),
            "frozen": loading.pop("frozen", None),
            "backbone_loading": loading or None,
        },
        warnings=warnings.as_list(),
        files=files if place.changed else files | {"metrics": "metrics.jsonl"},
    )
    save_results(folder, results)
    if "EXPECTED_RESULTS" in cfg.TEST and cfg.TEST.EXPECTED_RESULTS:  # after the results are safe
        expected, metrics = cfg.TEST.EXPECTED_RESULTS, results["metrics"]
        results["details"]["expected"] = check_run(expected, metrics, len(found.detections), place.run)
        save_results(folder, results)
    return results


def chosen_on(cfg: CfgNode, choice: Mapping[str, Any]) -> list[str]:
    """Return what else the protocol of a choice by TEST.BEST depends on: its data, and other settings of its test."""
    if not choice:
        return []
    now = measured_with(cfg, build_engine(cfg.ENGINE).roles)
    return [choice["fingerprint"], *([choice["settings"]] if choice["settings"] != now else [])]


def find_chosen_on(
    cfg: CfgNode, run: Path, data: RunData, choice: Mapping[str, Any], warnings: WarningCounter
) -> DetectionData | None:
    """Return the data set on which TEST.BEST chose; None, which is counted, if it cannot be read any more.

    Without DATASETS.VAL, it is the run's own test set, which `--eval-only` can replace in `data`.
    """
    if choice["fingerprint"] == data.test.fingerprint:
        return data.test
    if data.val:
        return data.val
    path, problem = run / CONFIG_FILE, ""
    for root in (None, cfg.DATASETS.ROOT):  # None: as the run states it
        try:
            block = load_yaml(path)["DATASETS"]
            own = load_data(block["TEST"], block["ROOT"] if root is None else root, WarningCounter())
        except InputError as error:
            problem = problem or str(error)
            continue
        if own.fingerprint == choice["fingerprint"]:
            return own
        problem = f"{own.annotations_path} has changed"
    warnings.add(UNREADABLE, f"DATASETS.TEST of {path}: {problem}")
    return None


def describe_data(
    data: RunData, measured: Measured, choice: Mapping[str, Any], chosen_on: DetectionData | None = None
) -> dict[str, Any]:
    """Return names, fingerprints and counts of the data sets, and whether they share images with the test set.

    Args:
        chosen_on: the data set on which TEST.BEST made `choice`; None: unknown, any test image can be of it, or no
            choice.
    """
    train, test, val = data
    shared = count_shared(train, test)
    described = {
        "train": {"name": train.name, "fingerprint": train.fingerprint, **train.counts()},
        "test": {
            **{"name": test.name, "fingerprint": test.fingerprint, "area": test.area},
            **{**test.counts(), **measured.counts},
        },
        "test_images_trained_on": shared,
        "evaluated_on_training_images": shared > 0,
    }
    if val:
        described["val"] = {"name": val.name, "fingerprint": val.fingerprint, **val.counts()}
    if chosen_on is not None:
        chosen = len(test.records) if chosen_on is test else count_shared(chosen_on, test)
        described |= {"test_images_chosen_on": chosen, "chosen_on_test_images": chosen > 0}
    elif choice:
        described["chosen_on_test_images"] = True
    return described


def count_shared(other: DetectionData, test: DetectionData) -> int:
    """Count the test images that are also in another data set (tiny data sets without a split, or a mistake)."""
    return len(shared_images((r.path for r in other.records), (r.path for r in test.records)))
