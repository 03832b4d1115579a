"""Writing of a whole set of `scenes`: train, val and val_shifted, detection/train and detection/val.

ROOT/scenes.json holds the parameters and the fingerprint; if it exists, the set is complete.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.core.disk import write_error
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json, save_json
from backbones.data.scenes.backgrounds import BACKGROUNDS
from backbones.data.scenes.parameters import SceneParameters
from backbones.data.scenes.shapes import CLASSES
from backbones.data.scenes.writing import classification_split, detection_split, drawing_processes

VERSION = 1  # raise it when images change for the same parameters
STAGING = ".scenes-unfinished"
ENTRIES = ("train", "val", "val_shifted", "annotations", "classes.txt", "detection", "contact_sheet.png",
           "contact_sheet_detection.png", "scenes.json")  # fmt: skip
INDEPENDENT = 1 / len(BACKGROUNDS)  # the correlation at which the background is independent of the class


def count_files(root: Path) -> int:
    """Count the images and annotations of a set."""
    return sum(
        1 for entry in ENTRIES for path in (root / entry).rglob("*.*") if path.suffix in (".JPEG", ".xml", ".jpg")
    )


def held_set(root: Path) -> dict | None:
    """Return the scenes.json of a folder, or None; raise `InputError` if the folder holds foreign data."""
    if (root / "scenes.json").exists():
        return load_json(root / "scenes.json")
    held = [entry for entry in ENTRIES if (root / entry).exists()]
    if held and not (root / STAGING).exists():  # otherwise, they are left over from a killed run
        raise InputError(f"{root} holds '{held[0]}' but no scenes.json; choose another --output-dir")
    return None


def check_same(root: Path, held: dict, parameters: SceneParameters) -> None:
    """Raise `InputError` unless the folder holds exactly this set, complete."""
    advice = "choose another --output-dir, or add --overwrite"
    # Sets of earlier versions lack parameters that were added since, with the values of then as defaults.
    same = {**asdict(SceneParameters()), **held.get("parameters", {})} == asdict(parameters)
    if held.get("version") != VERSION or not same:
        raise InputError(f"{root} holds another set of scenes ({held.get('parameters')}); {advice}")
    if count_files(root) != held["files"]:
        raise InputError(f"{root} lacks some of the {held['files']} files of its set of scenes; {advice}")


def remove_entries(root: Path, names: tuple[str, ...]) -> None:
    """Delete only the entries of a set, scenes.json first, so that a partial set is not mistaken for a complete one."""
    for path in (root / name for name in reversed(names)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_all(root: Path, parameters: SceneParameters, workers: int) -> dict[str, Any]:
    """Write every split below `root`, and return the content of scenes.json."""
    p = parameters
    correlations = {"train": p.correlation, "val": p.correlation, "val_shifted": INDEPENDENT}
    prints = {}
    with drawing_processes(workers) as run_map:
        for split, correlation in correlations.items():
            count = p.train if split == "train" else p.val
            prints[split] = classification_split(
                root, split, count, run_map, seed=p.seed, drawing=p.drawing(correlation)
            )
        for split, count in (("train", p.detection_train), ("val", p.detection_val)):
            prints[f"detection/{split}"] = detection_split(root, split, count, run_map, seed=p.seed)
    return {
        "version": VERSION,
        "parameters": asdict(p),
        "classes": list(CLASSES),
        "files": count_files(root),
        "splits": prints,
        "fingerprint": fingerprint(*prints.values()),
    }


def write_scenes(
    root: str | Path, parameters: SceneParameters | None = None, *, workers: int = 1, overwrite: bool = False
) -> tuple[dict, bool]:
    """Write a whole set, unless the folder already holds it.

    Everything is drawn in a folder inside `root` and moved up when complete, scenes.json last: a killed run leaves
    nothing that could be mistaken for a set, and an earlier set is kept until the new one is complete.

    Returns:
        The content of scenes.json, and whether anything was drawn.
    """
    root, parameters = Path(root), parameters or SceneParameters()
    held = held_set(root)
    if held is not None and not overwrite:
        check_same(root, held, parameters)
        return held, False
    staging = root / STAGING
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        summary = write_all(staging, parameters, workers)
        save_json(staging / "scenes.json", summary)
        remove_entries(root, ENTRIES)
        for entry in (staging / name for name in ENTRIES):  # scenes.json last
            if entry.exists():
                entry.rename(root / entry.name)
        staging.rmdir()
    except OSError as error:
        raise write_error(root, error) from None
    return summary, True
