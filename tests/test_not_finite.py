"""Weights and predictions that are not finite are refused by name, wherever they come from and go to."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import detectron2_tiny, yolo_tiny
from helpers.finetuning import arguments, write_backbone
from helpers.noise_runs import CLASSES, ChannelMeans, inputs, read, write_run
from helpers.seeded import make_backbone
from torch import nn

from backbones.config import get_defaults
from backbones.core import entry
from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.config import load_config
from backbones.core.errors import Diverged, InputError
from backbones.data.batch import Batch
from backbones.measuring.cam import ClassMaps, localize
from backbones.measuring.context import build_cover
from backbones.measuring.figure_data import penultimate_features
from backbones.measuring.finite import refuse_not_finite
from backbones.measuring.predictions import predict, predict_samples
from backbones.measuring.robustness import Attack, find_errors
from backbones.models import Outputs, build_model, load_backbone
from backbones.models.weights import state_hash
from backbones.pretraining.building import build_method, build_teacher
from backbones.pretraining.teacher import CachedTeacher, OnlineTeacher, write_cache
from detection.engines.finite import FiniteOutputs

pytest_plugins = ["helpers.noise_fixtures"]

CPU = torch.device("cpu")


def spoil(path, name, value, rows=slice(None)):
    """Overwrite a tensor of a backbone file, whose hash is right nevertheless."""
    content = load_checkpoint(path)
    content["state"][name][rows] = value
    content["hash"] = state_hash(content["state"])
    save_checkpoint(path, **content)


def last_line(capsys, main, argv):
    """What a tool says that ends with exit code 2: one line, no traceback."""
    with pytest.raises(SystemExit) as stopped:
        entry.run_tool(lambda _: main([str(part) for part in argv]))
    assert stopped.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "Traceback"))]
    assert len(said) == 1
    return said[0]


# --------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def damaged(root, tmp_path_factory):
    """A run whose backbone.pth holds one NaN in its classifier."""
    run = write_run(tmp_path_factory.mktemp("runs") / "nan", root, 0)
    spoil(run / "backbone.pth", "fc.bias", float("nan"), 2)
    return run


TOOLS = {
    "evaluate_backbone": ["RUN"],
    "localize": ["RUN", "LOCALIZE.GALLERY", 0],
    "attack_backbone": ["RUN", "ATTACK.MAX_IMAGES", 4],
    "cache_teacher": ["RUN"],
    "export_backbone": ["--backbone", "RUN", "--to", "torchvision", "--output", "x.pth"],
    "plot_backbone": ["tsne", "RUN", "-o", "x.png"],
}


@pytest.mark.parametrize("name", TOOLS)
def test_no_tool_takes_a_file_with_a_nan(name, damaged, tmp_path, load_tool, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [damaged if part == "RUN" else part for part in TOOLS[name]]
    said = last_line(capsys, load_tool(name).main, argv)
    assert f"{damaged / 'backbone.pth'}: 'fc.bias' holds NaN or infinite values" in said
    assert not list(tmp_path.iterdir())
    assert sorted(path.name for path in damaged.iterdir()) == ["backbone.pth", "config.yaml"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tool", ["finetune_coco", "finetune_voc"])
def test_no_detector_starts_from_it(tool, value, tmp_path, load_tool, capsys):
    """Also where the detector would drop the tensor: such a file is not what a training left."""
    path = write_backbone(tmp_path / "backbone.pth")
    spoil(path, "fc.weight", value, 0)
    config = "configs/detection/quick.yaml" if tool == "finetune_coco" else "configs/yolo/quick.yaml"
    argv = ["--config-file", config, "--backbone", path, "--output-dir", tmp_path / "run"]
    assert f"{path}: 'fc.weight' holds NaN" in last_line(capsys, load_tool(tool).main, argv)
    assert not (tmp_path / "run").exists()


def test_no_training_starts_from_it_or_learns_from_it(damaged):
    cfg = load_config(get_defaults(), None, ["MODEL.WEIGHTS", str(damaged), "TEACHER.RUN", str(damaged)])
    cfg.METHOD.NAME = "KD"
    with pytest.raises(InputError, match=r"backbone\.pth: 'fc\.bias' holds NaN") as refused:
        build_method(cfg, 6)
    assert not isinstance(refused.value, Diverged)  # a grid would leave the training out
    with pytest.raises(InputError, match=r"backbone\.pth: 'fc\.bias' holds NaN"):
        build_teacher(cfg, SimpleNamespace(classes=CLASSES), CPU)


def test_a_checkpoint_with_a_nan_is_not_resumed(small_scenes, tmp_path, load_tool):
    main, out = load_tool("finetune_coco").main, tmp_path / "run"
    short = ["SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0, "SOLVER.STEPS", "[]"]
    main(arguments(small_scenes, out, *short))
    before = (out / "results.json").read_bytes()
    state = load_checkpoint(out / "checkpoint.pth")
    layer = next(name for name in state["model"] if name.endswith("bbox_pred.weight"))
    for value, reason in ((float("nan"), f"checkpoint.pth: '{layer}' holds NaN"), (3e38, "are not finite")):
        state["model"][layer][:] = value
        save_checkpoint(out / "checkpoint.pth", **state)
        with pytest.raises(InputError, match=reason) as refused:
            main(arguments(small_scenes, out, *short, flags=["--eval-only"]))
        assert (out / "results.json").read_bytes() == before
    assert "scores or boxes for" in str(refused.value)  # finite weights, whose products are not
    assert "000" in str(refused.value)  # an image's file


# --------------------------------------------------------------------------------- predictions


@pytest.fixture(scope="module")
def overflowing(root, tmp_path_factory):
    """A run whose weights are finite, and whose logits are not."""
    run = write_run(tmp_path_factory.mktemp("runs") / "large", root, 0)
    spoil(run / "backbone.pth", "fc.weight", 3e38)
    return run


GALLERIES = {
    "evaluate_backbone": ["RUN"],
    "localize": ["RUN", "LOCALIZE.GALLERY", 0],
    "localize with a gallery": ["RUN", "LOCALIZE.GALLERY", 1, "LOCALIZE.METHOD", "GradCAM"],
    "localize what has no box": ["RUN", "LOCALIZE.GALLERY", 1, "LOCALIZE.SPLIT", "unboxed"],
    "attack_backbone": ["RUN", "ATTACK.MAX_IMAGES", 4],
    "cache_teacher": ["RUN"],
    "plot_backbone": ["maps", "RUN", "-o", "x.png", "--images", 1],
}


@pytest.mark.parametrize("case", GALLERIES)
def test_no_tool_reports_predictions_that_are_not_finite(
    case, overflowing, root, tmp_path, load_tool, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    argv = [overflowing if part == "RUN" else part for part in GALLERIES[case]]
    name = case.split()[0]
    if name != "plot_backbone":
        argv += ["--output-dir", tmp_path / "out"]
    said = last_line(capsys, load_tool(name).main, argv)
    assert str(overflowing / "backbone.pth") in said
    assert "gives NaN or infinite logits" in said
    assert f" for {root}/" in said
    assert not (tmp_path / "out" / "results.json").exists()
    assert not (tmp_path / "out" / "teacher.json").exists()
    assert not (tmp_path / "x.png").exists()


class Sometimes(nn.Module):
    """Logits that are not finite for images of one colour."""

    arch, pooled = "sometimes", True

    def __init__(self, value, origin=""):
        super().__init__()
        self.value, self.origin = value, origin
        self.fc = nn.Linear(3, 2)

    def forward(self, images):
        means = images.mean(dim=(2, 3))
        wrong = means[:, :1] > 0.9
        return Outputs(torch.where(wrong, self.value, self.fc(means)), {})


def colours(*values):
    images = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    index = torch.arange(len(values)).flip(0)
    return Batch(images, torch.zeros(len(values), dtype=torch.int64), index=index)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_image_is_named_by_its_index_and_the_network_by_its_file(value):
    batches, names = [colours(0, 255, 10, 255)], ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    model = Sometimes(value, "backbone 0123 (runs/x/backbone.pth)")
    found = r"backbone 0123 \(runs/x/backbone\.pth\) gives NaN or infinite logits for a\.jpg \(2 of 4 images\)"
    with pytest.raises(InputError, match=found):
        predict(model, batches, CPU, [0.0] * 3, [1.0] * 3, "float32", names)
    model.origin = ""
    with pytest.raises(Diverged, match=r"network in training are not finite for image 0 .*it diverged"):
        predict(model, batches, CPU, [0.0] * 3, [1.0] * 3, "float32")
    predict(model, [colours(0, 10, 20)], CPU, [0.0] * 3, [1.0] * 3, "float32", names)


def test_finite_values_pass_however_large():
    refuse_not_finite(np.array([[3e38, -3e38]], np.float32), ["a"], nn.Identity())
    refuse_not_finite(np.zeros((0, 3)), [], nn.Identity())
    with pytest.raises(InputError, match=r"maps of the network.* for b"):
        refuse_not_finite(np.array([[[0.0]], [[np.nan]]]), ["a", "b"], nn.Identity(), "maps")


class Broken(ChannelMeans):
    """NaN for what is only context: a covered object's colour."""

    def forward(self, images):
        logits = super().forward(images).logits
        exact = (images.abs() < 1e-2).all(dim=1).flatten(1).float().mean(dim=1)  # of the mean colour
        return Outputs(torch.where(exact[:, None] > 0.05, torch.nan, logits), {})


