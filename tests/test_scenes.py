"""The procedural data set `scenes`: its files say what was drawn, and what was drawn has the promised statistics."""

import json
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from scipy import stats

from backbones.core.errors import InputError
from backbones.data.scenes.backgrounds import BACKGROUNDS
from backbones.data.scenes.drawing import SHARE_RANGE, draw_detection_image, draw_object_image
from backbones.data.scenes.parameters import SceneParameters
from backbones.data.scenes.sets import INDEPENDENT, write_scenes
from backbones.data.scenes.shapes import CLASSES, LOOK_ALIKES, drawn_shape, fill_ratio, paint_mask
from backbones.data.scenes.writing import write_classification, write_detection

REPOSITORY = Path(__file__).parents[1]
prepare_data = runpy.run_path(str(REPOSITORY / "tools" / "prepare_data.py"))["main"]
SMALL = SceneParameters(train=60, val=12, detection_train=2, detection_val=2)


@pytest.fixture(scope="module")
def images():
    """Training images, drawn small for speed."""
    return [draw_object_image(0, "train", i, size=48) for i in range(600)]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, SMALL)
    return root


@pytest.fixture(scope="module")
def detection_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("detection")
    write_detection(root, "val", 250, seed=0)
    return root / "detection"


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def luminance(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.299, 0.587, 0.114])


def test_same_bytes_for_one_and_two_workers(small_set, tmp_path):
    write_scenes(tmp_path, SMALL, workers=2)
    assert files_of(tmp_path) == files_of(small_set)


def test_a_image_does_not_depend_on_how_many_are_drawn(small_set, tmp_path):
    write_classification(tmp_path, "train", 13, seed=0)
    fewer, more = files_of(tmp_path), files_of(small_set)
    assert len(fewer) == 13 * 2 + 1  # image and annotation each, and classes.txt
    assert all(more[name] == data for name, data in fewer.items())


def test_seed_split_and_index_each_change_the_image():
    images = [
        draw_object_image(*key).image for key in ((0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 12))
    ]
    assert all((a != b).mean() > 0.5 for i, a in enumerate(images) for b in images[:i])


