"""The backbone file: a round trip, an identity that follows the weights, and refusals."""

import os
import shutil

import pytest
import torch

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.errors import InputError
from backbones.models import backbone_spec, build_model, identity, load_backbone, save_backbone
from backbones.models.weights import state_hash

PROVENANCE = {
    "label": "CE, seed 1",
    "method": "CE",
    "seed": 1,
    "config_hash": "0" * 12,
    "data_fingerprint": "1" * 12,
    "version": "0.1",
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("resnet18", 3, "GN")


@pytest.fixture(scope="module")
def spec(model):
    return backbone_spec(model, mean=(0.5, 0.4, 0.3), std=[0.2, 0.2, 0.1], image_size=64, classes=["a", "b", "c"])


@pytest.fixture
def path(model, spec, tmp_path):
    save_backbone(tmp_path / "backbone.pth", model, spec, PROVENANCE)
    return tmp_path / "backbone.pth"


def test_round_trip(model, spec, path):
    file = load_backbone(path)
    assert file.spec == spec
    assert file.provenance == PROVENANCE
    assert spec["depth"] == 18
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(file.build()(images).logits, model.eval()(images).logits, rtol=0, atol=0)
    assert load_backbone(path.parent).hash == file.hash  # a run folder stands for its backbone
    assert vars(identity(file)) == {"label": "CE, seed 1", "method": "CE", "seed": 1, "hash": file.hash}


def test_hash_follows_the_weights_alone(model, spec, path, tmp_path):
    original = load_backbone(path).hash
    copy = tmp_path / "elsewhere.pth"
    shutil.copy(path, copy)
    os.utime(copy, (0, 0))
    assert load_backbone(copy).hash == original
    assert save_backbone(copy, model, spec, {**PROVENANCE, "label": "renamed"}) == original

    state = model.state_dict()
    assert state_hash(dict(reversed(state.items()))) == original
    changed = {**state, "fc.bias": state["fc.bias"].clone()}
    changed["fc.bias"][0] = torch.nextafter(changed["fc.bias"][0], torch.tensor(9.0))
    assert state_hash(changed) != original
    renamed = {("fc.other" if name == "fc.bias" else name): tensor for name, tensor in state.items()}
    assert state_hash(renamed) != original
    assert state_hash({**state, "fc.bias": state["fc.bias"][None]}) != original
    assert state_hash({**state, "fc.bias": state["fc.bias"].view(torch.int32)}) != original


def test_hash_of_tensors_numpy_does_not_know():
    state = {"scalar": torch.tensor(3), "half": torch.tensor([1.5], dtype=torch.bfloat16)}
    strided = {"scalar": torch.tensor(3), "half": torch.tensor([1.5, 0], dtype=torch.bfloat16)[::2]}
    assert state_hash(state) == state_hash(strided) != state_hash({**state, "scalar": torch.tensor(4)})


def test_refuses_missing(tmp_path):
    with pytest.raises(InputError, match=rf"no backbone at {tmp_path / 'backbone.pth'}.*pretraining run"):
        load_backbone(tmp_path)


def test_refuses_truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=str(path)):
        load_backbone(path)


def test_refuses_another_format(path, model):
    save_checkpoint(path, model=model.state_dict())
    with pytest.raises(InputError, match=f"{path} is not a backbone file"):
        load_backbone(path)


@pytest.mark.parametrize("key", ["state", "hash"])
def test_refuses_half_a_file(path, key):
    content = load_checkpoint(path)
    save_checkpoint(path, **{name: value for name, value in content.items() if name != key})
    with pytest.raises(InputError, match=f"{path} is not a backbone file"):
        load_backbone(path)


def test_refuses_changed_bytes(path):
    content = load_checkpoint(path)
    content["state"]["fc.bias"] += 1
    save_checkpoint(path, **content)
    with pytest.raises(InputError, match=f"{path} is damaged"):
        load_backbone(path)


def test_refuses_incomplete_spec(model, spec, path):
    incomplete = {key: value for key, value in spec.items() if key != "mean"}
    with pytest.raises(InputError, match="spec: missing mean"):
        save_backbone(path, model, incomplete, PROVENANCE)


@pytest.mark.parametrize("name", ["backbone.pth", "checkpoint.pth"])
def test_refuses_a_changed_byte_wherever_it_is(name, path, model):
    """Also in the specification, which the hash of the weights does not cover; torch does not look at checksums."""
    if name == "checkpoint.pth":
        save_checkpoint(path, model=model.state_dict())
    content = bytearray(path.read_bytes())
    for place in (content.index(b"fc.weight" if name == "checkpoint.pth" else b"channel_order") + 2, len(content) // 2):
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match=str(path)):
            load_checkpoint(path) if name == "checkpoint.pth" else load_backbone(path)
        content[place] ^= 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("mean", "0.5"), ("std", [0.2, None, 0.1]), ("classes", ["a", 2, "c"]), ("depth", "18"), ("stride_in_1x1", 0)],
)
def test_refuses_a_spec_of_other_types(key, value, model, spec, path):
    save_backbone(path, model, {**spec, key: value}, PROVENANCE)
    with pytest.raises(InputError, match=rf"spec: {key} is .*pretrain again"):
        load_backbone(path)
