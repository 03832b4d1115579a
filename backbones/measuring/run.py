"""Code shared by the tools that measure a finished pretraining run: run, data, table."""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from backbones.config import get_defaults, validate
from backbones.core.choices import EPOCH, GRID, choice, chosen_on
from backbones.core.config import CfgNode, config_hash, expand_path, flatten
from backbones.core.errors import InputError
from backbones.core.files import load_json, save_atomic
from backbones.core.imports import load_config_with_imports
from backbones.core.results import FILE_NAME as RESULTS
from backbones.core.results import IMPORT_FILE, load_results
from backbones.core.runs import CONFIG_FILE
from backbones.core.warning_counter import WarningCounter
from backbones.data.samples import Samples, log_samples
from backbones.measuring.context import check_fills
from backbones.measuring.predictions import Inputs, Predictions
from backbones.models.weights import FILE_NAME as BACKBONE
from backbones.models.weights import BackboneFile, differing_classes, load_backbone
from backbones.pretraining.building import read_split

SPLITS_KEPT = 4  # by `read_once`; an evaluation reads up to three, the other measures one each
# Keys of DATA that name splits; the reading depends on the one that is read.
_SPLITS = ("VAL_SPLIT", "SHIFTED_SPLIT")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What was read within `read_once`, by all that it depends on."""

    splits: dict[Hashable, tuple[Samples, WarningCounter]] = dataclasses.field(default_factory=dict)
    backbones: dict[Hashable, BackboneFile] = dataclasses.field(default_factory=dict)


_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Within this context, read each split and each backbone file once, for tools that run one after the other.

    Results and warnings equal those of tools that read for themselves, provided that the files of the data set do not
    change in between; a backbone file that was replaced is read again.  The last SPLITS_KEPT splits and the last
    backbone are kept until the context ends.
    """
    token = _kept.set(_Kept())
    try:
        yield
    finally:
        _kept.reset(token)


def load_run(run: str | Path, overrides: Sequence[str]) -> tuple[CfgNode, BackboneFile]:
    """Load the validated config (with `KEY VALUE` overrides) and the backbone of a pretraining run's folder."""
    folder = Path(run)
    config = (folder if folder.is_dir() else folder.parent) / CONFIG_FILE
    if not config.is_file():
        load_backbone(folder)  # refuses a folder that is not a run at all
    cfg = load_config_with_imports(get_defaults, config, overrides)
    validate(cfg)
    cfg.freeze()
    return cfg, _read_backbone(folder)


