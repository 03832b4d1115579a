"""Pretraining as its users run it: killed and resumed, on two processes, and with what it refuses."""

import json
import re
import shutil
import sys

import pytest
import torch
from helpers.killing import ROOT, assert_equal_trees, kill_after, reported
from helpers.pretraining import TOOL, arguments, run

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.run_log import get_logger
from backbones.models.weights import load_backbone


@pytest.mark.parametrize(("method", "arch"), [("CE", "resnet18"), ("OLS", "resnet29_cifar")])
def test_killed_three_times_and_resumed_is_bit_equal(small_scenes, tmp_path, load_tool, method, arch):
    options = ["METHOD.NAME", method, "SOLVER.MAX_EPOCH", 4, "SOLVER.CHECKPOINT_PERIOD", 0.4, "MODEL.ARCH", arch]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main = load_tool("pretrain").main
    main(arguments(small_scenes, whole, *options))
    for lines in (2, 7, 12):
        kill_after([*TOOL, *arguments(small_scenes, killed, *options, resume=lines > 2)], killed, lines)
        assert not (killed / "results.json").exists()
    main(arguments(small_scenes, killed, *options, resume=True))
    assert_equal_trees(load_checkpoint(whole / "checkpoint.pth"), load_checkpoint(killed / "checkpoint.pth"))
    assert reported(whole) == reported(killed)


METHODS_ON_TWO = ("CE", "ALS", "OLS")


@pytest.fixture(scope="module")
def one_and_two(small_scenes, tmp_path_factory, load_tool):
    """Run folders of every method on one and on two processes: 20 steps, group normalisation, float64."""
    folder = tmp_path_factory.mktemp("two")

    def argv(processes, method):
        return arguments(
            small_scenes, folder / processes / method, "METHOD.NAME", method, "METHOD.OLS.period", 7,
            "MODEL.NORM", "GN", "PRECISION", "float64", "SOLVER.MAX_EPOCH", 4, "SOLVER.BASE_LR", "1e-4",
            "SOLVER.CHECKPOINT_PERIOD", 0.6,
        )  # fmt: skip

    main = load_tool("pretrain").main
    for method in METHODS_ON_TWO:
        main(argv("one", method))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = ["MODEL.NORM", "BN", "PRECISION", "float32", "SOLVER.MAX_EPOCH", "1", "EVAL.PERIOD", "1"]
    with_batch_norm = [*argv("batch_norm", "CE"), *options]
    commands = [*(argv("two", method) for method in METHODS_ON_TWO), with_batch_norm]
    done = run([*launcher, str(ROOT / "tests" / "helpers" / "pretrain_all.py"), json.dumps(commands)])
    assert done.returncode == 0, done.stderr[-1500:]
    return folder


@pytest.mark.parametrize("method", METHODS_ON_TWO)
def test_two_processes_equal_one(one_and_two, method):
    """Parameters to 1e-5, the OLS table to 1e-6."""
    one, two = one_and_two / "one" / method, one_and_two / "two" / method
    a, b = (load_checkpoint(folder / "checkpoint.pth") for folder in (one, two))
    assert a["iteration"] == b["iteration"] == 20
    for name, tensor in a["method"].items():
        torch.testing.assert_close(b["method"][name], tensor, rtol=0, atol=1e-6 if name.endswith("soft") else 1e-5)
    if method == "OLS":
        soft = a["method"]["table.soft"]
        assert (soft - 1 / len(soft)).abs().max() > 0.01  # it has been updated
        assert a["method"]["table.total"].sum() > 0  # and a period is under way
    metrics = [load_results(folder)["metrics"] for folder in (one, two)]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)


def test_two_processes_report_the_backbone_that_they_saved(one_and_two, load_tool):
    """Batch statistics differ between processes, and only one process's are saved."""
    folder = one_and_two / "batch_norm" / "CE"
    load_tool("evaluate_backbone").main([str(folder)])
    measured, reported = load_results(folder / "evaluation")["metrics"], load_results(folder)["metrics"]
    assert reported["nll"] == pytest.approx(measured["nll"], abs=1e-6)
    assert reported["top1"] == measured["top1"]
    assert reported["best_nll"] == pytest.approx(measured["nll"], abs=1e-6)  # of the last epoch, the only one
    assert load_backbone(folder / "best.pth").hash == load_backbone(folder).hash


