"""results.json: one versioned schema for every stage, its writer and its only reader.

{"schema_version": 1, "stage": one of STAGES,
 "backbone": {"label", "method", "seed", "hash"},          what was measured; rows are joined by the hash
 "protocol": {"name", "hash", "settings": {key: value}},   how; numbers of two hashes are not comparable; the settings
                                                           that the hash covers are absent in older files
 "metrics": {name: number or null},                        flat; fractions in [0, 1]
 "data": {...}, "details": {...},                          counts and fingerprints; everything that is not a scalar
 "warnings": [{"what", "count", "examples"}],
 "files": {name: path relative to the folder},
 "code": {"version", "commit", "modified"}}                code that wrote it (core/revision.py); absent in older files
"""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from backbones.core.revision import code_revision

SCHEMA_VERSION = 1
STAGES = ("pretraining", "backbone", "localization", "robustness", "detection")
FILE_NAME = "results.json"
_BLOCKS = {"backbone": dict, "protocol": dict, "metrics": dict, "data": dict, "details": dict, "warnings": list,
           "files": dict}  # fmt: skip
_IDENTITY = {
    "backbone": {"label": str, "method": str, "seed": int, "hash": str},
    "protocol": {"name": str, "hash": str},
}
_AGAIN = "run the stage again"
_WARNING = {"what": str, "count": int, "examples": list}


@dataclass(frozen=True)
class BackboneIdentity:
    """The backbone of a result; random initialisation is `("random", "random", seed, "random-<seed>")`."""

    label: str
    method: str
    seed: int
    hash: str


def random_identity(seed: int) -> BackboneIdentity:
    """Return the identity of a randomly initialised backbone."""
    return BackboneIdentity("random", "random", seed, f"random-{seed}")


def make_results(
    stage: str,
    backbone: BackboneIdentity,
    protocol: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    *,
    data: Mapping | None = None,
    details: Mapping | None = None,
    warnings: list | None = None,
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Assemble a result; numbers that are not finite become null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "backbone": asdict(backbone),
        "protocol": _finite(dict(protocol)),
        "metrics": _finite(dict(metrics)),
        "data": _finite(dict(data or {})),
        "details": _finite(dict(details or {})),
        "warnings": list(warnings or []),
        "files": dict(files or {}),
        "code": dict(code_revision()),
    }


def save_results(run_dir: str | Path, results: Mapping) -> Path:
    """Check and write `run_dir/results.json`, whose presence marks the stage as complete."""
    path = Path(run_dir) / FILE_NAME
    _check(results, path)
    before, now = _read_protocol(path), _identity(results["protocol"])
    if before not in (None, now):
        # Not `core.run_log`: it imports torch, which a reader of results does not need.
        logging.getLogger("smooth2det").warning("%s: %s replaces %s, another protocol", path, now, before)
    save_json(path, results)
    return path


def _read_protocol(path: Path) -> dict[str, str] | None:
    """Return the protocol of the results at `path`, which are about to be replaced; None without valid results."""
    if not path.exists():
        return None
    try:
        return _identity(load_results(path)["protocol"])
    except InputError:  # broken, or of an earlier version: it is overwritten
        return None


def _identity(protocol: Mapping[str, Any]) -> dict[str, str]:
    return {key: protocol[key] for key in _IDENTITY["protocol"]}


def load_results(path: str | Path) -> dict[str, Any]:
    """Read a results file, or the one in a run folder; raise `InputError` if it is not valid."""
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    results = load_json(path)
    _check(results, path)
    return results


def refuse_other_stage(run_dir: str | Path, stage: str) -> None:
    """Raise `InputError` if the folder holds results of another stage, which a run there would overwrite."""
    path = Path(run_dir) / FILE_NAME
    if path.exists() and load_results(path)["stage"] != stage:
        raise InputError(
            f"{path} holds results of the stage {load_results(path)['stage']}; choose another --output-dir"
        )


def find_results(roots: Iterable[str | Path]) -> list[Path]:
    """Return every results.json at or below each root, sorted; raise `InputError` for a root without one."""
    found: set[Path] = set()
    for root in map(Path, roots):
        here = {root} if root.is_file() else set(root.rglob(FILE_NAME))
        if not here:
            raise InputError(f"no {FILE_NAME} at or below {root}; give the output folder of a run")
        found |= here
    return sorted(found)


def _check(results: Any, path: Path) -> None:
    version = results.get("schema_version") if isinstance(results, Mapping) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; run it again")
    if results.get("stage") not in STAGES:
        raise InputError(f"{path}: stage is {results.get('stage')!r}, not one of {', '.join(STAGES)}")
    _check_fields(results, _BLOCKS, path, "")
    for block, fields in _IDENTITY.items():
        _check_fields(results[block], fields, path, f"{block}: ")
    if "settings" in results["protocol"]:
        _check_fields(results["protocol"], {"settings": dict}, path, "protocol: ")
    if "code" in results:
        _check_fields(results, {"code": dict}, path, "")
    for n, warning in enumerate(results["warnings"]):
        _check_fields(warning, _WARNING, path, f"warnings[{n}]: ")
    for name, value in results["metrics"].items():
        if value is not None and not (_is(value, (int, float)) and math.isfinite(value)):
            raise InputError(f"{path}: metrics: '{name}' must be a finite number or null, not {value!r}; {_AGAIN}")
    for name, value in results["files"].items():
        if not isinstance(value, str):
            raise InputError(f"{path}: files: '{name}' must be a string, not {value!r}; {_AGAIN}")


def _check_fields(block: Any, fields: Mapping[str, type], path: Path, where: str) -> None:
    """Raise `InputError` if a field of the block is missing or of another type."""
    if not isinstance(block, Mapping):
        raise InputError(f"{path}: {where}must be an object with keys, not {block!r}; {_AGAIN}")
    for key, kind in fields.items():
        if key not in block:
            raise InputError(f"{path}: {where}'{key}' is missing; {_AGAIN}")
        if not _is(block[key], Mapping if kind is dict else kind):
            raise InputError(f"{path}: {where}'{key}' must be of type {kind.__name__}, not {block[key]!r}; {_AGAIN}")


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Return isinstance(value, kind), but do not count bools as numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
