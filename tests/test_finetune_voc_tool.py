"""YOLO's fine-tuning as its users run it: killed and resumed, on two processes, tested again, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.finetuning import write_backbone
from helpers.killing import assert_equal_trees, kill_after, reported
from helpers.yolo_tiny import EPOCH, TOOL, arguments, write_data

from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.run_log import read_metrics
from detection.engines.yolo.building import build_task, build_yolo
from detection.engines.yolo.config import get_defaults
from detection.engines.yolo.engine import build_yolo_optimizer
from detection.engines.yolo.soft_labels import confusions, load_soft_labels
from detection.evaluation.voc import evaluate_voc

OLS = ["CLASS_LABELS.NAME", "OLS", "CLASS_LABELS.OLS.hard_weight", 0.5]
COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
VOC = ("VOC_mAP50", "VOC_mAP50_11", "VOC_mAP75", "VOC_mAP75_11", "VOC_mAP", "VOC_mAP_11")


@pytest.fixture(scope="module")
def main(load_tool):
    return load_tool("finetune_voc").main


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone") / "backbone.pth")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory, main, backbone):
    """An uninterrupted run of nine iterations, three epochs, with online labels."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    main(arguments(root, folder, *OLS, "TEST.SCORE_THRESH", 0.0, backbone=backbone))
    return folder


def test_run_folder_holds_what_it_promises(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "environment.json", "log.txt", "metrics.jsonl", "tensorboard", "checkpoint.pth", "loading.json",
        "predictions.json", "matches.npz", "matches_voc.npz", "results.json", "soft_labels.json",
    }  # fmt: skip
    results = load_results(finished)
    assert tuple(results["metrics"]) == (*COCO, *VOC)
    assert all(value is None or 0 <= value <= 1 for value in results["metrics"].values())
    assert results["backbone"]["label"] == "made up, OLS labels"
    assert results["protocol"]["name"] == "quick yolo"
    assert (results["data"]["train"]["images"], results["data"]["test"]["images"]) == (12, 6)
    assert results["data"]["evaluated_on_training_images"] is False
    assert results["details"]["backbone_loading"]["counts"]["loaded"] == 100  # every tensor of a ResNet-18
    found = json.loads((finished / "predictions.json").read_text())
    assert found
    for one in found:  # pixels of the file, not of the network's 64
        x, y, w, h = one["bbox"]
        assert min(x, y, w, h) >= 0
        assert max(x + w, y + h) <= 512 + 1e-3
    assert max(one["bbox"][2] for one in found) > 96


def test_the_soft_labels_are_those_of_the_last_epoch(finished):
    found = load_soft_labels(finished)
    assert found["iteration"] == 3 * EPOCH
    table, counts = np.array(found["table"]), np.array(found["counts"])
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(table[counts == 0], 1 / 12)  # a class without a right prediction is uniform
    assert (counts > 0).any()
    state = load_checkpoint(finished / "checkpoint.pth")["model"]
    np.testing.assert_array_equal(state["labels.soft"], table.astype(np.float32))
    named = {one["class"]: one for one in load_results(finished)["details"]["look_alikes"]}
    assert list(named) == found["classes"]
    for n, one in enumerate(confusions(found)):
        others = np.delete(table[n], n)
        assert one["share"] == pytest.approx(others.max())
        assert table[n, found["classes"].index(one["looks_like"])] == pytest.approx(others.max())
        assert one["looks_like"] != one["class"]


def test_killed_and_resumed_is_bit_equal_with_its_table_of_labels(root, finished, tmp_path, main, backbone):
    """Killed within an epoch, after a checkpoint that holds some of a period's sums."""
    killed = tmp_path / "killed"
    options = [*OLS, "TEST.SCORE_THRESH", 0.0]
    kill_after([*TOOL, *arguments(root, killed, *options, backbone=backbone)], killed, 4)
    assert not (killed / "results.json").exists()
    assert load_checkpoint(killed / "checkpoint.pth")["model"]["labels.count"].sum() > 0
    main(arguments(root, killed, *options, backbone=backbone, flags=["--resume"]))
    assert_equal_trees(load_checkpoint(finished / "checkpoint.pth"), load_checkpoint(killed / "checkpoint.pth"))
    assert reported(finished) == reported(killed)
    for name in ("predictions.json", "loading.json", "soft_labels.json"):
        assert (finished / name).read_bytes() == (killed / name).read_bytes()


