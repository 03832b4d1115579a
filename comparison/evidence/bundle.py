"""Write the evidence of a comparison as one zip file.

    manifest.json        format version, version of the code, options of the comparison, SHA-256 of every other file,
                         and hashes of the user's code (IMPORTS) that results do not state
    page/                what tools/compare.py wrote
    runs/NNN-STAGE/      per result: results.json, its config, the per-image data, and the proof of what was loaded

`comparison.evidence.verify` recomputes the page from runs/.  Weights, images, predictions and the user's code are not
included, nor are draws, which it recomputes.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import backbones.core
from backbones.core.config import load_yaml
from backbones.core.files import save_atomic
from backbones.core.imports import FOLDER, known_digests
from comparison.families import CONFIG_FILE
from comparison.row import Row

FORMAT_VERSION = 2
MANIFEST, PAGE, RUNS = "manifest.json", "page", "runs"
IMPORTS = "imports"  # key of the manifest
# Of the folder of a comparison.
WRITTEN = ("index.html", *(f"comparison.{suffix}" for suffix in ("json", "csv", "md", "tex")), "figures/*.svg")
# Files of a run folder that a bundle holds, if they exist.
KEPT = (
    *("results.json", "config.yaml", "matches.npz", "matches_voc.npz", "per_image.npz"),
    *("loading.json", "suite.json", "environment.json"),
)
_TIME = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal content gives equal bytes


def save_bundle(
    path: Path, page: Path, rows: Sequence[Row], options: Mapping[str, Any], notes: Sequence[str] = ()
) -> None:
    """Write the evidence of a comparison.

    Args:
        path: the zip file; page: folder that the comparison was written to.
        rows: its rows; options: keyword arguments of `build_comparison`; notes: that were added to its own.

    Raises:
        InputError: the file cannot be written.
    """
    failures = [asdict(failure) for failure in options["failures"]]
    stated = {**options, "failures": failures, "goal": asdict(options["goal"]), "notes": list(notes)}
    files = dict(_files(page, rows))
    manifest = {
        "format_version": FORMAT_VERSION,
        "version": backbones.__version__,
        "options": stated,
        "files": {name: digest(source) for name, source in files.items()},
        IMPORTS: dict(_imports(rows)),
    }

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as bundle:
            bundle.writestr(_entry(MANIFEST), json.dumps(manifest, indent=1, sort_keys=True))
            for name, source in files.items():
                with source.open("rb") as stream, bundle.open(_entry(name), "w", force_zip64=True) as entry:
                    while block := stream.read(1 << 20):
                        entry.write(block)

    save_atomic(path, write, manifest)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _files(page: Path, rows: Sequence[Row]) -> Iterator[tuple[str, Path]]:
    """Yield the name in the bundle and the path of every file."""
    for path in sorted(path for pattern in WRITTEN for path in page.glob(pattern)):
        yield f"{PAGE}/{path.relative_to(page).as_posix()}", path
    for place, folder in _folders(rows).items():
        for name in KEPT:
            if (folder / name).is_file():
                yield f"{place}/{name}", folder / name


def _imports(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the folder in the bundle, and name -> hash of the user's code, of results that do not state it."""
    stating = {row.folders[stage] for row in rows for stage, one in row.results.items() if FOLDER in one["details"]}
    for place, folder in _folders(rows).items():
        config = folder / CONFIG_FILE
        if folder not in stating and config.is_file() and (known := known_digests(load_yaml(config))):
            yield place, known


def _folders(rows: Iterable[Row]) -> dict[str, Path]:
    """Return the folder in the bundle, and that of the run, of every result, each once, in the order of the rows."""
    found = {path.resolve(): (stage, path) for row in rows for stage, path in row.folders.items()}
    return {f"{RUNS}/{number:03d}-{stage}": path for number, (stage, path) in enumerate(found.values())}
