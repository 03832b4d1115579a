"""The YOLO network, and the proof that a backbone file is in it."""

import pytest
import torch
from helpers.seeded import MEAN, STD, make_backbone
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from backbones.core.config import CfgNode
from backbones.core.errors import InputError
from backbones.models import build_model
from backbones.models.weights import BackboneFile, backbone_spec, state_hash
from detection.engines.yolo import building
from detection.engines.yolo.anchors import VOC_ANCHORS
from detection.engines.yolo.building import build_yolo
from detection.engines.yolo.loss import YOLOLoss

K = 4


def settings(**changes):
    defaults = {
        "ARCH": "resnet18", "NUM_CLASSES": K, "ANCHORS": VOC_ANCHORS, "NECK_WIDTH": 32, "NORM": "BN", "FREEZE_AT": 0,
        "PIXEL_MEAN": [255 * value for value in MEAN], "PIXEL_STD": [255 * value for value in STD],
    }  # fmt: skip
    return CfgNode(defaults | changes)


def mobile_backbone(norm="BN"):
    torch.manual_seed(3)
    model = build_model("mobilenetv2", 5, norm)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.5)
            part.running_var.uniform_(0.5, 2)
    spec = backbone_spec(model, mean=MEAN, std=STD, image_size=64, classes=list("abcde"))
    state = dict(model.state_dict())
    return BackboneFile(state, spec, {"label": "test"}, state_hash(state))


@pytest.mark.parametrize("arch", ["resnet18", "mobilenetv2"])
def test_maps_are_in_the_order_of_the_strides_and_start_at_the_prior(arch):
    torch.manual_seed(0)
    network, report = build_yolo(settings(ARCH=arch), None)
    images = torch.randn(2, 3, 64, 96)
    maps = network(images)
    assert [tuple(raw.shape) for raw in maps] == [(2, 3, 8, 12, 9), (2, 3, 4, 6, 9), (2, 3, 2, 3, 9)]
    for raw in maps:
        assert raw[..., 4].sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)
    assert set(report.new) == set(network.state_dict())
    assert not report.loaded
    with pytest.raises(InputError, match="multiples of 32"):
        network(torch.randn(1, 3, 64, 80))


def test_each_map_looks_where_its_cell_is():
    # What changes in one corner of the image moves the cell of that corner most, on every scale.
    torch.manual_seed(0)
    network = build_yolo(settings(), None)[0].eval()
    images = torch.randn(1, 3, 128, 192)
    changed = images.clone()
    changed[:, :, :32, 160:] = torch.randn(1, 3, 32, 32)
    for before, after in zip(network(images), network(changed), strict=True):
        moved = (after - before).detach().abs().sum(dim=(0, 1, 4))
        row, column = divmod(moved.argmax().item(), moved.shape[1])
        assert row < moved.shape[0] / 2
        assert column >= moved.shape[1] / 2


def test_every_value_has_its_own_output():
    # The head's channels are anchor by anchor: a bias on one channel moves exactly that value.
    network = build_yolo(settings(), None)[0].eval()
    images = torch.zeros(1, 3, 32, 32)
    before = network(images)
    with torch.no_grad():
        network.heads[2][1].bias[1 * (5 + K) + 4] += 1
    difference = [(new - old).detach() for new, old in zip(network(images), before, strict=True)]
    expected = torch.zeros_like(difference[2])
    expected[:, 1, ..., 4] = 1
    torch.testing.assert_close(difference[2], expected)
    assert not difference[0].any()
    assert not difference[1].any()


def test_every_parameter_learns_and_sgd_lowers_the_loss():
    torch.manual_seed(0)
    network, _ = build_yolo(settings(NORM="GN"), None)
    loss, images = YOLOLoss(VOC_ANCHORS), torch.randn(2, 3, 64, 64)
    boxes = torch.tensor([[[4.0, 4, 20, 30], [10, 10, 60, 60]], [[30, 2, 50, 62], [0, 0, 0, 0]]])
    labels, weights = torch.tensor([[0, 3], [2, -1]]), torch.ones(2, 2)
    targets = nn.functional.one_hot(labels.clamp(min=0), K).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        optimizer.zero_grad()
        total = sum(loss(network(images), boxes, labels, weights, targets).values())
        total.backward()
        assert all(p.grad is not None for p in network.parameters())
        optimizer.step()
        history.append(total.item())
    assert history[-1] < 0.85 * history[0], history


