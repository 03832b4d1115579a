"""ENGINE torchvision: no key is ignored, what is frozen stays, and detections come back in the original's pixels."""

import math
import re

import pytest
import torch
from helpers.rectangles import COLOURS, load_rectangles, write_rectangles
from helpers.seeded import make_backbone
from helpers.torchvision_tiny import FindsColours, make_cfg
from torch import nn

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.config import CfgNode, flatten
from backbones.core.errors import InputError
from backbones.core.files import load_json
from detection.config import get_defaults
from detection.data.loader import TrainingImages, scale_boxes, training_batches
from detection.engines.torchvision import engine
from detection.engines.torchvision.building import build_detector
from detection.engines.torchvision.keys import HONOURED, LIMITED, check_config
from detection.evaluation.coco import evaluate_coco
from detection.training.fitting import Fitting, fit
from detection.training.run import finetune, load_checked

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six images of two rectangles, of three shapes; labels follow the colours."""
    return load_rectangles(tmp_path_factory.mktemp("rectangles"))


def batch_of(data):
    """Both square images, as they are."""
    records = [record for record in data.records if record.width == record.height]
    images = TrainingImages(records, short_sides=(64,), longest=96, flip=False, seed=0, cache=False)
    options = {"group_by_shape": False, "num_workers": 0, "pin_memory": False}
    return next(iter(training_batches(images, batch_size=2, seed=0, start=0, stop=1, **options)))


def train_steps(cfg, detector, batch, steps):
    """Losses of a few plain steps, through the engine's own task and optimizer."""
    task, optimizer = engine.DetectionTask(detector), engine.build_detector_optimizer(cfg.SOLVER, detector)
    losses = []
    detector.train()
    for iteration in range(steps):
        torch.manual_seed(iteration)
        step = task(batch)
        step.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append({"loss": step.loss.item(), **{name: value.item() for name, value in step.losses.items()}})
    return losses


# --------------------------------------------------------------------------------------------- keys


def test_the_tables_name_every_key_once():
    keys = {key for key, _ in flatten(get_defaults())}
    assert HONOURED.keys() | LIMITED.keys() == keys
    assert not HONOURED.keys() & LIMITED.keys()


REFUSED = {
    "INPUT.FORMAT": "BGR",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
}


@pytest.mark.parametrize("key", LIMITED)
def test_what_the_engine_cannot_honour_is_refused_by_key(key):
    cfg = make_cfg("MODEL.FPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 32, key, REFUSED[key])
    with pytest.raises(InputError, match=rf"^{key}: {re.escape(repr(REFUSED[key]))}: .*choose ENGINE detectron2$"):
        check_config(cfg)
    for allowed in LIMITED[key]:
        text = f"'{allowed}'" if isinstance(allowed, str) else allowed
        check_config(make_cfg(key, text, "MODEL.FPN.OUT_CHANNELS", 32))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16]]", "needs 5 lists of the same length"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8, 9], [16], [32], [64], [128]]", "needs 5 lists of the same length"),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[1.0], [2.0]]", "needs 1 or 5 lists"),
        ("MODEL.FPN.OUT_CHANNELS", 48, "FPN.NORM GN needs a multiple of 32"),
    ],
)
def test_anchors_must_suit_five_levels_and_channels_their_groups(key, value, reason):
    with pytest.raises(InputError, match=rf"^{key}: .*{reason}"):
        check_config(make_cfg("MODEL.FPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 32, key, value))


def test_every_honoured_key_is_read_in_a_run(tmp_path, monkeypatch):
    """A key that a run never looks at is a key ignored, whatever the table says."""
    path = write_rectangles(tmp_path, count=2, sizes=((64, 64),))
    name = f"coco:{path}:{tmp_path}"
    further = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 1]
    cfg = make_cfg("DATASETS.TRAIN", f"['{name}']", "DATASETS.TEST", f"['{name}']", *further)
    prefixes = {id(node): prefix for prefix, node in nodes(cfg)}
    seen = set()
    plain = CfgNode.__getattr__

    def recording(self, name):
        seen.add(prefixes.get(id(self), "?") + name)
        return plain(self, name)

    monkeypatch.setattr(CfgNode, "__getattr__", recording)
    backbone = load_checked(cfg, "random")
    seen.clear()  # a check is not a use
    results = finetune(cfg, backbone, tmp_path / "run", resume=False, eval_only=False)
    monkeypatch.undo()
    assert results["data"]["evaluated_on_training_images"] is True
    elsewhere = {"DATASETS.ROOT", "IMPORTS"} | LIMITED.keys()  # an explicit name needs no root; imported before
    unread = {key for key in HONOURED if key not in seen} - elsewhere
    assert not unread


def nodes(node, prefix=""):
    yield prefix, node
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from nodes(value, f"{prefix}{key}.")


# ------------------------------------------------------------------------------------------ freezing


def stage_of(name):
    """0 for the stem, 1 .. 4 for res2 .. res5; None outside of the body."""
    part = name.split(".")
    if part[0] != "body":
        return None
    return int(part[1][-1]) if part[1].startswith("layer") else 0


@pytest.mark.parametrize(("norm", "freeze_at"), [("BN", 0), ("BN", 1), ("BN", 2), ("BN", 5), ("FrozenBN", 2)])
def test_frozen_stages_keep_the_backbones_tensors_and_the_others_move(data, norm, freeze_at):
    """Convolutions, scales and running statistics; FrozenBN keeps norms everywhere."""
    cfg = make_cfg("MODEL.BACKBONE.FREEZE_AT", freeze_at, "MODEL.RESNETS.NORM", norm, "SOLVER.WEIGHT_DECAY", 0.1)
    backbone = make_backbone(18)
    detector, _ = build_detector(cfg.MODEL, 20, backbone)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    train_steps(cfg, detector, batch_of(data), 2)
    for name, tensor in detector.state_dict().items():
        stage = stage_of(name)
        if stage is None or name.endswith("num_batches_tracked"):
            continue
        assert torch.equal(before[name], backbone.state[name.removeprefix("body.")]), name
        kept = stage < freeze_at or (norm == "FrozenBN" and tensor.dim() == 1)  # only norms have vectors
        assert torch.equal(tensor, before[name]) == kept, name


def test_a_frozen_norm_computes_as_evaluation_does():
    cfg = make_cfg("MODEL.RESNETS.NORM", "FrozenBN")
    detector, _ = build_detector(cfg.MODEL, 20, make_backbone(18))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.body.modules())
    plain, _ = build_detector(make_cfg().MODEL, 20, make_backbone(18))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found, wanted = detector.train().body.stages(x), plain.eval().body.stages(x)
    for name, feature in found.items():
        torch.testing.assert_close(feature, wanted[name], rtol=1e-3, atol=1e-3)