def test_testing_again_gives_the_same_numbers_and_more_views_others(root, finished, main, backbone):
    kept = {name: (finished / name).read_bytes() for name in ("results.json", "predictions.json", "checkpoint.pth")}
    own = [*OLS, "TEST.SCORE_THRESH", 0.0]
    main(arguments(root, finished, *own, backbone=backbone, flags=["--eval-only"]))
    assert {name: (finished / name).read_bytes() for name in kept} == kept
    views = ["TEST.SIZES", "[64, 96]", "TEST.FLIP", True]
    main(arguments(root, finished, *own, *views, backbone=backbone, flags=["--eval-only"]))
    assert {name: (finished / name).read_bytes() for name in kept} == kept
    (other,) = finished.glob("evaluation-scenes_voc_val-*")  # in a folder of its own
    assert load_results(other)["protocol"]["hash"] != json.loads(kept["results.json"])["protocol"]["hash"]
    assert (other / "predictions.json").read_bytes() != kept["predictions.json"]
    shutil.rmtree(other)  # as the other tests want it


def test_two_processes_learn_what_one_does(root, tmp_path, main):
    """On a network without batch statistics: losses to 1e-5, weights and the table of labels to 3e-5."""
    options = [*OLS, "MODEL.NORM", "GN", "MODEL.NECK_WIDTH", 128, "SOLVER.AMP.ENABLED", False, "SOLVER.MAX_ITER", 4]
    options += ["SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 1e-3, "INPUT.MIXUP", 0.0, "SOLVER.CHECKPOINT_PERIOD", 1]
    runs = [tmp_path / "one", tmp_path / "two"]
    for processes, folder in enumerate(runs, start=1):
        assert main(arguments(root, folder, *options, flags=["--num-gpus", processes])) == 0
    lines = [read_metrics(folder / "metrics.jsonl") for folder in runs]
    for one, two in zip(*lines, strict=True):
        for name in ("loss", "loss_box", "loss_objectness", "loss_class"):
            assert two[name] == pytest.approx(one[name], rel=1e-5)
    states = [load_checkpoint(folder / "checkpoint.pth")["model"] for folder in runs]
    for name, value in states[0].items():
        if value.is_floating_point():
            torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=3e-5)
    assert states[0]["labels.count"].sum() > 0  # what both processes have seen of the second epoch
    tables = [load_soft_labels(folder) for folder in runs]
    assert tables[0]["counts"] == tables[1]["counts"]
    assert sum(tables[0]["counts"]) > 0
    found = [json.loads((folder / "predictions.json").read_text()) for folder in runs]
    assert len(found[0]) == len(found[1])


def test_hard_labels_are_the_backbones_own_row_and_others_another(root, tmp_path, main, backbone):
    rows, protocols = {}, set()
    options = ["SOLVER.MAX_ITER", 3, "MODEL.FREEZE_AT", 2]
    for name in ("Hard", "LS"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "soft_labels.json").write_text("{}")  # of a run that was killed early
        main(arguments(root, tmp_path / name, "CLASS_LABELS.NAME", name, *options, backbone=backbone))
        results = load_results(tmp_path / name)
        assert "look_alikes" not in results["details"]
        assert results["details"]["frozen"]["stages"] == ["stem", "res2"]
        assert results["details"]["frozen"]["tensors"] == 5 * (1 + 4)  # convolutions, each with a frozen norm
        rows[name] = results["backbone"]
        protocols.add(results["protocol"]["hash"])
        assert results["details"]["backbone_hash"] == rows["Hard"]["hash"]
    assert len(protocols) == 1  # comparable
    assert [row["label"] for row in rows.values()] == ["made up, hard labels", "made up, LS 0.1 labels"]
    assert [row["method"] for row in rows.values()] == ["CE", "CE+LS"]
    assert rows["LS"]["hash"].startswith(rows["Hard"]["hash"] + "-")


