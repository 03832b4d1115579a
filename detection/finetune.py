"""One fine-tuning: from a validated config and a backbone to predictions, COCO numbers and results.json.

The engine trains and detects; everything before and after is the same for all engines, so that their numbers mean
the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbones.core.config import CfgNode
from backbones.core.distributed import barrier, is_main, setup_distributed, world_size
from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from backbones.core.matches import MATCHES_FILE
from backbones.core.results import BackboneIdentity, make_results, random_identity, save_results
from backbones.core.run_log import get_logger, hold_log
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile, identity, load_backbone
from detection.config import ROLES, describe_protocol, validate
from detection.config_pairs import warn_pairs
from detection.data.catalog import load_data
from detection.data.records import DetectionData, check_categories, shared_images
from detection.engines import LOADING_FILE, build_engine
from detection.evaluation.evaluators import measure
from detection.evaluation.expected import check_run
from detection.exchange.compatibility import check_spec
from detection.training.run_folder import RunFolder, check_folder, choose_folder

RANDOM = "random"
PREDICTIONS = "predictions.json"


def check_config(cfg: CfgNode) -> None:
    """Check the config by itself and against its engine, which need not be installed; read no data."""
    validate(cfg)
    build_engine(cfg.ENGINE).check_config(cfg)


def load_checked(cfg: CfgNode, backbone: str) -> BackboneFile | None:
    """Check the config against its engine, which must be installed, and its backbone; read no data.

    Args:
        backbone: a pretraining run's folder, a backbone file, or "random".
    """
    check_config(cfg)
    build_engine(cfg.ENGINE).require()
    file = None if backbone == RANDOM else load_backbone(backbone)
    check_spec(file, cfg)
    return file


def finetune(
    cfg: CfgNode, backbone: BackboneFile | None, run_dir: Path, *, resume: bool, eval_only: bool
) -> dict[str, Any]:
    """Train, detect, evaluate; write predictions.json, matches.npz and results.json; return the results.

    Args:
        backbone: of `load_checked`; None is random initialisation.
        run_dir: created, with its config and log, when nothing can be refused any more.
        resume: go on from the run's checkpoint, if there is one.
        eval_only: detect and evaluate with the finished run's checkpoint; `run_folder` says where its results go.
    """
    setup_distributed()
    hold_log()
    check_folder(run_dir, cfg, ROLES, resume=resume, eval_only=eval_only)
    warnings = WarningCounter()
    warn_pairs(cfg, world_size(), warnings)
    train, test = load_both(cfg.DATASETS, cfg.MODEL.ROI_HEADS.NUM_CLASSES, "MODEL.ROI_HEADS.NUM_CLASSES", warnings)
    place = choose_folder(run_dir, cfg, train, test, ROLES, resume=resume, eval_only=eval_only)
    engine = build_engine(cfg.ENGINE)
    predictions = engine.finetune(cfg, backbone, train, test, run_dir, resume, eval_only, place.open)
    results: dict[str, Any] = {}
    if is_main():
        results = save_evaluation(cfg, backbone, train, test, predictions, place, warnings)
        if cfg.TEST.EXPECTED_RESULTS:  # after the results are safe
            results["details"]["expected"] = check_run(
                cfg.TEST.EXPECTED_RESULTS, results["metrics"], len(predictions), run_dir
            )
            save_results(place.results, results)
    barrier()
    return results


def load_both(
    datasets: CfgNode, num_classes: int, key: str, warnings: WarningCounter
) -> tuple[DetectionData, DetectionData]:
    """The training and the test set of DATASETS, whose category list must be as long as the config's `key` says."""
    train = load_data(datasets.TRAIN, datasets.ROOT, warnings)
    same = list(datasets.TRAIN) == list(datasets.TEST)
    test = train if same else load_data(datasets.TEST, datasets.ROOT, warnings)
    check_categories(train, test)
    if len(train.categories) != num_classes:
        raise InputError(f"{key} is {num_classes}, but {train.stated_categories()}; set it to {len(train.categories)}")
    for role, data in (("train", train), ("test", test)):
        log_counts(role, data)
    warnings.log(get_logger())
    return train, test


def count_shared(train: DetectionData, test: DetectionData) -> int:
    """How many test images the detector is trained on (tiny sets without a split; or a slip)."""
    return len(shared_images((r.path for r in train.records), (r.path for r in test.records)))


def log_counts(role: str, data: DetectionData) -> None:
    """One line with the numbers of images, annotations and categories."""
    numbers = data.counts()
    get_logger().info(
        "%s %s: %d images, %d annotations (%d crowd or difficult), %d of %d categories annotated, fingerprint %s",
        role, data.name, numbers["images"], numbers["annotations"], numbers["crowd"],
        numbers["categories_annotated"], numbers["categories"], data.fingerprint,
    )  # fmt: skip


def save_evaluation(
    cfg: CfgNode,
    backbone: BackboneFile | None,
    train: DetectionData,
    test: DetectionData,
    predictions: list[dict[str, Any]],
    place: RunFolder,
    warnings: WarningCounter,
) -> dict[str, Any]:
    """Evaluate the predictions and write what the run leaves."""
    return save_detection(
        name_backbone(cfg, backbone),
        describe_protocol(cfg, train.fingerprint, test.fingerprint),
        train,
        test,
        predictions,
        place,
        warnings,
        score_threshold=cfg.TEST.AP_SCORE_THRESH,
        details={"engine": cfg.ENGINE, "seed": cfg.SEED},
    )


def save_detection(
    who: BackboneIdentity,
    protocol: dict[str, Any],
    train: DetectionData,
    test: DetectionData,
    predictions: list[dict[str, Any]],
    place: RunFolder,
    warnings: WarningCounter,
    *,
    score_threshold: float,
    details: dict[str, Any],
) -> dict[str, Any]:
    """The same for a detector of any config: measure, and write predictions.json, matches.npz and results.json."""
    folder = place.results
    save_json(folder / PREDICTIONS, predictions, indent=None)
    measured = measure(test, predictions, score_threshold, folder / MATCHES_FILE)
    shared = count_shared(train, test)
    loading = load_json(folder / LOADING_FILE) if (folder / LOADING_FILE).exists() else {}
    files = {"predictions": PREDICTIONS, "matches": MATCHES_FILE}
    results = make_results(
        "detection",
        who,
        protocol,
        measured.metrics,
        data={
            "train": {"name": train.name, "fingerprint": train.fingerprint, **train.counts()},
            "test": {
                **{"name": test.name, "fingerprint": test.fingerprint, "area": test.area},
                **{**test.counts(), **measured.counts},
            },
            "test_images_trained_on": shared,
            "evaluated_on_training_images": shared > 0,
        },
        details={
            **details,
            **place.details(),
            **measured.details,
            "frozen": loading.pop("frozen", None),
            "backbone_loading": loading or None,
        },
        warnings=warnings.as_list(),
        files=files if place.changed else files | {"metrics": "metrics.jsonl"},
    )
    save_results(folder, results)
    return results


def name_backbone(cfg: CfgNode, backbone: BackboneFile | None) -> BackboneIdentity:
    """Whose result this is; LABEL renames the row."""
    known = random_identity(cfg.SEED) if backbone is None else identity(backbone)
    return BackboneIdentity(cfg.LABEL or known.label, known.method, known.seed, known.hash)