def test_context_images_and_features_are_watched(root):
    samples = read(root, "val")
    model = Broken()
    predict_samples(model, samples, inputs())
    with pytest.raises(InputError, match=r"not finite for .*\.JPEG"):
        predict_samples(model, samples, inputs(), cover=build_cover("mean", inputs().mean))
    model.fc = nn.Identity()

    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, images):
            return Outputs(self.fc(images.mean(dim=(2, 3)) * torch.inf), {})

    with pytest.raises(InputError, match=rf"features .* for {root}/val/class0/0\.JPEG"):
        penultimate_features(Features(), samples, np.arange(3), inputs(precision="float32"))


def test_a_map_that_is_not_finite_is_refused_though_its_logits_are_finite(root, monkeypatch):
    maps = ClassMaps(load_backbone_of(root), "CAM")
    monkeypatch.setattr(
        type(maps),
        "__call__",
        lambda self, images, labels: (np.full((len(images), 2, 2), np.nan), np.zeros((len(images), 6))),
    )
    with pytest.raises(InputError, match=rf"infinite class activation maps for {root}|activation maps .* for {root}"):
        next(localize(maps, read(root, "val"), np.arange(2), inputs(precision="float32"), 32))


def load_backbone_of(root):
    torch.manual_seed(0)
    return build_model("resnet18", 6)


