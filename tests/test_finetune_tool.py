"""Fine-tuning as its users run it: killed and resumed, on two processes, tested again, and with what it refuses."""

import json
import re
import sys

import numpy as np
import pytest
from helpers.finetuning import TOOL, arguments, run, write_backbone
from helpers.killing import assert_equal_trees, kill_after, reported

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from detection.evaluation.coco import evaluate_coco

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@pytest.fixture(scope="module")
def main(load_tool):
    return load_tool("finetune_coco").main


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone") / "backbone.pth")


@pytest.fixture(scope="module")
def finished(small_scenes, tmp_path_factory, main, backbone):
    """An uninterrupted run of nine iterations."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    main(arguments(small_scenes, folder, backbone=backbone))
    return folder


def test_run_folder_holds_what_it_promises(finished, small_scenes):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "environment.json", "log.txt", "metrics.jsonl", "tensorboard", "checkpoint.pth", "loading.json",
        "predictions.json", "matches.npz", "results.json",
    }  # fmt: skip
    results = load_results(finished)
    assert tuple(results["metrics"]) == METRICS
    assert all(value is None or 0 <= value <= 1 for value in results["metrics"].values())
    assert results["backbone"]["label"] == "made up"
    assert results["protocol"]["name"] == "quick"
    assert results["data"]["train"]["images"] == 12
    assert results["data"]["test"]["images"] == 6
    assert results["data"]["evaluated_on_training_images"] is False
    loading = results["details"]["backbone_loading"]
    assert len(loading["loaded"]) == loading["counts"]["loaded"] == 100  # every tensor of a ResNet-18
    assert len(loading["dropped"]) == 22  # fc, and a counter of each BN
    assert max(loading["proof"]["largest_difference"].values()) <= loading["proof"]["tolerance"] == 1e-4
    assert all((finished / name).exists() for name in results["files"].values())
    log = (finished / "log.txt").read_text()
    truth = json.loads((small_scenes / "detection" / "annotations" / "instances_val.json").read_text())
    assert f"test scenes_val: 6 images, {len(truth['annotations'])} annotations" in log


def test_the_files_agree_with_the_numbers(finished, small_scenes):
    """predictions.json measured again, against the original json, gives results.json."""
    truth = small_scenes / "detection" / "annotations" / "instances_val.json"
    again = evaluate_coco(truth, finished / "predictions.json", score_threshold=0.05)
    assert load_results(finished)["metrics"] == {k: None if np.isnan(v) else v for k, v in again["metrics"].items()}
    images = {image["id"]: image for image in json.loads(truth.read_text())["images"]}
    found = json.loads((finished / "predictions.json").read_text())
    assert {one["image_id"] for one in found} == images.keys()
    for one in found:
        (x, y, w, h), image = one["bbox"], images[one["image_id"]]
        assert min(x, y, w, h) >= 0
        assert x + w <= image["width"] + 1e-3
        assert y + h <= image["height"] + 1e-3
    assert max(one["bbox"][2] for one in found) > 96  # pixels of the file, not of the network's 64
    with np.load(finished / "matches.npz") as matches:
        assert sorted(matches["image_ids"]) == sorted(images)


def test_killed_three_times_and_resumed_is_bit_equal(small_scenes, finished, tmp_path, main, backbone):
    """Before the first checkpoint, between two, and between the last and the end."""
    killed = tmp_path / "killed"
    for lines in (2, 5, 8):
        argv = arguments(small_scenes, killed, backbone=backbone, flags=["--resume"] if lines > 2 else [])
        kill_after([*TOOL, *argv], killed, lines)
        assert not (killed / "results.json").exists()
    main(arguments(small_scenes, killed, backbone=backbone, flags=["--resume"]))
    assert_equal_trees(load_checkpoint(finished / "checkpoint.pth"), load_checkpoint(killed / "checkpoint.pth"))
    assert reported(finished) == reported(killed)
    for name in ("predictions.json", "loading.json"):
        assert (finished / name).read_bytes() == (killed / name).read_bytes()


def test_testing_again_gives_the_same_numbers(small_scenes, finished, main, backbone):
    kept = {name: (finished / name).read_bytes() for name in ("results.json", "predictions.json", "checkpoint.pth")}
    main(arguments(small_scenes, finished, backbone=backbone, flags=["--eval-only"]))
    assert {name: (finished / name).read_bytes() for name in kept} == kept


def test_two_processes_share_the_images(small_scenes, tmp_path, main):
    """--num-gpus 2 (gloo on the CPU): each test image counts once, as one process with the same weights says."""
    run_dir = tmp_path / "two"
    options = ["SOLVER.MAX_ITER", 3, "TEST.IMS_PER_BATCH", 2, "MODEL.RESNETS.NORM", "GN", "SOLVER.AMP.ENABLED", False]
    assert main(arguments(small_scenes, run_dir, *options, flags=["--num-gpus", 2])) == 0
    together = load_results(run_dir)
    found = json.loads((run_dir / "predictions.json").read_text())
    assert load_checkpoint(run_dir / "checkpoint.pth")["iteration"] == 3
    main(arguments(small_scenes, run_dir, *options, flags=["--eval-only"]))
    alone = load_results(run_dir)
    assert together["data"] == alone["data"]
    assert together["data"]["test"]["images"] == 6
    assert together["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)
    again = json.loads((run_dir / "predictions.json").read_text())
    assert [one["image_id"] for one in found] == [one["image_id"] for one in again]
    for one, other in zip(found, again, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_its_own_training_images_are_said_to_be_so(small_scenes, tmp_path, main):
    own = ["DATASETS.TEST", "[scenes_train]", "SOLVER.MAX_ITER", 3, "LABEL", "nothing learned"]
    main(arguments(small_scenes, tmp_path / "own", *own))
    results = load_results(tmp_path / "own")
    assert results["data"]["evaluated_on_training_images"] is True
    assert results["data"]["test"]["images"] == results["data"]["train"]["images"] == 12
    assert results["backbone"] == {"label": "nothing learned", "method": "random", "seed": 0, "hash": "random-0"}


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.BASE_LRR", 1], "unknown key 'SOLVER.BASE_LRR'; did you mean 'SOLVER.BASE_LR'"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER must be of type int"),
        (["ENGINE", "torchvison"], "unknown ENGINE 'torchvison'; did you mean 'torchvision'"),
        (
            ["SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "[4, 9]"],
            "SOLVER.STEPS: [4, 9]: a step at or beyond SOLVER.MAX_ITER 9 is never reached",
        ),
        (["SOLVER.STEPS", "[4]"], "SOLVER.STEPS: [4]: a cosine schedule has no steps"),
        (["SOLVER.WARMUP_ITERS", 9], "SOLVER.WARMUP_ITERS: 9: must be below SOLVER.MAX_ITER 9"),
        (["MODEL.BACKBONE.FREEZE_AT", 6], "unknown MODEL.BACKBONE.FREEZE_AT 6; choices: 0, 1, 2, 3, 4, 5"),
        (["MODEL.RESNETS.NORM", "FrozenBN"], "MODEL.RESNETS.NORM FrozenBN on random weights"),
        (["MODEL.RESNETS.DEPTH", 50], "MODEL.RESNETS.RES2_OUT_CHANNELS: 64: must be 256 at MODEL.RESNETS.DEPTH 50"),
        (["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.05], "choose AP's threshold with TEST.AP_SCORE_THRESH"),
        (["DATASETS.TEST", "[scenes_val, scenes_train]"], "name exactly one data set"),
        (["DATASETS.ROOT", "/absent"], "DATASETS.ROOT: no folder /absent"),
        (["DATASETS.TRAIN", "[scenes_trian]"], "unknown data set 'scenes_trian'; did you mean 'scenes_train'"),
        (["SOLVER.IMS_PER_BATCH", 99], "12 samples do not fill one batch of 99"),
        (
            ["SOLVER.BASE_LR", 1e30, "SOLVER.WARMUP_ITERS", 0, "SOLVER.CLIP_GRADIENTS.ENABLED", False],
            "the loss is not finite at iteration",
        ),
    ],
)
def test_bad_input_is_named(small_scenes, tmp_path, main, overrides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        main(arguments(small_scenes, tmp_path / "run", *overrides))
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "checkpoint.pth").exists()


def test_a_loss_that_is_not_finite_is_named_with_its_parts(small_scenes, tmp_path, main):
    overrides = ["SOLVER.BASE_LR", 1e30, "SOLVER.WARMUP_ITERS", 0, "SOLVER.CLIP_GRADIENTS.ENABLED", False]
    with pytest.raises(InputError, match=r"at iteration \d: .*'loss_rpn_cls'.*'loss_cls'.*lower SOLVER\.BASE_LR"):
        main(arguments(small_scenes, tmp_path / "run", *overrides))


def test_one_line_and_exit_code_2(small_scenes, tmp_path):
    """Also for what only the data can tell."""
    done = run(arguments(small_scenes, tmp_path / "run", "MODEL.ROI_HEADS.NUM_CLASSES", 80))
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: MODEL\.ROI_HEADS\.NUM_CLASSES is 80, but \S+/instances_train\.json lists 12 categories; "
        r"set it to 12\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"arch": "resnet34", "depth": 34}, "MODEL.RESNETS.DEPTH is 18, the backbone was trained with 34"),
        ({"mean": (0.485, 0.456, 0.406)}, "MODEL.PIXEL_MEAN is [59.415, 58.14, 56.865], the backbone was trained with"),
        ({"channel_order": "BGR"}, "INPUT.FORMAT is RGB, the backbone was trained with BGR"),
        ({"norm": "GN"}, "MODEL.RESNETS.NORM is BN, the backbone was trained with GN"),
        ({"stem": "cifar"}, "the backbone has a CIFAR stem"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(small_scenes, tmp_path, main, spec, message):
    path = write_backbone(tmp_path / "other.pth", **spec)
    with pytest.raises(InputError, match=re.escape(message)):
        main(arguments(small_scenes, tmp_path / "run", backbone=path))
    assert not (tmp_path / "run").exists()


def test_a_broken_backbone_file_is_refused(small_scenes, tmp_path, main, backbone, finished):
    cut = tmp_path / "cut.pth"
    cut.write_bytes(backbone.read_bytes()[:5000])
    for path, message in (
        (cut, r"cut\.pth is truncated, or not a checkpoint of this project"),
        (tmp_path / "absent", "no backbone at .*absent"),
        (finished / "checkpoint.pth", r"checkpoint\.pth is not a backbone file"),
    ):
        with pytest.raises(InputError, match=message):
            main(arguments(small_scenes, tmp_path / "run", backbone=path))


def test_an_absent_detectron2_is_named_with_the_way_out(small_scenes, tmp_path, main, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)
    options = ["ENGINE", "detectron2", "DATALOADER.CACHE_IMAGES", False, "SOLVER.AMP.ENABLED", False]
    options += ["DATASETS.ROOT", "/absent"]  # said before any data is looked for
    with pytest.raises(InputError, match=r"detectron2 is not installed; install it .*or set ENGINE torchvision"):
        main(arguments(small_scenes, tmp_path / "run", *options))


def test_a_finished_run_is_not_touched(small_scenes, finished, main, backbone):
    """A second start, another schedule, seed or backbone, and other data: refused, by key."""
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}

    def refused(message, *overrides, flags=(), backbone=backbone):
        with pytest.raises(InputError, match=message):
            main(arguments(small_scenes, finished, *overrides, flags=flags, backbone=backbone))

    refused("holds a run already; add --resume")
    for flag in ("--resume", "--eval-only"):
        refused(r"SOLVER\.MAX_ITER was 9 and is now 12", "SOLVER.MAX_ITER", 12, flags=[flag])
        refused(r"SOLVER\.BASE_LR was 0\.001 and is now 0\.002", "SOLVER.BASE_LR", 2e-3, flags=[flag])
        refused("made with other settings: backbone .* -> random", flags=[flag], backbone="random")
    refused("SEED was 0 and is now 1", "SEED", 1, flags=["--resume"])
    refused(r"DATASETS\.TRAIN was", "DATASETS.TRAIN", "[scenes_val]", flags=["--resume"])
    assert {name: (finished / name).read_bytes() for name in before} == before


def test_a_checkpoint_of_another_kind_is_refused(small_scenes, finished, tmp_path, main, backbone):
    def refused(message, *overrides, flags=("--resume",)):
        with pytest.raises(InputError, match=message):
            main(arguments(small_scenes, tmp_path, *overrides, flags=flags, backbone=backbone))

    path = tmp_path / "checkpoint.pth"
    content = load_checkpoint(finished / "checkpoint.pth")
    path.write_bytes((finished / "checkpoint.pth").read_bytes()[:1000])
    refused(r"checkpoint\.pth is truncated")
    save_checkpoint(path, **content)
    refused(r"other settings: MODEL\.FPN\.OUT_CHANNELS \(16 -> 24\)", "MODEL.FPN.OUT_CHANNELS", 24)
    save_checkpoint(path, **{**content, "model": load_checkpoint(backbone)["state"]})
    refused(r"checkpoint\.pth has another architecture: \d+ tensors missing")
    save_checkpoint(path, iteration=3)
    refused("is not a checkpoint of a fine-tuning: it lacks engine")
    save_checkpoint(path, **{**content, "engine": "yolo"})
    refused("is a checkpoint of ENGINE yolo, not of torchvision; use a new output folder")
    save_checkpoint(path, **{**content, "iteration": 6})
    refused("is at iteration 6 of 9; finish it with --resume first", flags=["--eval-only"])
    path.unlink()
    refused("no checkpoint at", flags=["--eval-only"])
    assert list(tmp_path.iterdir()) == []  # a refused call leaves nothing
    with pytest.raises(InputError, match=r"no checkpoint at .*mistyped/checkpoint\.pth; check --output-dir"):
        main(arguments(small_scenes, tmp_path / "mistyped", flags=["--eval-only"]))
    assert not (tmp_path / "mistyped").exists()


def test_an_output_folder_that_cannot_be_written(small_scenes, tmp_path, main):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write to .*file/run: .*choose another --output-dir"):
        main(arguments(small_scenes, tmp_path / "file" / "run"))
