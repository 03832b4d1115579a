"""Rows whose backbone is a file: a run of this project, or a checkpoint of another program."""

import csv
import json
from dataclasses import replace

import pytest
import torch
import yaml
from helpers import finetuning, pretraining
from helpers.finetuning import MEAN, STD
from helpers.seeded import make_backbone
from helpers.suite_lab import FINETUNE

from backbones.core.errors import InputError
from backbones.core.results import load_results
from suites.execution.timings import Timings

pytest_plugins = ["helpers.suite_fixtures"]

MEASURED = ["mine import", "mine evaluate", "mine localize", "mine finetune"]


@pytest.fixture
def own(lab):
    """A lab with a row that is read from a file and measured."""
    (lab.folder / "mine.pth").write_text("weights 1")
    lab.tell("weights", "{}")
    lab.tree["ROWS"].append({"LABEL": "mine", "BACKBONE": "mine.pth", "CONFIG": "pretrain.yaml"})
    return lab


def stages_of(lab, label="mine"):
    found = [stage for stage in lab.plan().stages if stage.run and stage.run.label == label]
    return {stage.title.removeprefix(f"{label}: "): stage for stage in found}


def calls_of(lab, label="mine"):
    return [call for call in lab.called() if call.startswith(label)]


def test_a_file_is_imported_measured_and_fine_tuned_beside_trained_rows(own):
    assert own.run()[0] == 0
    calls = {tool: arguments for tool, arguments in own.calls() if "/mine-s0-" in " ".join(arguments)}
    folder = stages_of(own)["import"].output
    start = ["--checkpoint", str(own.folder / "mine.pth"), "--source", "smooth2det", "--label", "mine", "--seed", "0"]
    assert calls["import_backbone"][: len(start)] == start
    data = next(own.output.glob("data/*/scenes"))
    assert calls["import_backbone"][-6:] == ["DATA.ROOT", str(data), "LABEL", "mine", "SEED", "0"]
    assert calls["evaluate_backbone"][2:] == [str(folder), "DATA.ROOT", str(data)]
    finetune = calls["finetune_coco"]
    assert finetune[finetune.index("--backbone") + 1] == str(folder)
    assert own.to_run() == []
    assert own.run()[0] == 0
    assert own.called() == []


def test_without_a_config_it_is_only_fine_tuned(own):
    del own.tree["ROWS"][-1]["CONFIG"]
    assert list(stages_of(own)) == ["import", "finetune (quick)"]
    assert "--config-file" not in stages_of(own)["import"].command


def test_the_content_of_the_file_counts_and_not_its_place(own):
    assert own.run()[0] == 0
    (own.folder / "mine.pth").rename(own.folder / "moved.pth")
    own.tree["ROWS"][-1]["BACKBONE"] = "moved.pth"
    assert own.to_run() == []
    (own.folder / "moved.pth").write_text("weights 2")
    assert own.to_run() == [*MEASURED, "compare"]
    own.called()
    assert own.run()[0] == 0
    tools = ("evaluate_backbone", "finetune_coco", "import_backbone", "localize")
    assert sorted(calls_of(own)) == [f"mine {tool}" for tool in tools]


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        ({"IMPORT": ["--source", "torchvision", "--arch", "resnet18"]}, MEASURED),
        ({"OVERRIDES": ["DATA.IMAGE_SIZE", 64]}, MEASURED),
        ({"LABEL": "other"}, [text.replace("mine", "other") for text in MEASURED]),
    ],
)
def test_what_the_import_depends_on_reruns_its_row_alone(own, change, rerun):
    assert own.run()[0] == 0
    own.tree["ROWS"][-1] |= change
    assert own.to_run() == [*rerun, "compare"]


@pytest.mark.parametrize("form", [["--classes", "{}"], ["--classes={}"]])
def test_the_names_of_the_classes_count_by_content(own, form):
    def name(file):
        own.tree["ROWS"][-1]["IMPORT"] = ["--source", "torchvision", *(text.format(file) for text in form)]

    (own.folder / "names.txt").write_text("a\nb\n")
    name("names.txt")
    before = stages_of(own)["import"]
    told = [text.format(own.folder / "names.txt") for text in form]
    place = before.command.index(told[0])
    assert before.command[place : place + len(told)] == (*told,)
    (own.folder / "names.txt").rename(own.folder / "classes.txt")
    name("classes.txt")
    assert stages_of(own)["import"].hash == before.hash
    (own.folder / "classes.txt").write_text("b\na\n")
    assert stages_of(own)["import"].hash != before.hash


