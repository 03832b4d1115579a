"""Group rows that are seeds of one method: those of equal protocol, method, label and settings.

Labels are compared as they are; nothing is inferred from them.  The settings are those of the pretraining config,
except keys that differ between seeds by design (the seed, a teacher or start weights of the same seed, a value that a
grid chose for this seed) and keys that do not affect the weights (folders, evaluation).  The user's code counts by its
content.  For a YOLO they include the class labels.
"""

import statistics as moments
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from backbones.core.config import IMPORTS, flatten, load_yaml
from backbones.core.imports import FOLDER, known_digests
from comparison.row import Row

CONFIG_FILE = "config.yaml"
# Stages that have the config.yaml of the pretraining.
_CONFIGURED = ("pretraining", "backbone", "localization", "robustness")
_FREE = (
    *("SEED", "LABEL", "LOG_PERIOD", "DATA.ROOT", "DATA.NUM_WORKERS", "DATA.VAL_SPLIT"),
    *("DATA.NOISE_SEED", "DATA.HOLDOUT_SEED"),
    *("DATA.EVAL_*", "DATA.SHIFTED_SPLIT", "EVAL.*", "ATTACK.*", "LOCALIZE.*", "SOLVER.CHECKPOINT_PERIOD"),
    *("TEACHER.*", "MODEL.WEIGHTS", IMPORTS),  # files by their content, see `_settings`
)
_KEPT = ("EVAL.REPORT",)  # selects the epoch of the weights
_SHOWN = 3  # keys in a note


