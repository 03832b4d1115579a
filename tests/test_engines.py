"""Engines are found by their folders, share one run and one checkpoint, and one of your own needs no change here."""

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers.finetuning import TOOL, write_backbone
from helpers.killing import ROOT, assert_equal_trees, kill_after, reported

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.config import load_yaml
from backbones.core.errors import InputError
from backbones.core.results import load_results
from detection.engines import REQUIRED, VARIABLE, build_engine, engine_defaults, find_engines, load_engine_config
from detection.engines.base import Engine
from detection.training.checkpoint import read_detector
from detection.training.run import check_config

OWN = Path(__file__).parent / "engines"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder outside the project that holds toy/engine.py, named by the variable."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(OWN / "toy", folder / "toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield folder


# ---- a detector in one folder -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(own, small_scenes, tmp_path_factory):
    """argv of a fine-tuning of the toy; the config file names nothing but the engine and the data."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.yaml").write_text(f"ENGINE: toy\nDATASETS: {{ROOT: {small_scenes.parent}}}\n")
    backbone = write_backbone(folder / "backbone.pth")

    def build(out, *flags):
        options = ["--config-file", folder / "toy.yaml", "--backbone", backbone, "--output-dir", out, *flags]
        return [str(word) for word in options]

    return build


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory, load_tool):
    """An uninterrupted run of nine iterations."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert load_tool("finetune_coco").main(command(folder)) == 0
    return folder


def test_the_toy_is_one_small_file(own):
    assert [path.name for path in OWN.rglob("*.py")] == ["engine.py"]
    assert len((own / "toy" / "engine.py").read_text().splitlines()) < 100


def test_a_detector_of_ones_own_is_killed_resumed_and_bit_equal(command, finished, tmp_path, load_tool):
    """Dropout and flips are drawn in every step; the kill comes between two checkpoints."""
    killed = tmp_path / "killed"
    kill_after([*TOOL, *command(killed)], killed, 5)
    assert not (killed / "results.json").exists()
    assert load_tool("finetune_coco").main(command(killed, "--resume")) == 0
    assert_equal_trees(load_checkpoint(finished / "checkpoint.pth"), load_checkpoint(killed / "checkpoint.pth"))
    assert reported(finished) == reported(killed)
    assert (finished / "predictions.json").read_bytes() == (killed / "predictions.json").read_bytes()


def test_it_is_evaluated_and_compared(command, finished, tmp_path, load_tool, capsys):
    results = load_results(finished)
    assert results["details"]["engine"] == load_yaml(finished / "config.yaml")["ENGINE"] == "toy"
    assert results["protocol"]["name"] == "toy 9 it"
    assert len(json.loads((finished / "predictions.json").read_text())) == 6 * 12  # images, classes
    kept = (finished / "results.json").read_bytes()
    assert load_tool("finetune_coco").main(command(finished, "--eval-only")) == 0
    assert (finished / "results.json").read_bytes() == kept
    other = [*command(finished, "--eval-only"), "TEST.AP_SCORE_THRESH", "0.5"]
    assert load_tool("finetune_coco").main(other) == 0
    (folder,) = finished.glob("evaluation-*")
    assert load_results(folder)["protocol"]["hash"] != results["protocol"]["hash"]
    capsys.readouterr()
    assert load_tool("compare").main([str(finished), "--output-dir", str(tmp_path / "report")]) == 0
    assert "made up" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "report" / "comparison.json").read_text())["rows"]
    assert row["metrics"]["AR100"] == results["metrics"]["AR100"]