@pytest.mark.parametrize("form", [["--source", "smooth2det"], ["--source=smooth2det"]])
def test_a_source_of_our_own_is_recognised_in_both_forms(own, form):
    own.tree["ROWS"][-1]["IMPORT"] = form
    assert stages_of(own)["import"].own


def test_one_file_is_fine_tuned_once_with_each_seed(own):
    own.tree["SEEDS"] = [3, 4]
    found = stages_of(own)
    assert [title for title in found if "finetune" in title] == [
        "finetune (quick) detector seed 3",
        "finetune (quick) detector seed 4",
    ]
    assert [found[title].command[-2:] for title in found if "finetune" in title] == [("SEED", "3"), ("SEED", "4")]
    assert sum("import" in title for title in found) == 1
    own.tree["FINETUNE_SEEDS"] = [7]
    assert [stage.command[-1] for title, stage in stages_of(own).items() if "finetune" in title] == ["7"]


def test_a_file_per_seed_is_a_backbone_per_seed(own):
    for seed in (3, 4):
        (own.folder / f"mine-{seed}.pth").write_text(f"weights {seed}")
    own.tree |= {"SEEDS": [3, 4], "FINETUNE_SEEDS": [0, 1]}
    own.tree["ROWS"][-1]["BACKBONE"] = "mine-{seed}.pth"
    found = [stage for stage in own.plan().stages if stage.run and stage.run.label == "mine"]
    imports = [stage for stage in found if stage.kind == "import"]
    assert [stage.command[3] for stage in imports] == [str(own.folder / f"mine-{seed}.pth") for seed in (3, 4)]
    assert [stage.title for stage in imports] == ["mine seed 3: import", "mine seed 4: import"]
    assert sum(stage.kind == "finetune" for stage in found) == 4


def test_a_run_folder_counts_with_the_code_that_it_keeps(own):
    run = own.folder / "run"
    (run / "imports").mkdir(parents=True)
    (run / "backbone.pth").write_text("weights")
    (run / "imports" / "net.py").write_text("SIZE = 1\n")
    (run / "config.yaml").write_text("IMPORTS: [imports/net.py]\n")
    own.tree["ROWS"][-1]["BACKBONE"] = "run"
    before = stages_of(own)["import"].hash
    (run / "imports" / "net.py").write_text("SIZE = 2\n")
    assert stages_of(own)["import"].hash != before


def test_where_the_file_is(own, monkeypatch):
    (own.folder / "sub").mkdir()
    (own.folder / "sub" / "rows.yaml").write_text(yaml.safe_dump(own.tree))
    (own.folder / "mine.pth").rename(own.folder / "sub" / "mine.pth")
    (own.folder / "pretrain.yaml").rename(own.folder / "sub" / "pretrain.yaml")
    own.tree = {"_BASE_": "sub/rows.yaml", "PRETRAIN": {"CONFIG": "sub/pretrain.yaml"}}
    stage = stages_of(own)["import"]
    assert stage.source_file.path == own.folder / "sub" / "mine.pth"
    assert stage.config == own.folder / "sub" / "pretrain.yaml"
    monkeypatch.setenv("S2D_PLACE", str(own.folder / "sub"))
    own.tree["ROWS"] = [{"LABEL": "mine", "BACKBONE": "$S2D_PLACE/mine.pth"}]
    assert stages_of(own)["import"].source_file.path == own.folder / "sub" / "mine.pth"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"BACKBONE": "none.pth"}, r"ROWS mine: BACKBONE: no file .*lab/none\.pth; give 'random', or a path"),
        ({"GRID": {"KEYS": {"METHOD.LS.amount": [0.1]}}}, "ROWS mine: the BACKBONE of a file is not trained, .*GRID"),
        ({"BACKBONE": "random"}, "ROWS mine: a random backbone is not pretrained; delete its CONFIG"),
        (
            {"BACKBONE": "random", "IMPORT": ["--source", "moco"], "CONFIG": ""},
            "ROWS mine: IMPORT says how to read a BACKBONE file, but there is none; delete it",
        ),
        ({"BACKBONE": "", "IMPORT": ["my.py"]}, r"ROWS mine: IMPORT .*\(code of your own: IMPORTS\)"),
        ({"CONFIG": "", "OVERRIDES": ["A", 1]}, "ROWS mine: OVERRIDES change the CONFIG that measures BACKBONE"),
        ({"IMPORT": ["--label", "x"]}, "ROWS mine: IMPORT: the suite sets --label; delete it"),
        ({"IMPORT": ["--check=x.pth"]}, "ROWS mine: IMPORT: the suite sets --check; delete it"),
        ({"IMPORT": ["--class", "x"]}, "ROWS mine: IMPORT: --class is a shortened --classes; write it in full"),
        ({"IMPORT": ["torchvision"]}, "ROWS mine: IMPORT begins with 'torchvision'; write options"),
        (
            {"BACKBONE": "photos", "IMPORT": ["--source", "moco"]},
            "BACKBONE .* is a folder; with IMPORT, name the",
        ),
        (
            {"IMPORT": ["--source", "moco", "--classes", "none.txt"]},
            "ROWS mine: IMPORT: cannot read .*none.txt .--classes.: No such file",
        ),
    ],
)
def test_what_is_refused(own, row, message):
    own.tree["ROWS"][-1] |= row
    with pytest.raises(InputError, match=message) as refused:
        own.plan()
    assert "\n" not in str(refused.value)