def test_the_files_agree_with_the_numbers(root, finished):
    from backbones.core.warning_counter import WarningCounter
    from detection.data.catalog import load_data

    truth = load_data(["scenes_voc_val"], str(root), WarningCounter()).to_coco()
    again = evaluate_voc(truth, finished / "predictions.json", score_threshold=0.01)["metrics"]
    measured = load_results(finished)["metrics"]
    assert {name: measured[name] for name in VOC} == pytest.approx(again)


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.ANCHORS", "[[[1, 1]], [[2, 2]]]"], "MODEL.ANCHORS: [1, 1] anchors: give 3 lists"),
        (["MODEL.ANCHORS", "[[[1, 1]], [[2, 2], [3, 3]], [[2, 2]]]"], "MODEL.ANCHORS: [1, 2, 1] anchors"),
        (["MODEL.ANCHORS", "[[[1, 1]], [[2, 0]], [[2, 2]]]"], "an anchor is a width and a height above 0"),
        (["INPUT.SIZES", "[64, 100]"], "INPUT.SIZES: 100 is not a multiple of 32"),
        (["TEST.SIZES", "[]"], "TEST.SIZES is []; it must be one or more numbers, each at least 32"),
        (["CLASS_LABELS.NAME", "OSL"], "unknown CLASS_LABELS.NAME 'OSL'; did you mean 'OLS'?"),
        (["CLASS_LABELS.LS.amount", "1.5"], "CLASS_LABELS.LS.amount is 1.5; it must be between 0 and 1"),
        (["INPUT.MIXUP", "2"], "INPUT.MIXUP is 2.0; it must be between 0 and 1"),
        (["SOLVER.WARMUP_ITERS", "9"], "SOLVER.WARMUP_ITERS: 9: must be below SOLVER.MAX_ITER 9"),
        (["SOLVER.FINAL_LR", "1"], "SOLVER.FINAL_LR: 1.0: above SOLVER.BASE_LR 0.001; lower it"),
        (["MODEL.NUM_CLASSES", "20"], "MODEL.NUM_CLASSES is 20, but"),
        (["MODEL.FREEZE_AT", "2"], "MODEL.FREEZE_AT 2 on random weights leaves stages random; set it to 0"),
        (["SOLVER.IMS_PER_BATCH", "13"], "12 samples do not fill one batch of 13; use a batch of 12 or less"),
        (["SOLVER.BASE_LR", "1e30", "SOLVER.CLIP_GRADIENTS.ENABLED", "False"], "the loss is not finite at iteration"),
    ],
)
def test_what_cannot_be_is_said_by_key(root, tmp_path, main, overrides, message):
    with pytest.raises(InputError) as error:
        main(arguments(root, tmp_path / "run", *overrides))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_finished_folder_and_another_backbone_are_refused(root, finished, tmp_path, main, backbone):
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        main(arguments(root, finished, *OLS, backbone=backbone))
    with pytest.raises(InputError, match=r"backbone \(.* -> random\); use a new output folder"):
        main(arguments(root, finished, *OLS, "TEST.SCORE_THRESH", 0.0, flags=["--resume"]))
    with pytest.raises(InputError, match=r"no checkpoint at .*mistyped/checkpoint\.pth; check --output-dir"):
        main(arguments(root, tmp_path / "mistyped", flags=["--eval-only"]))
    assert not (tmp_path / "mistyped").exists()
    other = write_backbone(tmp_path / "other.pth", mean=(0.5, 0.5, 0.5))
    with pytest.raises(InputError, match=r"MODEL\.PIXEL_MEAN"):
        main(arguments(root, tmp_path / "run", backbone=other))


def test_a_image_without_a_size_is_refused_by_file(root, tmp_path, main):
    xml = sorted((root / "scenes-voc" / "Annotations").glob("train*.xml"))[0]
    kept = xml.read_text()
    try:
        xml.write_text(kept[: kept.index("\t<size>")] + kept[kept.index("\t<segmented>") :])
        with pytest.raises(InputError, match=f"1 x XML without size: {xml}; add the width and height"):
            main(arguments(root, tmp_path / "run"))
    finally:
        xml.write_text(kept)


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN"])
def test_norms_have_a_weight_decay_of_their_own(norm):
    """The same number of tensors, whatever the norm."""
    cfg = get_defaults()
    cfg.merge_from_list(["MODEL.ARCH", "resnet18", "MODEL.NORM", norm, "SOLVER.WEIGHT_DECAY_NORM", 0.25])
    network, _ = build_yolo(cfg.MODEL, None)
    optimizer = build_yolo_optimizer(cfg.SOLVER, build_task(cfg, network))
    of_norms = [p for group in optimizer.param_groups if group["weight_decay"] == 0.25 for p in group["params"]]
    norms = [part for part in network.modules() if getattr(part, "affine", False)]
    assert sorted(map(id, of_norms)) == sorted(id(p) for part in norms for p in part.parameters())
    assert len(norms) > 20
