"""ENGINE detectron2: images are functions of their position, and what a run leaves is what it did."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.detectron2_tiny import load_data, load_detectron2, make_cfg, settings_of
from helpers.rectangles import boxes_in_pixels
from helpers.seeded import make_backbone

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.errors import InputError
from backbones.core.run_log import read_metrics
from backbones.core.sampling import Position
from detection.engines.detectron2.data import MappedRecords
from detection.engines.detectron2.inference import to_results
from detection.training.fitting import fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def d2():
    return load_detectron2()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(tmp_path_factory.mktemp("rectangles"))


# ----------------------------------------------------------------------------------------- the data


@pytest.mark.detectron2
def test_a_image_is_a_pure_function_of_its_position_and_its_boxes_stay_on_their_objects(d2, data):
    cfg = make_cfg()
    mapper = d2.data.DatasetMapper(settings_of(d2, cfg), is_train=True)
    images = MappedRecords(data.records, mapper, seed=3)
    positions = [Position(epoch, index) for epoch in range(4) for index in range(len(data.records))]
    first = [images[position] for position in positions]
    np.random.seed(12345)  # numpy's own state matters as little as the order
    state = np.random.get_state()[1].copy()
    again = [images[position] for position in reversed(positions)][::-1]
    assert np.array_equal(state, np.random.get_state()[1])
    flipped = set()
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one["image"], other["image"])
        boxes, labels = one["instances"].gt_boxes.tensor, one["instances"].gt_classes.tolist()
        assert torch.equal(boxes, other["instances"].gt_boxes.tensor)
        assert labels == [0, 1]  # the crowd is not learned
        seen = boxes_in_pixels(one["image"])  # found by colour alone
        np.testing.assert_allclose(boxes.numpy(), [seen[label] for label in labels], atol=1.01)
        flipped.add(bool(boxes[0, 0] > boxes[1, 0]))  # red stands left of blue in the files
    assert {tuple(item["image"].shape[1:]) for item in first} >= {(48, 72), (64, 96)}  # both short sides were drawn
    assert flipped == {True, False}


@pytest.mark.detectron2
@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named_in_one_line(d2, data, tmp_path, workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(data.records[0].path).read_bytes()[:150])
    records = [dataclasses.replace(record, path=str(broken)) for record in data.records]
    spoiled = dataclasses.replace(data, records=records)
    cfg = make_cfg("DATALOADER.NUM_WORKERS", workers, "MODEL.BACKBONE.FREEZE_AT", 0)
    with pytest.raises(InputError, match=r"image .*broken\.png") as error:
        fit(cfg, None, spoiled, data, tmp_path, CPU)
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------------------------- the training


@pytest.fixture(scope="module")
def straight(d2, data, tmp_path_factory):
    """A run of three iterations, never interrupted."""
    run_dir = tmp_path_factory.mktemp("straight")
    predictions = fit(make_cfg(), make_backbone(), data, data, run_dir, CPU).detections
    return run_dir, predictions


@pytest.mark.detectron2
def test_the_log_adds_up_and_follows_the_schedule(straight):
    for line in read_metrics(straight[0] / "metrics.jsonl"):
        parts = [line[name] for name in ("loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc")]
        assert line["loss"] == pytest.approx(sum(parts), rel=1e-6)
        assert line["lr"] == pytest.approx({0: 5e-6, 1: 5e-3, 2: 5e-4}[line["iteration"]])


@pytest.mark.detectron2
def test_the_backbone_trains_from_freeze_at_on(straight):
    backbone, trained = make_backbone(), torch.load(straight[0] / "checkpoint.pth", weights_only=True)["model"]

    def moved(ours, theirs):
        return not torch.equal(backbone.state[ours], trained[f"backbone.bottom_up.{theirs}"])

    assert not moved("conv1.weight", "stem.conv1.weight")  # FREEZE_AT 2: stem and res2, with their statistics
    assert not moved("layer1.1.bn2.running_mean", "res2.1.conv2.norm.running_mean")
    assert moved("layer2.0.conv1.weight", "res3.0.conv1.weight")
    assert moved("layer4.1.bn2.running_mean", "res5.1.conv2.norm.running_mean")


@pytest.mark.detectron2
def test_the_account_is_kept_beside_the_run(straight):
    account = json.loads((straight[0] / "loading.json").read_text())
    assert account["counts"]["loaded"] == 100
    assert max(account["proof"]["largest_difference"].values()) <= 1e-4


@pytest.mark.detectron2
def test_detections_are_coco_results_in_pixels_of_the_file(straight, data):
    predictions = straight[1]
    records = {record.image_id: record for record in data.records}
    assert {p["image_id"] for p in predictions} == set(records)
    assert {p["category_id"] for p in predictions} <= {7, 9}
    for p in predictions:
        (x, y, w, h), record = p["bbox"], records[p["image_id"]]
        assert x >= 0
        assert y >= 0
        assert x + w <= record.width + 1e-3
        assert y + h <= record.height + 1e-3
    right = max(p["bbox"][0] + p["bbox"][2] for p in predictions if records[p["image_id"]].width == 96)
    assert right > 90  # reaches the border of a 96 px image that the network saw at 72 px


@pytest.mark.detectron2
def test_results_keep_coordinates_scores_and_ids(d2):
    from detectron2.structures import Boxes, Instances

    found = Instances((90, 60))
    found.pred_boxes = Boxes(torch.tensor([[1.5, 2.0, 11.0, 32.0]]))
    found.scores, found.pred_classes = torch.tensor([0.25]), torch.tensor([1])
    wanted = {"image_id": 105, "category_id": 9, "bbox": [1.5, 2.0, 9.5, 30.0], "score": 0.25}
    assert to_results(105, found, [7, 9]) == [wanted]


@pytest.mark.detectron2
def test_eval_only_repeats_the_detections(straight, data):
    run_dir, wanted = straight
    assert fit(make_cfg(), make_backbone(), data, data, run_dir, CPU, eval_only=True).detections == wanted


@pytest.mark.detectron2
def test_a_run_of_other_settings_is_not_taken_up(straight, data):
    run_dir = straight[0]
    with pytest.raises(InputError, match=r"other settings: SOLVER\.BASE_LR"):
        fit(make_cfg("SOLVER.BASE_LR", 0.1), make_backbone(), data, data, run_dir, CPU, resume=True)
    with pytest.raises(InputError, match="other settings: backbone"):
        fit(make_cfg(), make_backbone(seed=1), data, data, run_dir, CPU, eval_only=True)


@pytest.mark.detectron2
def test_resuming_with_another_number_of_processes_warns(straight, data, tmp_path, capsys):
    state = load_checkpoint(straight[0] / "checkpoint.pth")
    assert state["processes"] == 1
    for iteration in (2, 3):  # in its midst, and at its end: a finished run may be tested by any number
        save_checkpoint(tmp_path / "checkpoint.pth", **{**state, "iteration": iteration, "processes": 2})
        fit(make_cfg(), make_backbone(), data, data, tmp_path, CPU, resume=True)
        assert ("resuming with 1 process(es) after 2" in capsys.readouterr().err) == (iteration == 2)


@pytest.mark.detectron2
def test_a_loss_that_is_not_finite_stops_with_its_parts(data, d2, tmp_path):
    cfg = make_cfg("SOLVER.BASE_LR", 1e18, "SOLVER.WARMUP_ITERS", 0, "MODEL.BACKBONE.FREEZE_AT", 0)
    with pytest.raises(InputError, match=r"not finite at iteration [12].*loss_rpn_cls"):
        fit(cfg, None, data, data, tmp_path, CPU)
