"""The suites whose rows are class labels of one detector: FINETUNE names another tool."""

import json
import re
from pathlib import Path

import pytest
from helpers.suite_lab import Lab

from backbones.core.config import load_config
from backbones.core.errors import InputError
from detection.engines.yolo.config import get_defaults, label_name
from suites.loading import load_suite

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = {
    "quick_yolo": (1, ["hard labels", "LS 0.1 labels", "OLS labels"]),
    "voc_yolo_ols": (3, ["hard labels", "LS 0.01 labels", "LS 0.1 labels", "OLS labels"]),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_label_is_a_fine_tuning_of_the_same_backbone(load_tool, tmp_path, capsys, name):
    path = ROOT / "configs" / "suites" / f"{name}.yaml"
    arguments = ["--config-file", str(path), "--output-dir", str(tmp_path / "out"), "--dry-run", "--commands"]
    assert load_tool("benchmark").main(arguments) == 0
    said = capsys.readouterr()
    assert said.err == ""
    commands = [line for line in said.out.splitlines() if "tools/finetune_voc.py" in line]
    suite = load_suite(path)
    seeds, labels = EXPECTED[name]
    assert len(suite.seeds) == seeds
    assert len(commands) == seeds * len(labels)
    of_entries = [load_config(get_defaults(), ROOT / e.config, _known(e.overrides)) for e in suite.finetune]
    assert [label_name(one.CLASS_LABELS) for one in of_entries] == labels
    assert len({command.split("--backbone ")[1].split()[0] for command in commands}) == seeds


def _known(overrides):
    pairs = zip(overrides[::2], overrides[1::2], strict=True)
    return [text for key, value in pairs if key != "DATASETS.ROOT" for text in (key, value)]


def test_a_mistyped_key_of_yolo_stops_the_suite(load_tool, tmp_path):
    entry = "[{NAME: a, TOOL: finetune_voc, CONFIG: configs/yolo/quick.yaml, OVERRIDES: [CLASS_LABELS.NAMEE, OLS]}]"
    path = ROOT / "configs" / "suites" / "quick_yolo.yaml"
    arguments = ["--config-file", str(path), "--output-dir", str(tmp_path / "out"), "FINETUNE", entry]
    message = re.escape("CE: finetune (a): command line: unknown key 'CLASS_LABELS.NAMEE'; did you mean")
    with pytest.raises(InputError, match=message):
        load_tool("benchmark").main(arguments)


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    (lab.tools / "finetune_voc.py").write_text((lab.tools / "finetune_coco.py").read_text())
    return lab


def test_the_tool_is_called_and_enters_the_hash(lab):
    lab.tree["FINETUNE"].append({**lab.tree["FINETUNE"][0], "NAME": "yolo", "TOOL": "finetune_voc"})
    stages = {stage.title: stage for stage in lab.plan().stages}
    coco, voc = stages["CE: finetune (quick)"], stages["CE: finetune (yolo)"]
    assert (coco.tool, voc.tool) == ("finetune_coco", "finetune_voc")
    assert Path(voc.command[1]).name == "finetune_voc.py"
    lab.tree["FINETUNE"][1]["TOOL"] = "finetune_coco"
    assert {stage.title: stage for stage in lab.plan().stages}["CE: finetune (yolo)"].hash != voc.hash


def test_an_unknown_tool_is_refused(lab):
    lab.tree["FINETUNE"][0]["TOOL"] = "finetune_vocc"
    with pytest.raises(
        InputError, match=r"FINETUNE quick: unknown TOOL 'finetune_vocc'; did you mean 'finetune_voc'\?"
    ):
        lab.plan()


def test_a_detector_of_a_backbone_is_complete_though_its_row_is_its_own(lab):
    """The row's hash says more than the backbone's: results are outdated by other weights alone."""
    lab.tell("weights", "{}")
    stage = next(stage for stage in lab.plan().stages if stage.title == "CE: finetune (quick)")
    for folder, details in ((stage.inputs[0].output, {}), (stage.output, {"backbone_hash": "CE"})):
        folder.mkdir(parents=True)
        who = {"label": "CE", "method": "CE", "seed": 0, "hash": "CE-labels" if details else "CE"}
        results = {"schema_version": 1, "stage": "detection", "backbone": who, "details": details}
        rest = {"protocol": {"name": "p", "hash": "1"}, "metrics": {}, "data": {}, "warnings": [], "files": {}}
        (folder / "results.json").write_text(json.dumps(results | rest))
    assert stage.finished()
    changed = json.loads((stage.output / "results.json").read_text()) | {"details": {"backbone_hash": "other"}}
    (stage.output / "results.json").write_text(json.dumps(changed))
    assert not stage.finished()
