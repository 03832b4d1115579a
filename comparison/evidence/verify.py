"""Recompute a comparison from its evidence, and say what differs.

Needs no GPU, no images and no weights.  Checked are the SHA-256 of every file; the numbers of every detector against
its per-image data; and every number, difference, interval, verdict and sentence of the page against those recomputed
from runs/.  Not recomputed: folders, images, class activation maps, training curves, and numbers without per-image
data, which are those of results.json.
"""

import csv
import json
import math
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.imports import FOLDER
from backbones.core.matches import MATCHES_FILE, load_matches
from backbones.core.schema import find_violation
from comparison.evidence.bundle import FORMAT_VERSION, IMPORTS, MANIFEST, PAGE, RUNS, digest
from comparison.failures import Failure
from comparison.methods import Goal
from comparison.page.page import build_sections, render_page
from comparison.resampling.voc import voc_summary
from comparison.resampling.weighted import summary
from comparison.row import Row
from comparison.rows import collect_rows
from comparison.summary import SCHEMA, build_comparison
from comparison.tables.latex import latex
from comparison.tables.markdown import markdown_text
from comparison.tables.spreadsheet import csv_text
from comparison.verdicts.entries import Price

TOLERANCE = 1e-9
OPTIONS = {"baseline", "resamples", "seed", "level", "chosen", "failures", "goal", "notes"}
_PAGE_FILES = ("index.html", "comparison.json", "comparison.md", "comparison.csv", "comparison.tex")
# Keys of comparison.json that are no measured numbers.
_NOT_MEASURED = ("folder", "commit", "warnings", "log", "training", "published")
# Parts of the page that show images.
_IMAGES = re.compile(r"<!-- (gallery|images) -->.*?<!-- end of \1 -->\n?", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """Result of a verification: how much was compared, and what differs, one text each."""

    files: int
    numbers: int
    problems: tuple[str, ...]


def verify(path: str | Path) -> Finding:
    """Verify the evidence in a zip file.

    Raises:
        InputError: it cannot be read, or is of another version.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manifest = _extract(Path(path), folder)
        if problems := list(_changed_files(folder, manifest["files"])):
            return Finding(len(manifest["files"]), 0, tuple(problems))  # what rests on them is not worth comparing
        if not (folder / RUNS).is_dir() or not all((folder / PAGE / name).is_file() for name in _PAGE_FILES):
            raise InputError(f"{path} holds no page or no runs; it was not written by tools/compare.py --bundle")
        rows = collect_rows(sorted((folder / RUNS).iterdir()), allow_mixed_protocols=True)
        _add_imports(rows, manifest[IMPORTS], folder)
        stored = load_json(folder / PAGE / "comparison.json")
        found = recompute(rows, manifest["options"])
        _adopt(found, stored, path)
        pairs = list(_pairs(stored, found))
        problems += [text for text, same in pairs if not same]
        problems += _unlike_matches(rows, folder)
        problems += _unlike_texts(folder / PAGE, found)
        return Finding(len(manifest["files"]), len(pairs), tuple(problems))


def recompute(rows: Sequence[Row], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the comparison of the rows with these options (the keyword arguments of `build_comparison`, as JSON).

    "notes" are texts to add; "failures" and "goal" are the fields of their classes.
    """
    known = dict(options)
    notes = known.pop("notes")
    failures = [Failure(**entry) for entry in known.pop("failures")]
    comparison = build_comparison(rows, failures=failures, goal=_read_goal(known.pop("goal")), **known)
    comparison["notes"] += notes
    return json.loads(json.dumps(comparison))  # as it is when read


def _read_goal(stated: Mapping[str, Any]) -> Goal:
    """Return the goal of the fields that a bundle states."""
    return Goal(**{**stated, "price": Price(**stated["price"])})


# ---- the files ----------------------------------------------------------------------------------------------------


def _extract(path: Path, folder: Path) -> dict[str, Any]:
    """Unpack a bundle; return its manifest."""
    try:
        with zipfile.ZipFile(path) as bundle:
            bundle.extractall(folder)  # zipfile drops absolute paths and ".."
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} is not a valid zip file: {error}; ask for it again") from None
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{path} has no {MANIFEST}; it was not written by tools/compare.py --bundle")
    manifest = load_json(folder / MANIFEST)
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: format {version}, this version reads {FORMAT_VERSION}; use that which wrote it")
    files, options = manifest.get("files"), manifest.get("options")
    if not isinstance(files, dict) or not isinstance(options, dict) or options.keys() != OPTIONS:
        raise InputError(f"{path}: its {MANIFEST} does not list files and options; ask for it again")
    imports = manifest.setdefault(IMPORTS, {})
    if not isinstance(imports, dict) or not all(isinstance(known, dict) for known in imports.values()):
        raise InputError(f"{path}: '{IMPORTS}' of its {MANIFEST} does not map folders to hashes; ask for it again")
    return manifest


