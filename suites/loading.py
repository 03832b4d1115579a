"""Read a suite and report errors by key: wrong types, contradictions, references to nothing."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from backbones.core.checks import ABOVE_0, check_choice, check_range
from backbones.core.config import expand_path, load_config, load_yaml
from backbones.core.errors import InputError
from suites.config import DEFAULTS, DETECTORS, EXECUTORS, RANDOM, Row, Suite
from suites.entries import read
from suites.references import CHOSEN, RUN, check, find, parse
from suites.stages import KINDS
from suites.stages.adoption import CLASSES, SOURCE
from suites.stages.options import BUNDLE, READ_BY_COMPARE, locate, refuse_options, refuse_short
from suites.stages.resources import KEEPS, Resources

# Shortest time limit of a job in minutes: submitit takes any end of a shorter one for the time limit.
SHORTEST = 30
# Options of sbatch that decide whether a stage runs exactly once.
OURS = ("array", "dependency", "error", "job-name", "kill-on-invalid-dep", "open-mode", "output", "requeue", "signal")
# Options of tools/prepare_data.py and of tools/import_backbone.py that the suite sets.
SET_BY_PREPARE = ("--output-dir", "--overwrite")
SET_BY_SUITE = ("--checkpoint", "--label", "--seed", "--output", "--output-dir", "--overwrite", "--config-file")


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Read and check a suite: its yaml, its `_BASE_` files and KEY VALUE pairs of a command line.

    Raises:
        InputError: unknown key (with the closest match), wrong type, duplicate name, or reference to nothing.
    """
    suite = read(Suite, load_config(DEFAULTS, path, overrides, tree=load_yaml(path, locate_paths)))
    _check_suite(suite)
    return suite


def locate_paths(tree: dict, folder: Path) -> None:
    """Make the paths of a suite's yaml file in `folder` absolute.

    BACKBONE and the files in IMPORT and COMPARE.ARGUMENTS are relative to it, CONFIG and FOLDER if they exist there.
    """
    if isinstance(block := tree.get("COMPARE"), dict) and isinstance(words := block.get("ARGUMENTS"), list):
        block["ARGUMENTS"] = locate(words, (*READ_BY_COMPARE, BUNDLE), folder)
    entries = [tree.get("PRETRAIN"), *(one for key in ("DATA", "FINETUNE", "ROWS") for one in _list(tree.get(key)))]
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        for key in ("CONFIG", "FOLDER"):
            if isinstance(text := entry.get(key), str) and text:
                with suppress(InputError):  # a variable that is not set: refused where the path is used
                    entry[key] = str(there.absolute()) if (there := folder / expand_path(text)).exists() else text
        if isinstance(text := entry.get("BACKBONE"), str) and text not in ("", RANDOM):
            entry["BACKBONE"] = str((folder / expand_path(text)).absolute())
        if isinstance(words := entry.get("IMPORT"), list):
            entry["IMPORT"] = locate(words, (CLASSES,), folder)


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _check_suite(suite: Suite) -> None:
    _check_seeds(suite.seeds, "SEEDS")
    _check_seeds(suite.finetune_seeds or suite.seeds, "FINETUNE_SEEDS")
    check_range("LAUNCH.NUM_GPUS", suite.launch.num_gpus, 1)
    check_range("LAUNCH.JOBS", suite.launch.jobs, 0)
    check_range("LAUNCH.RETRIES", suite.launch.retries, 0)
    check_choice("KEEP", suite.keep, KEEPS)
    check_range("COMPARE.MARGIN", suite.compare.margin, 0)
    refuse_options(suite.compare.arguments, ("--output-dir",), "COMPARE.ARGUMENTS")
    refuse_short(suite.compare.arguments, (*READ_BY_COMPARE, BUNDLE), "COMPARE.ARGUMENTS")
    check_choice("LAUNCH.EXECUTOR", suite.launch.executor, EXECUTORS)
    check_range("CLUSTER.TIME", suite.cluster.time, SHORTEST)
    _check_options(suite.cluster.extra, "CLUSTER.EXTRA")
    for kind in KINDS:
        _check_resources(suite.resources_of(kind), f"RESOURCES.{kind.upper()}", trains=KINDS[kind].trains)
    for entry in suite.data:
        if bool(entry.prepare) == bool(entry.folder):
            raise InputError(f"DATA {entry.name}: give either PREPARE (to write it) or FOLDER (where it is)")
        refuse_options(entry.prepare, SET_BY_PREPARE, f"DATA {entry.name}: PREPARE")
        if entry.prepare and entry.prepare[0].startswith("-"):
            raise InputError(
                f"DATA {entry.name}: PREPARE begins with {entry.prepare[0]}; put the data set's name first"
            )
    for row in suite.rows:
        _check_row(row, suite)
    _check_references(suite)