def test_rows_of_a_table_share_all_but_the_backbone():
    """New layers depend on the seed alone, not on what is loaded."""
    cfg, states = make_cfg(), []
    for backbone in (None, make_backbone(18), make_backbone(18, seed=1)):
        torch.manual_seed(3)
        detector, report = build_detector(cfg.MODEL, 20, backbone)
        states.append(detector.state_dict())
        assert report.counts()["loaded"] == (0 if backbone is None else 100)
    for name, tensor in states[0].items():
        own = stage_of(name) is not None
        assert torch.equal(tensor, states[1][name]) or own, name
        assert torch.equal(tensor, states[2][name]) or own, name
    assert not torch.equal(states[1]["body.conv1.weight"], states[2]["body.conv1.weight"])


@pytest.mark.parametrize("bias", [-1.0, 0.0, 0.0625])
def test_norms_and_biases_have_their_own_weight_decay(bias):
    """Every parameter that trains is in one group; the biases of norms count as biases, as in detectron2."""
    cfg = make_cfg("SOLVER.WEIGHT_DECAY", 0.25, "SOLVER.WEIGHT_DECAY_NORM", 0.125, "SOLVER.WEIGHT_DECAY_BIAS", bias)
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    detector, _ = build_detector(cfg.MODEL, 20, None)
    groups = engine.build_detector_optimizer(cfg.SOLVER, detector).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in detector.named_parameters():
        expected = 0.125 if "bn" in name or "downsample.1" in name else 0.25
        if name.endswith("bias") and bias >= 0:
            expected = bias
        assert decay.get(id(parameter)) == (expected if parameter.requires_grad else None), name


def test_a_probe_proves_that_its_backbone_stayed_and_precise_bn_stays_with_the_run(data, tmp_path, monkeypatch):
    cfg = make_cfg(
        "MODEL.BACKBONE.FREEZE_AT", 5, "MODEL.FPN.NORM", "BN", "TEST.PRECISE_BN.ENABLED", True,
        "TEST.PRECISE_BN.NUM_ITER", 2,
    )  # fmt: skip
    backbone = make_backbone(18)
    found = fit(cfg, backbone, data, data, tmp_path, CPU).detections
    frozen = load_json(tmp_path / "loading.json")["frozen"]
    assert frozen["stages"] == ["stem", "res2", "res3", "res4", "res5"]
    assert frozen["tensors"] == 100
    assert frozen["before"] == frozen["after"]
    assert fit(cfg, backbone, data, data, tmp_path, CPU, eval_only=True).detections == found
    precise = load_checkpoint(tmp_path / "checkpoint.pth")["model"]
    cfg.TEST.PRECISE_BN.ENABLED = False
    (tmp_path / "plain").mkdir()
    fit(cfg, backbone, data, data, tmp_path / "plain", CPU)
    for name, tensor in load_checkpoint(tmp_path / "plain" / "checkpoint.pth")["model"].items():
        moved = not torch.equal(tensor, precise[name])
        assert moved == (name.startswith("pyramid") and ("running" in name or "num_batches" in name)), name
    with pytest.raises(InputError, match=r"TEST\.PRECISE_BN \(2 -> off\)"):
        fit(cfg, backbone, data, data, tmp_path, CPU, eval_only=True)
    # A stage that is frozen by name only.
    monkeypatch.setattr(engine, "frozen_stages", lambda body, at: {"pyramid": detector.pyramid})
    detector, report = build_detector(cfg.MODEL, 20, backbone)
    monkeypatch.setattr(engine, "build_detector", lambda *args: (detector, report))
    with pytest.raises(InputError, match=r"FREEZE_AT: the frozen stages pyramid have changed"):
        fit(cfg, backbone, data, data, tmp_path / "plain", CPU)


