"""results.json: one versioned schema for every stage, with its one reader.

{"schema_version": 1, "stage": one of STAGES,
 "backbone": {"label", "method", "seed", "hash"},          what was measured; rows are joined by the hash
 "protocol": {"name", "hash"},                             how; numbers of two protocols are not comparable
 "metrics": {name: number or null},                        flat; fractions in [0, 1]
 "data": {...}, "details": {...},                          counts and fingerprints; everything that is not a scalar
 "warnings": [{"what", "count", "examples"}],
 "files": {name: path relative to the folder},
 "code": {"version", "commit", "modified"}}                what made it (core/revision.py); absent in older files
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
    """Which backbone a result speaks of; random initialisation is `("random", "random", seed, "random-<seed>")`."""

    label: str
    method: str
    seed: int
    hash: str


def random_identity(seed: int) -> BackboneIdentity:
    """The identity of a backbone that was not pretrained."""
    return BackboneIdentity("random", "random", seed, f"random-{seed}")


def make_results(
    stage: str,
    backbone: BackboneIdentity,
    protocol: Mapping[str, str],
    metrics: Mapping[str, float | None],
    *,
    data: Mapping | None = None,
    details: Mapping | None = None,
    warnings: list | None = None,
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Put a result together; numbers that are not finite become null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "backbone": asdict(backbone),
        "protocol": dict(protocol),
        "metrics": _finite(dict(metrics)),
        "data": _finite(dict(data or {})),
        "details": _finite(dict(details or {})),
        "warnings": list(warnings or []),
        "files": dict(files or {}),
        "code": dict(code_revision()),
    }


def save_results(run_dir: str | Path, results: Mapping) -> Path:
    """Check and write `run_dir/results.json`; its presence says that the stage is complete."""
    path = Path(run_dir) / FILE_NAME
    _check(results, path)
    before = _read_protocol(path)
    if before not in (None, results["protocol"]):
        # Not `core.logging`: it imports torch, which a reader of results does not need.
        logging.getLogger("smooth2det").warning(
            "%s: %s replaces %s, another protocol", path, results["protocol"], before
        )
    save_json(path, results)
    return path


def _read_protocol(path: Path) -> dict[str, str] | None:
    """That of the results which are about to be replaced; None where there are none, or none of ours."""
    if not path.exists():
        return None
    try:
        return load_results(path)["protocol"]
    except InputError:  # broken, or of an earlier version: it is written again
        return None


def load_results(path: str | Path) -> dict[str, Any]:
    """Read a results file (or the one in a run folder); `InputError` names a file of another kind."""
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    results = load_json(path)
    _check(results, path)
    return results


def refuse_other_stage(run_dir: str | Path, stage: str) -> None:
    """`InputError` if the folder holds the results of another stage, which a run there would destroy."""
    path = Path(run_dir) / FILE_NAME
    if path.exists() and load_results(path)["stage"] != stage:
        raise InputError(
            f"{path} holds results of the stage {load_results(path)['stage']}; choose another --output-dir"
        )


def find_results(roots: Iterable[str | Path]) -> list[Path]:
    """Every results.json at or below each root, sorted; a root without one is an `InputError`."""
    found: set[Path] = set()
    for root in map(Path, roots):
        here = {root} if root.is_file() else set(root.rglob(FILE_NAME))
        if not here:
            raise InputError(f"no {FILE_NAME} at or below {root}; name a run folder of one of the tools")
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
    if "code" in results:
        _check_fields(results, {"code": dict}, path, "")
    for n, warning in enumerate(results["warnings"]):
        _check_fields(warning, _WARNING, path, f"warnings[{n}]: ")
    for name, value in results["metrics"].items():
        if value is not None and not (_is(value, (int, float)) and math.isfinite(value)):
            raise InputError(f"{path}: metrics: '{name}' must be a finite number or null, not {value!r}; {_AGAIN}")
    for name, value in results["files"].items():
        if not isinstance(value, str):
            raise InputError(f"{path}: files: '{name}' must be a text, not {value!r}; {_AGAIN}")


def _check_fields(block: Any, fields: Mapping[str, type], path: Path, where: str) -> None:
    """`InputError` where a field of the block is missing or of another type."""
    if not isinstance(block, Mapping):
        raise InputError(f"{path}: {where}must be an object with keys, not {block!r}; {_AGAIN}")
    for key, kind in fields.items():
        if key not in block:
            raise InputError(f"{path}: {where}'{key}' is missing; {_AGAIN}")
        if not _is(block[key], Mapping if kind is dict else kind):
            raise InputError(f"{path}: {where}'{key}' must be of type {kind.__name__}, not {block[key]!r}; {_AGAIN}")


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """isinstance, but true and false are not numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