def _check_resources(resources: Resources, where: str, *, trains: bool) -> None:
    for name in ("threads", "cores", "gpus", "nodes", "parallel"):
        check_range(f"{where}.{name.upper()}", getattr(resources, name), 1 if name in ("threads", "nodes") else 0)
    if resources.nodes > 1 and not trains:
        raise InputError(f"{where}.NODES is {resources.nodes}; only trainings run on several nodes, leave it out")
    check_range(f"{where}.MEMORY", resources.memory, ABOVE_0)
    if resources.time:
        check_range(f"{where}.TIME", resources.time, SHORTEST)
    _check_options(resources.extra, f"{where}.EXTRA")


def _check_options(options: Sequence[str], where: str) -> None:
    for option in options:
        name = option.removeprefix("--").partition("=")[0]
        if not option.startswith("--") or not name or " " in name:
            raise InputError(f"{where}: '{option}' must be an option of sbatch such as --exclusive or --mem=8G")
        if name in OURS:
            raise InputError(f"{where}: --{name} is set by the suite; leave it out")


def _check_row(row: Row, suite: Suite) -> None:
    where = f"ROWS {row.label}"
    _check_seeds(suite.seeds_of(row), f"{where}: SEEDS")
    check_range(f"{where}: SEED_OFFSET", row.seed_offset, 0, 2**30)
    if row.seed_offset and (row.backbone or row.grid):
        raise InputError(f"{where}: SEED_OFFSET makes it a teacher, which is one pretraining; delete BACKBONE or GRID")
    if row.adopted:
        _check_adopted(row, suite, where)
    elif row.import_:
        meant = "delete it" if row.backbone else "name the file in BACKBONE (code of your own: IMPORTS)"
        raise InputError(f"{where}: IMPORT says how to read a BACKBONE file, but there is none; {meant}")
    if row.backbone == RANDOM and (row.config or row.overrides or row.grid):
        raise InputError(f"{where}: a random backbone is not pretrained; delete its CONFIG, OVERRIDES and GRID")
    if row.grid and not suite.evaluate.enabled:  # the report would show the validation that chose it
        raise InputError(f"{where}: a GRID needs EVALUATE, on another split than it is selected on; enable it")
    if row.backbone == RANDOM and not suite.finetune:
        raise InputError(f"{where}: nothing measures a random backbone without FINETUNE; add a protocol")
    if not (row.backbone or row.config or suite.pretrain.config):
        raise InputError(f"{where}: has no CONFIG and PRETRAIN.CONFIG is empty; name the config of its pretraining")


def _check_adopted(row: Row, suite: Suite, where: str) -> None:
    """Check a row whose BACKBONE is a file."""
    if row.grid:
        raise InputError(f"{where}: the BACKBONE of a file is not trained, so nothing can be chosen; delete its GRID")
    if not row.config and (row.overrides or row.imports):
        key = "OVERRIDES" if row.overrides else "IMPORTS"
        raise InputError(f"{where}: {key} change the CONFIG that measures BACKBONE, but it has none; add it, or delete")
    measured = row.config and any(block.enabled for block in (suite.evaluate, suite.localize, suite.attack))
    if not (measured or suite.finetune):
        raise InputError(f"{where}: nothing measures its BACKBONE; add a FINETUNE protocol, or the row's CONFIG")
    refuse_options(row.import_, SET_BY_SUITE, f"{where}: IMPORT")
    refuse_short(row.import_, (CLASSES, SOURCE), f"{where}: IMPORT")
    if row.import_ and not row.import_[0].startswith("-"):
        raise InputError(f"{where}: IMPORT begins with '{row.import_[0]}'; write options: [--source, torchvision, ...]")


def _check_seeds(seeds: Sequence[Any], where: str) -> None:
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"{where}: {list(seeds)}: must be one or more different integers of at least 0")


