"""Foreign checkpoints: read as the declared source writes them, every tensor accounted for, nothing guessed."""

import argparse
import collections
import hashlib

import pytest
import torch
from helpers.finetuning import MEAN as MEAN_OF_QUICK
from helpers.finetuning import STD as STD_OF_QUICK
from helpers.finetuning import arguments
from helpers.foreign_checkpoints import FEATURES, STATE, detectron2s, prefixed, projection, read, write
from helpers.seeded import MEAN, STD, make_backbone

from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.measuring.run import load_run
from backbones.models import build_model
from backbones.models.weights import load_backbone, save_backbone_state, start_from
from detection.config import get_defaults
from detection.exchange.compatibility import check_spec
from detection.exchange.export import export_backbone
from detection.exchange.importing import declare_spec, import_backbone, load_classes
from detection.exchange.sources import SOURCES

# What each program writes, as its code says.
WRITTEN = {
    "torchvision": STATE,
    "ddp": prefixed("module."),
    "compile": prefixed("_orig_mod."),
    "torchvision-references": {"model": STATE, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=0.5)},
    "torchvision-references-ema": {
        "model": FEATURES,
        "model_ema": {"n_averaged": torch.tensor(625), **prefixed("module.")},
        "args": argparse.Namespace(model_ema=True),
    },
    "model-state-dict": {"epoch": 3, "model_state_dict": STATE, "optimizer_state_dict": {}, "loss": torch.tensor(0.4)},
    "lightning": {
        "epoch": 9,
        "global_step": 900,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(7)},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9), "dirpath": "/x"}},
        "optimizer_states": [{"state": {}}],
        "lr_schedulers": [],
        "loops": {"fit_loop": {"state_dict": {}}},
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "arch": "resnet18"},
    },
    "pytorch-examples": {"epoch": 90, "state_dict": prefixed("module."), "best_acc1": torch.tensor(76.0)},
    "timm": {"arch": "resnet18", "state_dict": STATE, "state_dict_ema": FEATURES, "args": argparse.Namespace()},
    "timm-ema": {"state_dict": FEATURES, "state_dict_ema": STATE},
    "moco": {
        "state_dict": {
            **prefixed("module.encoder_q.", FEATURES),
            **projection("module.encoder_q."),
            **prefixed("module.encoder_k.", FEATURES),
            **projection("module.encoder_k."),
            "module.queue": torch.ones(128, 16),
            "module.queue_ptr": torch.zeros(1),
        }
    },
    "moco-v3": {
        "state_dict": {
            **prefixed("module.base_encoder.", FEATURES),
            **projection("module.base_encoder."),
            **prefixed("module.momentum_encoder.", FEATURES),
            "module.predictor.0.weight": torch.ones(4, 4),
        }
    },
    "simsiam": {
        "state_dict": {
            **prefixed("module.encoder.", FEATURES),
            **projection("module.encoder."),
            "module.predictor.0.weight": torch.ones(4, 4),
        }
    },
    "swav": {
        **prefixed("module.", FEATURES),
        "module.projection_head.0.weight": torch.ones(4, 4),
        "module.prototypes.weight": torch.ones(4, 4),
    },
    "dino": {
        "student": prefixed("module.backbone.", make_backbone(seed=1).state),
        "teacher": {**prefixed("module.backbone.", FEATURES), "module.head.mlp.0.weight": torch.ones(4, 4)},
        "optimizer": {},
        "epoch": 100,
        "args": argparse.Namespace(arch="resnet50"),
        "dino_loss": {"center": torch.zeros(1, 8)},
    },
    "dino-student": {
        "student": {**prefixed("module.backbone.", FEATURES), "module.head.last_layer.weight_g": torch.ones(4, 1)},
        "teacher": prefixed("backbone.", make_backbone(seed=1).state),
    },
    "mmpretrain": {
        "meta": {"epoch": 100},
        "state_dict": {**prefixed("backbone.", FEATURES), "head.fc.weight": torch.ones(4, 4)},
    },
    "detectron2": {"model": detectron2s(STATE), "__author__": "torchvision", "matching_heuristics": True},
}  # fmt: skip
WITH_CLASSIFIER = {
    "torchvision", "ddp", "compile", "torchvision-references", "torchvision-references-ema", "pytorch-examples",
    "model-state-dict", "lightning", "timm", "timm-ema", "detectron2",
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_tensors_and_accounts_for_the_others(source, tmp_path):
    content = WRITTEN[source]
    backbone, report = read(content, tmp_path, source)
    wanted = STATE if backbone.spec["num_classes"] else FEATURES
    assert backbone.state.keys() == wanted.keys()
    assert all(torch.equal(backbone.state[name], tensor) for name, tensor in wanted.items())
    key = SOURCES[source].key
    named = content[key] if key else content
    kept = list(detectron2s(STATE)) if source == "detectron2" else [SOURCES[source].prefix + n for n in report.kept]
    assert sorted([*kept, *report.dropped]) == sorted(named)
    assert not report.added
    assert set(report.kept) == set(wanted)
    assert backbone.spec["num_classes"] == (7 if source in WITH_CLASSIFIER else 0)


def test_the_file_says_what_is_known_and_what_is_not(tmp_path):
    backbone, _ = read(STATE, tmp_path, seed=3)
    content = (tmp_path / "foreign.pth").read_bytes()
    wanted = {
        "label": "foreign", "method": "imported", "seed": 3, "data_fingerprint": "unknown",
        "source": "torchvision", "file": "foreign.pth", "file_sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    assert wanted.items() <= backbone.provenance.items()
    assert (backbone.spec["mean"], backbone.spec["std"]) == (MEAN, STD)
    digest = save_backbone_state(tmp_path / "backbone.pth", backbone.state, backbone.spec, backbone.provenance)
    loaded = load_backbone(tmp_path)
    assert digest == loaded.hash == backbone.hash
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.build()(images).logits, make_backbone().build()(images).logits, rtol=0, atol=0
        )


def test_our_own_export_comes_back_as_it_was(tmp_path):
    made = make_backbone()
    export_backbone(made, tmp_path / "x.pth", "torchvision")
    spec = declare_spec("resnet18", image_size=64)
    backbone, _ = import_backbone(tmp_path / "x.pth", "torchvision", spec, label="again")
    assert backbone.spec == made.spec
    other = declare_spec("resnet18", image_size=64, mean=[0.5] * 3)
    with pytest.raises(InputError, match=r"states mean \[0\.485.*not \[0\.5"):
        import_backbone(tmp_path / "x.pth", "torchvision", other, label="again")


def test_old_checkpoints_get_the_counters_that_they_lack(tmp_path):
    old = {name: tensor for name, tensor in STATE.items() if not name.endswith(".num_batches_tracked")}
    backbone, report = read(old, tmp_path)
    assert len(report.added) == 20
    assert backbone.state.keys() == STATE.keys()
    backbone.build()  # strict


# ------------------------------------------------------------------------------------- refusals


def without(name):
    return {key: tensor for key, tensor in STATE.items() if key != name}


PLAIN_MOCO = WRITTEN["moco"]["state_dict"]
REFUSED = {
    "unknown source": (STATE, {"source": "moko"}, r"--source moko.*did you mean 'moco'"),
    "left-over prefix": (prefixed("module."), {}, r"no prefix.*the file has 'module\.'; try --source ddp or swav"),
    "nested prefix": (PLAIN_MOCO, {}, r"'module\.encoder_k\.', 'module\.encoder_q\.'; save the network"),
    "other prefix": (WRITTEN["simsiam"], {"source": "moco"},
                     r"'module\.encoder_q\.'.*has 'module\.encoder\.'; try --source simsiam"),
    "prefix that is not there": (STATE, {"source": "ddp"}, r"prefix 'module\.'.*has none; try --source torchvision"),
    "key": (WRITTEN["pytorch-examples"], {}, r"under 'state_dict', as with --source pytorch-examples or"),
    "no key": (STATE, {"source": "moco"}, r"under 'state_dict'; here the file is the state dict itself"),
    "nothing": ({"epoch": 3, "loss": 0.5}, {}, r"the file holds epoch, loss"),
    "another network": ({"features.0.weight": torch.ones(1)}, {}, r"no ResNet with torchvision's names"),
    "what the source does not write": (
        {"state_dict": {**PLAIN_MOCO, "module.decoder.weight": torch.ones(1)}}, {"source": "moco"},
        r"does not explain 1 tensors.*module\.decoder\.weight",
    ),
    "missing tensor": (without("layer2.0.bn1.running_var"), {}, r"lacks 1 tensors.*layer2\.0\.bn1\.running_var"),
    "extra tensor": ({**STATE, "aux.weight": torch.ones(1)}, {}, r"in addition.*aux\.weight"),
    "depth": (STATE, {"arch": "resnet34"}, r"states depth 34.*those of depth 18"),
    "CIFAR stem": ({**STATE, "conv1.weight": torch.ones(64, 3, 3, 3)}, {}, "CIFAR stem"),
    "deep stem": ({**without("conv1.weight"), "conv1.0.weight": torch.ones(32, 3, 3, 3)}, {}, "deep stem"),
    "wide": ({**STATE, "layer3.0.conv1.weight": torch.ones(512, 128, 3, 3)}, {}, "wide"),
    "pre-activation": ({**STATE, "layer2.0.bn1.weight": torch.ones(64)}, {}, "pre-activation"),
    "norm": (STATE, {"spec": {"norm": "GN"}}, r"in addition.*running"),
    "no tensor": ({**STATE, "conv1.groups": 1}, {}, r"'conv1\.groups'.*is a int, not a tensor"),
    "projection": ({**FEATURES, **projection("")}, {}, r"perhaps a projection; add --no-classifier"),
    "not finite": ({**STATE, "layer2.0.bn1.bias": torch.full((128,), torch.nan)}, {}, r"bn1\.bias holds .* not finite"),
    "flat tensors": ({**STATE, "conv1.weight": torch.ones(()), "layer1.0.conv1.weight": torch.ones(3)}, {},
                     r"conv1\.weight has the shape \(\)"),
    "flat in a stage": ({**STATE, "layer1.0.conv1.weight": torch.ones(3)}, {}, r"conv1\.weight has the shape \(3,\)"),
    "a number as a name": ({**STATE, 3: torch.ones(3)}, {}, r"3 in its state dict is not the name"),
    "classes": (STATE, {"classes": ["cat"]}, r"7 outputs, but --classes names 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_was_declared_wrongly_is_refused_with_what_is_there(case, tmp_path):
    content, options, reason = REFUSED[case]
    options = {**options, "spec": declare_spec("resnet18", **options["spec"]) if "spec" in options else None}
    with pytest.raises(InputError, match=reason) as refused:
        read(content, tmp_path, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arch", "options", "reason"),
    [
        ("resnet20", {}, "--arch resnet20"),
        ("resnet18", {"mean": [103.5, 116.3, 123.7]}, "--pixel-range"),
        ("resnet18", {"mean": [0.5] * 3, "std": [0.2] * 3, "pixel_range": 255.0}, "--pixel-range"),
        ("resnet18", {"std": [0.2, 0.2, 0.0]}, "positive"),
        ("resnet18", {"std": [0.2, 0.2, float("nan")]}, "three numbers"),
        ("resnet18", {"std": [58.4, 57.1, 57.4]}, "--pixel-range"),
        ("resnet18", {"image_size": 0}, "--image-size 0"),
    ],
)
def test_an_input_that_cannot_be_is_refused(arch, options, reason):
    with pytest.raises(InputError, match=reason):
        declare_spec(arch, **options)


def test_imagenets_statistics_follow_the_declared_order_and_range():
    spec = declare_spec("resnet50", channel_order="BGR", pixel_range=255.0)
    assert spec["mean"] == pytest.approx([103.53, 116.28, 123.675])
    assert spec["std"] == pytest.approx([57.375, 57.12, 58.395])


def test_files_that_are_no_checkpoints(tmp_path):
    for content, reason in ((b"a text", "truncated or not a torch file"), (None, "no checkpoint file at")):
        path = tmp_path / "x.pth"
        path.unlink(missing_ok=True)
        if content:
            path.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            import_backbone(path, "torchvision", declare_spec("resnet18"), label="x")
    with pytest.raises(InputError, match=r"holds collections\.deque besides tensors.*run code"):
        read({**STATE, "log": collections.deque()}, tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        load_classes(tmp_path / "none.txt")


# ----------------------------------------------------------- what an imported backbone can be used for


def test_without_a_classifier_it_starts_trainings_but_does_not_classify(tmp_path):
    backbone, _ = read(WRITTEN["moco"], tmp_path, "moco")
    with pytest.raises(InputError, match=r"\(foreign\) has no classifier"):
        backbone.build()
    model = build_model("resnet18", 3)
    start_from(model, backbone)
    assert torch.equal(model.state_dict()["layer4.1.bn2.running_var"], FEATURES["layer4.1.bn2.running_var"])
    dropped, report = read(STATE, tmp_path, classifier=False)
    assert dropped.spec["num_classes"] == 0
    assert sorted(report.dropped) == ["fc.bias", "fc.weight"]


@pytest.mark.parametrize("declared", [{"channel_order": "BGR"}, {"pixel_range": 255.0}, {"stride_in_1x1": True}])
def test_a_network_of_another_form_is_for_detectors_alone(declared, tmp_path):
    backbone, _ = read(STATE, tmp_path, spec=declare_spec("resnet18", **declared))
    with pytest.raises(InputError, match=f"has {next(iter(declared))} "):
        backbone.build()
    with pytest.raises(InputError, match=f"has {next(iter(declared))} "):
        start_from(build_model("resnet18", 3), backbone)


MISFITS = {
    "BGR": ({"channel_order": "BGR"}, "INPUT.FORMAT is RGB.*BGR"),
    "MSRA": ({"pixel_range": 255.0, "mean": [103.53, 116.28, 123.675], "std": [1.0] * 3}, "MODEL.PIXEL_MEAN.*103"),
    "std": ({"std": [0.2] * 3}, r"MODEL.PIXEL_STD.*51\.0"),
    "stride": ({"stride_in_1x1": True}, "STRIDE_IN_1X1 is False.*True"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_config_that_suits_another_network_is_refused(case):
    declared, reason = MISFITS[case]
    depth = 50 if case == "stride" else 18
    spec = {**declare_spec(f"resnet{depth}", **declared), "num_classes": 0, "classes": []}
    width = ["MODEL.RESNETS.RES2_OUT_CHANNELS", "64" if depth == 18 else "256"]
    cfg = load_config(get_defaults(), None, ["MODEL.RESNETS.DEPTH", str(depth), *width])
    fitting = {**declare_spec(f"resnet{depth}"), "num_classes": 0, "classes": []}
    check_spec(make_backbone(spec=fitting), cfg)
    with pytest.raises(InputError, match=reason) as refused:
        check_spec(make_backbone(spec=spec), cfg)
    assert "\n" not in str(refused.value)


def test_a_detector_is_fine_tuned_from_it(tmp_path, small_scenes, load_tool):
    """Without a classifier, under another mean: only the file's own spec can make the config fit."""
    spec = declare_spec("resnet18", mean=MEAN_OF_QUICK, std=STD_OF_QUICK)
    backbone, _ = read(WRITTEN["moco"], tmp_path, "moco", spec=spec)
    save_backbone_state(tmp_path / "backbone.pth", backbone.state, backbone.spec, backbone.provenance)
    out = tmp_path / "run"
    short = ["SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0, "SOLVER.STEPS", "[]"]
    load_tool("finetune_coco").main(arguments(small_scenes, out, *short, backbone=tmp_path / "backbone.pth"))
    results = load_results(out)
    assert results["backbone"] == {"label": "foreign", "method": "imported", "seed": 0, "hash": backbone.hash}
    assert results["details"]["backbone_loading"]["counts"]["loaded"] == 100


def test_the_tool_writes_what_the_other_tools_take(tmp_path, load_tool, capsys):
    main = load_tool("import_backbone").main
    path = write(WRITTEN["pytorch-examples"], tmp_path)
    (tmp_path / "classes.txt").write_text("".join(f"class {n}\n" for n in range(7)))
    arguments = ["--checkpoint", path, "--source", "pytorch-examples", "--arch", "resnet18", "--label", "theirs: v2",
                 "--output", tmp_path / "run" / "backbone.pth", "--mean", 0.5, 0.4, 0.3, "--std", 0.2, 0.2, 0.2,
                 "--classes", tmp_path / "classes.txt",
                 "--config-file", "configs/pretrain/quick_scenes.yaml"]  # fmt: skip
    assert main([str(value) for value in arguments]) == 0
    assert "122 tensors kept, 0 dropped on purpose; a classifier of 7 classes" in capsys.readouterr().out
    with pytest.raises(InputError, match="exists"):
        main([str(value) for value in arguments])
    cfg, backbone = load_run(tmp_path / "run", ["DATA.ROOT", "elsewhere"])
    assert (cfg.MODEL.ARCH, list(cfg.DATA.MEAN), cfg.LABEL) == ("resnet18", [0.5, 0.4, 0.3], "theirs: v2")
    assert backbone.spec["classes"][6] == "class 6"
    assert backbone.spec["mean"] == [0.5, 0.4, 0.3]


def test_keys_without_a_config_are_not_passed_over(tmp_path, load_tool):
    declared = ["--source", "torchvision", "--arch", "resnet18", "--label", "x", "--output", str(tmp_path / "x.pth")]
    with pytest.raises(InputError, match=r"'DATA\.MEAN' overrides a key of --config-file, which is missing"):
        load_tool("import_backbone").main(["--checkpoint", "x", *declared, "DATA.MEAN", "[0, 0, 0]"])