def test_a_file_that_nothing_measures_is_refused(own):
    own.tree |= {"FINETUNE": [], "ROWS": own.tree["ROWS"][1:]}
    assert list(stages_of(own)) == ["import", "evaluate", "localize"]
    own.tree |= {"EVALUATE": {"ENABLED": False}, "LOCALIZE": {"ENABLED": False}}
    with pytest.raises(InputError, match="ROWS mine: nothing measures its BACKBONE; add a FINETUNE protocol"):
        own.plan()


def test_a_file_that_changes_while_the_suite_runs_is_not_imported_under_the_old_name(own):
    plan = own.plan()
    (own.folder / "mine.pth").write_text("other weights")
    code, said = own.run_plan(plan)
    assert code == 1
    assert "mine.pth (BACKBONE) has changed since the suite was started; start it again" in said
    assert calls_of(own) == []


def test_what_another_hand_left_in_the_folder_is_not_the_import(own):
    assert own.run()[0] == 0
    stage = stages_of(own)["import"]
    assert stage.complete()
    about = json.loads((stage.output / "import.json").read_text())
    about["backbone"]["hash"] = "another"
    (stage.output / "import.json").write_text(json.dumps(about))
    assert not stage.complete()
    assert stage.foreign() == "its backbone or its config has changed since it was imported"
    assert not stages_of(own)["evaluate"].complete()  # of other weights
    assert own.run()[0] == 0
    assert stages_of(own)["import"].complete()
    assert [title for title in own.to_run() if title in FINETUNE] == []


def test_a_row_without_a_pretraining_does_not_price_another_seed(own):
    stages = own.plan().stages
    costs = {"import": 1, "pretrain": 1000, "evaluate": 20, "localize": 30, "finetune": 400}
    stages = [replace(stage, cost=costs.get(stage.kind, 0)) for stage in stages if stage.run]
    timings = Timings(own.folder / "none.json")
    assert timings.seed_hours(stages) == pytest.approx((1450 / 3600, 400 / 3600))  # of the trained rows


# ---- the real tools: what the detector cannot take, and one table


DETECTOR = {"NAME": "p", "CONFIG": "configs/detection/quick.yaml", "OVERRIDES": [*map(str, finetuning.TINY)]}
AS_OURS = ["--mean", *map(str, MEAN), "--std", *map(str, STD)]


@pytest.fixture
def listed(load_tool, tmp_path, capsys):
    """Write a suite of one row beside the weights of a ResNet-18 and list it."""
    torch.save(make_backbone().state, tmp_path / "theirs.pth")
    finetuning.write_backbone(tmp_path / "ours.pth")

    def call(row, *overrides):
        suite = {"FINETUNE": [DETECTOR], "ROWS": [{"LABEL": "mine", **row}]}
        (tmp_path / "suite.yaml").write_text(json.dumps(suite))
        arguments = ["--config-file", str(tmp_path / "suite.yaml"), "--output-dir", str(tmp_path / "out")]
        assert load_tool("benchmark").main([*arguments, "--dry-run", "--commands", *overrides]) == 0
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().out

    return call