def test_its_config_and_its_checkpoint_are_its_own(command, finished, tmp_path, load_tool):
    main = load_tool("finetune_coco").main
    with pytest.raises(InputError, match=r"SOLVER\.BASE_LR is 0\.0; it must be above 0"):
        main([*command(tmp_path / "run"), "SOLVER.BASE_LR", "0.0"])
    with pytest.raises(InputError, match=r"DROPOUTT.*did you mean .*DROPOUT"):
        main([*command(tmp_path / "run"), "MODEL.DROPOUTT", "0.1"])
    with pytest.raises(InputError, match=r"MODEL\.NUM_CLASSES is 5, but .*; set it to 12"):
        main([*command(tmp_path / "run"), "MODEL.NUM_CLASSES", "5"])
    with pytest.raises(InputError, match=r"cannot resume .*: MODEL\.DROPOUT was 0\.5 and is now 0\.1"):
        main([*command(finished, "--resume"), "MODEL.DROPOUT", "0.1"])
    assert not (tmp_path / "run").exists()


# ---- how an engine is found ---------------------------------------------------------------------------------------


def test_engines_are_the_folders_with_an_engine(own):
    folder = ROOT / "detection" / "engines"
    assert find_engines() == {
        **{name: folder / name for name in ("torchvision", "detectron2", "yolo")},
        "toy": own / "toy",
    }


@pytest.mark.parametrize("name", ["torchvision", "detectron2", "yolo", "toy"])
def test_every_engine_keeps_the_contract(own, name):
    """Its defaults are valid, complete, fresh and named; no method that needs data or packages is called for it."""
    engine, cfg = build_engine(name), engine_defaults(name)
    assert Engine in type(engine).__mro__
    assert name == cfg.ENGINE
    check_config(cfg)
    cfg.SOLVER.MAX_ITER += 1
    assert engine_defaults(name).SOLVER.MAX_ITER == cfg.SOLVER.MAX_ITER - 1
    assert str(cfg.SOLVER.MAX_ITER) in engine.protocol_name(cfg)
    protocol, other = (engine.describe_protocol(one, "a", "b") for one in (cfg, engine_defaults(name)))
    assert protocol["settings"]["SOLVER.MAX_ITER"] == cfg.SOLVER.MAX_ITER
    assert protocol["hash"] != other["hash"]
    assert engine.weight_settings(cfg) != engine.weight_settings(engine_defaults(name))
    assert protocol["hash"] != engine.describe_protocol(cfg, "a", "c")["hash"]
    cfg.LABEL = "named"
    assert engine.name_row(cfg, None).label.startswith("named")
    assert engine.num_classes in [*REQUIRED, "MODEL.NUM_CLASSES", "MODEL.ROI_HEADS.NUM_CLASSES"]


def test_finding_an_engine_imports_no_other():
    script = (
        "import sys; from detection.engines import build_engine, find_engines; find_engines();"
        "assert 'torch' not in sys.modules; build_engine('yolo');"
        "assert not {'detectron2', 'detection.engines.torchvision.engine', 'detection.engines.detectron2.engine'} "
        "& set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_the_engine_comes_from_the_pairs_the_file_or_the_tool(own, tmp_path):
    (tmp_path / "base.yaml").write_text("ENGINE: toy\n")
    (tmp_path / "built.yaml").write_text("_BASE_: base.yaml\nSEED: 3\n")
    (tmp_path / "plain.yaml").write_text("SEED: 3\n")

    def chosen(name, *overrides):
        cfg = load_engine_config(tmp_path / f"{name}.yaml", overrides, otherwise="yolo")
        return cfg.ENGINE, cfg.SEED, "CLASS_LABELS" in cfg, "RPN" in cfg.MODEL

    assert chosen("plain") == ("yolo", 3, True, False)
    assert chosen("plain", "ENGINE", "yolo", "ENGINE", "detectron2") == ("detectron2", 3, False, True)
    assert chosen("built") == ("toy", 3, False, False)
    assert chosen("built", "ENGINE", "torchvision") == ("torchvision", 3, False, True)
    with pytest.raises(InputError, match="unknown ENGINE 'tyo'; did you mean 'toy'"):
        chosen("built", "ENGINE", "tyo")
    with pytest.raises(InputError, match="'SEED' has no value"):
        chosen("built", "SEED")


def test_what_is_wrong_with_an_engine_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(InputError, match=f"{VARIABLE}: no folder {tmp_path}/absent"):
        find_engines()
    folder = tmp_path / "own"
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(folder)]))
    for name, text in {
        "nothing": "",
        "short": "from types import SimpleNamespace as S\nfrom backbones.core.config import CfgNode\n"
        "ENGINE = S(defaults=lambda: CfgNode({'SEED': 0}))",
    }.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "engine.py").write_text(text)
    with pytest.raises(InputError, match=r"nothing/engine\.py defines no ENGINE; end it with ENGINE = <your subclass"):
        build_engine("nothing")
    with pytest.raises(InputError, match=r"ENGINE short: its defaults lack LABEL, .*TEST\.AP_SCORE_THRESH; add them"):
        engine_defaults("short")
    (folder / "nothing").rename(folder / "yolo")
    with pytest.raises(InputError, match=f"{folder}/yolo and .*engines/yolo are engines with the same name"):
        find_engines()