def _changed_files(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    yield from (f"{name} is missing" for name in sorted(files.keys() - there))
    yield from (f"{name} is not in the manifest" for name in sorted(there - files.keys()))
    for name in sorted(there & files.keys()):
        if digest(folder / name) != files[name]:
            yield f"{name} was changed: its SHA-256 is not that of the manifest"


def _add_imports(rows: Sequence[Row], imports: Mapping[str, Mapping[str, str]], folder: Path) -> None:
    """Give the results the hashes of imported code that the manifest has for them."""
    for row in rows:
        for stage, results in row.results.items():
            if known := imports.get(row.folders[stage].relative_to(folder).as_posix()):
                results["details"].setdefault(FOLDER, known)


# ---- the numbers --------------------------------------------------------------------------------------------------


def _adopt(found: dict[str, Any], stored: Mapping[str, Any], path: str | Path) -> None:
    """Give the recomputed comparison what runs/ does not hold: folders, training curves and published numbers."""
    if problem := find_violation(stored, SCHEMA):
        raise InputError(f"{path}: {PAGE}/comparison.json: {problem}; ask for it again")
    found["training"], found["published"] = stored.get("training", []), stored.get("published")
    for own, other in zip(found["rows"], stored["rows"], strict=False):
        for stage in own["stages"].keys() & other["stages"].keys():
            own["stages"][stage]["folder"] = other["stages"][stage]["folder"]


def _pairs(stored: Any, found: Any, where: str = "comparison.json") -> Iterator[tuple[str, bool]]:
    """Yield what is said if a value differs, and whether it is the same, for every value of two trees."""
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        for key in [*stored, *(key for key in found if key not in stored)]:
            if key not in _NOT_MEASURED:
                yield from _pairs(stored.get(key), found.get(key), f"{where}: {key}")
    elif isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        for number, (one, other) in enumerate(zip(stored, found, strict=True)):
            name = one.get("name") or one.get("label") if isinstance(one, Mapping) else ""
            yield from _pairs(one, other, f"{where} {name or number}")
    else:
        yield f"{where} is {stored!r}, recomputed {found!r}", _same(stored, found)


def _same(stored: Any, found: Any) -> bool:
    if isinstance(stored, float) and isinstance(found, int | float):
        return abs(stored - found) <= TOLERANCE * max(1.0, abs(stored))
    return stored == found


def _unlike_matches(rows: Sequence[Row], folder: Path) -> Iterator[str]:
    """Yield the numbers of results.json that are not those of the per-image data."""
    for row in rows:
        for kind, usual, numbers in (("matches", MATCHES_FILE, summary), ("matches_voc", "", voc_summary)):
            if (path := row.file("detection", kind, usual)) is None:
                continue
            for name, (value,) in numbers(load_matches(path)).items():
                stated, found = row.results["detection"]["metrics"].get(name), float(value)
                if not _same(stated, found) and not (stated is None and math.isnan(found)):
                    place = path.relative_to(folder).as_posix()
                    yield f"{row.label} seed {row.seed}: {name} is {stated!r} in its results, {found!r} by {place}"


def _unlike_texts(page: Path, comparison: dict[str, Any]) -> Iterator[str]:
    """Yield the written texts that differ from those of the recomputed comparison."""
    for name, text in (("comparison.md", markdown_text(comparison)), ("comparison.tex", latex(comparison))):
        if (page / name).read_text(encoding="utf-8") != text:
            yield f"{name} differs from the recomputed one"
    with (page / "comparison.csv").open(encoding="utf-8", newline="") as file:
        tables = [list(csv.reader(lines)) for lines in (file, csv_text(comparison).splitlines(keepends=True))]
    if not _same_cells(*tables):
        yield "comparison.csv differs from the recomputed one"
    written, again = (
        _IMAGES.sub("", text)
        for text in (
            (page / "index.html").read_text(encoding="utf-8"), render_page(comparison, build_sections(comparison)),
        )
    )  # fmt: skip
    if written != again:
        shorter = min(len(written), len(again))
        common = next((n for n, (one, other) in enumerate(zip(written, again, strict=False)) if one != other), shorter)
        said = " ".join(written[max(common - 40, 0) : common + 60].split())
        yield f"index.html differs from the recomputed one in line {written[:common].count(chr(10)) + 1}: ...{said}..."


def _same_cells(stored: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> bool:
    """Whether two tables have the same texts and, to rounding, the same numbers."""
    if [len(line) for line in stored] != [len(line) for line in found]:
        return False
    return all(
        one == other or (_is_number(one) and _is_number(other) and _same(float(one), float(other)))
        for line, again in zip(stored, found, strict=True)
        for one, other in zip(line, again, strict=True)
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", text) is not None
