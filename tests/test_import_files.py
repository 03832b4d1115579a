"""Foreign files as people have them: wrappers, types, pickles of arrays, and what is not a checkpoint at all."""

import collections
import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from helpers.foreign_checkpoints import FEATURES, STATE, detectron2s, prefixed, read, write
from helpers.seeded import make_backbone
from torch import nn

from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.models.weights import load_backbone
from detection.exchange.array_pickle import load_array_pickle
from detection.exchange.export import export_backbone
from detection.exchange.importing import declare_spec, describe, import_backbone
from detection.exchange.reading import read_checkpoint
from detection.exchange.selecting import select_state

CONV = "layer1.0.conv1.weight"
IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def refusal(path, source="torchvision"):
    with pytest.raises(InputError) as refused:
        import_backbone(path, source, declare_spec("resnet18"), label="x")
    assert "\n" not in str(refused.value)
    return str(refused.value)


@torch.no_grad()
def logits(backbone):
    return backbone.build()(IMAGES).logits


@torch.no_grad()
def features(backbone):
    return list(backbone.build().stages(IMAGES).values())[-1]


# ------------------------------------------------------------------------------------- wrappers

WRAPPED = {
    "compiled": ("compile", "_orig_mod.", None),
    "compiled over DDP": ("compile", "_orig_mod.module.", None),
    "DDP over compiled": ("compile", "module._orig_mod.", None),
    "DDP, declared so": ("ddp", "module._orig_mod.", None),
    "references": ("torchvision-references", "_orig_mod.", "model"),
    "references' average": ("torchvision-references-ema", "module._orig_mod.", "model_ema"),
    "examples": ("pytorch-examples", "module._orig_mod.", "state_dict"),
    "examples, over": ("pytorch-examples", "_orig_mod.module.", "state_dict"),
    "tutorial with DDP": ("model-state-dict", "module.", "model_state_dict"),
    "tutorial, compiled": ("model-state-dict", "_orig_mod.", "model_state_dict"),
    "tutorial, both": ("model-state-dict", "module._orig_mod.", "model_state_dict"),
    "Lightning": ("lightning", "model._orig_mod.", "state_dict"),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_a_wrappers_prefix_is_stripped(case):
    source, prefix, key = WRAPPED[case]
    others = {"n_averaged": torch.tensor(3)} if "ema" in source else {}
    state = prefixed(prefix) | others
    found, report = select_state({key: state} if key else state, source, "foreign.pth")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())
    assert report.dropped == list(others)


def test_a_wrapped_network_computes_what_it_did(tmp_path):
    network = nn.Sequential(collections.OrderedDict(module=make_backbone().build()))  # as DDP names it
    backbone, _ = read({"state_dict": torch.compile(network).state_dict()}, tmp_path, "pytorch-examples")
    assert torch.equal(logits(backbone), logits(make_backbone()))
    assert torch.equal(features(backbone), features(make_backbone()))


@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone.", "_orig_mod.module.backbone."])
@pytest.mark.parametrize(("source", "key"), [("dino", "teacher"), ("dino-student", "student")])
def test_dinos_head_is_dropped_on_purpose(source, key, prefix):
    head = f"{prefix.removesuffix('backbone.')}head.mlp.0.weight"
    content = {key: {**prefixed(prefix, FEATURES), head: torch.ones(2, 2)}, "epoch": 3}
    found, report = select_state(content, source, "foreign.pth")
    assert report.dropped == [head]
    assert found.keys() == FEATURES.keys()


def test_a_wrapper_that_is_not_declared_is_named(tmp_path):
    assert "try --source compile" in refusal(write(prefixed("_orig_mod."), tmp_path))
    assert "--source ddp or compile" in refusal(write(prefixed("module._orig_mod."), tmp_path))
    assert "as with --source model-state-dict" in refusal(write({"model_state_dict": STATE}, tmp_path))
    assert "as with --source detectron2" in refusal(write({"model": {"res2.0.conv1.weight": torch.ones(1)}}, tmp_path))


