"""TEST.BEST and DATASETS.VAL without a training: what is chosen and refused, and the loss of a validation set."""

import json
import math

import pytest
import torch
from helpers.detection_files import make_tree, save_image, write_coco
from helpers.torchvision_tiny import make_cfg
from torch import nn

import detection.config
import detection.engines.yolo.config
from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection.choice import check_settings, with_choice
from detection.data.catalog import load_data
from detection.data.records import RunData
from detection.evaluation.evaluators import Measured
from detection.training.best import BestCheckpoint, build_best, check_metric
from detection.training.results import UNREADABLE, describe_data, find_chosen_on
from detection.training.run import load_all
from detection.training.validation_loss import average, measure_losses, set_modes


def test_the_first_of_the_highest_values_is_kept():
    class Data:
        name, fingerprint = "val", "f"

    best, model = BestCheckpoint("AP", Data(), "s"), nn.Linear(1, 1)
    for iteration, value in enumerate([math.nan, 0.1, 0.3, 0.3, 0.2]):
        model.weight.data.fill_(iteration)
        best.offer(iteration, {"AP": value, "AR1": -value}, model)
    where = {"data": "val", "fingerprint": "f", "settings": "s"}
    assert best.choice == {"metric": "AP", "value": 0.3, "iteration": 2, **where}
    assert best.weights["weight"].item() == 2
    assert best.evaluated == 4
    other = BestCheckpoint("AP", Data(), "s")
    other.load_state_dict(best.state_dict())
    other.offer(5, {"AP": 0.3}, model)
    assert (other.choice, other.evaluated) == (best.choice, 5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("TEST.BEST", "AP"), r"TEST\.BEST: AP: nothing is evaluated during the training at TEST\.EVAL_PERIOD 0; set"),
        (("DATASETS.VAL", "val"), r"DATASETS\.VAL: val: nothing is evaluated .* or leave DATASETS\.VAL empty"),
        (
            ("TEST.BEST", "AP", "TEST.EVAL_PERIOD", "9"),
            r"EVAL_PERIOD 9 and SOLVER\.MAX_ITER 9, only the last",
        ),
    ],
)
def test_settings_without_effect_are_refused(keys, message):
    for module in (detection.config, detection.engines.yolo.config):
        cfg = module.get_defaults()
        cfg.merge_from_list(["SOLVER.MAX_ITER", "9", *keys])
        with pytest.raises(InputError, match=message):
            check_settings(cfg)
        cfg.merge_from_list(["TEST.EVAL_PERIOD", "8"])
        check_settings(cfg)


def test_a_period_counts_only_with_a_choice():
    """And the hashes of a config without one are those of a version that had no such keys."""
    for module in (detection.config, detection.engines.yolo.config):
        cfg, roles = module.get_defaults(), module.ROLES
        assert with_choice({"A": 1, "TEST.BEST": ""}, cfg) == {"A": 1}
        settings = [module.describe_protocol(cfg)["settings"], module.weight_settings(cfg)]
        assert not any({"TEST.BEST", "TEST.EVAL_PERIOD", "DATASETS.VAL"} & one.keys() for one in settings)
        before = module.protocol_hash(cfg, "a", "b")
        cfg.TEST.EVAL_PERIOD = 5
        assert module.protocol_hash(cfg, "a", "b") == before
        cfg.TEST.BEST = "AP"
        hashes = {module.protocol_hash(cfg, "a", "b", "c"), module.protocol_hash(cfg, "a", "b", "b")}
        cfg.TEST.EVAL_PERIOD = 6
        assert len({before, module.protocol_hash(cfg, "a", "b", "c"), *hashes}) == 4
        assert module.weight_settings(cfg)["TEST.EVAL_PERIOD"] == 6
        assert build_best(cfg, roles, load_like()).measured != build_best(changed(cfg), roles, load_like()).measured


def load_like():
    class Data:
        name, fingerprint = "val", "f"

    return Data()


def changed(cfg):
    other = cfg.clone()
    other.TEST.AP_SCORE_THRESH = 0.9
    return other


def test_the_metric_is_one_of_the_data_set(small_scenes):
    data = load_data(["scenes_val"], str(small_scenes.parent), WarningCounter())

    def check(metric):
        check_metric(make_cfg("TEST.BEST", metric, "TEST.EVAL_PERIOD", 1), data)

    check("AP")
    with pytest.raises(InputError, match=r"unknown TEST\.BEST 'AR00'; did you mean 'AR100'"):
        check("AR00")
    with pytest.raises(InputError, match=r"unknown TEST\.BEST 'VOC_mAP50'"):  # this data set is not in VOC's form
        check("VOC_mAP50")
    for record in data.records:
        record.area[:] = 5.0
    with pytest.raises(InputError, match=r"TEST\.BEST: APl: scenes_val has no object that it measures; choose"):
        check("APl")