# ---- one checkpoint -----------------------------------------------------------------------------------------------


def test_a_resumable_checkpoint_is_written_in_two_places():
    """Those that name an iteration; the others are backbone files."""
    resumable, others = [], []
    for package in ("backbones", "detection", "comparison", "suites", "tools", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "save_checkpoint":
                    names = {keyword.arg for keyword in node.keywords}
                    (resumable if "iteration" in names else others).append(str(path.relative_to(ROOT)))
    assert sorted(resumable) == ["backbones/pretraining/run.py", "detection/training/checkpoint.py"]
    assert sorted(others) == ["backbones/models/weights.py", "tools/select_run.py"]


def test_checkpoints_of_version_0_4_are_read(command, finished, tmp_path):
    """They named the engine of one of three, and called two fields otherwise."""
    state = load_checkpoint(finished / "checkpoint.pth")
    key, model = state.pop("resume_key"), state.pop("model")
    path = tmp_path / "checkpoint.pth"
    for engine, fields in {
        "torchvision": {"model": model},
        "yolo": {"task": model},
        "detectron2": {"model": model, "engine": "detectron2"},
    }.items():
        old = {name: value for name, value in state.items() if name != "engine"}
        save_checkpoint(path, **old, **fields, settings=key)
        found = read_detector(path)
        assert found.keys() == {*state, "resume_key", "model"}
        assert (found["engine"], found["resume_key"]) == (engine, key)
        assert_equal_trees(found["model"], model)
    save_checkpoint(path, iteration=3, settings=key, optimizer={})
    with pytest.raises(InputError, match="is not a checkpoint of a fine-tuning: it lacks model"):
        read_detector(path)


# ---- reading a config ---------------------------------------------------------------------------------------------


def test_a_config_that_can_be_read_only_once_is_read_whole(tmp_path):
    """As bash passes it: `--config-file <(sed ... base.yaml)`."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        daemon=True, target=lambda: (tmp_path / "pipe").write_text("SOLVER: {MAX_ITER: 7, STEPS: [3]}\n")
    )
    writer.start()
    cfg = load_engine_config(tmp_path / "pipe", otherwise="torchvision")
    writer.join()
    assert (cfg.ENGINE, cfg.SOLVER.MAX_ITER) == ("torchvision", 7)


@pytest.mark.parametrize("value", ["5", "2020-01-01", "{a: 1}", "[toy]", ""])
def test_an_engine_that_is_not_a_name_is_refused_with_its_file(tmp_path, value):
    (tmp_path / "x.yaml").write_text(f"ENGINE: {value}\n")
    with pytest.raises(InputError, match=r"x\.yaml: .*ENGINE") as caught:
        load_engine_config(tmp_path / "x.yaml", otherwise="torchvision")
    assert "\n" not in str(caught.value)