def test_numbers_of_numpy_beside_the_weights_do_not_matter(tmp_path):
    beside = {"best": np.float64(0.76), "epochs": np.int64(3), "history": np.arange(3.0)}
    backbone, _ = read({"state_dict": STATE, **beside}, tmp_path, "timm")
    assert torch.equal(logits(backbone), logits(make_backbone()))
    as_arrays = {name: tensor.numpy() for name, tensor in FEATURES.items()}
    backbone, _ = read({"model": as_arrays}, tmp_path, "torchvision-references")
    assert all(torch.equal(backbone.state[name], tensor) for name, tensor in FEATURES.items())
    assert "an array of type 'O8'" in refusal(write({CONV: STATE[CONV], "x": np.array([1, "a"], object)}, tmp_path))


# ---------------------------------------------------------------------------------------- types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_and_are_named(dtype, tmp_path):
    given = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in STATE.items()}
    backbone, report = read(given, tmp_path)
    kind = str(dtype).removeprefix("torch.")
    assert report.converted == {kind: 102}
    assert f"102 converted from {kind} to float32" in describe(backbone, report)
    assert backbone.provenance["converted"] == [kind]
    for name, tensor in backbone.state.items():
        counter = name.endswith("num_batches_tracked")
        assert tensor.dtype == (torch.int64 if counter else torch.float32)
        assert torch.equal(tensor, given[name] if counter else given[name].float())
    assert torch.isfinite(logits(backbone)).all()


def test_float32_is_left_as_it_is(tmp_path):
    backbone, report = read(STATE, tmp_path)
    assert report.converted == {}
    assert "converted" not in describe(backbone, report)
    assert "converted" not in backbone.provenance


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch announces the end of the type
    QUANTISED = torch.quantize_per_tensor(STATE[CONV], 0.1, 0, torch.qint8)
ODD = {
    "too large": ({CONV: STATE[CONV].double() * 1e300}, "holds values that torch.float32 cannot"),
    "float8": ({CONV: STATE[CONV].to(torch.float8_e4m3fn)}, "is of torch.float8_e4m3fn"),
    "complex": ({CONV: STATE[CONV].to(torch.complex64)}, "is of torch.complex64"),
    "integers": ({"fc.weight": torch.ones(7, 512, dtype=torch.int8)}, "is of torch.int8"),
    "truth values": ({CONV: STATE[CONV] > 0}, "is of torch.bool"),
    "quantised": ({CONV: QUANTISED}, "is quantised"),
    "sparse": ({CONV: STATE[CONV].to_sparse()}, "is sparse"),
    "without values": ({CONV: STATE[CONV].to("meta")}, "without values"),
    "part of a step": ({"bn1.num_batches_tracked": torch.tensor(0.5)}, "holds values that torch.int64 cannot"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ODD)
def test_types_without_a_float32_are_refused_by_name(case, tmp_path):
    changed, reason = ODD[case]
    said = refusal(write({CONV: STATE[CONV], **changed}, tmp_path))
    assert reason in said
    assert next(iter(changed)) in said
    assert "foreign.pth" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fc.weight", torch.float32),
        ("fc.bias", torch.float16),
        ("bn1.running_var", torch.float64),
        (CONV, torch.float32),
    ],
)
def test_weights_that_are_not_finite_are_refused_by_name(name, dtype, value, tmp_path):
    spoilt = STATE[name].to(dtype).clone()
    spoilt.view(-1)[-1] = value
    said = refusal(write({CONV: STATE[CONV], name: spoilt}, tmp_path))
    assert f"foreign.pth: the backbone's {name} holds NaN or infinity" in said


# --------------------------------------------------------------------------- detectron2's pickles


def arrays(**changes):
    return {"model": detectron2s(STATE), "__author__": "torchvision", "matching_heuristics": True} | changes


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_detectron2s_pickle_is_the_network_that_it_was(protocol, tmp_path):
    path = tmp_path / "r18.pkl"
    path.write_bytes(pickle.dumps(arrays(), protocol=protocol))
    backbone, report = import_backbone(path, "detectron2", declare_spec("resnet18"), label="d2")
    assert backbone.state.keys() == STATE.keys()
    assert len(report.kept) == 122
    assert torch.equal(logits(backbone), logits(make_backbone()))