def test_a_validation_set_without_boxes_or_with_other_classes_is_refused(small_scenes, tmp_path):
    tree = json.loads((small_scenes / "detection" / "annotations" / "instances_val.json").read_text())
    images = small_scenes / "detection" / "val"

    def load(name, tree):
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
        keys = ("DATASETS.ROOT", small_scenes.parent, "DATASETS.VAL", f"coco:{tmp_path / name}.json:{images}")
        cfg = make_cfg(*keys, "MODEL.ROI_HEADS.NUM_CLASSES", 12)
        return load_all(cfg, "MODEL.ROI_HEADS.NUM_CLASSES", WarningCounter())

    data = load("same", tree)
    assert (data.val.name, data.val.fingerprint) == ("same", data.test.fingerprint)
    with pytest.raises(InputError, match=r"DATASETS\.VAL: .*empty\.json: no image has a box to find; use another"):
        load("empty", {**tree, "annotations": []})
    names = [one | {"name": one["name"] + "x"} for one in tree["categories"]]
    with pytest.raises(InputError, match=r"the categories of scenes_train .* and of other .* differ"):
        load("other", {**tree, "categories": names})


def test_an_evaluation_on_other_data_counts_the_images_of_the_choice(tmp_path):
    """A run chose on its own test set of three images; two of them, and then none, are evaluated again."""
    chosen = write_coco(tmp_path / "data")
    images = tmp_path / "data" / "images"
    numbers = {"two": [1, 2], "none": []}
    save_image(images / "p9.jpg")
    for name, kept in numbers.items():
        tree = make_tree()
        tree["images"] = [one for one in tree["images"] if one["id"] in kept]
        tree["images"].append({**make_tree()["images"][0], "id": 9, "file_name": "p9.jpg"})
        tree["annotations"] = [one for one in tree["annotations"] if one["image_id"] in kept]
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))

    def load(name):
        return load_data([name], "", WarningCounter())

    def describe(name, val=None):
        test, warnings = load(f"coco:{tmp_path / name}.json:{images}"), WarningCounter()
        cfg, data = make_cfg("DATASETS.ROOT", tmp_path), RunData(load(train), test, val)
        choice = {"fingerprint": fingerprint}
        found = describe_data(data, Measured({}, {}), choice, find_chosen_on(cfg, tmp_path, data, choice, warnings))
        told = found.get("test_images_chosen_on"), found["chosen_on_test_images"]
        return told, [one["what"] for one in warnings.as_list()]

    train, fingerprint = chosen, load(chosen).fingerprint
    config = {"DATASETS": {"ROOT": "", "TEST": [chosen]}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))  # json is yaml
    assert describe("two") == ((2, True), [])
    assert describe("none") == ((0, False), [])
    assert describe("two", load(f"coco:{tmp_path}/none.json:{images}")) == ((1, True), [])
    # Relative to a folder that has moved since.
    (tmp_path / "config.yaml").write_text(
        json.dumps({"DATASETS": {"ROOT": "absent", "TEST": ["coco:data/ann.json:data/images"]}})
    )
    assert describe("two") == ((2, True), [])
    train = f"coco:{tmp_path}/two.json:{images}"
    for change in (lambda tree: tree["annotations"].pop(), lambda tree: tree.pop("images")):
        write_coco(tmp_path / "data", change)
        assert describe("none") == ((None, True), [UNREADABLE])


class Task(nn.Module):
    """Its loss tells the mode, the batch and the random numbers."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(1), nn.Dropout()

    def forward(self, x):
        assert self.training
        assert not self.norm.training
        assert not self.drop.training
        return {"loss_a": self.drop(self.norm(x)).sum(), "loss_b": torch.rand(())}


class Detector:
    def __init__(self, batches):
        self.task, self.sizes, self.cfg = Task(), batches, make_cfg()

    def losses(self, data):
        for n, size in enumerate(self.sizes):
            yield size, self.task(torch.full((size, 1), float(n)))


def test_the_loss_is_the_mean_over_images_in_training_mode_with_the_statistics_of_the_test():
    detector = Detector([2, 2, 1])
    with torch.random.fork_rng():
        found = measure_losses(detector, None)
        torch.rand(7)
        assert measure_losses(detector, None) == found
    drawn = []
    for number in range(3):
        torch.manual_seed(detector.cfg.SEED * 1_000_003 + number)
        drawn.append(torch.rand(()).item())
    assert found["loss_a"] == pytest.approx((2 * 0 + 2 * 2 + 1 * 2) / 5, rel=1e-4)
    assert found["loss_b"] == pytest.approx((2 * drawn[0] + 2 * drawn[1] + drawn[2]) / 5)
    assert found["loss"] == pytest.approx(found["loss_a"] + found["loss_b"])
    assert detector.task.norm.running_mean.item() == 0
    assert measure_losses(Detector([]), None) == {}  # an engine that has no loss


def test_the_loss_is_the_same_for_any_number_of_processes():
    batches = [(n + 1, {"loss": 0.1 * n}) for n in range(5)]
    alone = average([batches])
    assert average([batches[0::2], batches[1::2]]) == alone == {"loss": pytest.approx(0.1 * 40 / 15)}
    assert average([batches[0::4], batches[1::4], batches[2::4], batches[3::4]]) == alone


def test_norms_of_every_kind_keep_their_statistics():
    task = nn.Sequential(nn.BatchNorm2d(1), nn.SyncBatchNorm(1), nn.Dropout2d(), nn.Conv2d(1, 1, 1))
    set_modes(task)
    assert [module.training for module in task] == [False, False, False, True]