def test_an_attacked_image_is_watched_too():
    """Finite as it is; white enough for NaN once the attack has brightened it."""
    options = {"mean": [0.0] * 3, "std": [1.0] * 3, "dtype": torch.float32, "device": CPU, "names": ["a", "b", "c"]}
    model = Sometimes(float("nan"))
    with torch.no_grad():
        model.fc.weight.copy_(torch.tensor([[-1.0] * 3, [1.0] * 3]))  # brighter is wronger
    clean = colours(0, 226, 100)
    find_errors(model, [clean], [Attack("fgsm", 1.0)], **options)
    with pytest.raises(InputError, match=r"\(clean or attacked\) of the network.* for b"):
        find_errors(model, [clean], [Attack("fgsm", 8.0)], **options)
    with pytest.raises(InputError, match="for c"):
        find_errors(model, [colours(255, 0, 100)], [Attack("fgsm", 0.0)], **options)


def test_saved_predictions_are_checked_before_they_are_drawn(root, tmp_path, load_tool, capsys):
    run = write_run(tmp_path / "run", root, 0)
    load_tool("evaluate_backbone").main([str(run)])
    path = run / "evaluation" / "predictions.npz"
    with np.load(path) as saved:
        arrays = dict(saved)
    arrays["val_logits"][3, 1] = np.inf
    np.savez(path, **arrays)
    capsys.readouterr()
    said = last_line(capsys, load_tool("plot_backbone").main, ["reliability", run, "-o", tmp_path / "x.png"])
    assert f"{path}: the logits for 'val' hold NaN or infinity" in said


# ------------------------------------------------------------------------------------ teachers


