"""ENGINE detectron2 as its users run it: killed and resumed, by two processes, with frozen stages, with precise BN."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.detectron2_pair import RUNS, numbers_of
from helpers.detectron2_tiny import TINY, load_data, load_detectron2, make_cfg
from helpers.finetuning import TOOL, write_backbone
from helpers.killing import assert_equal_trees, kill_after, reported
from helpers.rectangles import write_rectangles
from helpers.seeded import MEAN, STD, make_backbone

from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.run_log import read_metrics
from detection.engines.detectron2 import training
from detection.exchange.loading import to_detectron2
from detection.training.fitting import fit

CPU = torch.device("cpu")
pytestmark = pytest.mark.detectron2


@pytest.fixture(scope="module")
def d2():
    return load_detectron2()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(tmp_path_factory.mktemp("rectangles"))


# ----------------------------------------------------------------------------------- kill and resume


@pytest.fixture(scope="module")
def command(d2, tmp_path_factory):
    """argv of a training with flips, two sizes and precise BN, of ten iterations and a checkpoint at each third."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "empty.yaml").write_text("LABEL: tiny\n")
    backbone = write_backbone(folder / "backbone.pth", mean=MEAN, std=STD)
    name = f"coco:{write_rectangles(folder, sizes=((96, 64), (64, 96)), grid=16)}:{folder}"
    longer = {"SOLVER.MAX_ITER": "10", "SOLVER.CHECKPOINT_PERIOD": "3", "TEST.PRECISE_BN.ENABLED": "True"}
    further = [*TINY, "TEST.PRECISE_BN.NUM_ITER", "3", "DATASETS.TRAIN", f"['{name}']", "DATASETS.TEST", f"['{name}']"]

    def build(out, workers, *flags):
        options = ["--config-file", folder / "empty.yaml", "--backbone", backbone, "--output-dir", out, *flags]
        changed = [word for pair in {**longer, "DATALOADER.NUM_WORKERS": workers}.items() for word in pair]
        return [str(word) for word in (*options, *further, *changed)]

    return build


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory, load_tool):
    """An uninterrupted run, which reads its images in the training process."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    load_tool("finetune_coco").main(command(folder, 0))
    return folder


def test_killed_and_resumed_is_bit_equal(command, finished, tmp_path, load_tool):
    """By SIGKILL, with two workers reading ahead, between the second checkpoint and the third."""
    killed = tmp_path / "killed"
    kill_after([*TOOL, *command(killed, 2)], killed, 8)
    assert not (killed / "results.json").exists()
    load_tool("finetune_coco").main(command(killed, 2, "--resume"))
    assert_equal_trees(load_checkpoint(finished / "checkpoint.pth"), load_checkpoint(killed / "checkpoint.pth"))
    assert reported(finished) == reported(killed)
    assert [line["iteration"] for line in read_metrics(killed / "metrics.jsonl")] == list(range(10))
    for name in ("predictions.json", "loading.json"):
        assert (finished / name).read_bytes() == (killed / name).read_bytes()


def test_the_run_folder_is_that_of_the_other_engine(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "environment.json", "log.txt", "metrics.jsonl", "tensorboard", "checkpoint.pth", "loading.json",
        "predictions.json", "matches.npz", "results.json",
    }  # fmt: skip
    assert list((finished / "tensorboard").iterdir())


def test_testing_again_gives_the_same_numbers(command, finished, load_tool):
    """Precise BN is in the checkpoint; another number of its batches would be another training."""
    kept = {name: (finished / name).read_bytes() for name in ("results.json", "predictions.json", "checkpoint.pth")}
    tool = load_tool("finetune_coco")
    tool.main(command(finished, 0, "--eval-only"))
    assert {name: (finished / name).read_bytes() for name in kept} == kept
    tool.main([*command(finished, 0, "--eval-only"), "TEST.AP_SCORE_THRESH", "0.3"])
    assert {name: (finished / name).read_bytes() for name in kept} == kept
    (other,) = finished.glob("evaluation-*")  # in a folder of its own
    assert {"results.json", "predictions.json", "matches.npz", "config.yaml"} <= {path.name for path in other.iterdir()}
    shutil.rmtree(other)  # as the other tests want it
    with pytest.raises(InputError, match=r"cannot resume .*: TEST\.PRECISE_BN\.NUM_ITER was 3 and is now 9"):
        tool.main([*command(finished, 0, "--eval-only"), "TEST.PRECISE_BN.NUM_ITER", "9"])


def test_precise_bn_changes_the_statistics_of_what_trains_and_nothing_else(d2, data, tmp_path):
    """Against the same run without it."""
    engine_dir = tmp_path / "plain"
    engine_dir.mkdir()
    cfg = make_cfg("MODEL.RESNETS.NORM", "BN", "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "[]")
    fit(cfg, make_backbone(), data, data, engine_dir, CPU)
    plain = load_checkpoint(engine_dir / "checkpoint.pth")
    cfg.merge_from_list(["TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2])
    fit(cfg, make_backbone(), data, data, tmp_path, CPU)
    precise = load_checkpoint(tmp_path / "checkpoint.pth")
    assert_equal_trees(plain["optimizer"], precise["optimizer"])
    for name, tensor in plain["model"].items():
        moved = not torch.equal(tensor, precise["model"][name])
        frozen = ".stem." in name or ".res2." in name
        assert moved == (not frozen and ("running" in name or "num_batches" in name)), name


# ------------------------------------------------------------------------------------ frozen stages


def c4(norm, head, freeze_at):
    return make_cfg(
        "MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.ROI_HEADS.NAME", head, "MODEL.RESNETS.DEPTH", 50,
        "MODEL.RESNETS.RES2_OUT_CHANNELS", 256, "MODEL.ANCHOR_GENERATOR.SIZES", "[[32, 64]]",
        "MODEL.FPN.OUT_CHANNELS", 256, "MODEL.ROI_BOX_HEAD.FC_DIM", 1024, "MODEL.RESNETS.NORM", norm,
        "MODEL.BACKBONE.FREEZE_AT", freeze_at, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 14, "SOLVER.MAX_ITER", 1,
        "SOLVER.STEPS", "[]", "SOLVER.WARMUP_ITERS", 0, "TEST.DETECTIONS_PER_IMAGE", 2,
    )  # fmt: skip


@pytest.mark.parametrize(("norm", "freeze_at"), [("BN", 5), ("FrozenBN", 2)])
def test_c4_with_a_norm_after_res5_trains_what_is_not_frozen(d2, data, tmp_path, norm, freeze_at):
    """FREEZE_AT 5 reaches the head's res5 too; the norm behind it is new, and trains."""
    head = "Res5ROIHeads" if norm == "FrozenBN" else "Res5ROIHeadsExtraNorm"
    backbone = make_backbone(50)
    fit(c4(norm, head, freeze_at), backbone, data, data, tmp_path, CPU)
    account = json.loads((tmp_path / "loading.json").read_text())
    assert account["counts"]["loaded"] == 265
    assert ("roi_heads.res5.norm.weight" in account["new"]) == (norm == "BN")
    stages = ["stem", "res2", "res3", "res4", "res5"][:freeze_at]
    assert account["frozen"]["stages"] == stages
    assert account["frozen"]["before"] == account["frozen"]["after"]
    trained = load_checkpoint(tmp_path / "checkpoint.pth")["model"]
    for name, tensor in backbone.state.items():
        if name.startswith("fc.") or "num_batches" in name:
            continue
        theirs = to_detectron2({name: tensor}).popitem()[0]
        stage = theirs.split(".")[0]
        where = f"roi_heads.{theirs}" if stage == "res5" else f"backbone.{theirs}"
        frozen = stage in stages or (norm == "FrozenBN" and tensor.dim() == 1)
        assert torch.equal(tensor, trained[where]) == frozen, name
    if norm == "BN":
        assert trained["roi_heads.res5.norm.running_mean"].any()  # new layers begin at 0
        assert trained["roi_heads.res5.norm.bias"].any()


