"""One fine-tuning: from a checked config and a backbone to predictions, metrics and results.json.

An engine trains and detects (detection/engines/base.py); everything before and after is shared by all engines, so that
their metrics are comparable.
"""

from pathlib import Path
from typing import Any

from backbones.core.arguments import KEEP_ALL
from backbones.core.config import CfgNode, flatten
from backbones.core.distributed import barrier, is_main, setup_distributed
from backbones.core.errors import InputError
from backbones.core.run_log import get_logger, hold_log
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import NEW_NORMS, BackboneFile, has_new_norms, load_backbone
from detection.choice import check_settings, validation_name
from detection.data.catalog import load_data
from detection.data.records import DetectionData, RunData, check_categories, shared_images
from detection.engines import build_engine
from detection.exchange.detections import save_truth_once
from detection.training.best import check_metric
from detection.training.evaluating import write_last
from detection.training.fitting import fit
from detection.training.results import save_evaluation
from detection.training.run_folder import check_folder, choose_folder

RANDOM = "random"
# Value of NUM_CLASSES that stands for the number of categories of the data.
FROM_DATA = 0


def check_config(cfg: CfgNode) -> None:
    """Check the config on its own and against its engine, which need not be installed; reads no data."""
    build_engine(cfg.ENGINE).check_config(cfg)
    check_settings(cfg)


def load_checked(cfg: CfgNode, backbone: str) -> BackboneFile | None:
    """Check the config against its engine, which must be installed, and load and check its backbone; reads no data.

    Args:
        backbone: a pretraining run's folder, a backbone file, or "random".
    """
    engine = build_engine(cfg.ENGINE)
    check_config(cfg)
    engine.require()
    file = None if backbone == RANDOM else load_backbone(backbone)
    engine.check_backbone(cfg, file)
    return file


def finetune(
    cfg: CfgNode,
    backbone: BackboneFile | None,
    run_dir: Path,
    *,
    resume: bool,
    eval_only: bool,
    truth_dir: Path | None = None,
    keep: str = KEEP_ALL,
) -> dict[str, Any]:
    """Train, detect, evaluate; write predictions.json, matches.npz and results.json; return the results.

    Args:
        backbone: from `load_checked`; None is random initialisation.
        run_dir: created, with its config and log, after all checks.
        resume: resume from the run's checkpoint, if it exists.
        eval_only: detect and evaluate with the finished run's checkpoint; see `run_folder` for where the results go.
        truth_dir: folder for the test set's ground truth, which runs can share; None: it is not written.
        keep: what the last checkpoint holds (backbones/core/arguments.py).

    Returns:
        the content of results.json on the main process, {} on others.
    """
    device = setup_distributed()
    hold_log()
    engine = build_engine(cfg.ENGINE)
    warnings, key, data = WarningCounter(), engine.num_classes, None
    if dict(flatten(cfg))[key] == FROM_DATA:
        data = load_all(cfg, key, warnings)
        cfg = set_value(cfg, key, len(data.train.categories))  # from here on as if it had been written in the config
    check_folder(run_dir, cfg, engine.roles, resume=resume, eval_only=eval_only)
    engine.warn(cfg, warnings)
    if backbone and has_new_norms(backbone.state):
        warnings.add(NEW_NORMS, backbone.name)
    data = data or load_all(cfg, key, warnings)
    train, test, val = data
    check_metric(cfg, val or test)
    place = choose_folder(run_dir, cfg, train, test, engine.roles, resume=resume, eval_only=eval_only)
    if truth_dir and is_main():
        save_truth_once(test, truth_dir)
    modes = {"resume": resume, "eval_only": eval_only, "keep": keep, "begin": place.open}
    found = fit(cfg, backbone, train, test, run_dir, device, val=val, **modes)
    results = save_evaluation(cfg, backbone, data, found, place, warnings) if is_main() else {}
    if not eval_only:
        write_last(run_dir, cfg, results.get("metrics", {}))
    barrier()
    return results


def load_all(cfg: CfgNode, key: str, warnings: WarningCounter) -> RunData:
    """Load the data of DATASETS; the config's `key` is their number of categories, or FROM_DATA."""
    datasets, num_classes = cfg.DATASETS, dict(flatten(cfg))[key]
    train, test, val = tuple(datasets.TRAIN), tuple(datasets.TEST), (validation_name(cfg),)
    loaded: dict[tuple[str, ...], DetectionData] = {}
    for names in (train, test, val):
        if names not in loaded and any(names):
            loaded[names] = load_data(names, datasets.ROOT, warnings)
            check_categories(loaded[train], loaded[names])
    data = RunData(loaded[train], loaded[test], loaded.get(val))
    if num_classes not in (FROM_DATA, len(data.train.categories)):
        count = len(data.train.categories)
        raise InputError(f"{key} is {num_classes}, but {data.train.stated_categories()}; set it to {count}")
    if data.val:
        warn_of_validation(data.train, data.val, warnings)
    for role, one in data._asdict().items():
        if one:
            log_counts(role, one)
    warnings.log(get_logger())
    return data


def warn_of_validation(train: DetectionData, val: DetectionData, warnings: WarningCounter) -> None:
    """Count the validation images that are trained on; refuse a validation set without a box."""
    if not any((~record.iscrowd).any() for record in val.records):
        raise InputError(f"DATASETS.VAL: {val.annotations_path}: no image has a box to find; use another data set")
    for path in shared_images((r.path for r in train.records), (r.path for r in val.records)):
        warnings.add("validation image that is trained on", path)


def set_value(cfg: CfgNode, key: str, value: Any) -> CfgNode:
    """Return a frozen copy of `cfg` with another value of the dotted `key`."""
    changed = cfg.clone()
    changed.defrost()
    changed.merge_from_list([key, value])
    changed.freeze()
    return changed


def log_counts(role: str, data: DetectionData) -> None:
    """Log one line with the numbers of images, annotations and categories."""
    numbers = data.counts()
    get_logger().info(
        "%s %s: %d images, %d annotations (%d crowd or difficult), %d of %d categories annotated, fingerprint %s",
        role, data.name, numbers["images"], numbers["annotations"], numbers["crowd"],
        numbers["categories_annotated"], numbers["categories"], data.fingerprint,
    )  # fmt: skip
