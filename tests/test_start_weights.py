"""MODEL.WEIGHTS: a training starts from another one's features, with a last layer of its own."""

import pytest
import torch
from helpers.seeded import make_backbone

from backbones.config import get_defaults
from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.models.weights import PROVENANCE_KEYS, backbone_spec, load_backbone, save_backbone, start_from
from backbones.pretraining.building import build_method


@pytest.fixture
def trained(tmp_path):
    """The file of a ResNet-18 of 7 classes whose tensors are all random."""
    model = make_backbone().build()
    spec = backbone_spec(model, mean=[0.5] * 3, std=[0.2] * 3, image_size=64, classes=list("abcdefg"))
    save_backbone(tmp_path / "backbone.pth", model, spec, dict.fromkeys(PROVENANCE_KEYS, "test"))
    return tmp_path


def build(num_classes, *overrides):
    torch.manual_seed(1)
    return build_method(load_config(get_defaults(), None, ["MODEL.ARCH", "resnet18", *overrides]), num_classes).model


@pytest.mark.parametrize("num_classes", [7, 3])
def test_all_but_the_last_layer_is_taken(trained, num_classes):
    """Even where the number of classes agrees: the classes are others."""
    state, drawn = load_backbone(trained).state, build(num_classes).state_dict()
    started = build(num_classes, "MODEL.WEIGHTS", str(trained)).state_dict()
    assert started.keys() == drawn.keys()
    for name, tensor in started.items():
        expected = drawn[name] if name in ("fc.weight", "fc.bias") else state[name]
        assert torch.equal(tensor, expected), name
    changed = [name for name in started if not torch.equal(started[name], drawn[name])]
    assert len(changed) >= 60  # every convolution and every norm


@pytest.mark.parametrize(("key", "value"), [("MODEL.ARCH", "resnet34"), ("MODEL.NORM", "GN")])
def test_another_network_is_refused(trained, key, value):
    with pytest.raises(InputError, match=r"MODEL.WEIGHTS holds resnet18 with BN, not") as caught:
        build(3, key, value, "MODEL.WEIGHTS", str(trained))
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_is_refused(trained):
    file = load_backbone(trained)
    del file.state["layer4.1.bn2.running_var"]
    with pytest.raises(InputError, match=r"layer4.1.bn2.running_var"):
        start_from(build(7), file)
    with pytest.raises(InputError, match="no backbone at"):
        build(3, "MODEL.WEIGHTS", str(trained / "elsewhere"))