def torchvision(*more):
    return {"BACKBONE": "theirs.pth", "IMPORT": ["--source", "torchvision", "--arch", "resnet18", *more]}


def test_a_dry_run_lists_what_fits(listed, tmp_path):
    said = listed(torchvision(*AS_OURS))
    assert "mine: import: to run" in said
    assert f"weights {tmp_path}/theirs.pth" in said
    assert "mine: finetune (p): to run" in said
    assert "mine: import: to run" in listed({"BACKBONE": "ours.pth"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (torchvision(), r"mine: finetune \(p\): MODEL.PIXEL_MEAN is .* the backbone was trained with"),
        (
            torchvision(*AS_OURS, "--arch", "resnet50"),
            "mine: import: the backbone file states depth 50, .* depth 18",
        ),
        (torchvision(*AS_OURS, "--archh", "x"), "mine: import: unknown option --archh; did you mean '--arch'"),
        ({"BACKBONE": "theirs.pth", "IMPORT": ["--source", "torchvision"]}, "mine: import: --arch is missing"),
        ({"BACKBONE": "theirs.pth"}, "mine: import: .*theirs.pth is not a backbone file"),
        (
            torchvision(*AS_OURS, "--no-classifier") | {"CONFIG": "configs/pretrain/quick_scenes.yaml"},
            "mine: import: .*theirs.pth has no classifier to measure; delete the row's CONFIG",
        ),
        (
            torchvision(*AS_OURS) | {"CONFIG": "configs/pretrain/quick_scenes.yaml"},
            "mine: import: --classes is missing: CONFIG measures the classifier, .* outputs of .* have no names; name",
        ),
        ({"BACKBONE": "ours.pth", "IMPORT": ["--source", "smooth2det", "--norm", "GN"]}, "mine: import: --norm: with"),
    ],
)
def test_what_the_detector_cannot_take_is_refused_before_anything_runs(listed, row, message):
    with pytest.raises(InputError, match=message) as refused:
        listed(row)
    assert "\n" not in str(refused.value)


@pytest.mark.exhaustive
def test_one_table_of_a_trained_row_an_own_file_and_a_foreign_one(load_tool, small_scenes, tmp_path):
    config = "configs/pretrain/quick_scenes.yaml"
    short = ["MODEL.ARCH", "resnet18", "DATA.MEAN", list(MEAN), "DATA.STD", list(STD), "SOLVER.MAX_EPOCH", 1]
    words = pretraining.arguments(small_scenes, tmp_path / "run", *short, "SEED", 5, "LABEL", "another")
    assert load_tool("pretrain").main(["--config-file", config, *words]) == 0
    torch.save(make_backbone().state, tmp_path / "theirs.pth")
    overrides = ["DATASETS.ROOT", "{data:scenes}", *finetuning.TINY, "SOLVER.MAX_ITER", 3]
    suite = {
        "DATA": [{"NAME": "scenes", "FOLDER": str(small_scenes)}],
        "PRETRAIN": {"CONFIG": config, "OVERRIDES": ["DATA.ROOT", "{data:scenes}", *pretraining.TINY, *short]},
        "LOCALIZE": {"ENABLED": False},
        "FINETUNE": [DETECTOR | {"OVERRIDES": overrides}],
        "COMPARE": {"ARGUMENTS": ["--resamples", 20, "--baseline", "CE"]},  # the own run is one of CE, too
        "ROWS": [
            {"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]},
            {"LABEL": "mine", "BACKBONE": "run", "CONFIG": config},
            {"LABEL": "theirs", **torchvision(*AS_OURS)},
        ],
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    call = ["--config-file", str(tmp_path / "suite.yaml"), "--output-dir", str(tmp_path / "out")]
    assert load_tool("benchmark").main(call) == 0
    with (tmp_path / "out" / "report" / "comparison.csv").open() as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"CE", "mine", "theirs"}
    assert float(rows["mine"]["top1"]) == load_results(tmp_path / "run")["metrics"]["top1"]
    assert rows["theirs"]["top1"] == ""
    assert all(row["AP"] for row in rows.values())