def test_resuming_with_another_number_of_processes_warns(data, tmp_path, capsys):
    """A finished run may be tested by any number."""
    cfg = make_cfg()
    run = Fitting(cfg, None, data, data, tmp_path, CPU)
    for finished, processes, said in ((1, 1, False), (1, 2, True), (2, 2, False)):
        run.save(finished)
        save_checkpoint(run.path, **{**load_checkpoint(run.path), "processes": processes})
        run.restore(required=True)
        assert ("resuming with 1 process(es) after 2" in capsys.readouterr().err) == said


# ------------------------------------------------------------------------------------------ learning


def test_two_images_are_learned(data):
    cfg = make_cfg("SOLVER.OPTIMIZER", "ADAMW", "SOLVER.BASE_LR", 1e-3, "MODEL.FPN.OUT_CHANNELS", 32)
    torch.manual_seed(0)
    detector, _ = build_detector(cfg.MODEL, 20, None)
    losses = train_steps(cfg, detector, batch_of(data), 18)
    for one in losses:
        assert math.isfinite(one["loss"])
        assert one["loss"] == pytest.approx(sum(value for name, value in one.items() if name != "loss"), rel=1e-5)
    # Without the box loss of regions, which begins when the first proposals hit an object.
    for name in ("loss", "loss_rpn_cls", "loss_rpn_loc", "loss_cls"):
        assert sum(one[name] for one in losses[-3:]) < sum(one[name] for one in losses[:3]) / 2, name


def test_the_first_category_is_class_one(data):
    """Class 0 is the background, to the detector that learns as to the one that finds (FindsColours, below)."""

    def learns(images, sizes, targets):
        assert [target["labels"].tolist() for target in targets] == [[1, 2], [1, 2]]
        return {"loss": images.float().mean()}

    engine.DetectionTask(learns)(batch_of(data))


def test_images_without_boxes_are_background(data):
    """They have a loss, of the two classifiers alone; here with another number of anchors."""
    cfg = make_cfg("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[1.0, 2.0]]")
    detector, _ = build_detector(cfg.MODEL, 20, None)
    batch = batch_of(data)
    batch.boxes, batch.labels = [torch.empty(0, 4)] * 2, [torch.empty(0, dtype=torch.int64)] * 2
    step = engine.DetectionTask(detector.train())(batch)
    assert step.losses["loss_cls"] > 0
    assert step.losses["loss_rpn_cls"] > 0
    assert step.losses["loss_box_reg"] == step.losses["loss_rpn_loc"] == 0
    step.loss.backward()


# ---------------------------------------------------------------------------------------- detections


@pytest.mark.parametrize(("short_side", "batch_size"), [(32, 4), (64, 1), (128, 3)])
def test_detections_come_in_pixels_of_the_file_with_the_jsons_ids(data, short_side, batch_size):
    """Halved, as they are and doubled: the boxes found are those of the file, to the pixel."""
    cfg = make_cfg("INPUT.MIN_SIZE_TEST", short_side, "INPUT.MAX_SIZE_TEST", 999, "TEST.IMS_PER_BATCH", batch_size)
    found = engine.detect(cfg, FindsColours(), data, torch.device("cpu"))
    expected = [
        (record.image_id, category, box)
        for record in data.records
        for category, box in zip(COLOURS, record.bbox.tolist(), strict=True)
    ]
    assert [(one["image_id"], one["category_id"], one["bbox"]) for one in found] == expected
    measured = evaluate_coco(data.to_coco(), found, score_threshold=0.05)["metrics"]
    assert measured["AP"] == pytest.approx(1)


def test_scaling_back_is_the_inverse_of_scaling(data):
    for record in data.records:
        for size in ((37, 53), (640, 480)):
            scaled = torch.from_numpy(scale_boxes(record, size))
            back = engine.scale_to_original(scaled, size[::-1], (record.height, record.width))
            torch.testing.assert_close(back, torch.from_numpy(record.boxes), rtol=1e-5, atol=1e-4)
    outside = engine.scale_to_original(torch.tensor([[-5, -5, 70, 90.0]]), (64, 64), (128, 32))
    assert outside.tolist() == [[0, 0, 32, 128]]


def test_detecting_leaves_the_state_alone_and_is_complete(data):
    cfg = make_cfg("TEST.DETECTIONS_PER_IMAGE", 7)
    detector, _ = build_detector(cfg.MODEL, cfg.TEST.DETECTIONS_PER_IMAGE, None)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    found = engine.detect(cfg, detector, data, torch.device("cpu"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert {one["category_id"] for one in found} <= set(COLOURS)
    per_image = [[one["score"] for one in found if one["image_id"] == record.image_id] for record in data.records]
    # At score 0 nothing is left out but for the limit, whatever the scores of an untrained head.
    assert all(len(scores) == 7 and scores == sorted(scores, reverse=True) for scores in per_image)
