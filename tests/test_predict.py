"""Detections of a finished detector in images of any folder: those of its run, and broken files are named."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_runs import tiny_run
from PIL import Image

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.config import load_yaml
from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection import load_detector
from detection.data.catalog import load_data

ENGINES = ["torchvision", "yolo", pytest.param("detectron2", marks=pytest.mark.detectron2)]


@pytest.fixture(scope="module", params=ENGINES)
def trained(request, small_scenes, tmp_path_factory, load_tool):
    """A finished run of three iterations, whose last checkpoint holds no optimizer state."""
    folder = tmp_path_factory.mktemp(request.param)
    main, argv = tiny_run(request.param, small_scenes, folder, load_tool)
    main(argv(folder / "run", "SOLVER.MAX_ITER", 3, flags=["--keep", "weights"]))
    return folder / "run", partial(call, main, argv)


def call(main, argv, run, *flags):
    """Call the tool again on the run or a copy of it."""
    main(argv(run, "SOLVER.MAX_ITER", 3, flags=flags))


@pytest.fixture
def run(trained):
    return trained[0]


@pytest.fixture
def predict(load_tool):
    return load_tool("predict").main


def _test_set(run):
    """Return the test set of a run."""
    datasets = load_yaml(run / "config.yaml")["DATASETS"]
    return load_data(datasets["TEST"], datasets["ROOT"], WarningCounter())


def columns(detections):
    """Return image, category, and (n, 5) box with score."""
    numbers = np.array([[*one["bbox"], one["score"]] for one in detections])
    return [(one["image_id"], one["category_id"]) for one in detections], numbers


def test_detections_are_those_of_the_run(run, tmp_path, predict, capsys):
    test = _test_set(run)
    paths = [record.path for record in test.records]
    assert predict([str(run), *paths, "--output-dir", str(tmp_path), "--score", "0.1"]) == 0
    tree = json.loads((tmp_path / "detections.json").read_text())
    number_of = {image["file_name"]: image["id"] for image in tree["images"]}
    wanted = json.loads((run / "predictions.json").read_text())
    assert len(wanted) > 20
    names = {record.image_id: number_of[record.path] for record in test.records}
    which, numbers = columns([one | {"image_id": names[one["image_id"]]} for one in wanted])
    found_which, found = columns(tree["annotations"])
    assert found_which == which
    np.testing.assert_allclose(found, numbers, rtol=0, atol=1e-6)
    assert tree["categories"] == [{"id": one["id"], "name": one["name"]} for one in test.categories]
    assert sorted(path.stem for path in (tmp_path / "images").iterdir()) == sorted(Path(path).stem for path in paths)
    drawn = sum(one["score"] >= 0.1 for one in wanted)
    assert f"{len(paths)} images, {drawn} boxes scored at least 0.1: " in capsys.readouterr().out


def test_the_loaded_detector_holds_the_weights_of_the_run(run):
    detector = load_detector(run)
    saved = load_checkpoint(run / "checkpoint.pth")["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in detector.model.state_dict().items())
    found = detector.detect([_test_set(run).records[0].path])
    assert [image["id"] for image in found["images"]] == [1]
    assert {one["image_id"] for one in found["annotations"]} == {1}


def test_a_broken_image_is_named_and_the_rest_is_done(run, tmp_path, predict):
    folder = tmp_path / "photos"
    folder.mkdir()
    good = Path(_test_set(run).records[0].path).read_bytes()
    (folder / "b.png").write_bytes(good)
    (folder / "cut.png").write_bytes(good[: len(good) // 2])  # its header is whole
    (folder / "text.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("left alone")
    with pytest.raises(InputError) as refused:
        predict([str(run), str(folder), str(tmp_path / "gone.png"), "--output-dir", str(tmp_path / "out")])
    said = str(refused.value)
    assert said.startswith("3 of 4 images were left out: ")
    assert all(name in said for name in ("cut.png", "text.jpg", "gone.png"))
    assert "\n" not in said
    assert "b.png" not in said
    tree = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [Path(image["file_name"]).name for image in tree["images"]] == ["b.png"]
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["b.png"]
    assert tree["annotations"] == load_detector(run).detect([folder / "b.png"])["annotations"]


def test_a_box_is_drawn_where_it_was_found(tmp_path):
    from detection.drawing.predictions import save_predictions

    Image.new("RGB", (80, 60), "black").save(tmp_path / "a.png")
    image = {"id": 1, "file_name": str(tmp_path / "a.png"), "width": 80, "height": 60}
    found = [{"image_id": 1, "category_id": 3, "bbox": [20, 30, 40, 20], "score": score} for score in (0.2, 0.9)]
    found[0] |= {"bbox": [0, 0, 10, 10]}
    tree = {"images": [image, image | {"id": 2}], "categories": [{"id": 3, "name": "cat"}], "annotations": found}
    paths = save_predictions(tmp_path / "out", tree, 0.5)
    assert [path.name for path in paths] == ["a.png", "a-2.png"]
    pixels, empty = (np.asarray(Image.open(path)) for path in paths)
    assert tuple(pixels[40, 20]) == (0x15, 0x57, 0xC0)  # the left side
    assert not pixels[:10, :10].any()  # scored too low
    assert not empty.any()


def test_every_image_has_a_drawing_of_its_own(tmp_path):
    from detection.drawing.predictions import save_predictions

    images = []
    for number, (name, shade) in enumerate((("a-3.jpg", 50), ("a.jpg", 100), ("a.png", 150), ("a-3.png", 200)), 1):
        Image.new("RGB", (80, 60), (shade,) * 3).save(tmp_path / name)
        images.append({"id": number, "file_name": str(tmp_path / name), "width": 80, "height": 60})
    paths = save_predictions(tmp_path / "out", {"images": images, "categories": [], "annotations": []}, 0.5)
    shades = [int(np.asarray(Image.open(path))[30, 40, 0]) for path in paths]
    assert shades == pytest.approx([50, 100, 150, 200], abs=3)
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_run_without_optimizer_state_is_evaluated_again_but_not_continued(trained, tmp_path):
    (run, again), copy = trained, tmp_path / "run"
    state = load_checkpoint(run / "checkpoint.pth")
    assert "optimizer" not in state
    shutil.copytree(run, copy)
    for flag in ("--resume", "--eval-only"):
        (copy / "results.json").unlink()
        again(copy, flag)
        found, wanted = (json.loads((folder / "results.json").read_text()) for folder in (copy, run))
        assert found["metrics"] == wanted["metrics"]
    save_checkpoint(copy / "checkpoint.pth", **state | {"iteration": 2})
    with pytest.raises(InputError, match=r"checkpoint\.pth holds no optimizer state .* cannot be continued; start in "):
        again(copy, "--resume")


def test_what_is_not_a_finished_run_is_refused(run, tmp_path, predict):
    with pytest.raises(InputError, match=r"no checkpoint.pth; give the folder of a finished fine-tuning$"):
        load_detector(tmp_path)
    state = load_checkpoint(run / "checkpoint.pth")
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    save_checkpoint(tmp_path / "checkpoint.pth", **state | {"iteration": 2})
    with pytest.raises(InputError, match=r"is at iteration 2 of 3; finish it with --resume first$"):
        load_detector(tmp_path)
    with pytest.raises(InputError, match=r"--score is 2.0; it must be between 0 and 1"):
        predict([str(run), "a.png", "--output-dir", str(tmp_path), "--score", "2"])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no image in this folder"):
        predict([str(run), str(tmp_path / "none"), "--output-dir", str(tmp_path)])


def test_a_checkpoint_of_an_earlier_version_takes_its_classes_from_the_data(run, tmp_path):
    state = load_checkpoint(run / "checkpoint.pth")
    del state["categories"], state["meters"]
    for name in ("config.yaml", "results.json"):
        (tmp_path / name).write_text((run / name).read_text())
    save_checkpoint(tmp_path / "checkpoint.pth", **state)
    assert load_detector(tmp_path).categories == _test_set(run).categories
    text = (tmp_path / "results.json").read_text()
    (tmp_path / "results.json").write_text(text.replace(_test_set(run).fingerprint, "0" * 12))
    with pytest.raises(InputError, match="does not name its classes, and its data cannot be read: "):
        load_detector(tmp_path)
