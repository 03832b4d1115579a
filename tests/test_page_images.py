"""The images that move a difference, drawn on the page."""

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.many_runs import add_many
from PIL import Image

from backbones.core.errors import InputError
from comparison import compare
from comparison.evidence.verify import verify
from comparison.page import images as drawing

METHODS = {"CE": (0.5, 0.02), "ALS": (0.8, 0.02)}


@dataclass(frozen=True)
class Box:
    xywh: tuple
    label: str
    outcome: str
    score: float | None = None


@dataclass(frozen=True)
class Scene:
    image_id: int
    path: Path
    width: int
    height: int
    truth: tuple
    detections: tuple


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return add_many(folder / "runs", methods=METHODS, seeds=3, protocols=("det@1",), images=20)


class Reader:
    """Scenes of 560 x 280 pixels with one matched and one wrong detection, and one missed object."""

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def __call__(self, run, image_ids, *, least_score):
        self.calls.append((run.name, list(image_ids)))
        return {image_id: self.scene(image_id, least_score) for image_id in image_ids}

    def scene(self, image_id, least_score):
        path = self.folder / f"{image_id}.png"
        Image.fromarray(np.full((280, 560, 3), 90, dtype=np.uint8)).save(path)
        truth = (Box((20, 40, 100, 60), "<cog>", "matched"), Box((300, 40, 50, 60), "star", "missed"))
        found = (
            Box((24, 40, 100, 60), "<cog>", "matched", 0.91),
            Box((400, 100, 80, 80), "star", "wrong", least_score),
        )
        return Scene(image_id, path, 560, 280, truth, found)


def test_both_sides_are_drawn_and_each_image_is_stored_once(runs, tmp_path):
    reader = Reader(tmp_path)
    data = compare([runs], tmp_path / "out", resamples=40, read_images=reader, bundle=tmp_path / "e.zip")
    influence = data["diagnosis"][0]["methods"][1]["influence"]
    listed = [one for side in ("for", "against") for one in influence[side][:3]]
    ids, wanted = [one["image_id"] for one in listed], {}
    for one in listed:  # the runs that each image moves most
        for name in (one["run"]["name"], one["run"]["baseline"]):
            wanted.setdefault(re.sub(r"(\w+) \(seed (\d)\)", r"\1-\2-det@1", name), []).append(one["image_id"])
    assert dict(reader.calls) == wanted
    assert len(wanted) > 2
    page = (tmp_path / "out" / "index.html").read_text()
    for one in listed:
        assert f'<span class="tag">{one["run"]["name"]}</span>' in page
    scenes = [ElementTree.fromstring(svg) for svg in re.findall(r'<svg [^>]*class="scene".*?</svg>', page, re.DOTALL)]
    assert len(scenes) == 2 * len(ids)
    space = "{http://www.w3.org/2000/svg}"
    images = [scene.find(f"{space}image") for scene in scenes]
    used = [scene.find(f"{space}use") for scene in scenes]
    assert sum(one is not None for one in images) == sum(one is not None for one in used) == len(ids)
    assert {one.get("href") for one in used if one is not None} == {f"#{i.get('id')}" for i in images if i is not None}
    first = scenes[0]
    assert first.get("viewBox") == "0 0 280 140"
    boxes = [(box.get("x"), box.get("width"), box.find(f"{space}title").text) for box in first.iter(f"{space}rect")]
    assert boxes == [
        ("10.0", "50.0", "<cog>, matched"), ("150.0", "25.0", "star, missed"),
        ("200.0", "40.0", "star 0.30, wrong"), ("12.0", "50.0", "<cog> 0.91, matched"),
    ]  # fmt: skip
    assert first.get("aria-label") == f"{ids[0]}.png: 2 objects; detections: 1 matched, 1 wrong; 1 missed"
    assert f"{ids[0]}.png: {influence['for'][0]['influence']:+.4f}".replace("-", "\N{MINUS SIGN}") in page
    assert verify(tmp_path / "e.zip").problems == ()  # without the images


def test_labels_stay_in_the_image_and_do_not_cover_each_other():
    boxes = tuple(Box((x, 10, 60, 40), "double_arrow", "matched", 0.9 - x / 1000) for x in (0, 4, 8, 250, 262))
    scene = Scene(1, Path("a.png"), 280, 140, (), boxes)
    found = [re.search(r'x="([\d.]+)" y="([\d.]+)"', text) for text in drawing._labels(scene, 1.0, 140)]
    wide = drawing.LETTER_WIDTH * len("double_arrow 0.90")
    areas = [(float(one[1]), float(one[2]) - drawing.LETTER_HEIGHT) for one in found if one]
    assert 3 <= len(areas) <= 5
    for at, (x, y) in enumerate(areas):
        assert 0 <= x <= 280 - wide
        assert 0 <= y <= 140 - drawing.LETTER_HEIGHT
        for other in areas[:at]:
            assert abs(x - other[0]) >= wide or abs(y - other[1]) >= drawing.LETTER_HEIGHT
    full = Scene(1, Path("a.png"), 280, 140, (), boxes * 20)
    assert len(drawing._labels(full, 1.0, 140)) < 30  # the others are left out


def test_images_that_cannot_be_read_are_named(runs, tmp_path):
    def read(run, image_ids, *, least_score):
        raise InputError("no such folder: /data; restore the data")

    compare([runs], tmp_path / "out", resamples=40, read_images=read)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "The images cannot be shown: no such folder: /data; restore the data" in page
    assert 'class="scene"' not in page
    compare([runs], tmp_path / "out", resamples=40)
    assert "The images that move" not in (tmp_path / "out" / "index.html").read_text()