def _check_references(suite: Suite) -> None:
    """Check that overrides come in pairs, that references resolve, and that there is something to run."""
    data = [entry.name for entry in suite.data]
    lists = {f"{name}.OVERRIDES": block.overrides for name, block in (
        ("PRETRAIN", suite.pretrain), ("EVALUATE", suite.evaluate), ("LOCALIZE", suite.localize),
        ("ATTACK", suite.attack),
    )}  # fmt: skip
    trained = [("PRETRAIN.OVERRIDES", "SEEDS", suite.pretrain.overrides)]
    trained += [(f"FINETUNE {one.name}: OVERRIDES", "FINETUNE_SEEDS", one.overrides) for one in suite.finetune]
    lists |= {where: overrides for where, _, overrides in trained}
    for where, overrides in lists.items():
        _check_pairs(overrides, where)
        if rows := find(overrides, RUN, CHOSEN):
            raise InputError(f"{where}: '{rows[0]}' is only valid in the OVERRIDES or the GRID of a row")
        check(overrides, data, {}, where)
    for where, seeds, overrides in trained:
        _refuse_keys(overrides[::2], where, {"SEED": seeds, "LABEL": "the LABEL of a row"})
    if not suite.rows:
        raise InputError("ROWS is empty; add a row such as {LABEL: CE, OVERRIDES: [METHOD.NAME, CE]}")
    for number, row in enumerate(suite.rows):
        _check_references_of_row(row, suite, data, suite.rows[:number])
    for entry in suite.finetune:
        if not entry.config:
            raise InputError(f"FINETUNE {entry.name}: CONFIG is missing; name the config of the fine-tuning")
        check_choice("TOOL", entry.tool, DETECTORS, f"FINETUNE {entry.name}")


def _check_references_of_row(row: Row, suite: Suite, data: Sequence[str], above: Iterable[Row]) -> None:
    where, texts = f"ROWS {row.label}", list(row.overrides)
    _check_pairs(row.overrides, f"{where}: OVERRIDES")
    _check_own_keys(row, suite, where)
    if row.grid:
        _check_pairs(row.grid.overrides, f"{where}: GRID: OVERRIDES")
        for key in row.grid.keys:
            if key in row.overrides[::2] or key in row.grid.overrides[::2]:
                raise InputError(f"{where}: GRID: KEYS {key} is also in OVERRIDES; delete one")
        texts += row.grid.texts()
    pretrained = {other.label: other for other in above if not other.backbone}
    check(texts, data, {label: other.grid.keys if other.grid else () for label, other in pretrained.items()}, where)
    _check_seeds_of_references(texts, suite, row, pretrained)


def _check_own_keys(row: Row, suite: Suite, where: str) -> None:
    """Refuse keys of a row's pretraining that the suite sets after them, so that they would be ignored."""
    own = {"SEED": "the row's SEEDS", "LABEL": "the row's LABEL"}
    images = "SEEDS, which determine the images of a teacher"
    drawn = {"DATA.HOLDOUT_SEED": images, "DATA.NOISE_SEED": images}
    own |= drawn if row.seed_offset else {}
    _refuse_keys(row.overrides[::2], f"{where}: OVERRIDES", own)
    if row.grid:
        _refuse_keys(row.grid.overrides[::2], f"{where}: GRID: OVERRIDES", own)
        _refuse_keys(row.grid.keys, f"{where}: GRID: KEYS", own)
    if row.seed_offset:
        _refuse_keys(suite.pretrain.overrides[::2], f"{where} has a SEED_OFFSET: PRETRAIN.OVERRIDES", drawn)


def _refuse_keys(keys: Iterable[str], where: str, instead: Mapping[str, str]) -> None:
    for key in keys:
        if key in instead:
            raise InputError(f"{where}: the suite sets {key} itself; delete it, and use {instead[key]}")


def _check_seeds_of_references(texts: Sequence[str], suite: Suite, row: Row, rows: Mapping[str, Row]) -> None:
    for text in find(texts, RUN, CHOSEN):
        there = suite.seeds_of(rows[parse(text).name])
        missing = [seed for seed in suite.seeds_of(row) if seed not in there]
        if missing:
            raise InputError(f"ROWS {row.label}: '{text}': that row has no seed {missing[0]}; give both the same SEEDS")


def _check_pairs(overrides: Sequence[str], where: str) -> None:
    if len(overrides) % 2:
        raise InputError(f"{where} come as KEY VALUE pairs; '{overrides[-1]}' has no value")