def test_a_stage_that_is_frozen_by_name_only_is_found_out(d2, data, tmp_path, monkeypatch):
    """Running statistics that keep changing, as in a stage whose requires_grad alone was turned off."""
    cfg = make_cfg("SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "[]", "SOLVER.WARMUP_ITERS", 0)
    monkeypatch.setattr(training, "frozen_stages", lambda model, at: {"res3": model.backbone.bottom_up.res3})
    with pytest.raises(InputError, match=r"MODEL\.BACKBONE\.FREEZE_AT: the frozen stages res3 have changed"):
        fit(cfg, make_backbone(), data, data, tmp_path, CPU)


def test_the_results_say_what_was_frozen(finished):
    frozen = load_results(finished)["details"]["frozen"]
    assert frozen["stages"] == ["stem", "res2"]
    assert frozen["tensors"] == (1 + 4) * 6  # convolutions, each with a norm of five
    assert frozen["before"] == frozen["after"]
    assert len(frozen["before"]) == 12


# -------------------------------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def pair(d2, tmp_path_factory):
    """What two processes left, started by detectron2's own `launch`."""
    folder = tmp_path_factory.mktemp("pair")
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    done = subprocess.run(
        [sys.executable, str(here / "helpers" / "detectron2_pair.py"), str(folder)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_a_group_made_by_detectron2s_launch_is_used(pair):
    heard = [json.loads((pair / f"heard{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["rank"] for one in heard] == [0, 1]
    assert {one["world"] for one in heard} == {2}


def test_precise_bn_is_over_the_batches_of_both_processes(pair):
    batches = torch.cat([numbers_of(rank) for rank in (0, 1)]).flatten(0, 1).double()
    for rank in (0, 1):
        heard = json.loads((pair / f"heard{rank}.json").read_text())
        assert heard["mean"] == pytest.approx(batches.mean(dim=0).tolist(), rel=1e-5)
        assert heard["var"] == pytest.approx(batches.var(dim=0, correction=0).tolist(), rel=1e-5)


def test_an_image_tested_twice_or_not_at_all_stops_every_process(pair):
    for rank in (0, 1):
        heard = json.loads((pair / f"heard{rank}.json").read_text())
        assert heard["whole"] == 6
        assert heard["drop"] == "5 images were tested for 6: 0 twice, 1 not at all, 0 of another data set"
        assert heard["twice"] == "7 images were tested for 6: 1 twice, 0 not at all, 0 of another data set"


def test_two_processes_train_as_one(pair, data, tmp_path):
    """FrozenBN, half a batch each, every proposal in the loss: the same weights, to the rounding of the sums.

    Where proposals are drawn, they are drawn anew for another number of processes, and results differ as seeds do.
    """
    found = fit(make_cfg(*RUNS["frozenbn"]), make_backbone(), data, data, tmp_path, CPU).detections
    start = load_checkpoint(tmp_path / "checkpoint.pth")
    one, two = (load_checkpoint(folder / "checkpoint.pth") for folder in (tmp_path, pair / "frozenbn"))
    for name, tensor in one["model"].items():
        torch.testing.assert_close(two["model"][name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    lines = [read_metrics(folder / "metrics.jsonl") for folder in (tmp_path, pair / "frozenbn")]
    for a, b in zip(*lines, strict=True):
        for name in ("lr", "loss", "loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"):
            assert a[name] == pytest.approx(b[name], rel=1e-4), name
    theirs = json.loads((pair / "frozenbn" / "found0.json").read_text())
    assert len(theirs) == len(found)
    assert start["iteration"] == 3


@pytest.mark.parametrize("name", RUNS)
def test_one_process_detects_what_two_did(pair, data, name):
    """With the checkpoint that they left; both processes hold every detection."""
    texts = [(pair / name / f"found{rank}.json").read_text() for rank in (0, 1)]
    assert texts[0] == texts[1]
    alone = fit(make_cfg(*RUNS[name]), make_backbone(), data, data, pair / name, CPU, eval_only=True).detections
    assert alone == json.loads(texts[0])
