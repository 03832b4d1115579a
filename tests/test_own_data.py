"""docs/own_data.md: its files and commands, on small data that the test writes."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import finetuning
from helpers.voc_files import annotation, box
from PIL import Image

from backbones.core.config import load_config, load_yaml
from backbones.core.results import load_results
from detection.config import get_defaults
from suites.loading import load_suite
from suites.plan import build_plan

ROOT = Path(__file__).resolve().parent.parent
MANUAL = (ROOT / "docs" / "own_data.md").read_text()
FILES = dict(re.findall(r"`mine/(\w+\.yaml)`.*?```yaml\n(.*?)```", MANUAL, flags=re.DOTALL))
MORE_ROWS = re.findall(r"\*\*More rows\.\*\*.*?```yaml\n(.*?)```", MANUAL, flags=re.DOTALL)[0]
VOC = re.findall(r"```yaml\n(.*?)```", MANUAL, flags=re.DOTALL)[-1]
COMMANDS = [shlex.split(line) for line in re.findall(r"^python (.*)$", MANUAL, flags=re.MULTILINE)]
SIDE, CLASSES = 64, ("cat", "dog", "owl")


def draw(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)


def write_xml(path, boxes):
    path.parent.mkdir(parents=True, exist_ok=True)
    size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
    path.write_text(annotation(*(box(name, *corners) for name, corners in boxes), size=size))


def write_photos(folder, rng):
    """Class folders; the object covers a quarter of each image."""
    for split in ("train", "val"):
        for name in ("indoor", "outdoor"):
            for number in range(4):
                draw(folder / split / name / f"{number}.jpg", rng)
                corner = (name, (0, 0, SIDE // 2 - 1, SIDE // 2 - 1))  # inclusive, from 0
                write_xml(folder / "annotations" / split / name / f"{number}.xml", [corner])


def write_coco(folder, rng):
    for split in ("train", "val"):
        images = [{"id": n, "file_name": f"{split}{n}.jpg", "width": SIDE, "height": SIDE} for n in range(4)]
        for image in images:
            draw(folder / "images" / image["file_name"], rng)
        boxes = [
            {"id": n, "image_id": n % 4, "category_id": n % 3 + 1, "bbox": [8, 8, 20, 30], "area": 600, "iscrowd": 0}
            for n in range(12)
        ]
        categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)]
        tree = {"images": images, "annotations": boxes, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(tree))


def write_voc(folder, rng):
    for split in ("train", "val"):
        names = [f"{split}{n}" for n in range(4)]
        for name in names:
            draw(folder / "JPEGImages" / f"{name}.jpg", rng)
            write_xml(folder / "Annotations" / f"{name}.xml", [(one, (8, 8, 28, 38)) for one in CLASSES])
        (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    (folder / "classes.txt").write_text("\n".join(CLASSES[::-1]))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder of the manual, without the data of the detector."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SMOOTH2DET", str(ROOT))
    for name in ("SMOOTH2DET_DATA", "DETECTRON2_DATASETS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "mine"
    write_photos(folder / "photos", np.random.default_rng(0))
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def call(load_tool, command, *more):
    return load_tool(Path(command[0]).stem).main([*command[1:], *more])


def test_the_manual_has_its_files_and_commands():
    assert list(FILES) == ["pretrain.yaml", "detector.yaml", "suite.yaml"]
    assert [Path(command[0]).stem for command in COMMANDS] == ["validate_data", "benchmark", "benchmark"]
    assert ["--dry-run" in command for command in COMMANDS] == [False, True, False]


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_the_commands_of_the_manual(load_tool, mine, form, capsys):
    if form == "voc":
        write_voc(mine / "boxes", np.random.default_rng(1))
        tree = yaml.safe_load((mine / "detector.yaml").read_text()) | yaml.safe_load(VOC)
        (mine / "detector.yaml").write_text(yaml.safe_dump(tree))
    else:
        write_coco(mine / "boxes", np.random.default_rng(1))
    assert call(load_tool, COMMANDS[0]) == 0
    said = capsys.readouterr().out
    assert "8 samples of 2 classes, 8 boxes" in said
    assert "share of an image in its boxes: min 0.25, lower quartile 0.25, median 0.25" in said
    assert "objects per class:     min 4, median 4, max 4" in said
    assert said.count("sound") == 4
    for command in COMMANDS[1:]:
        more = [] if "--dry-run" in command else ["--dry-run"]
        assert call(load_tool, command, *more) == 0
        said = capsys.readouterr().out
        assert "LS seed 2: finetune (mine): to run" in said
        assert "not here" not in said
    assert not (mine / "runs").exists()


def test_the_rows_with_boxes_and_with_a_teacher(load_tool, mine, capsys):
    """The keys of "More rows" in suite.yaml: all stages are planned, the temperature is fitted on images held out."""
    write_coco(mine / "boxes", np.random.default_rng(1))
    tree, more = (yaml.safe_load(text) for text in (FILES["suite.yaml"], MORE_ROWS))
    rows = [*tree["ROWS"], *more.pop("ROWS")]
    (mine / "suite.yaml").write_text(yaml.safe_dump(tree | more | {"ROWS": rows}))
    assert call(load_tool, COMMANDS[1]) == 0
    said = capsys.readouterr().out
    for label in ("ALS (all)", "ILS"):
        for kind in ("pretrain", "evaluate", "localize", "finetune (mine)"):
            assert f"{label} seed 2: {kind}: to run" in said
    stages = {stage.title: stage for stage in build_plan(load_suite(mine / "suite.yaml"), mine / "runs").stages}
    student = stages["ILS seed 2: pretrain"]
    assert stages["CE seed 2: pretrain"] in student.inputs
    keys, measured = (
        dict(zip(words[::2], words[1::2], strict=True))
        for words in (student.overrides, stages["ILS seed 2: evaluate"].overrides)
    )
    assert (keys["DATA.HOLDOUT"], keys["DATA.VAL_SPLIT"], measured["DATA.VAL_SPLIT"]) == ("500", "holdout", "val")


def test_a_detector_takes_the_number_of_classes_from_the_data(load_tool, mine):
    """Results and config are those of a config that states the number."""
    write_coco(mine / "boxes", np.random.default_rng(1))
    short = [*finetuning.TINY, "SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0, "DATASETS.ROOT", mine / "boxes"]

    def train(name, *more):
        argv = ["--config-file", mine / "detector.yaml", "--backbone", "random", "--output-dir", mine / name]
        assert load_tool("finetune_coco").main([str(text) for text in [*argv, *more, *short]]) == 0
        return load_results(mine / name)

    free, stated = train("free"), train("stated", "MODEL.ROI_HEADS.NUM_CLASSES", 3)
    assert free["protocol"] == stated["protocol"]
    assert free["metrics"] == stated["metrics"]
    assert load_yaml(mine / "free" / "config.yaml") == load_yaml(mine / "stated" / "config.yaml")
    argv = ["--config-file", mine / "detector.yaml", "--backbone", "random", "--output-dir", mine / "free", "--resume"]
    assert load_tool("finetune_coco").main([str(text) for text in [*argv, *short]]) == 0


def test_the_base_config_is_found_by_its_variable(mine):
    cfg = load_config(get_defaults(), mine / "detector.yaml")
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.FPN.OUT_CHANNELS) == (0, 64)