def test_xml_box_is_inclusive_and_tight_around_the_visible_object(small_set):
    paths = sorted((small_set / "annotations" / "train").rglob("*.xml"))
    assert len(paths) == SMALL.train
    for path in paths:
        tree = ET.parse(path)
        drawn = draw_object_image(0, "train", int(path.stem.split("_")[1]))
        assert tree.findtext("object/name") == path.parent.name == drawn.class_name
        assert [tree.findtext(f"size/{side}") for side in ("width", "height", "depth")] == ["64", "64", "3"]
        x0, y0, x1, y1 = (int(tree.findtext(f"object/bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
        mask = drawn.mask.copy()
        assert mask[[y0, y1]].any(axis=1).all()
        assert mask[:, [x0, x1]].any(axis=0).all()
        mask[y0 : y1 + 1, x0 : x1 + 1] = False
        assert not mask.any()


def test_jpeg_holds_the_drawn_image(small_set):
    path = next((small_set / "train" / "star").glob("*.JPEG"))
    drawn = draw_object_image(0, "train", int(path.stem.split("_")[1])).image
    read = cv2.imread(str(path))[..., ::-1]
    assert np.abs(luminance(read) - luminance(drawn)).mean() < 3  # of 255; swapped channels give about 10


def test_classes_and_splits(small_set):
    assert tuple((small_set / "classes.txt").read_text().split()) == CLASSES
    assert len(CLASSES) == len(BACKGROUNDS) == len(set(CLASSES)) == 12
    assert len(LOOK_ALIKES) >= 3
    assert {name for pair in LOOK_ALIKES for name in pair} <= set(CLASSES)
    for split, count in (("train", 60), ("val", 12), ("val_shifted", 12)):
        for name in CLASSES:  # balanced
            assert len(list((small_set / split / name).glob("*.JPEG"))) == count / len(CLASSES)


def test_coco_json_is_valid_and_tells_what_was_drawn(detection_set, capsys):
    coco = COCO(str(detection_set / "annotations" / "instances_val.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert sorted(coco.getAnnIds()) == list(range(1, len(coco.anns) + 1))
    assert {len(coco.getAnnIds(i)) for i in coco.getImgIds()} == set(range(1, 9))
    for image in coco.loadImgs(coco.getImgIds()[:10]):
        drawn = draw_detection_image(0, "val", image["id"] - 1)
        assert cv2.imread(str(detection_set / "val" / image["file_name"])).shape == drawn.image.shape == (512, 512, 3)
        for i, annotation in enumerate(coco.loadAnns(coco.getAnnIds(image["id"])), start=1):
            rows, columns = np.nonzero(drawn.owner == i)
            x, y, w, h = annotation["bbox"]
            assert annotation["area"] == len(rows)
            assert (x, y) == (columns.min(), rows.min())
            assert (x + w - 1, y + h - 1) == (columns.max(), rows.max())


def test_every_size_bucket_is_well_filled(detection_set):
    found = json.loads((detection_set / "annotations" / "instances_val.json").read_text())["annotations"]
    areas = np.array([a["area"] for a in found])
    boxes = np.array([a["bbox"] for a in found])
    assert (areas <= boxes[:, 2] * boxes[:, 3]).all()
    assert (areas > 100).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 512).all()
    shares = np.histogram(areas, [0, 32**2, 96**2, 512**2])[0]
    assert (shares >= 200).all()  # of 250 images, twice what is asked for
    assert (shares / len(areas) > 0.25).all()


def test_share_is_log_uniform(images):
    shares = np.array([p.share for p in images])
    low, high = np.log(SHARE_RANGE)
    assert stats.kstest(np.log(shares), stats.uniform(low, high - low).cdf).pvalue > 0.01


def test_share_keeps_within_the_range_asked_for():
    parameters = SceneParameters(share_min=0.35, share_max=0.7, image_size=32)
    shares = [draw_object_image(0, "train", i, **parameters.drawing(0.8)).share for i in range(120)]
    assert stats.kstest(np.log(shares), stats.uniform(np.log(0.35), np.log(0.7 / 0.35)).cdf).pvalue > 0.01


def test_box_of_a_whole_object_covers_its_share(images):
    for p in (p for p in images if not p.occluded):
        sides = np.array([p.box[2] - p.box[0], p.box[3] - p.box[1]])
        low, high = (sides - 1).prod() / 48**2, (sides + 2.5).prod() / 48**2  # thin tips fade
        assert low <= p.share <= high, p


def test_occlusion_hides_a_part_only(images):
    assert 0.1 < np.mean([p.occluded for p in images]) < 0.25
    whole, partly = (np.mean([p.mask.mean() / p.share for p in images if p.occluded == o]) for o in (False, True))
    assert 0.75 < partly / whole < 0.97


def test_background_follows_the_class_as_often_as_asked(images):
    own = np.mean([p.background == BACKGROUNDS[CLASSES.index(p.class_name)] for p in images])
    assert abs(own - 0.8) < 4 * np.sqrt(0.8 * 0.2 / len(images))


def test_background_of_the_shifted_split_is_independent_of_the_class():
    table = np.zeros((12, 12))
    for i in range(960):
        p = draw_object_image(0, "val_shifted", i, size=32, correlation=INDEPENDENT)
        table[CLASSES.index(p.class_name), BACKGROUNDS.index(p.background)] += 1
    assert stats.chisquare(table.ravel()).pvalue > 0.001
    assert abs(np.trace(table) / table.sum() - 1 / 12) < 0.03


def test_written_splits_use_the_right_correlation(tmp_path):
    write_scenes(tmp_path, SceneParameters(train=0, val=24, detection_train=0, detection_val=0, correlation=1.0))
    for split, correlation in (("val", 1.0), ("val_shifted", INDEPENDENT)):
        for path in (tmp_path / split).rglob("*.JPEG"):
            drawn = draw_object_image(0, split, int(path.stem.split("_")[-1]), correlation=correlation).image
            assert np.abs(cv2.imread(str(path))[..., ::-1] - drawn.astype(float)).mean() < 12


def test_objects_are_lighter_than_their_background(images):
    difference = np.array([luminance(p.image)[p.mask].mean() - luminance(p.image)[~p.mask].mean() for p in images])
    assert (difference > 40).all()  # of 255


@pytest.mark.parametrize("name", CLASSES)
def test_a_shape_fills_its_box_exactly(name):
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((100, 120), np.uint8)
        paint_mask(mask, drawn_shape(name, rng)[0], (20, 10, 105, 90))
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (20, 10, 105, 90)


def test_fill_ratio_agrees_with_closed_forms():
    square = [(np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]]), True)]
    triangle = [(np.array([[0, 0], [1, 0], [0, 1.0]]), True)]
    assert fill_ratio(square) == 1
    assert fill_ratio(triangle) == pytest.approx(0.5, abs=0.01)


def test_look_alikes_overlap_more_than_other_classes():
    masks = {name: np.zeros((64, 64), np.uint8) for name in CLASSES}
    for name, mask in masks.items():
        paint_mask(mask, drawn_shape(name, np.random.default_rng(0))[0], (0, 0, 64, 64))
    iou = {(a, b): (masks[a] & masks[b]).sum() / (masks[a] | masks[b]).sum() for a in CLASSES for b in CLASSES if a < b}
    assert max(iou.values()) < 0.95
    pairs = [iou[tuple(sorted(pair))] for pair in LOOK_ALIKES if pair != ("heart", "spade")]  # alike upside down
    assert min(pairs) > np.median(list(iou.values()))


def test_a_complete_set_is_left_as_it_is(small_set):
    before = (small_set / "scenes.json").stat().st_mtime_ns
    _, drawn = write_scenes(small_set, SMALL)
    assert not drawn
    assert (small_set / "scenes.json").stat().st_mtime_ns == before


def test_another_set_is_refused_and_kept_unless_overwritten(tmp_path):
    first = SceneParameters(train=12, val=0, detection_train=1, detection_val=0)
    second = SceneParameters(train=12, val=0, detection_train=1, detection_val=0, seed=1)
    write_scenes(tmp_path, first)
    (tmp_path / "notes").write_text("mine")
    before = files_of(tmp_path)
    with pytest.raises(InputError, match="another set"):
        write_scenes(tmp_path, second)
    assert files_of(tmp_path) == before
    write_scenes(tmp_path, second, overwrite=True)
    after = files_of(tmp_path)
    assert after.keys() == before.keys()
    assert after["notes"] == b"mine"
    assert json.loads(after["scenes.json"])["parameters"]["seed"] == 1


def test_a_set_that_lost_files_is_refused(tmp_path):
    parameters = SceneParameters(train=12, val=0, detection_train=0, detection_val=0)
    write_scenes(tmp_path, parameters)
    next((tmp_path / "train" / "key").iterdir()).unlink()
    with pytest.raises(InputError, match="lacks some"):
        write_scenes(tmp_path, parameters)
    assert write_scenes(tmp_path, parameters, overwrite=True)[1]


def test_a_set_written_before_a_parameter_existed_is_the_same_set(tmp_path):
    parameters = SceneParameters(train=12, val=0, detection_train=0, detection_val=0)
    write_scenes(tmp_path, parameters)
    earlier = json.loads((tmp_path / "scenes.json").read_text())
    del earlier["parameters"]["share_min"], earlier["parameters"]["share_max"]
    (tmp_path / "scenes.json").write_text(json.dumps(earlier))
    assert not write_scenes(tmp_path, parameters)[1]
    with pytest.raises(InputError, match="another set"):
        write_scenes(tmp_path, replace(parameters, share_max=0.5))


def test_data_of_somebody_else_is_never_deleted(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "precious").write_text("")
    with pytest.raises(InputError, match="holds 'train'"):
        write_scenes(tmp_path, SMALL, overwrite=True)
    assert list(files_of(tmp_path)) == ["train/precious"]


def test_a_killed_run_leaves_no_set_and_can_be_repeated(tmp_path, monkeypatch):
    parameters = SceneParameters(train=12, val=0, detection_train=1, detection_val=0)
    with monkeypatch.context() as patch:
        patch.setattr("backbones.data.scenes.sets.detection_split", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_scenes(tmp_path, parameters)
    assert [path.name for path in tmp_path.iterdir()] == [".scenes-unfinished"]
    write_scenes(tmp_path, parameters)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["train", "val", "val_shifted", "annotations", "classes.txt", "detection", "scenes.json"]
    )


def test_impossible_parameters_are_refused():
    for wrong in ({"correlation": 1.2}, {"train": -1}, {"image_size": 8}, {"share_min": 0.0}, {"share_max": 0.04}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            SceneParameters(**wrong)


def test_the_tool_draws_then_skips_then_refuses(tmp_path, capsys):
    options = ["--train", "12", "--val", "12", "--detection-train", "1", "--detection-val", "1", "--workers", "1"]
    command = ["scenes", "--output-dir", str(tmp_path), *options]
    prepare_data(command)
    assert "written to" in capsys.readouterr().out
    prepare_data([*command, "--contact-sheet"])
    assert "already complete" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "contact_sheet.png")).shape == (12 * 96, 120 + 12 * 96, 3)
    tool = [sys.executable, "tools/prepare_data.py", *command, "--seed", "5"]
    other = subprocess.run(tool, cwd=REPOSITORY, capture_output=True, text=True)
    assert other.returncode == 2
    assert other.stderr.startswith("error: ")
    assert other.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["scenes", "scenes-voc", "imagenet-boxes"])
def test_the_help_explains_every_option(load_tool, capsys, name):
    with pytest.raises(SystemExit):
        load_tool("prepare_data").main([name, "--help"])
    entries = re.findall(r"(?m)^  (--[\w-]+) [A-Z_]+\s+(\S.*)", capsys.readouterr().out)
    assert len(entries) >= 3
    assert [option for option, said in entries if said.startswith(("default", "(default", "-"))] == []