def _read_backbone(path: Path) -> BackboneFile:
    kept, file = _kept.get(), path / BACKBONE if path.is_dir() else path
    if kept is None or not file.is_file():
        return load_backbone(path)
    stat = file.stat()
    key = (Path.cwd(), str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return _once(kept.backbones, 1, key, lambda: load_backbone(path))


def build_samples(cfg: CfgNode, split: str, backbone: BackboneFile, warnings: WarningCounter) -> Samples:
    """Read one split; its classes must be those of the backbone, in the same order."""
    samples, counted = _read_samples(cfg, split)
    warnings.merge(counted)
    log_samples(samples)
    refuse_other_classes(samples, backbone, f"{cfg.DATA.ROOT} '{split}'")
    return samples


def _read_samples(cfg: CfgNode, split: str) -> tuple[Samples, WarningCounter]:
    """Return a split, whose arrays are read-only, and the warnings of its reading."""

    def read() -> tuple[Samples, WarningCounter]:
        counted = WarningCounter()
        samples = read_split(cfg, split, counted)
        _make_read_only(samples)
        return samples, counted

    if (kept := _kept.get()) is None:
        return read()
    data = {name: value for name, value in cfg.DATA.items() if name not in _SPLITS}
    place = str(expand_path(cfg.DATA.ROOT).absolute())
    key = config_hash({"data": data, "place": place, "split": split, "seed": cfg.SEED})
    return _once(kept.splits, SPLITS_KEPT, key, read)


def _once(kept: dict[Hashable, _T], limit: int, key: Hashable, read: Callable[[], _T]) -> _T:
    """Return the kept value of a key, or read it and keep it instead of the oldest."""
    if key not in kept:
        while len(kept) >= limit:  # before reading, which then needs no memory for one more
            del kept[next(iter(kept))]
        kept[key] = read()
    return kept[key]


def _make_read_only(holder: Any) -> None:
    """Make the arrays of a data class read-only, and those of the data classes in it."""
    for name in (field.name for field in dataclasses.fields(holder)):
        value = getattr(holder, name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        elif dataclasses.is_dataclass(value):
            _make_read_only(value)


def refuse_other_classes(samples: Samples, backbone: BackboneFile, where: str) -> None:
    """Raise `InputError` unless output k of the backbone is class k of the data: all numbers would be wrong.

    where: name of the data for the message.
    """
    own = backbone.spec["classes"]
    if difference := differing_classes(own, samples.classes):
        numbered = list(own) == [str(k) for k in range(len(own))]
        advice = "set DATA.ROOT to the data of its pretraining"
        if "source" in backbone.provenance:  # imported
            names = "name its outputs" if numbered else "name them in the order of its outputs"
            advice = f"{names} with --classes of tools/import_backbone.py, or {advice}"
        raise InputError(
            f"the {len(samples.classes)} classes of {where} are not the {len(own)} that the backbone was trained for "
            f"({difference}); {advice}"
        )


def compare_with_data(cfg: CfgNode, backbone: BackboneFile) -> str:
    """Refuse the backbone if its classes are not those of the config's data; return whether they were compared."""
    if not backbone.spec["num_classes"]:
        return "without classes to compare with the data"
    if not expand_path(cfg.DATA.ROOT).is_dir():
        return f"its classes were not compared with the data: no folder {cfg.DATA.ROOT} (DATA.ROOT)"
    samples = read_split(cfg, cfg.DATA.VAL_SPLIT, WarningCounter())
    refuse_other_classes(samples, backbone, f"{cfg.DATA.ROOT} '{cfg.DATA.VAL_SPLIT}'")
    return f"its classes are those of {cfg.DATA.ROOT}, in the same order"


def build_inputs(cfg: CfgNode, device: torch.device) -> Inputs:
    """Return the settings of the network's input in evaluation, from the config."""
    return Inputs(
        resize=cfg.DATA.EVAL_RESIZE,
        stretch=cfg.DATA.EVAL_STRETCH,
        crop=cfg.DATA.EVAL_CROP,
        mean=list(cfg.DATA.MEAN),
        std=list(cfg.DATA.STD),
        batch_size=cfg.EVAL.BATCH_SIZE,
        num_workers=cfg.DATA.NUM_WORKERS,
        precision=cfg.PRECISION,
        device=device,
    )


def changed_settings(cfg: CfgNode, measured: Samples) -> dict:
    """Return the EVAL settings for the protocol, without those at their defaults.

    Thus a new option does not change the hash of existing protocols.  How many images a drawn split has depends on the
    seed, which must not change the hash either.
    """
    asked = {}
    if cfg.EVAL.CONTEXT and list(cfg.EVAL.CONTEXT_FILLS) != ["mean"]:
        asked["context_fills"] = list(cfg.EVAL.CONTEXT_FILLS)
    if measured.drawn or len(measured) > cfg.EVAL.PYCALIB_SIZE:
        asked["pycalib"] = [cfg.EVAL.PYCALIB_SPLITS, cfg.EVAL.PYCALIB_SIZE]
    if cfg.EVAL.TEMPERATURE_SPLIT:
        asked["temperature_split"] = cfg.EVAL.TEMPERATURE_SPLIT
    if cfg.EVAL.HUMAN_LABELS:
        asked["human_labels"] = True
    return asked


def check_evaluation(cfg: CfgNode) -> None:
    """Check the settings that only tools/evaluate_backbone.py reads.

    Raises:
        InputError: an unknown fill in EVAL.CONTEXT_FILLS, or a temperature measured on the images that it is
            fitted on.
    """
    if cfg.EVAL.CONTEXT:
        check_fills(cfg.EVAL.CONTEXT_FILLS, "EVAL.CONTEXT_FILLS")
    if cfg.EVAL.TEMPERATURE_SPLIT == cfg.DATA.VAL_SPLIT:
        raise InputError(
            f"EVAL.TEMPERATURE_SPLIT '{cfg.EVAL.TEMPERATURE_SPLIT}' is the measured split (DATA.VAL_SPLIT); set "
            "another split, or leave it empty to fit on one half of the measured split and measure on the other"
        )


def find_choices(run: Path, cfg: CfgNode, splits: Sequence[str], warnings: WarningCounter) -> dict[str, list[str]]:
    """Return `details.chosen_on_measured`: what the pretraining chose on the measured splits.

    Their numbers are then too good, which a warning for each choice says, too.
    """
    folder = run if run.is_dir() else run.parent
    trained = load_config_with_imports(get_defaults, folder / CONFIG_FILE)
    found = chosen_on(_choices_of(folder, trained), splits) if trained.DATA.NAME == cfg.DATA.NAME else []
    for what in found:
        warnings.add(f"measured split on which the {what} was chosen", trained.DATA.VAL_SPLIT)
    return {"chosen_on_measured": found}


def _choices_of(folder: Path, trained: CfgNode) -> list[dict[str, str]]:
    """Return the choices that a run's results name; of an earlier version, those that its config tells."""
    path, imported = folder / RESULTS, folder / IMPORT_FILE
    if imported.is_file() and not path.is_file():
        return load_json(imported)["choices"]
    details = load_results(path)["details"] if path.is_file() else {}
    if "choices" in details:
        return details["choices"]
    split, found = trained.DATA.VAL_SPLIT, [GRID] if "selection" in details else []
    return [choice(what, split) for what in (*found, *([EPOCH] if trained.EVAL.REPORT == "best" else []))]


def describe_protocol(name: str, settings: Mapping[str, Any], splits: Sequence[Samples]) -> dict[str, Any]:
    """Return the protocol for results.json, of how images are measured, and of which.

    A split drawn with the run's seed counts by the setting of the draw instead of by its images and boxes, whose
    numbers depend on the seed: all seeds share one protocol.
    """
    if held := max(samples.drawn for samples in splits):
        settings = {**settings, "held_out": held}
    data = {}
    for samples in splits:
        left_out = ("images", "boxes") if samples.drawn else ()
        data[samples.split] = {key: v for key, v in _describe_samples(samples).items() if key not in left_out}
    return {"name": name, "hash": config_hash({**settings, **data}), "settings": dict(flatten(settings))}


def describe_data(splits: Sequence[Samples]) -> dict[str, dict]:
    """Return the entry of each split in results.json, by its name."""
    return {samples.split: _describe_samples(samples) for samples in splits}


def _describe_samples(samples: Samples) -> dict:
    return {
        "name": samples.name,
        "images": len(samples),
        "boxes": len(samples.boxes),
        "classes": len(samples.classes),
        # Fingerprint of the data before any draw with the run's seed, so that all seeds share one protocol.
        "fingerprint": samples.source,
    }


def save_predictions(path: Path, predictions: dict[str, Predictions]) -> None:
    """Write `<split>_logits` (n, K), `<split>_labels` (n,) and `<split>_index` (n,) of each split to an .npz."""
    arrays = {
        f"{split}_{name}": getattr(found, name)
        for split, found in predictions.items()
        for name in ("logits", "labels", "index")
    }
    save_atomic(path, lambda temporary: np.savez(temporary, **arrays), arrays)


def print_table(label: str, metrics: dict[str, float | None], names: Sequence[str]) -> None:
    """Print the main metrics."""
    print(label)
    for name in names:
        value = metrics[name]
        print(f"  {name:<34}{'-' if value is None else f'{value:.4f}'}")