def test_numpy_1_and_2_read_each_others_arrays(tmp_path):
    path = tmp_path / "x.pkl"
    written = pickle.dumps({"a": np.arange(3.0), "b": np.float32(2)}, protocol=2)
    other = written.replace(b"numpy._core.", b"numpy.core.")
    assert other != written or b"numpy.core." in written
    for content in (written, other):
        path.write_bytes(content)
        found = load_array_pickle(path)
        assert found["a"].tolist() == [0, 1, 2]
        assert found["b"] == 2
        assert found["b"].dtype == np.float32


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_form_are_read_as_numpy_reads_them(protocol, tmp_path):
    once = np.arange(4, dtype=np.int16)
    content = {
        "list": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), once, once],
        "big": np.arange(3, dtype=">f4"), "none": np.zeros((0, 3), np.float16),
        "one": np.array(5), "yes": np.bool_(True),
        "plain": {"a": None, "b": (1, 2.5), "c": "ä", "d": b"", "e": True}, "ordered": collections.OrderedDict(a=1),
    }  # fmt: skip
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = load_array_pickle(tmp_path / "x.pkl")
    assert found["plain"] == content["plain"]
    assert found["ordered"] == content["ordered"]
    pairs = [
        *zip(content["list"], found["list"], strict=True),
        *((content[k], found[k]) for k in ("big", "none", "one")),
    ]
    for wanted, value in pairs:
        assert isinstance(value, np.ndarray)
        assert (value.dtype, value.shape, value.tolist()) == (wanted.dtype, wanted.shape, wanted.tolist())
    assert found["yes"].dtype == bool
    assert found["list"][2] is found["list"][3]


def test_our_export_for_detectron2_comes_back(tmp_path):
    made = make_backbone()
    export_backbone(made, tmp_path / "x.pth", "detectron2")
    spec = declare_spec("resnet18", image_size=64)
    backbone, report = import_backbone(tmp_path / "x.pth", "detectron2", spec, label="again")
    wanted = {n: t for n, t in made.state.items() if not n.startswith("fc.") and not n.endswith("num_batches_tracked")}
    assert report.kept == sorted(wanted)
    assert all(torch.equal(backbone.state[name], tensor) for name, tensor in wanted.items())
    with pytest.raises(InputError, match=r"states mean .* not \[0\.5"):
        import_backbone(
            tmp_path / "x.pth", "detectron2", declare_spec("resnet18", image_size=64, mean=[0.5] * 3), label="x"
        )


