"""The detection pictures of `scenes` in the layout of Pascal VOC's devkit.

ROOT/JPEGImages/<split>_<number>.jpg
ROOT/Annotations/<split>_<number>.xml     corners inclusive and counted from 1, as VOC's
ROOT/ImageSets/Main/<split>.txt
ROOT/scenes-voc.json                      parameters and fingerprint; where it is, the set is complete
"""

import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json, save_json, save_text
from backbones.data.scenes.pictures import FILE_SIZE, ScenePicture, draw_detection_picture
from backbones.data.scenes.writing import drawing_processes, jpeg_bytes, run_chunks

VERSION = 1  # raise it when a picture or an annotation of the same parameters changes
RECORD = "scenes-voc.json"
FOLDERS = ("JPEGImages", "Annotations", "ImageSets")

XML = """\
<annotation>
\t<folder>scenes</folder>
\t<filename>{stem}.jpg</filename>
\t<size>
\t\t<width>{size}</width>
\t\t<height>{size}</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
{objects}</annotation>
"""
OBJECT = """\
\t<object>
\t\t<name>{name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{xmin}</xmin>
\t\t\t<ymin>{ymin}</ymin>
\t\t\t<xmax>{xmax}</xmax>
\t\t\t<ymax>{ymax}</ymax>
\t\t</bndbox>
\t</object>
"""


@dataclass(frozen=True)
class VocParameters:
    """What defines a set; the pictures are those of `SceneParameters` with the same seed."""

    seed: int = 0
    train: int = 1500
    val: int = 250

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0:
                raise InputError(f"scenes-voc: {name} is {value}; give 0 or more")


def picture_xml(picture: ScenePicture, stem: str) -> str:
    """The annotation of a detection picture, in VOC's form."""
    objects = ""
    for item in picture.objects:
        x0, y0, x1, y1 = item.box
        objects += OBJECT.format(name=item.class_name, xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)
    return XML.format(stem=stem, size=FILE_SIZE, objects=objects)


def write_scenes_voc(root: Path, parameters: VocParameters, *, workers: int, overwrite: bool) -> tuple[dict, bool]:
    """Write the set below `root`, unless it is there; RECORD goes first when replaced and comes last when written.

    Returns:
        the content of scenes-voc.json, and whether anything was drawn.

    Raises:
        InputError: another set, or somebody else's folders, without `overwrite`; a folder that cannot be written.
    """
    wanted = {"version": VERSION, "parameters": asdict(parameters)}
    held = load_json(root / RECORD) if (root / RECORD).exists() else {}
    if not overwrite and {key: held.get(key) for key in wanted} == wanted:
        return held, False
    there = [name for name in (RECORD, *FOLDERS) if (root / name).exists()]
    if there and not overwrite:
        raise InputError(f"{root} holds another '{there[0]}'; choose another --output-dir, or add --overwrite")
    try:
        (root / RECORD).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name / ("Main" if name == "ImageSets" else "")).mkdir(parents=True)
        prints = _write(root, parameters, workers)
    except OSError as error:
        raise InputError(f"cannot write {root}: {error.strerror or error}; choose another --output-dir") from None
    summary = {**wanted, "files": 2 * (parameters.train + parameters.val), "fingerprint": fingerprint(*prints)}
    save_json(root / RECORD, summary)
    return summary, True


def _write(root: Path, parameters: VocParameters, workers: int) -> list[str]:
    prints = []
    with drawing_processes(workers) as run_map:
        for split, count in (("train", parameters.train), ("val", parameters.val)):
            task = partial(_write_pictures, root=str(root), seed=parameters.seed, split=split)
            prints += run_chunks(run_map, task, count, f"scenes-voc {split}")
            stems = "".join(f"{_stem(split, index)}\n" for index in range(count))
            save_text(root / "ImageSets" / "Main" / f"{split}.txt", stems)
    return prints


def _write_pictures(indices: range, root: str, seed: int, split: str) -> list[str]:
    """Draw and write some pictures; a fingerprint of each picture and its annotation."""
    prints = []
    for index in indices:
        picture, stem = draw_detection_picture(seed, split, index), _stem(split, index)
        data, xml = jpeg_bytes(picture.image), picture_xml(picture, stem)
        Path(root, "JPEGImages", f"{stem}.jpg").write_bytes(data)
        Path(root, "Annotations", f"{stem}.xml").write_text(xml)
        prints.append(fingerprint(data, xml))
    return prints


def _stem(split: str, index: int) -> str:
    return f"{split}_{index + 1:06d}"