def test_teachers_that_are_not_finite(root, tmp_path, overflowing):
    samples = read(root, "val")
    sound = load_backbone(write_run(tmp_path / "sound", root, 0))
    images = torch.stack([torch.from_numpy(samples.load_image(i)).permute(2, 0, 1) for i in range(len(samples))])
    batch = Batch(images, torch.from_numpy(samples.labels), index=torch.arange(len(samples)))
    teacher = OnlineTeacher(sound, samples.classes, CPU, torch.float32)
    teacher(images)
    teacher.refuse_not_finite()
    write_cache(tmp_path / "cache", teacher, samples, [batch], [batch])
    CachedTeacher(tmp_path / "cache", samples)

    logits = np.load(tmp_path / "cache" / "logits.npy")
    logits[5, 1] = np.nan
    np.save(tmp_path / "cache" / "logits.npy", logits)
    with pytest.raises(InputError, match=rf"logits\.npy holds NaN or infinite logits for {samples.paths[5]}"):
        CachedTeacher(tmp_path / "cache", samples)
    logits[5, 1] = 0
    np.save(tmp_path / "cache" / "logits.npy", logits)
    description = json.loads((tmp_path / "cache" / "teacher.json").read_text())
    for wrong in (float("nan"), "1.5", None):
        (tmp_path / "cache" / "teacher.json").write_text(json.dumps(description | {"temperature": wrong}))
        with pytest.raises(InputError, match="temperature"):
            CachedTeacher(tmp_path / "cache", samples)

    large = OnlineTeacher(load_backbone(overflowing), samples.classes, CPU, torch.float32)
    with pytest.raises(InputError, match=rf"infinite logits for {samples.paths[0]}"):
        write_cache(tmp_path / "large", large, samples, [batch], [batch])
    with pytest.raises(InputError, match=f"infinite logits for {samples.paths[0]}"):
        large.temperature([dataclasses.replace(batch)], samples.paths)
    large = OnlineTeacher(load_backbone(overflowing), samples.classes, CPU, torch.float32)
    large(images)
    with pytest.raises(InputError, match="infinite logits for an image of the training"):
        large.refuse_not_finite()


# ----------------------------------------------------------------------------------- detectors


class Heads(nn.Module):
    def forward(self, x):
        return {"scores": [x, 1 / x], "boxes": (x,)}


def test_raw_outputs_in_any_nesting_are_watched_until_the_check():
    heads = Heads()
    with FiniteOutputs([heads]) as finite:
        heads(torch.ones(3))
        finite.check(["a.jpg"])
        heads(torch.tensor([1.0, 0.0]))
        heads(torch.ones(3))
        with pytest.raises(InputError, match=r"for a\.jpg \(or one of the 1 others of its batch\) are not finite"):
            finite.check(["a.jpg", "b.jpg"])
        finite.check(["c.jpg"])
    heads(torch.zeros(1))
    finite.check(["a.jpg"])  # nothing is watched any more


def test_yolo_reports_no_boxes_that_are_not_finite(tmp_path, load_tool):
    main, out, data = load_tool("finetune_voc").main, tmp_path / "run", yolo_tiny.write_data(tmp_path)
    short = ["SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0]
    main(yolo_tiny.arguments(data, out, *short))
    state = load_checkpoint(out / "checkpoint.pth")
    name = next(name for name in reversed(state["model"]) if name.endswith("weight"))
    state["model"][name][:] = 3e38
    save_checkpoint(out / "checkpoint.pth", **state)
    with pytest.raises(InputError, match=r"scores or boxes for .*\.(png|jpg|jpeg) .*are not finite"):
        main(yolo_tiny.arguments(data, out, *short, flags=["--eval-only"]))


@pytest.mark.detectron2
def test_detectron2_drops_no_boxes_without_a_word(tmp_path):
    d2 = detectron2_tiny.load_detectron2()
    from detection.engines.detectron2.engine import build_detector
    from detection.engines.detectron2.inference import predict

    cfg, data = detectron2_tiny.make_cfg(), detectron2_tiny.load_data(tmp_path)
    settings = detectron2_tiny.settings_of(d2, cfg)
    model, _ = build_detector(d2, settings, cfg, make_backbone())
    predict(d2, settings, cfg, model, data, CPU)
    for layer in (model.roi_heads.box_predictor.bbox_pred, model.proposal_generator.rpn_head.anchor_deltas):
        before = layer.weight.detach().clone()
        torch.nn.init.constant_(layer.weight, 3e38)
        with pytest.raises(InputError, match=f"scores or boxes for {tmp_path}.* are not finite"):
            predict(d2, settings, cfg, model, data, CPU)
        layer.weight.data.copy_(before)
