"""What a suite writes beside the results of a stage, to know them again: whose they are and how they were made.

A folder's name says what shall be in it.  Another call of a tool into the same folder (`--eval-only` with another data
set, a training by hand) leaves results as well, which would otherwise pass for the stage's own.  Results without a
record are those of a call that was killed before it was written: the stage runs once more, a training from its
checkpoint.
"""

from collections.abc import Mapping
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
# Keys of a run's config that change none of its numbers: where things lie, how often something is written.  A teacher
# goes by the hash of its weights.
MACHINE = (
    *("*.ROOT", "*.NUM_WORKERS", "*.CACHE_IMAGES", "*.CHECKPOINT_PERIOD", "*LOG_PERIOD"),
    *("TEACHER.RUN", "TEACHER.CACHE", "TEST.EXPECTED_RESULTS"),
)


def read_results(folder: Path) -> dict[str, Any]:
    """The results in `folder`, whose blocks are what they shall be; `InputError` where they are not."""
    results = load_results(folder)
    for name in ("backbone", "protocol", "details", "files"):
        if not isinstance(results[name], Mapping):
            raise InputError(f"{folder}: the block '{name}' of its results is not a mapping; run the stage again")
    return results


def write_record(folder: Path) -> None:
    """Record the results that lie in `folder` as those of the suite's stage."""
    save_json(folder / RECORD, _identity(folder) | {"config": _settings(folder)})


def write_data_record(folder: Path) -> None:
    """Record what a prepared data set holds, beside its folder."""
    save_json(folder.parent / RECORD, {"fingerprint": tree_fingerprint(folder)})


def has_record(folder: Path) -> bool:
    """Whether the suite has recorded the results in `folder`."""
    return (folder / RECORD).is_file()


def remove_record(folder: Path) -> None:
    """Before the results are made again: those of a call that is killed half way are nobody's."""
    (folder / RECORD).unlink(missing_ok=True)


def difference(folder: Path) -> str:
    """How the results in `folder` differ from those that were recorded; "" if they do not, or nothing was.

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
    """Likewise for a prepared data set."""
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
    """The config of a run, without keys of MACHINE; parsing it takes ten times as long as reading it."""
    settings = flatten(load_yaml(folder / CONFIG)) if (folder / CONFIG).is_file() else ()
    return {key: repr(value) for key, value in settings if not any(fnmatch(key, pattern) for pattern in MACHINE)}


def _load(path: Path) -> Mapping[str, Any]:
    record = load_json(path)
    if not isinstance(record, Mapping):
        raise InputError(f"{path} is not the record of a stage; delete it, the stage runs again")
    return record


def _shown(value: Any) -> str:
    """`name@hash` of a protocol."""
    return f"{value.get('name', '?')}@{value.get('hash', '?')}" if isinstance(value, Mapping) else str(value)