@dataclass(frozen=True)
class Family:
    """Rows that can be averaged, in table order; settings: those of the first row with known ones, else {}.

    failed: rows of the same method without results.
    """

    protocol: str | None
    method: str
    label: str
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    failed: tuple[Row, ...] = ()

    @property
    def backbones(self) -> dict[str, list[Row]]:
        """Hash of the weights -> rows; several fine-tunings of one backbone count as one seed."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.weights, []).append(row)
        return found

    @property
    def seeds(self) -> list[int]:
        """Pretraining seeds of all backbones, sorted."""
        return sorted(rows[0].seed for rows in self.backbones.values())

    def size(self) -> str:
        """Describe the number of averaged runs: "2 seeds", "2 of 3 seeds", "2 seeds x 3 fine-tunings"."""
        backbones, seeds = self.backbones, set(self.seeds)
        planned = seeds | {row.seed for row in self.failed}
        text = f"{len(seeds)} of " * (planned > seeds) + _count(len(planned), "seed")
        if len(seeds) < len(backbones):
            text = f"{_count(len(backbones), 'backbone')} of {text}"
        tunings = sorted({len(rows) for rows in backbones.values()})
        if tunings in ([], [1]):
            return text
        return f"{text} x {'-'.join(map(str, tunings))} fine-tunings"


def find_families(rows: Sequence[Row], chosen: Sequence[str] = ()) -> list[Family]:
    """Assign every row to a family; families are in the order of their first rows.

    A row without results has unknown settings; if its label has several settings, it is a family by itself.  A row
    without a detector belongs to the protocol of the others if there is one only.

    Args:
        chosen: config keys whose value was chosen separately for each seed.
    """
    members: dict[tuple, list[Row]] = {}
    known = {row.protocol for row in rows if row.protocol}
    usual = known.pop() if len(known) == 1 else None
    for row in rows:
        members.setdefault((row.protocol or usual, row.method, row.label), []).append(row)
    found = []
    for (protocol, method, label), group in members.items():
        failed = tuple(row for row in group if not row.results)
        parts = _by_settings([row for row in group if row.results], chosen)
        for settings, own in parts:
            found.append(Family(protocol, method, label, settings, tuple(own), failed if len(parts) == 1 else ()))
        if failed and len(parts) != 1:
            found.append(Family(protocol, method, label, {}, (), failed))
    return found


def spread_over_backbones(values: Sequence[Sequence[float | None]]) -> dict[str, float | int | None]:
    """Return {"mean", "deviation", "count"} over the means of each backbone's rows; count: backbones with a number.

    Several fine-tunings of one backbone are not independent, so they count as one.
    """
    known = [[value for value in own if value is not None] for own in values]
    means = [moments.fmean(own) for own in known if own]
    return {
        "mean": moments.fmean(means) if means else None,
        "deviation": moments.stdev(means) if len(means) > 1 else None,
        "count": len(means),
    }


def family_notes(families: Sequence[Family]) -> Iterator[str]:
    """Yield a note for rows that share a name in the table but are not averaged over seeds, with the reason."""
    by_label: dict[tuple, list[Family]] = {}
    for family in families:
        if family.rows:
            by_label.setdefault((family.protocol, family.method, family.label), []).append(family)
    for (_, _, label), same in by_label.items():
        if len(same) > 1:
            yield f"Rows labelled '{label}' {difference_of(same)}: they are not seeds of one method."


def difference_of(families: Sequence[Family]) -> str:
    """Describe differing settings: "differ in METHOD.ALS.beta (0.5, 0.25)"."""
    if not all(family.settings for family in families):
        return "differ, or some have unknown settings (no config.yaml beside their results)"
    keys = {key for family in families for key in family.settings}
    said = []
    for key in sorted(keys):
        values = list(dict.fromkeys(str(family.settings.get(key, "unknown")) for family in families))
        if len(values) > 1:
            said.append(f"{key} ({', '.join(values)})")
    more = [f"{len(said) - _SHOWN} more"] if len(said) > _SHOWN else []
    return f"differ in {' and '.join([*said[:_SHOWN], *more])}"


def _by_settings(rows: Sequence[Row], chosen: Sequence[str]) -> list[tuple[Mapping[str, Any], list[Row]]]:
    """Group rows by settings; rows of unknown settings join the others only if these are all equal."""
    free = {*chosen, *(key for row in rows for key in _chosen_by_selection(row))}
    groups: dict[str, tuple[Mapping[str, Any], list[Row]]] = {}
    for row in rows:
        settings = {key: value for key, value in _settings(row) if key not in free}
        groups.setdefault(str(sorted(settings.items())), (settings, []))[1].append(row)
    known = [group for group in groups.values() if group[0]]
    return [(known[0][0], list(rows))] if len(known) == 1 else list(groups.values())


def _settings(row: Row) -> Iterator[tuple[str, Any]]:
    stage = next((s for s in _CONFIGURED if s in row.folders and (row.folders[s] / CONFIG_FILE).is_file()), None)
    if stage is not None:
        config = dict(flatten(load_yaml(row.folders[stage] / CONFIG_FILE)))
        block = f"METHOD.{config.get('METHOD.NAME')}."
        for key, value in config.items():
            idle = key.startswith("METHOD.") and key != "METHOD.NAME" and not key.startswith(block)
            if key in _KEPT or not (idle or any(fnmatch(key, pattern) for pattern in _FREE)):
                yield key, value
        yield from _imported_code(row, config)
    labels = row.results.get("detection", {}).get("details", {}).get("class_labels", {})
    yield from ((f"CLASS_LABELS.{key}", value) for key, value in labels.items())


def _imported_code(row: Row, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and hash of what IMPORTS names: as the results state, else of the files.

    Without both, nothing says that two backbones were trained with the same code, so each is a family by itself.
    """
    details = [row.results[stage]["details"] for stage in _CONFIGURED if stage in row.results]
    known = known_digests(config) | next((one[FOLDER] for one in details if FOLDER in one), {})
    names = [Path(path).name for path in config.get(IMPORTS, [])]
    yield from ((name, known.get(name, f"unknown code of {row.weights}")) for name in names)


def _chosen_by_selection(row: Row) -> Iterator[str]:
    """Yield the keys whose values tools/select_run.py chose."""
    selection = row.results.get("pretraining", {}).get("details", {}).get("selection", {})
    yield from selection.get("chosen", {}).get("values", {})


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
