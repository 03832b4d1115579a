"""Write the evidence of a comparison as one zip file.

    manifest.json        format version, version of the code, options of the comparison, and SHA-256 of every other file
    page/                what tools/compare.py wrote
    runs/NNN-STAGE/      per result: results.json, its config, the per-image data, and the proof of what was loaded

`comparison.evidence.verify` recomputes the page from runs/.  Weights, images and predictions are not included, nor are
draws, which it recomputes.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import backbones.core
from backbones.core.files import save_atomic
from comparison.row import Row

FORMAT_VERSION = 1
MANIFEST, PAGE, RUNS = "manifest.json", "page", "runs"
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
    for number, (stage, folder) in enumerate(_folders(rows)):
        for name in KEPT:
            if (folder / name).is_file():
                yield f"{RUNS}/{number:03d}-{stage}/{name}", folder / name


def _folders(rows: Iterable[Row]) -> list[tuple[str, Path]]:
    """Return the stage and folder of every result, each once, in the order of the rows."""
    found = {path.resolve(): (stage, path) for row in rows for stage, path in row.folders.items()}
    return list(found.values())
