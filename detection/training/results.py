"""Write the results of a fine-tuning for the comparison: predictions.json, matches.npz and results.json."""

from collections.abc import Mapping
from typing import Any

from backbones.core.config import CfgNode
from backbones.core.files import load_json, save_json
from backbones.core.matches import MATCHES_FILE
from backbones.core.results import make_results, save_results
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile
from detection.data.records import DetectionData, RunData, shared_images
from detection.engines import build_engine
from detection.evaluation.evaluators import Measured, measure
from detection.evaluation.expected import check_run
from detection.training.best import measured_with
from detection.training.fitting import LOADING_FILE, Fitted
from detection.training.run_folder import RunFolder

PREDICTIONS = "predictions.json"


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
    results = make_results(
        "detection",
        engine.name_row(cfg, backbone),
        engine.describe_protocol(cfg, data.train.fingerprint, data.test.fingerprint, *chosen_on(cfg, found.choice)),
        measured.metrics,
        data=describe_data(data, measured, found.choice),
        details={
            **{"engine": cfg.ENGINE, "seed": cfg.SEED, **engine.details(cfg, backbone, place.run)},
            **place.details(),
            **measured.details,
            **({"best": found.choice} if found.choice else {}),
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


def describe_data(data: RunData, measured: Measured, choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return names, fingerprints and counts of the data sets, and whether they share images with the test set."""
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
    if choice:
        same = choice["fingerprint"] == test.fingerprint
        chosen = len(test.records) if same else count_shared(val, test) if val else 0
        described |= {"test_images_chosen_on": chosen, "chosen_on_test_images": chosen > 0}
    return described


def count_shared(other: DetectionData, test: DetectionData) -> int:
    """Count the test images that are also in another data set (tiny data sets without a split, or a mistake)."""
    return len(shared_images((r.path for r in other.records), (r.path for r in test.records)))
