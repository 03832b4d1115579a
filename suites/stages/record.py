"""The record that a suite writes beside the results of a stage to recognise them: their identity and their config.

A folder's name defines its content.  Another call of a tool into the same folder (`--eval-only` with another data set,
a manual training) also writes results, which would otherwise count as the stage's own.  Results without a record come
from a call that was killed before the record was written: the stage runs again, a training from its checkpoint.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from backbones.core.config import flatten, load_yaml
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json, save_json
from backbones.core.results import load_results
from suites.fingerprints.data import tree_fingerprint

RECORD = "suite.json"
CONFIG = "config.yaml"
# Keys of a run's config that change none of its numbers: paths, and how often something is written.  A teacher is
# identified by the hash of its weights, and the files of IMPORTS are copies inside the run.
MACHINE = (
    *("*.ROOT", "*.NUM_WORKERS", "*.CACHE_IMAGES", "*.CHECKPOINT_PERIOD", "*LOG_PERIOD"),
    *("TEACHER.RUN", "TEACHER.CACHE", "TEST.EXPECTED_RESULTS", "TEST.EVAL_PERIOD", "IMPORTS"),
)


# In the record: names of the files with weights that KEEP has deleted.
_DELETED = "deleted"


def read_results(folder: Path) -> dict[str, Any]:
    """Load the results in `folder`; raise `InputError` if they or one of their blocks are malformed."""
    results = load_results(folder)
    for name in ("backbone", "protocol", "details", "files"):
        if not isinstance(results[name], Mapping):
            raise InputError(f"{folder}: the block '{name}' of its results is not a mapping; run the stage again")
    return results


def write_record(folder: Path) -> None:
    """Record the results in `folder` as those of the suite's stage."""
    save_json(folder / RECORD, _identity(folder) | {"config": _settings(folder)})


def write_data_record(folder: Path) -> None:
    """Record the content of a prepared data set, beside its folder."""
    save_json(folder.parent / RECORD, {"fingerprint": tree_fingerprint(folder)})


def has_record(folder: Path) -> bool:
    """Whether the suite has recorded the results in `folder`."""
    return (folder / RECORD).is_file()


def remove_record(folder: Path) -> None:
    """Remove the record before the results are made again, so that those of a killed call do not count."""
    (folder / RECORD).unlink(missing_ok=True)


def deleted(folder: Path) -> set[str]:
    """Return the names of the files that KEEP has deleted."""
    names = _load(folder / RECORD).get(_DELETED) if has_record(folder) else None
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def note_deleted(folder: Path, names: Iterable[str]) -> None:
    """Add the names of files that are about to be deleted to the record, without which their loss would not count."""
    save_json(folder / RECORD, {**_load(folder / RECORD), _DELETED: sorted({*deleted(folder), *names})})


def difference(folder: Path) -> str:
    """Return how the results in `folder` differ from the recorded ones; "" if they do not, or without a record.

    Raises:
        InputError: results, record or config that cannot be read.
    """
    if not has_record(folder):
        return ""
    then, now = _load(folder / RECORD), _identity(folder)
    for what in ("stage", "protocol"):
        if then.get(what) != now[what]:
            return f"its results are of the {what} {_shown(now[what])}, not {_shown(then.get(what))}"
    if then.get("config_text") == now["config_text"]:
        return ""
    before, after = then.get("config", {}), _settings(folder)
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            return f"{CONFIG} beside its results says {key} {after.get(key)}, not {before.get(key)}"
    return ""


def data_difference(folder: Path) -> str:
    """Like `difference`, for a prepared data set."""
    if not has_record(folder.parent):
        return ""
    same = _load(folder.parent / RECORD).get("fingerprint") == tree_fingerprint(folder)
    return "" if same else "its files have changed since they were written"


def _identity(folder: Path) -> dict[str, Any]:
    results, config = read_results(folder), folder / CONFIG
    text = fingerprint(config.read_bytes()) if config.is_file() else ""
    protocol = {key: results["protocol"].get(key) for key in ("name", "hash")}
    return {"stage": results["stage"], "protocol": protocol, "config_text": text}


def _settings(folder: Path) -> dict[str, str]:
    """Return the config of a run without the keys of MACHINE; parsing takes ten times as long as reading."""
    settings = flatten(load_yaml(folder / CONFIG)) if (folder / CONFIG).is_file() else ()
    return {key: repr(value) for key, value in settings if not any(fnmatch(key, pattern) for pattern in MACHINE)}


def _load(path: Path) -> Mapping[str, Any]:
    record = load_json(path)
    if not isinstance(record, Mapping):
        raise InputError(f"{path} is not the record of a stage; delete it, and the stage runs again")
    return record


def _shown(value: Any) -> str:
    """`name@hash` of a protocol."""
    return f"{value.get('name', '?')}@{value.get('hash', '?')}" if isinstance(value, Mapping) else str(value)