@pytest.fixture(scope="module")
def finished(small_scenes, tmp_path_factory, load_tool):
    """A finished run of one epoch, whose last checkpoint holds no optimizer state."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    load_tool("pretrain").main(["--keep", "weights", *arguments(small_scenes, folder, "SOLVER.MAX_EPOCH", 1)])
    return folder


def test_run_folder_holds_what_it_promises(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "environment.json", "log.txt", "metrics.jsonl", "tensorboard", "checkpoint.pth", "backbone.pth",
        "results.json",
    }  # fmt: skip
    results = load_results(finished)
    assert results["data"]["train"]["images"] == 40
    assert results["backbone"]["method"] == "CE"
    version = json.loads((finished / "environment.json").read_text())["packages"]["torch"]
    assert torch.__version__.startswith(version)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.BASE_LRR", 1], "unknown key 'SOLVER.BASE_LRR'; did you mean 'SOLVER.BASE_LR'"),
        (["METHOD.NAME", "OLSS"], "unknown METHOD.NAME 'OLSS'; did you mean 'OLS'"),
        (["MODEL.ARCH", "resnet19"], "unknown model 'resnet19'; did you mean"),
        (["DATA.ROOT", "/absent"], "/absent"),
        (["DATA.NAME", "imagnet_xml"], "imagenet_xml"),
        (["SOLVER.LR_SCHEDULE", "steps", "SOLVER.STEPS", "[4]", "SOLVER.MAX_EPOCH", 4], "at or beyond"),
        (["SOLVER.BATCH_SIZE", 999], "do not fill one batch of 999"),
        (["METHOD.LS.amount", 2, "METHOD.NAME", "LS"], "METHOD.LS.amount"),
    ],
)
def test_bad_input_is_named(small_scenes, tmp_path, load_tool, overrides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_tool("pretrain").main(arguments(small_scenes, tmp_path / "r", *overrides))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("tool", "overrides"),
    [
        ("evaluate_backbone", ["DATA.SHIFTED_SPLIT", "absent"]),
        ("evaluate_backbone", ["EVAL.HUMAN_LABELS", "/absent"]),
        ("evaluate_backbone", ["EVAL.CONTEXT_FILLS", "[absent]"]),
        ("localize", ["LOCALIZE.SPLIT", "absent"]),
        ("localize", ["LOCALIZE.METHOD", "absent"]),
        ("attack_backbone", ["ATTACK.SPLIT", "absent"]),
        ("attack_backbone", ["ATTACK.METHODS", "[absent]"]),
    ],
)
def test_a_refused_measure_leaves_no_folder(finished, tmp_path, load_tool, tool, overrides):
    with pytest.raises(InputError, match="absent"):
        load_tool(tool).main([str(finished), "--output-dir", str(tmp_path / "r"), *overrides])
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("tool", "config"), [("finetune_coco", "detection/quick.yaml"), ("finetune_voc", "yolo/quick.yaml")]
)
def test_a_refused_fine_tuning_leaves_no_folder(finished, tmp_path, load_tool, tool, config):
    files = ["--config-file", str(ROOT / "configs" / config), "--output-dir", str(tmp_path / "r"), "--backbone"]
    absent = ["DATASETS.ROOT", "/absent"]
    for backbone, *overrides in (["/absent"], ["random", *absent], [finished, *absent]):
        with pytest.raises(InputError):
            load_tool(tool).main([*files, str(backbone), *overrides])
        assert not (tmp_path / "r").exists()


def test_a_training_that_diverges_ends_with_exit_code_3(small_scenes, tmp_path):
    done = run([*TOOL, *arguments(small_scenes, tmp_path / "r", "SOLVER.BASE_LR", "1e30", "SOLVER.CLIP_NORM", 0)])
    assert done.returncode == 3
    said = done.stderr
    assert re.search(r"^error: the (loss is|weights are) not finite (at|after) iteration \d+", said, re.MULTILINE)
    assert "Traceback" not in said
    assert not (tmp_path / "r" / "results.json").exists()


def test_bad_input_is_one_line_and_exit_code_2(small_scenes, tmp_path):
    done = run([*TOOL, *arguments(small_scenes, tmp_path / "r", "SOLVER.BASE_LRR", 1)])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: command line: unknown key 'SOLVER.BASE_LRR'")


def test_changed_schedule_and_second_start_are_refused(small_scenes, finished, load_tool):
    main = load_tool("pretrain").main
    before = (finished / "results.json").read_bytes()
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        main(arguments(small_scenes, finished, "SOLVER.MAX_EPOCH", 1))
    with pytest.raises(InputError, match=r"SOLVER\.MAX_EPOCH was 1 and is now 2"):
        main(arguments(small_scenes, finished, "SOLVER.MAX_EPOCH", 2, resume=True))
    assert (finished / "results.json").read_bytes() == before


def test_a_finished_run_without_optimizer_state_is_measured_again_but_not_continued(
    small_scenes, finished, tmp_path, load_tool
):
    main, run, before = load_tool("pretrain").main, tmp_path / "run", load_results(finished)
    shutil.copytree(finished, run)
    (run / "results.json").unlink()
    (run / "backbone.pth").unlink()
    main(arguments(small_scenes, run, "SOLVER.MAX_EPOCH", 1, resume=True))
    assert load_results(run) == before
    state = load_checkpoint(run / "checkpoint.pth")
    assert "optimizer" not in state
    save_checkpoint(run / "checkpoint.pth", **state | {"iteration": 2})
    with pytest.raises(InputError, match=r"checkpoint\.pth holds no optimizer state .* cannot be continued; start in "):
        main(arguments(small_scenes, run, "SOLVER.MAX_EPOCH", 1, resume=True))


def test_checkpoint_of_another_kind_is_refused(small_scenes, finished, tmp_path, load_tool):
    main = load_tool("pretrain").main
    content = (finished / "checkpoint.pth").read_bytes()
    (tmp_path / "checkpoint.pth").write_bytes(content[:1000])
    with pytest.raises(InputError, match=r"checkpoint\.pth is truncated"):
        main(arguments(small_scenes, tmp_path, "SOLVER.MAX_EPOCH", 1, resume=True))
    (tmp_path / "checkpoint.pth").write_bytes(content)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pth"}  # a refused call leaves nothing
    with pytest.raises(InputError, match="has another architecture"):
        main(arguments(small_scenes, tmp_path, "SOLVER.MAX_EPOCH", 1, "MODEL.ARCH", "resnet34", resume=True))


def test_other_data_and_idle_settings_are_noticed(
    small_scenes, finished, tmp_path, load_tool, run_tool, caplog, monkeypatch
):
    main = load_tool("pretrain").main
    shutil.copytree(finished, tmp_path / "run")
    counts = ["--train", 40, "--val", 24, "--detection-train", 1, "--detection-val", 1, "--seed", 5]
    assert run_tool("prepare_data", "scenes", "--output-dir", tmp_path / "other", *counts).returncode == 0
    with pytest.raises(InputError, match="was trained on data of fingerprint"):
        main(arguments(tmp_path / "other", tmp_path / "run", "SOLVER.MAX_EPOCH", 1, resume=True))
    monkeypatch.setattr(get_logger(), "propagate", True)  # to where caplog listens
    main(arguments(small_scenes, tmp_path / "run", "SOLVER.MAX_EPOCH", 1, "EVAL.BATCH_SIZE", 7, resume=True))
    with pytest.raises(InputError, match="do not fill"):
        main(arguments(small_scenes, tmp_path / "x", "METHOD.LS.amount", 0.3, "SOLVER.BATCH_SIZE", 999))
    assert "METHOD.LS.amount has no effect: METHOD.NAME is CE" in caplog.text
