"""Check what this machine can run for detection: detectron2, and the data sets below the roots."""

import importlib.metadata
import json
import os
import shutil
import warnings
from pathlib import Path

from backbones.core.doctor import DETECTRON2, GB, OK, PROBLEM, SCALE, Check, import_quietly, reason
from backbones.core.errors import InputError
from detection.config import get_defaults
from detection.data.catalog import COCO_SETS, VOC_SETS, CocoFiles, locate_below, require_files
from detection.data.roots import VARIABLES, expand_root
from detection.data.voc.split import read_split
from detection.engines.detectron2 import engine

# Number of images of the official data sets; fewer mean an interrupted download.
IMAGES = {
    "coco_2014_train": 82_783, "coco_2014_val": 40_504, "coco_2017_train": 118_287, "coco_2017_val": 5_000,
    "coco_2014_minival": 40_504, "coco_2014_valminusminival": 40_504, "coco_2017_val_100": 5_000,
}  # fmt: skip
AT_SCALE = ("coco_2017_train", "coco_2017_val")
PRETRAINING_ROOTS = ("IMAGENET", "IMAGENET_V2", "OPEN_IMAGES")  # of configs/pretrain


def check_detectron2() -> list[Check]:
    """Check that detectron2 can be imported, its version, and its optional parts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            engine.import_detectron2()
    except InputError as error:
        found = str(error).removeprefix(f"{DETECTRON2}: ").removesuffix(f"; {engine._INSTALL}")
        return [Check("detectron2", PROBLEM, found, engine._INSTALL, (DETECTRON2,))]
    except Exception as error:  # built for another version of torch, it can raise anything
        return [Check("detectron2", PROBLEM, f"cannot be imported ({reason(error)})", engine._INSTALL, (DETECTRON2,))]
    package = import_quietly("detectron2")
    commit = _installed_commit()
    found = f"{package.__version__}, {Path(package.__file__ or '').parent}"
    found += f", commit {commit[:7]}" if commit else ""
    found += f" (tested with {engine.COMMIT[:7]})" if commit not in ("", engine.COMMIT) else ""
    return [Check("detectron2", OK, found), _check_compiled(), _check_zoo()]


def _check_compiled() -> Check:
    try:
        import_quietly("detectron2._C")
    except Exception as error:  # missing, or built for another torch
        return Check("detectron2._C", OK, f"not usable ({reason(error)}); Faster R-CNN does not need it")
    return Check("detectron2._C", OK, "compiled operators load")


def _check_zoo() -> Check:
    try:
        import_quietly("detectron2.model_zoo")
    except Exception as error:
        return Check("detectron2.model_zoo", PROBLEM, f"{reason(error)}; not used here", "pip install 'setuptools<81'")
    return Check("detectron2.model_zoo", OK, "imports")


def _installed_commit() -> str:
    try:
        text = importlib.metadata.distribution("detectron2").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    return json.loads(text or "{}").get("vcs_info", {}).get("commit_id", "")


def check_data() -> list[Check]:
    """Check the environment variables of data, and find the catalog's data sets below the root; reads no images."""
    checks = [_check_variable(name) for name in (*VARIABLES, *PRETRAINING_ROOTS)]
    try:
        base, variable = expand_root(get_defaults().DATASETS.ROOT)
    except InputError:
        export = f"export {VARIABLES[0]}=FOLDER (or {VARIABLES[1]}), the folder that holds coco/ and VOC2007/"
        return [*checks, Check("detection data", PROBLEM, "no data root", export, (SCALE,))]
    if not base.is_dir():
        return [*checks, Check("detection data", PROBLEM, f"no folder {base}", f"correct {variable}", (SCALE,))]
    free = shutil.disk_usage(base).free / GB
    checks.append(Check("detection data", OK, f"{base}, from {variable}; {free:.1f} GB free"))
    looked = {name: look(name, base) for name in (*COCO_SETS, *VOC_SETS)}
    absent = [name for name, state in looked.items() if state is None]
    checks += [_judge(name, base, state) for name, state in looked.items() if state or name in AT_SCALE]
    others = [name for name in absent if name not in AT_SCALE]
    return [*checks, Check("not found", OK, ", ".join(others))] if others else checks


def look(name: str, base: Path) -> tuple[bool, str] | None:
    """Return whether the data set seems complete from its folders, and a description; None: not found."""
    found = locate_below(name, base)
    if not found.listing.is_file() and not found.images.is_dir():
        return None
    try:
        require_files(found)
    except InputError as error:
        return False, str(error).partition(": ")[2].partition("; ")[0]
    with os.scandir(found.images) as entries:
        images = sum(1 for entry in entries if entry.name.lower().endswith((".jpg", ".jpeg", ".png")))
    if isinstance(found, CocoFiles):
        wanted = IMAGES.get(name, 1)
    else:
        try:
            wanted = len(read_split(found.listing))
        except InputError as error:
            return False, str(error)
    if images < wanted:
        return False, f"{images} of {wanted} images in {found.images}"
    return True, f"{images} images in {found.images}"


def _judge(name: str, base: Path, state: tuple[bool, str] | None) -> Check:
    blocks = (SCALE,) if name in AT_SCALE else ()
    if state is None:
        found = locate_below(name, base)
        return Check(name, PROBLEM, "not found", f"put {found.listing} and {found.images}/ there", blocks)
    complete, seen = state
    if not complete:
        return Check(name, PROBLEM, seen, "restore what is missing; tools/validate_data.py names it", blocks)
    return Check(name, OK, seen)


def _check_variable(name: str) -> Check:
    value = os.environ.get(name, "")
    if value and not Path(value).expanduser().is_dir():
        return Check(name, PROBLEM, f"no folder {value}", f"export {name}=FOLDER, or unset it")
    return Check(name, OK, value or "not set")
