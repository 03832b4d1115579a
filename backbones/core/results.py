"""results.json: the one format of every stage, its writer and its only reader.

`schemas/results.json` describes every key: a JSON Schema, which files are checked against when they are written and
read.  Additional keys are allowed.  `SCHEMA_VERSION` changes only if an earlier reader would misread a file; later
versions of the code keep reading all versions that the schema lists.
"""

import logging
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from backbones.core.revision import code_revision
from backbones.core.schema import find_violation

SCHEMA_VERSION = 1
FILE_NAME = "results.json"
# Instead of it, beside a backbone that was imported, not trained: {"backbone": identity, "source", "file", "choices"}.
IMPORT_FILE = "import.json"
SCHEMA = Path(__file__).parent / "schemas" / FILE_NAME
_AGAIN = "run the stage again"


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
    """Assemble a result of a stage that the schema lists; numbers that are not finite become null."""
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
    """Check and write `run_dir/results.json`, whose presence marks the stage as complete.

    Raises:
        ValueError: the results are not valid, which is an error of the code that made them.
    """
    path = Path(run_dir) / FILE_NAME
    if problem := _find_problem(results):
        raise ValueError(f"{path} is not written: {problem}")
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
    return {key: protocol[key] for key in ("name", "hash")}


def load_results(path: str | Path) -> dict[str, Any]:
    """Read a results file, or the one in a run folder, of this or an earlier version.

    Raises:
        InputError: it is missing, broken, not valid, or of a later version; names the file and the key.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    results = load_json(path)
    if problem := _find_problem(results):
        raise InputError(f"{path}: {problem}; {_AGAIN}")
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


def _find_problem(results: Any) -> str:
    """Return what is wrong with results, "" if they are valid."""
    version = results.get("schema_version") if isinstance(results, Mapping) else None
    if version not in (known := _known_versions()):
        return f"schema_version is {version!r}; this version of smooth2det reads {', '.join(map(str, known))} only"
    if problem := find_violation(results, SCHEMA):
        return problem
    for name, value in results["metrics"].items():
        # NaN and infinity, which JSON lacks but Python reads, and integers beyond any float.
        if value is not None and not abs(value) <= sys.float_info.max:
            return f"metrics.{name} is {value!r:.20}; it must be a finite number or null"
    return ""


@cache
def _known_versions() -> tuple[int, ...]:
    return tuple(load_json(SCHEMA)["properties"]["schema_version"]["enum"])


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
