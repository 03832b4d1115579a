"""The networks against torchvision's: parameters, names and outputs."""

import pytest
import torch
import torchvision

from backbones.core.errors import InputError
from backbones.models import MODELS, build_model

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("arch", PARAMETERS)
def test_names_shapes_and_parameter_count_are_torchvisions(arch):
    with torch.device("meta"):
        ours, theirs = build_model(arch, 1000), getattr(torchvision.models, arch)()
    assert shapes(ours) == shapes(theirs)
    assert sum(parameter.numel() for parameter in ours.parameters()) == PARAMETERS[arch]


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_logits_and_features_are_torchvisions(arch):
    torch.manual_seed(0)
    ours, theirs = build_model(arch, 7).eval(), getattr(torchvision.models, arch)(num_classes=7).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 96, 64)
    seen = {}
    for stage in range(1, 5):
        layer = getattr(theirs, f"layer{stage}")
        layer.register_forward_hook(lambda _m, _i, output, name=f"res{stage + 1}": seen.update({name: output}))
    with torch.no_grad():
        outputs, logits, stages = ours(images), theirs(images), ours.stages(images)
    torch.testing.assert_close(outputs.logits, logits)
    assert list(outputs.features) == ["res2", "res3", "res4", "res5"]
    for level, (name, feature) in enumerate(outputs.features.items()):
        torch.testing.assert_close(feature, seen[name])
        torch.testing.assert_close(feature, stages[name])
        assert feature.shape[2:] == (96 // 2 ** (level + 2), 64 // 2 ** (level + 2))


@pytest.mark.parametrize("arch", MODELS.names())
def test_depth_is_the_number_of_weighted_layers(arch):
    with torch.device("meta"):
        model = build_model(arch, 10)
    weighted = [name for name, p in model.named_parameters() if p.ndim > 1 and "downsample" not in name]
    assert model.depth == len(weighted)
    assert model.arch == arch


def test_group_norm_does_not_mix_samples():
    torch.manual_seed(0)
    model = build_model("resnet18", 5, "GN").train()
    assert not any("running" in name for name in model.state_dict())
    images = torch.rand(3, 3, 64, 64)
    together = model(images).logits
    alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_same_seed_same_network():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build_model("resnet18", 5).state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet181", 10), "did you mean 'resnet18'"),
        (("resnet18", 1), "at least 2 classes"),
        (("resnet18", 10, "bn"), "MODEL.NORM.*did you mean 'BN'"),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message):
    with pytest.raises(InputError, match=message):
        build_model(*arguments)