class Planted:
    """Runs a command when pickle reads it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PLANTED = {
    "os.system": (Planted(os.system, "touch pwned"), "os.system"),
    "eval": (Planted(eval, "open('pwned', 'w')"), "builtins.eval"),
    "import": (Planted(__import__, "os"), "builtins.__import__"),
    "getattr": (Planted(getattr, "x", "encode"), "builtins.getattr"),
    "numpy.load": (Planted(np.load, "pwned"), "numpy.load"),
    "another codec": (Planted(__import__("_codecs").encode, "x", "rot13"), "not a pickle of NumPy arrays"),
    "bytes": (Planted(bytes, 3), "not a pickle of NumPy arrays"),
    "a class": (pickle.PickleError("x"), "PickleError"),
    "objects": (np.array([1, "a"], dtype=object), "an array of type 'O8'"),
    "texts": (np.array(["a"]), "an array of type"),
    "records": (np.zeros(2, dtype=[("a", "f4")]), "an array of type 'V4'"),
    "a set": ({1, 2}, "builtins.set"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("case", PLANTED)
def test_what_is_planted_in_a_pickle_is_refused_and_not_run(case, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planted, named = PLANTED[case]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays(model={"a": planted}), protocol=protocol))
    if case == "a set" and protocol == 4:  # made by a code of pickle's own, not by a name
        named = "no ResNet"
    assert named in refusal(tmp_path / "x.pkl", "detectron2")
    assert not (tmp_path / "pwned").exists()


def test_the_same_in_a_torch_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write({CONV: STATE[CONV], "x": Planted(os.system, "touch pwned")}, tmp_path)
    for source in ("torchvision", "detectron2"):
        assert "foreign.pth holds posix.system (os.system) besides tensors" in refusal(path, source)
    with pytest.raises(InputError, match=r"holds posix\.system \(os\.system\), which is not loaded"):
        load_backbone(path)
    assert not (tmp_path / "pwned").exists()


HANDMADE = {
    "ndarray called": b"cnumpy\nndarray\n((I3\nttR.",
    "another class reconstructed": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
    "a function changed": b"cnumpy.core.multiarray\nscalar\n(N}S'_run'\nI3\nstb.",
    "more bytes than there are": b"cnumpy.core.numeric\n_frombuffer\n(S'ab'\ncnumpy\ndtype\n(S'f4'\ntR(I9\ntS'C'\ntR.",
    "a type with fields": b"cnumpy\ndtype\n(S'f4'\ntR(I3\nS'|'\nN(S'a'\nt}I8\nI1\nI0\ntb.",
    "cut off": b"(dS'a'\nI1\ns",
}


@pytest.mark.parametrize("case", HANDMADE)
def test_a_pickle_made_by_hand_ends_in_one_line(case, tmp_path):
    (tmp_path / "x.pkl").write_bytes(HANDMADE[case])
    said = refusal(tmp_path / "x.pkl", "detectron2")
    assert "not a pickle of NumPy arrays" in said or "an array with fields" in said


def test_caffe2s_weights_are_named(tmp_path):
    for content in ({"conv1_w": np.ones(3), "res_conv1_bn_s": np.ones(3)}, {"blobs": {"conv1_w": np.ones(3)}}):
        (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content, protocol=2))
        assert "is a Caffe2 file (Detectron 1, MSRA's R-50.pkl)" in refusal(tmp_path / "R-50.pkl", "detectron2")


def test_a_pickle_under_another_source_is_named(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays()))
    assert "a pickle that torch did not write" in refusal(tmp_path / "x.pkl")
    torch.save({"model": STATE}, tmp_path / "y.pth")  # torchvision's names in a file of torch's
    assert torch.equal(
        import_backbone(tmp_path / "y.pth", "detectron2", declare_spec("resnet18"), label="x")[0].state["conv1.weight"],
        STATE["conv1.weight"],
    )


# ------------------------------------------------------------------------- not a checkpoint


def zipped(**parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


def scripted():
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), buffer)
    return buffer.getvalue()


def safetensors():
    header = json.dumps({"conv1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 46830571\n"
FOREIGN = {
    "LFS": (lambda: POINTER, "a Git LFS pointer", "git lfs pull"),
    "HTML": (lambda: b"<!DOCTYPE html><html><title>Sign in</title></html>", "an HTML page", "download the file itself"),
    "HTML after blanks": (lambda: b"\xef\xbb\xbf\n\n  <HTML>quota exceeded</HTML>", "an HTML page", "download"),
    "zip": (lambda: zipped(readme="x", weights__r50="y"), "a zip archive that torch did not write", "unpack it"),
    "empty zip": (zipped, "a zip archive that torch did not write", "unpack it"),
    "npz": (npz, "a NumPy archive", "torch.save"),
    "script": (scripted, "a TorchScript archive", "state_dict()"),
    "safetensors": (safetensors, "a safetensors file", "safetensors.torch.load_file"),
    "empty": (lambda: b"", "is empty", "download it again"),
    "gzip": (lambda: gzip.compress(b"x" * 100), "a gzip file", "unpack it"),
    "tar": (tarred, "a tar archive", "unpack it"),
    "text": (lambda: b"Not Found", "truncated or not a torch file", "check --checkpoint"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_another_kind_is_named(case, tmp_path):
    make, kind, advice = FOREIGN[case]
    path = tmp_path / "weights.pth"
    path.write_bytes(make())
    for source in ("torchvision", "detectron2"):
        said = refusal(path, source)
        assert str(path) in said
        if case != "text" or source == "torchvision":
            assert kind in said
            assert advice in said
    for load in (load_backbone, load_checkpoint):  # where a backbone or a checkpoint of ours is expected
        with pytest.raises(InputError) as refused:
            load(path)
        assert case == "text" or kind in str(refused.value)


def test_a_truncated_file_is_not_another_kind(tmp_path):
    content = write(STATE, tmp_path).read_bytes()
    path = tmp_path / "cut.pth"
    for length in (4, len(content) // 2):
        path.write_bytes(content[:length])
        assert "truncated or not a torch file" in refusal(path)
    torch.save(STATE, path, _use_new_zipfile_serialization=False)  # as before 2020
    read_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "truncated or not a torch file" in refusal(path)
