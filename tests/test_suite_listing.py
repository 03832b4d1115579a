"""What a dry run tells: every command with its inputs, on a machine that has neither the data nor detectron2."""

import json
import re
import sys

import pytest
from helpers.suite_lab import ROOT

import backbones.config
from backbones.core.config import flatten, load_config
from backbones.core.errors import InputError
from suites import listing as suite_listing
from suites.listing import describe
from suites.loading import load_suite
from suites.plan import build_plan

pytest_plugins = ["helpers.suite_fixtures"]

SUITE = ROOT / "configs" / "suites" / "imagenet_coco.yaml"


@pytest.fixture
def bare(monkeypatch, load_tool, tmp_path, capsys):
    """Lists a suite where no variable is set and no detectron2 installed; returns its head and its blocks by title."""
    for name in ("IMAGENET", "SMOOTH2DET_DATA", "OPEN_IMAGES", "DETECTRON2_DATASETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(suite_listing, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "detectron2", None)  # importing it would fail

    def listing(name):
        path, output = ROOT / "configs" / "suites" / f"{name}.yaml", tmp_path / "out"
        arguments = ["--config-file", str(path), "--output-dir", str(output), "--dry-run", "--commands"]
        assert load_tool("benchmark").main(arguments) == 0
        assert not output.exists()
        head, *blocks = re.split(r"^\[\d+/\d+\] ", capsys.readouterr().out, flags=re.MULTILINE)
        return head.splitlines(), {block.splitlines()[0]: block.splitlines()[1:] for block in blocks}

    return listing


def fields(block, name):
    return [line.split(None, 1)[1] for line in block if line.split()[0] == name]


def test_the_suite_of_the_project_is_listed_whole(bare):
    head, blocks = bare("imagenet_coco")
    counts = "19 pretrain, 19 evaluate, 19 localize, 19 finetune frozenbn_r50_fpn_1x, 19 finetune als_r50_c4, 1 compare"
    assert head[0] == f"96 stages, 0 complete: {counts}"
    assert "slots   1 (LAUNCH.JOBS), 8 processes per training" in head
    assert any(line.startswith("engine  detectron2: not installed here (38 stages)") for line in head)
    assert "note    files that DATA does not name enter no hash: if they change, nothing is rerun" in head
    assert len(blocks) == 96
    outputs = {title: fields(block, "output")[0] for title, block in blocks.items()}
    assert len(set(outputs.values())) == 96
    methods = ("CE", "LS", "ALS", "ILS", "OLS", "CutMix")
    rows = [*(f"{label} seed {seed}" for label in methods for seed in range(3)), "CE full"]
    for row in rows:
        block = blocks[f"{row}: pretrain: to run"]
        version = "" if row == "CE full" else ", version box"
        assert fields(block, "data") == [f"imagenet_xml train holdout{version} in ${{IMAGENET}}: IMAGENET is not set"]
        assert "--nproc_per_node=8" in block[-1]
        teacher = f"CE{row.removeprefix('ILS')}: pretrain" if row.startswith("ILS") else ""
        read = [f"{outputs[f'{teacher}: to run']} ({teacher})"] if teacher else []
        assert fields(block, "input") == read
        trained = outputs[f"{row}: pretrain: to run"]
        for kind in ("evaluate", "localize"):
            block = blocks[f"{row}: {kind}: to run"]
            assert fields(block, "data") == ["imagenet_xml val in ${IMAGENET}: IMAGENET is not set"]
            assert fields(block, "input") == [f"{trained} ({row}: pretrain)"]
            assert "nproc_per_node" not in block[-1]
        for protocol in ("frozenbn_r50_fpn_1x", "als_r50_c4"):
            block = blocks[f"{row}: finetune ({protocol}): to run"]
            assert fields(block, "data")[0].startswith("coco_2017_train -> coco_2017_val in ")
            assert fields(block, "input") == [f"{trained} ({row}: pretrain)"]
            assert fields(block, "config") == [str(ROOT / f"configs/detection/{protocol}.yaml")]
            assert f"--backbone {trained} " in block[-1]
            assert "--nproc_per_node=8" in block[-1]
    compared = fields(blocks["compare: to run"], "input")
    assert len(compared) == 95
    assert "--allow-mixed-protocols --baseline CE " in blocks["compare: to run"][-1]


def test_rows_of_the_suite_differ_in_nothing_but_the_method(tmp_path):
    plan, settings = build_plan(load_suite(SUITE), tmp_path), {}
    for stage in plan.stages:
        if stage.kind == "pretrain":
            cfg = load_config(backbones.config.get_defaults(), stage.config, stage.overrides)
            backbones.config.validate(cfg)
            settings[cfg.LABEL, cfg.SEED] = dict(flatten(cfg))
    own = ("METHOD.", "LABEL", "TEACHER.RUN")
    common = [{k: v for k, v in one.items() if not k.startswith(own)} for one in settings.values()]
    for (label, seed), one in zip(settings, common, strict=True):
        version = {"DATA.VERSION": "full"} if label == "CE full" else {}
        assert one == common[0] | {"SEED": seed} | version, label
    methods = {"LS": "ls_k-1", "ALS": "als", "ILS": "ils", "OLS": "ols", "CutMix": "cutmix"}
    for label, name in methods.items():  # with the numbers of configs/pretrain/method
        cfg = load_config(backbones.config.get_defaults(), ROOT / "configs/pretrain/method" / f"{name}.yaml")
        wanted = {key: value for key, value in flatten(cfg) if key.startswith("METHOD.")}
        assert {key: settings[label, 0][key] for key in wanted} == wanted, label


def test_the_suite_of_the_papers_is_listed_whole(bare):
    head, blocks = bare("als_table7")
    assert head[0] == "37 stages, 0 complete: 18 pretrain, 18 finetune als_r50_c4, 1 compare"
    places = {data.split(" in ")[1].split(":")[0] for block in blocks.values() for data in fields(block, "data")}
    assert {"${IMAGENET}", "${OPEN_IMAGES}"} < places
    for title, block in blocks.items():
        if title.startswith("compare"):
            assert len(fields(block, "input")) == 36
        elif "finetune" in title:
            trained = title.replace("finetune (als_r50_c4): to run", "pretrain: to run")
            assert fields(block, "input") == [f"{fields(blocks[trained], 'output')[0]} ({trained[:-8]})"]


def test_data_that_is_not_there_is_said(bare, tmp_path):
    head, blocks = bare("real_small")
    assert head[-1].startswith("note    a data folder is missing")
    place = "${SMOOTH2DET_DATA}/tiny-imagenet/tiny-imagenet-200"
    assert f"data    tiny_imagenet train val in {place}: SMOOTH2DET_DATA is not set (4 stages)" in head
    assert fields(blocks["CE: pretrain: to run"], "input") == [place]
    assert not any("enter no hash" in line for line in head)
    head, _ = bare("quick")  # prepares its own
    assert not any("not here" in line or "not set" in line or line.startswith("note") for line in head)


FASTER_RCNN = {"CONFIG": "configs/detection/als_r50_c4.yaml"}  # ENGINE detectron2, ResNet-50, batch norm frozen
YOLO = {"CONFIG": "configs/yolo/quick.yaml", "TOOL": "finetune_voc"}  # ResNet-18


@pytest.mark.parametrize(
    ("row", "detector", "message"),
    [
        (
            {"OVERRIDES": ["MODEL.ARCH", "resnet18"]},
            FASTER_RCNN,
            "A: finetune (p): MODEL.RESNETS.DEPTH is 50, the backbone .* 18",
        ),
        (
            {"OVERRIDES": ["DATA.MEAN", [0.4, 0.4, 0.4]]},
            FASTER_RCNN,
            "A: finetune (p): MODEL.PIXEL_MEAN is .* trained with",
        ),
        ({"BACKBONE": "random"}, FASTER_RCNN, "A: finetune (p): MODEL.RESNETS.NORM FrozenBN on random weights"),
        (
            {},
            FASTER_RCNN | {"OVERRIDES": ["ENGINE", "torchvision"]},
            "A: finetune (p): MODEL.BACKBONE.NAME: .* ENGINE torchvision supports only",
        ),
        ({}, FASTER_RCNN, ""),
        ({}, YOLO, "A: finetune (p): MODEL.ARCH is resnet18, the backbone is resnet50"),
    ],
)
def test_a_fine_tuning_that_cannot_take_its_backbone_is_refused_before_the_pretraining(
    row, detector, message, load_tool, tmp_path, capsys
):
    suite = {
        "PRETRAIN": {"CONFIG": "configs/pretrain/imagenet.yaml", "OVERRIDES": ["METHOD.NAME", "CE"]},
        **{block: {"ENABLED": False} for block in ("EVALUATE", "LOCALIZE")},
        "FINETUNE": [{"NAME": "p", **detector}],
        "ROWS": [{"LABEL": "A", **row}],
    }
    path = tmp_path / "suite.yaml"
    path.write_text(json.dumps(suite))
    arguments = ["--config-file", str(path), "--output-dir", str(tmp_path / "out"), "--dry-run"]
    if message:
        with pytest.raises(InputError, match=message.replace("(p)", re.escape("(p)"))):
            load_tool("benchmark").main(arguments)
    else:
        assert load_tool("benchmark").main(arguments) == 0
        assert "A: finetune (p): to run" in capsys.readouterr().out


def test_estimates_of_a_dry_run(lab):
    """Rows of 10 + 2 x (100 + 20) + 3 x 50 + 5 s; the chain is data, training, detector, report."""
    lab.tree["DATA"][0] |= {"COST": 10, "DISK": 0.5}
    lab.tree["FINETUNE"][0] |= {"COST": 50, "DISK": 0.25, "DISK_OF_WEIGHTS": 0.25, "DISK_OF_OPTIMIZER": 0.25}
    lab.tree |= {
        "PRETRAIN": lab.tree["PRETRAIN"] | {"COST": 100, "DISK": 2.0, "DISK_OF_WEIGHTS": 1.5, "DISK_OF_OPTIMIZER": 1},
        "EVALUATE": {"COST": 20}, "LOCALIZE": {"ENABLED": False}, "COMPARE": {"COST": 5},
    }  # fmt: skip
    chain = "data scenes: prepare > CE: pretrain > CE: finetune (quick) > compare"
    for jobs, elapsed in ((1, "7 min"), (2, "4 min"), (3, "3 min")):  # 405 s, 215 s, 165 s
        lines = describe_with(lab, jobs)
        assert f"slots   {jobs} (LAUNCH.JOBS), 1 processes per training" in lines
        assert f"time    about {elapsed} for 7 min of stages" in lines
        assert f"chain   3 min at least, however many slots: {chain}" in lines
        [disk] = [line for line in lines if line.startswith("disk")]
        # 0.5 + 2 x 2 + 3 x 0.25; 2 x 1 + 3 x 0.25 more; 2 x 1.5 + 3 x 0.25 less.
        assert disk.startswith(
            "disk    about 5.2 GB with KEEP weights (all 8.0 GB, results 1.5 GB), without 2 evaluate, 1 compare, whose "
            "DISK is unknown; "
        )
    lab.tree["EVALUATE"]["COST"] = 0
    assert "time    about 6 min for 6 min of stages, without 2 evaluate, whose COST is unknown" in describe_with(lab, 1)
    assert lab.run()[0] == 0
    said = describe_with(lab, 1)
    assert not any(line.startswith(("time ", "chain ")) for line in said)


def test_a_first_call_without_costs_says_that_the_time_is_unknown(lab):
    unknown = "time    unknown until the first stages have run (COST of the suite states it)"
    assert unknown in describe_with(lab, 1)
    lab.tree["PRETRAIN"]["COST"] = 100
    assert unknown not in describe_with(lab, 1)


def describe_with(lab, jobs):
    lab.tree["LAUNCH"]["JOBS"] = jobs
    return describe(lab.plan()).splitlines()


def test_the_suite_of_the_project_on_eight_nodes_of_a_cluster(bare):
    """Critical path in hours, cost and disk, without SLURM; the stages are those of the suite on one machine."""
    head, blocks = bare("imagenet_coco_slurm")
    assert "jobs    8 at once on a cluster (LAUNCH.JOBS), 8 processes per training" in head
    [chain] = [line for line in head if line.startswith("chain")]
    # CE 77000 s, then ILS, its student, 77000 s, then the longer fine-tuning, 61200 s.
    assert chain.startswith(
        "chain   59 h 47 min at least, however many slots: CE seed 0: pretrain > ILS seed 0: pretrain"
    )
    [cost] = [line for line in head if line.startswith("cost")]
    hours = (19 * 77000 + 19 * 18900 + 19 * 61200) * 8 / 3600
    assert cost.startswith(f"cost    about {hours:,.0f} GPU hours, without 19 evaluate, 19 localize, 1 compare")
    [disk] = [line for line in head if line.startswith("disk")]
    assert disk.startswith(
        f"disk    about {19 * (0.21 + 0.3 + 0.27):.1f} GB with KEEP weights (all 22.4 GB, results 5.2 GB)"
    )
    [elapsed] = [line for line in head if line.startswith("time")]
    seconds = 19 * (77000 + 18900 + 61200)
    assert f"for {seconds / 86400:.1f} days of stages" in elapsed
    other = bare("imagenet_coco")[1]
    assert {title: fields(block, "output") for title, block in blocks.items()} == {
        title: fields(block, "output") for title, block in other.items()
    }
