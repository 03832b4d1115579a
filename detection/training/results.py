"""Write the results of a fine-tuning for the comparison: predictions.json, matches.npz and results.json."""

from typing import Any

from backbones.core.config import CfgNode
from backbones.core.files import load_json, save_json
from backbones.core.matches import MATCHES_FILE
from backbones.core.results import make_results, save_results
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile
from detection.data.records import DetectionData, shared_images
from detection.engines import build_engine
from detection.engines.base import Detections
from detection.evaluation.evaluators import Measured, measure
from detection.evaluation.expected import check_run
from detection.training.fitting import LOADING_FILE
from detection.training.run_folder import RunFolder

PREDICTIONS = "predictions.json"


def save_evaluation(
    cfg: CfgNode,
    backbone: BackboneFile | None,
    train: DetectionData,
    test: DetectionData,
    predictions: Detections,
    place: RunFolder,
    warnings: WarningCounter,
) -> dict[str, Any]:
    """Evaluate the predictions, write the run's files, and compare with TEST.EXPECTED_RESULTS, if any.

    Returns:
        the content of results.json.
    """
    engine, folder = build_engine(cfg.ENGINE), place.results
    save_json(folder / PREDICTIONS, predictions, indent=None)
    measured = measure(test, predictions, cfg.TEST.AP_SCORE_THRESH, folder / MATCHES_FILE)
    loading = load_json(folder / LOADING_FILE) if (folder / LOADING_FILE).exists() else {}
    files = {"predictions": PREDICTIONS, **measured.files}
    results = make_results(
        "detection",
        engine.name_row(cfg, backbone),
        engine.describe_protocol(cfg, train.fingerprint, test.fingerprint),
        measured.metrics,
        data=describe_data(train, test, measured),
        details={
            **{"engine": cfg.ENGINE, "seed": cfg.SEED, **engine.details(cfg, backbone, place.run)},
            **place.details(),
            **measured.details,
            "frozen": loading.pop("frozen", None),
            "backbone_loading": loading or None,
        },
        warnings=warnings.as_list(),
        files=files if place.changed else files | {"metrics": "metrics.jsonl"},
    )
    save_results(folder, results)
    if "EXPECTED_RESULTS" in cfg.TEST and cfg.TEST.EXPECTED_RESULTS:  # after the results are safe
        expected, metrics = cfg.TEST.EXPECTED_RESULTS, results["metrics"]
        results["details"]["expected"] = check_run(expected, metrics, len(predictions), place.run)
        save_results(folder, results)
    return results


def describe_data(train: DetectionData, test: DetectionData, measured: Measured) -> dict[str, Any]:
    """Return names, fingerprints and counts of both data sets, and whether they share images."""
    shared = count_shared(train, test)
    return {
        "train": {"name": train.name, "fingerprint": train.fingerprint, **train.counts()},
        "test": {
            **{"name": test.name, "fingerprint": test.fingerprint, "area": test.area},
            **{**test.counts(), **measured.counts},
        },
        "test_images_trained_on": shared,
        "evaluated_on_training_images": shared > 0,
    }


def count_shared(train: DetectionData, test: DetectionData) -> int:
    """Count the test images that the detector is trained on (tiny data sets without a split, or a mistake)."""
    return len(shared_images((r.path for r in train.records), (r.path for r in test.records)))
