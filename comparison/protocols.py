"""Comparability of rows: only numbers of one protocol, by name and hash, belong in one table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from backbones.core.config import flatten, load_yaml
from backbones.core.errors import InputError
from comparison.metrics import BY_NAME
from comparison.row import STAGE_ORDER, Row

PRETRAINING, BACKBONE, DETECTION = "pretraining", "backbone", "detection"
MEASURES = (BACKBONE, "localization", "robustness", DETECTION)
HOLDOUT = "holdout"  # the split that DATA.HOLDOUT draws
_SHOWN, _NAMED = 3, 2  # differences of two protocols: in a note, in their names


def protocol_name(results: Mapping[str, Any]) -> str:
    """Return "name@hash"."""
    protocol = results["protocol"]
    return f"{protocol.get('name', '?')}@{protocol.get('hash', '?')}"


def check_one_protocol(rows: Sequence[Row]) -> None:
    """Raise `InputError` if rows were measured under different protocols; their pretraining can differ."""
    for stage in MEASURES:
        first = _first_of_each(rows, stage)
        if len(first) > 1:
            (a, row), (b, other), *_ = first.items()
            raise InputError(
                f"rows under two {stage} protocols, {a} ({row.folders[stage]}) and {b} ({other.folders[stage]})"
                f"{_unlike(row, other, stage)}: their numbers are not comparable; leave one out, or pass "
                "--allow-mixed-protocols"
            )


def notes_on_protocols(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the notes on a table that mixes protocols: their names, and names shared by several protocols."""
    for stage in MEASURES:
        first = _first_of_each(rows, stage)
        if len(first) < 2:
            continue
        rule = "differences are taken within a protocol only" if stage == DETECTION else "do not compare their columns"
        what = "Rows" if stage == DETECTION else f"The {stage} measures are those"
        names = ", ".join(first)
        yield f"{what} of several protocols ({names}): numbers of different protocols are not comparable; {rule}."
        by_name: dict[str, list[Row]] = {}
        for row in first.values():
            by_name.setdefault(str(row.results[stage]["protocol"].get("name")), []).append(row)
        for name, members in by_name.items():
            if len(members) > 1:
                hashes = " and ".join(str(row.results[stage]["protocol"].get("hash")) for row in members)
                yield (
                    f"The name '{name}' stands for {len(members)} {stage} protocols, {hashes}"
                    f"{_unlike(members[0], members[1], stage)}: give each its own name."
                )


def _first_of_each(rows: Sequence[Row], stage: str) -> dict[str, Row]:
    """Return {"name@hash": the first row with this protocol}."""
    found: dict[str, Row] = {}
    for row in rows:
        if stage in row.results:
            found.setdefault(protocol_name(row.results[stage]), row)
    return found


