"""TEST.EXPECTED_RESULTS: what is compared, what is refused, and the exit code of the tool."""

import json
import math
import re

import pytest
from helpers.detectron2_tiny import load_detectron2
from helpers.finetuning import arguments, run

from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.run_log import read_metrics
from detection.evaluation.expected import check_expected, compare_expected, differences

KEY = "TEST.EXPECTED_RESULTS"


@pytest.mark.parametrize(
    ("measured", "fits"),
    [(1.0, True), (1.25, True), (0.75, True), (1.2501, False), (0.7499, False), (None, False), (math.nan, False)],
)
def test_a_number_fits_up_to_and_with_the_largest_difference(measured, fits):
    [outcome] = compare_expected([["loss", 1, 0.25]], {"loss": measured, "AP": 1.0})
    assert outcome["as_expected"] is fits
    assert compare_expected([["AR", 1, 9]], {"AP": 1.0})[0]["as_expected"] is False


def test_only_what_differs_is_told():
    outcomes = compare_expected([["loss", 2, 0.1], ["AP", 0.5, 0], ["AR", 0.5, 0.5]], {"loss": 3.0, "AP": 0.5})
    assert differences({"details": {"expected": outcomes}}) == [
        "loss is 3, expected 2 ± 0.1",
        "AR is nothing, expected 0.5 ± 0.5",
    ]
    assert differences({"details": {"seed": 0}}) == differences({}) == []


@pytest.mark.parametrize(
    "value",
    [["loss"], [["loss", 1]], [[1, 2, 3]], [["loss", "x", 1]], [["loss", 1, -1]], [["loss", True, 1]], [["", 1, 1]]],
)
def test_another_shape_is_refused_in_one_line(small_scenes, tmp_path, load_tool, value):
    with pytest.raises(InputError, match=r"TEST\.EXPECTED_RESULTS: .*: write \[what, value, largest difference\]"):
        load_tool("finetune_coco").main(arguments(small_scenes, tmp_path / "run", KEY, json.dumps(value)))
    assert not (tmp_path / "run").exists()


def test_one_name_stands_once():
    check_expected([["loss", 1, 1], ["AP", 1, 0]])
    with pytest.raises(InputError, match="'loss' is duplicated"):
        check_expected([["loss", 1, 1], ["loss", 2, 1]])


# --------------------------------------------------------------------------------------------- the tool

SHORT = ["SOLVER.MAX_ITER", 3, "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.BACKBONE.FREEZE_AT", 2]
OF_ENGINE = {
    "torchvision": SHORT,
    "detectron2": [*SHORT, "ENGINE", "detectron2", "DATALOADER.CACHE_IMAGES", False, "SOLVER.AMP.ENABLED", False],
}


@pytest.fixture(scope="module", params=["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)])
def settings(request):
    if request.param == "detectron2":
        load_detectron2()
    return OF_ENGINE[request.param]


@pytest.fixture(scope="module")
def backbone(small_scenes, tmp_path_factory, load_tool):
    """Of a few steps, so that its batch norm fits its images; its input is that of configs/detection/quick.yaml."""
    folder = tmp_path_factory.mktemp("backbone")
    config = ["--config-file", "configs/pretrain/quick_scenes.yaml", "--output-dir", folder, "DATA.ROOT", small_scenes]
    options = ["DATA.NUM_WORKERS", 0, "SOLVER.MAX_EPOCH", 8, "SOLVER.BATCH_SIZE", 20, "PRECISION", "float32"]
    load_tool("pretrain").main([str(v) for v in (*config, *options)])
    return folder


@pytest.fixture(scope="module")
def recorded(small_scenes, tmp_path_factory, load_tool, backbone, settings):
    """What such a run ends with, as the entries of the key."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    assert load_tool("finetune_coco").main(arguments(small_scenes, folder, *settings, backbone=backbone)) == 0
    results = load_results(folder)
    assert "expected" not in results["details"]
    loss = [line["loss"] for line in read_metrics(folder / "metrics.jsonl")][-1]
    detections = len(json.loads((folder / "predictions.json").read_text()))
    return [["loss", loss, 0.05 * loss], ["detections", detections, 0]]


def test_a_run_as_expected_says_so(small_scenes, tmp_path, load_tool, backbone, settings, recorded):
    argv = arguments(small_scenes, tmp_path / "run", *settings, KEY, json.dumps(recorded), backbone=backbone)
    assert load_tool("finetune_coco").main(argv) == 0
    outcomes = load_results(tmp_path / "run")["details"]["expected"]
    assert [(outcome["what"], outcome["as_expected"]) for outcome in outcomes] == [("loss", True), ("detections", True)]
    assert outcomes[0]["measured"] == pytest.approx(recorded[0][1], rel=1e-4)
    assert "as expected: detections is" in (tmp_path / "run" / "log.txt").read_text()


def test_a_wrong_pixel_std_is_caught(small_scenes, tmp_path, load_tool, backbone, settings, recorded):
    """Against the backbone's own spec before the training; and where that is wrong too, by the expected loss."""
    std = [1.0, 1.0, 1.0]  # detectron2's default
    wrong = [*settings, KEY, json.dumps(recorded), "MODEL.PIXEL_STD", std]
    with pytest.raises(InputError, match=r"MODEL\.PIXEL_STD is .*, the backbone was trained with"):
        load_tool("finetune_coco").main(arguments(small_scenes, tmp_path / "refused", *wrong, backbone=backbone))
    assert not (tmp_path / "refused").exists()
    forged = forge_std(backbone / "backbone.pth", tmp_path / "forged.pth", [value / 255 for value in std])
    done = run(arguments(small_scenes, tmp_path / "run", *wrong, backbone=forged))
    assert done.returncode == 1
    assert re.search(
        r"^differs from TEST\.EXPECTED_RESULTS: loss is [\d.]+, expected [\d.]+ ± [\d.]+", done.stderr, re.M
    )
    assert load_results(tmp_path / "run")["details"]["expected"][0]["as_expected"] is False
    assert load_results(tmp_path / "run")["metrics"]  # they are not lost


def forge_std(path, copy, std):
    """A backbone file that says it was trained with another deviation than it was."""
    from backbones.core.checkpoint import load_checkpoint, save_checkpoint

    content = load_checkpoint(path)
    save_checkpoint(copy, **{**content, "spec": {**content["spec"], "std": std}})
    return copy
