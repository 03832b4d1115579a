"""Every setting of a suite, with its meaning; `configs/suites/*.yaml` are written in these keys.

A suite pretrains one backbone per row and seed, measures and fine-tunes it, and compares all of them.
OVERRIDES are lists of KEY VALUE for the stage's own config, as on its command line; in them `{data:NAME}` stands for
the folder of that entry of DATA, and in those of a row `{run:LABEL}` and `{chosen:LABEL:KEY}` for what an earlier row
left (suites/references.py).  Files named in CONFIG are looked for below the repository's root.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.core.checks import check_choice, check_range
from backbones.core.config import CfgNode, load_config
from backbones.core.errors import InputError
from suites import grid as grids
from suites.references import as_text, check, find, parse

_C = CfgNode()

# Every row runs once with each of these seeds (pretraining and fine-tuning).
_C.SEEDS = [0]
# What the stages read: a list of entries with the keys of DATA_ENTRY.
_C.DATA = []

# COST, here and below: seconds the stage is expected to take, until one of its kind has been timed; 0: unknown.
_C.PRETRAIN = CfgNode()
# Config file of tools/pretrain.py, unless the row has its own.
_C.PRETRAIN.CONFIG = ""
# For every row; those of the row come after these.
_C.PRETRAIN.OVERRIDES = []
_C.PRETRAIN.COST = 0.0

# tools/evaluate_backbone.py; OVERRIDES change the config of the pretraining.
_C.EVALUATE = CfgNode()
_C.EVALUATE.ENABLED = True
_C.EVALUATE.OVERRIDES = []
_C.EVALUATE.COST = 0.0

# tools/localize.py; OVERRIDES change the config of the pretraining.
_C.LOCALIZE = CfgNode()
_C.LOCALIZE.ENABLED = True
_C.LOCALIZE.OVERRIDES = []
_C.LOCALIZE.COST = 0.0

# The detection protocols: a list of entries with the keys of FINETUNE_ENTRY.  Every backbone goes through each.
_C.FINETUNE = []

# How trainings (pretraining and fine-tuning) are started on this machine; it changes no hash and no folder.
_C.LAUNCH = CfgNode()
# Processes of each, one a GPU, by torchrun.  Batch sizes of the configs are totals; BN sees its process's share.
_C.LAUNCH.NUM_GPUS = 1

# tools/compare.py
_C.COMPARE = CfgNode()
_C.COMPARE.ARGUMENTS = []
_C.COMPARE.COST = 0.0

# The backbones to compare: a list of entries with the keys of ROW_ENTRY.
_C.ROWS = []

DATA_ENTRY: dict[str, Any] = {
    # Name for `{data:NAME}`.
    "NAME": "",
    # Arguments of tools/prepare_data.py, which writes the data set below the suite's output folder ...
    "PREPARE": [],
    # ... or a folder that exists; ~ and $VARIABLES are expanded.  What it holds enters the hashes (images by name and
    # size, all other files by content: suites/data.py), where it lies does not.  Data that a config names itself, such
    # as ${IMAGENET}, does not enter them: a change of it reruns nothing.
    "FOLDER": "",
    "COST": 0.0,
}
DETECTORS = ("finetune_coco", "finetune_voc")
FINETUNE_ENTRY: dict[str, Any] = {
    # Name of the protocol, in messages and folders.
    "NAME": "",
    # finetune_coco (Faster R-CNN) or finetune_voc (YOLO), of tools/ ...
    "TOOL": "finetune_coco",
    # ... and its config file.
    "CONFIG": "",
    "OVERRIDES": [],
    "COST": 0.0,
}
ROW_ENTRY: dict[str, Any] = {
    # Name of the row in every table.
    "LABEL": "",
    # Empty: pretrain one.  random: fine-tune from random initialisation; such a row has no CONFIG and no OVERRIDES.
    "BACKBONE": "",
    # Empty: PRETRAIN.CONFIG.
    "CONFIG": "",
    "OVERRIDES": [],
    # {}: one training.  Else one for every point of a grid, with the keys of GRID_ENTRY (suites/grid.py); the best by
    # validation is the row, and only that is measured, fine-tuned and compared.  Rows with equal points share them.
    "GRID": {},
    # Empty: SEEDS.
    "SEEDS": [],
}


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Read and check a suite; the entries of its lists come back complete, with every override as text.

    Raises:
        InputError: unknown key (with the nearest one), wrong type, a name that stands twice or for nothing.
    """
    cfg = load_config(_C, path, overrides)
    cfg.DATA = _entries(cfg.DATA, DATA_ENTRY, "DATA", "NAME")
    cfg.FINETUNE = _entries(cfg.FINETUNE, FINETUNE_ENTRY, "FINETUNE", "NAME")
    cfg.ROWS = _entries(cfg.ROWS, ROW_ENTRY, "ROWS", "LABEL")
    for block in (cfg.PRETRAIN, cfg.EVALUATE, cfg.LOCALIZE):
        block.OVERRIDES = [as_text(item) for item in block.OVERRIDES]
    _check_seeds(cfg.SEEDS, "SEEDS")
    check_range("LAUNCH.NUM_GPUS", cfg.LAUNCH.NUM_GPUS, 1)
    for entry in cfg.DATA:
        if bool(entry["PREPARE"]) == bool(entry["FOLDER"]):
            raise InputError(f"DATA {entry['NAME']}: give either PREPARE (to write it) or FOLDER (where it is)")
    for row in cfg.ROWS:
        row["GRID"] = grids.complete(row["GRID"], f"ROWS {row['LABEL']}: GRID")
        _check_row(row, cfg)
    _check_references(cfg)
    cfg.freeze()
    return cfg