def name_apart(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with detection protocols of one name named apart: "quick, SOLVER.MAX_ITER 400@hash".

    A key that is changed on the command line leaves the name of the config file.
    """
    by_name: dict[str, list[Row]] = {}
    for protocol, row in _first_of_each(rows, DETECTION).items():
        by_name.setdefault(protocol.rpartition("@")[0], []).append(row)
    names: dict[str | None, str] = {}
    for name, members in by_name.items():
        settings = _settings(members, DETECTION)
        keys = [key for key in {key: 0 for one in settings for key in one} if _differs(key, settings)]
        for row, one in zip(members, settings, strict=True) if len(members) > 1 and keys else ():
            more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
            said = ", ".join(f"{key} {one.get(key)}" for key in keys[:_NAMED])
            names[row.protocol] = f"{name}, {said}{more}@{(row.protocol or '').rpartition('@')[2]}"
    return [replace(row, protocol=names.get(row.protocol, row.protocol)) for row in rows]


def _differs(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    first = settings[0]
    return any(first.get(key) != one.get(key) and not _is_name_of_same(key, first, one) for one in settings[1:])


# ---- what differs -----------------------------------------------------------------------------------------------


def _unlike(row: Row, other: Row, stage: str) -> str:
    """Return such as ", which differ in ENGINE (detectron2, torchvision) and SOLVER.MAX_ITER (400, 800)", or ""."""
    a, b = _settings([row, other], stage)
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key) and not _is_name_of_same(key, a, b)]
    said = [f"{key} ({a.get(key)}, {b.get(key)})" for key in keys[:_SHOWN]]
    said += [f"{len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []
    return f", which differ in {' and '.join(said)}" if said else ""


def _settings(rows: Sequence[Row], stage: str) -> list[dict[str, Any]]:
    """Return what is known about how each row was measured: its engine, data and protocol settings.

    Results of an earlier version lack the settings.  These are then read from the config file next to the results, for
    the keys that the other rows state; for all keys if no row states any.  If one row's settings are unknown, none are
    returned, since each would look like a difference.
    """
    stated = [row.results[stage]["protocol"].get("settings") for row in rows]
    keys = {key for settings in stated for key in settings or ()}
    found: list[Mapping[str, Any]] = []
    for row, settings in zip(rows, stated, strict=True):
        if settings is None:
            settings = {key: value for key, value in _config(row, stage) if key in keys or not keys}
        found.append(settings)
    known = all(found)
    return [{**dict(_facts(row, stage)), **(one if known else {})} for row, one in zip(rows, found, strict=True)]


def _facts(row: Row, stage: str) -> Iterator[tuple[str, Any]]:
    results = row.results[stage]
    if "engine" in results["details"]:
        yield "ENGINE", results["details"]["engine"]
    for key, value in flatten(results["data"]):
        if key.endswith((".name", ".fingerprint")):
            yield key, value


def _config(row: Row, stage: str) -> Iterator[tuple[str, Any]]:
    path: Path = row.folders[stage] / "config.yaml"
    if stage == DETECTION and path.is_file():  # the data are among the facts, by name and fingerprint
        yield from ((key, value) for key, value in flatten(load_yaml(path)) if not key.startswith("DATASETS."))


def _is_name_of_same(key: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether `key` is the name of a data set with equal fingerprints: the same data at another path."""
    mark = key.removesuffix(".name") + ".fingerprint"
    return key.endswith(".name") and a.get(mark) is not None and a.get(mark) == b.get(mark)


# ---- pretraining ------------------------------------------------------------------------------------------------


class Images(NamedTuple):
    """The images that a number of a classifier was measured on, as results state them; "" or 0: unknown.

    drawn: whether the pretraining's seed chose them: the held-out part of the training split, or what remains of it.
    count: their number; of drawn ones the number that was held out, of which those without a box can be left out.
    """

    stage: str
    seed: int
    name: str
    split: str
    count: int
    fingerprint: str
    drawn: bool

    def same(self, other: "Images") -> bool:
        """Whether two numbers are comparable: the same images, or draws of two seeds from the same data.

        A measure states the fingerprint of the data before the draw.  Without fingerprints, the names decide.
        """
        if not (self.fingerprint and other.fingerprint):
            return not (self.name and other.name) or self.name == other.name
        if self.fingerprint == other.fingerprint:
            return True
        if not (self.drawn or other.drawn) or (self.stage, self.seed) == (other.stage, other.seed):
            return False
        return (self.name, self.split, self.count) == (other.name, other.split, other.count)


def separate_validations(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Drop the pretraining metrics of all rows if a column shows those of several sets of images; also return a note.

    The images of a pretraining are compared with those of other pretrainings and of measures of classifiers.
    """
    found: dict[Images, None] = {}
    for name in BY_NAME:
        shown = list(dict.fromkeys(images for row in rows if (images := _shown_images(row, name))))
        validated = [one for one in shown if one.stage == PRETRAINING]
        if any(not one.same(other) for one in validated for other in shown):
            found |= dict.fromkeys(shown)
    if not found:
        return list(rows), ""
    names = ", ".join(sorted({*name_images(found).values()} - {""}))
    note = f"Pretrainings were validated on several data sets ({names}): their numbers are left out."
    if any(one.stage != PRETRAINING for one in found):
        note = f"Pretrainings and measures are of several data sets ({names}): numbers of pretrainings are left out."
    return [_without_pretraining(row) for row in rows], note


def validated_on(row: Row) -> Images:
    """Return the validation images of a pretraining; results.json lists the training split first."""
    return _images(row, PRETRAINING)


def name_images(known: Iterable[Images]) -> dict[Images, str]:
    """Return names that tell other images apart: of the data set, if needed with the split, if needed with the hash."""
    known, names = list(known), {}
    for details in range(3):
        names = {one: " ".join(filter(None, (one.name, one.split, one.fingerprint)[: details + 1])) for one in known}
        if all(one.same(other) or names[one] != names[other] for one in known for other in known):
            break
    return names


def _shown_images(row: Row, name: str) -> Images | None:
    """Return the images of a number that the row shows; None unless it is of a pretraining or of a classifier."""
    stages = [stage for stage in STAGE_ORDER if row.results.get(stage, {}).get("metrics", {}).get(name) is not None]
    return _images(row, stages[-1]) if stages and stages[-1] in (PRETRAINING, BACKBONE) else None


def _images(row: Row, stage: str) -> Images:
    splits = [(split, one) for split, one in row.results[stage]["data"].items() if isinstance(one, Mapping)]
    split, data = (splits[-1 if stage == PRETRAINING else 0]) if splits else ("", {})
    drawn = split == HOLDOUT or (stage == PRETRAINING and len(splits) == 1)
    name, fingerprint = (str(data.get(key, "")) for key in ("name", "fingerprint"))
    stated = row.results[stage]["protocol"].get("settings", {})
    held = stated.get("DATA.HOLDOUT") or stated.get("held_out")
    count = held if drawn and held else data.get("images", 0)
    return Images(stage, row.seed, name, split, int(count), fingerprint, drawn)


def _without_pretraining(row: Row) -> Row:
    if PRETRAINING not in row.results:
        return row
    return replace(row, results={**row.results, PRETRAINING: {**row.results[PRETRAINING], "metrics": {}}})