@pytest.mark.parametrize("number", [0, 3])
def test_bfloat16_autocast_stays_finite(number):
    torch.manual_seed(0)
    network, _ = build_yolo(settings(ARCH="mobilenetv2"), None)
    boxes, labels = torch.tensor([4.0, 4, 40, 30]).repeat(2, number, 1), torch.ones(2, number, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = network(torch.randn(2, 3, 64, 64))
        parts = YOLOLoss(VOC_ANCHORS)(maps, boxes, labels, torch.ones(2, number), torch.rand(2, number, K))
    sum(parts.values()).backward()
    assert maps[0].dtype == torch.bfloat16
    assert all(part.dtype == torch.float32 and part.isfinite() for part in parts.values())
    assert all(p.grad.isfinite().all() for p in network.parameters())


# Loading


@pytest.mark.parametrize("make", [make_backbone, lambda: make_backbone(norm="GN"), mobile_backbone])
def test_every_tensor_of_the_file_is_in_the_detector(make):
    file = make()
    norm = file.spec["norm"]
    network, report = build_yolo(settings(ARCH=file.spec["arch"], NORM=norm), file)
    state = network.backbone.state_dict()
    loaded = [name.removeprefix("backbone.") for name in report.loaded]
    assert sorted(loaded + report.dropped) == sorted(file.state)
    assert all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in report.dropped)
    assert all(state[name].equal(file.state[name]) for name in loaded)
    assert sorted(report.loaded + report.new) == sorted(network.state_dict())
    body = [name for name in report.new if name.startswith("backbone.")]
    assert all(name.endswith("num_batches_tracked") for name in body)
    assert max(report.proof["largest_difference"].values()) <= 1e-4
    assert network.training


def test_frozen_stages_and_norms():
    file = make_backbone()
    network, _ = build_yolo(settings(FREEZE_AT=2), file)
    frozen = {name for name, p in network.backbone.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(name.startswith(("conv1", "layer1")) for name in frozen)
    assert isinstance(network.backbone.bn1, FrozenBatchNorm2d)
    assert isinstance(network.backbone.layer2[0].bn1, nn.BatchNorm2d)
    network, _ = build_yolo(settings(NORM="FrozenBN"), file)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.backbone.modules())
    assert any(isinstance(part, nn.BatchNorm2d) for part in network.necks.modules())
    network, _ = build_yolo(settings(ARCH="mobilenetv2", FREEZE_AT=3), mobile_backbone())
    assert all(not p.requires_grad for p in network.backbone.entry.parameters())
    assert all(not p.requires_grad for p in network.backbone.stage_modules()[1].parameters())
    assert all(p.requires_grad for p in network.backbone.stage_modules()[2].parameters())
    network, _ = build_yolo(settings(NORM="SyncBN"), file)
    assert any(isinstance(part, nn.SyncBatchNorm) for part in network.backbone.modules())


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({"ARCH": "resnet34"}, {}, "MODEL.ARCH is resnet34, the backbone is resnet18"),
        ({"NORM": "GN"}, {}, "MODEL.NORM is GN, the backbone was trained with BN"),
        ({"NORM": "bn"}, {}, "unknown MODEL.NORM 'bn'"),
        ({"PIXEL_MEAN": [0.0, 0, 0]}, {}, "MODEL.PIXEL_MEAN"),
        ({"PIXEL_STD": [1.0, 1, 1]}, {}, "MODEL.PIXEL_STD"),
        ({}, {"channel_order": "BGR"}, "trained on BGR"),
        ({}, {"stride_in_1x1": True}, "strides in its first 1x1"),
        ({"ANCHORS": VOC_ANCHORS[:2]}, {}, "MODEL.ANCHORS"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(changes, spec, message):
    with pytest.raises(InputError, match=message):
        build_yolo(settings(**changes), make_backbone(spec=spec))


def test_random_weights_cannot_be_frozen_and_strides_must_fit():
    for changes, message in (
        ({"NORM": "FrozenBN"}, "FrozenBN on random weights"),
        ({"FREEZE_AT": 1}, "FREEZE_AT 1 on random weights"),
        ({"ARCH": "resnet18_cifar"}, "strides 2, 4, 8"),
        ({"ARCH": "resnet19"}, "resnet18"),
    ):
        with pytest.raises(InputError, match=message):
            build_yolo(settings(**changes), None)


def test_a_file_with_too_few_or_too_many_tensors_is_refused():
    for change, message in (
        (lambda state: state.pop("layer2.0.conv1.weight"), "lacks layer2.0.conv1.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "without a place in the detector, extra"),
        (lambda state: state.update({"bn1.weight": torch.zeros(3)}), "another shape of bn1.weight"),
    ):
        file = make_backbone()
        change(file.state)
        with pytest.raises(InputError, match=message):
            build_yolo(settings(), file)


def test_syncbn_of_several_processes_needs_gpus(monkeypatch):
    monkeypatch.setattr(building, "world_size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^MODEL\.NORM: SyncBN: synchronises GPUs only"):
        build_yolo(settings(NORM="SyncBN"), None)
    build_yolo(settings(), None)