def _entries(values: Sequence[Any], defaults: Mapping[str, Any], where: str, name_key: str) -> list[dict[str, Any]]:
    """The mappings of a list, checked and filled up with `defaults`; their names differ."""
    entries = [_entry(value, defaults, f"{where}[{i}]", name_key) for i, value in enumerate(values)]
    names = [entry[name_key] for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: {name_key} '{name}' stands twice; give every entry its own")
    return entries


def _entry(value: Any, defaults: Mapping[str, Any], where: str, name_key: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a mapping such as {{{name_key}: x}}, not {value!r}")
    for key, item in value.items():
        check_choice("key", str(key), defaults, where)
        expected = (int, float) if isinstance(defaults[key], float) else type(defaults[key])
        if not isinstance(item, expected) or isinstance(item, bool):
            raise InputError(f"{where}: {key} must be of type {type(defaults[key]).__name__}, not {item!r}")
    if not value.get(name_key):
        raise InputError(f"{where}: {name_key} is missing; every entry needs a name")
    texts = {key: [as_text(i) for i in value[key]] for key in ("OVERRIDES", "PREPARE") if key in value}
    return {**defaults, **value, **texts}


def _check_row(row: Mapping[str, Any], cfg: CfgNode) -> None:
    where = f"ROWS {row['LABEL']}"
    _check_seeds(row["SEEDS"] or cfg.SEEDS, f"{where}: SEEDS")
    if row["BACKBONE"] not in ("", "random"):
        raise InputError(f"{where}: BACKBONE is '{row['BACKBONE']}'; it is 'random', or left out to pretrain one")
    if row["BACKBONE"] and (row["CONFIG"] or row["OVERRIDES"] or row["GRID"]):
        raise InputError(f"{where}: a random backbone is not pretrained; delete its CONFIG, OVERRIDES and GRID")
    if row["GRID"] and not cfg.EVALUATE.ENABLED:  # the report would show the validation that chose it
        raise InputError(f"{where}: a GRID needs EVALUATE, on another split than it is selected on; enable it")
    if row["BACKBONE"] and not cfg.FINETUNE:
        raise InputError(f"{where}: nothing measures a random backbone without FINETUNE; add a protocol")
    if not (row["BACKBONE"] or row["CONFIG"] or cfg.PRETRAIN.CONFIG):
        raise InputError(f"{where}: has no CONFIG and PRETRAIN.CONFIG is empty; name the config of its pretraining")


def _check_seeds(seeds: Sequence[Any], where: str) -> None:
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"{where}: {list(seeds)}: must be one or more different integers from 0 on")


def _check_references(cfg: CfgNode) -> None:
    """Overrides come in pairs and refer to what there is; there is something to run."""
    data = [entry["NAME"] for entry in cfg.DATA]
    lists = {f"{name}.OVERRIDES": cfg[name].OVERRIDES for name in ("PRETRAIN", "EVALUATE", "LOCALIZE")}
    lists |= {f"FINETUNE {entry['NAME']}: OVERRIDES": entry["OVERRIDES"] for entry in cfg.FINETUNE}
    for where, overrides in lists.items():
        _check_pairs(overrides, where)
        if rows := find(overrides, "run", "chosen"):
            raise InputError(f"{where}: '{rows[0]}' has a meaning only in the OVERRIDES or the GRID of a row")
        check(overrides, data, {}, where)
    if not cfg.ROWS:
        raise InputError("ROWS is empty; add a row such as {LABEL: CE, OVERRIDES: [METHOD.NAME, CE]}")
    for number, row in enumerate(cfg.ROWS):
        _check_references_of_row(row, data, {earlier["LABEL"]: earlier for earlier in cfg.ROWS[:number]}, cfg.SEEDS)
    for entry in cfg.FINETUNE:
        if not entry["CONFIG"]:
            raise InputError(f"FINETUNE {entry['NAME']}: CONFIG is missing; name the config of the fine-tuning")
        check_choice("TOOL", entry["TOOL"], DETECTORS, f"FINETUNE {entry['NAME']}")


def _check_references_of_row(
    row: Mapping[str, Any], data: Sequence[str], earlier: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
) -> None:
    where, grid = f"ROWS {row['LABEL']}", row["GRID"]
    _check_pairs(row["OVERRIDES"], f"{where}: OVERRIDES")
    _check_pairs(grid.get("OVERRIDES", []), f"{where}: GRID: OVERRIDES")
    for key in grid.get("KEYS", {}):
        if key in row["OVERRIDES"][::2] or key in grid["OVERRIDES"][::2]:
            raise InputError(f"{where}: GRID: KEYS {key} stands in OVERRIDES, too; delete one")
    texts = [*row["OVERRIDES"], *grids.texts(grid)]
    check(texts, data, earlier, where)
    for text in find(texts, "run", "chosen"):
        of = earlier[parse(text).name]
        missing = [seed for seed in row["SEEDS"] or seeds if seed not in (of["SEEDS"] or seeds)]
        if missing:
            raise InputError(f"{where}: '{text}': that row has no seed {missing[0]}; give both the same SEEDS")


def _check_pairs(overrides: Sequence[str], where: str) -> None:
    if len(overrides) % 2:
        raise InputError(f"{where} come as KEY VALUE pairs; '{overrides[-1]}' has no value")
