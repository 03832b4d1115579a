"""Measuring a classifier: predictions, the numbers made of them, and the two tools end to end."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers.noise_runs import CLASSES, MEAN, PER_CLASS, SIDE, STD, ChannelMeans, inputs, read, write_run
from helpers.tools import tool
from scipy.ndimage import gaussian_filter

from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.data.batch import Batch
from backbones.data.masking import mean_colour
from backbones.measuring.calibration import log_softmax, temperatures_of
from backbones.measuring.context import FILLS, blur, context_metrics
from backbones.measuring.evaluation import evaluate_backbone, null_reasons
from backbones.measuring.predictions import Predictions, predict, predict_samples
from backbones.models import load_backbone

pytest_plugins = ["helpers.noise_fixtures"]


# ---- predictions -------------------------------------------------------------------------------


def test_every_sample_once_in_order_and_normalised(root):
    samples, model = read(root, "val"), ChannelMeans().train()
    found = predict_samples(model, samples, inputs())
    assert model.training
    assert found.index.tolist() == list(range(len(CLASSES) * PER_CLASS))
    np.testing.assert_array_equal(found.labels, samples.labels)
    for i in (0, 7, 23):
        pixels = cv2.imread(samples.paths[i])[..., ::-1].mean(axis=(0, 1)) / 255
        np.testing.assert_allclose(found.logits[i, :3], (pixels - MEAN) / STD, rtol=1e-10)


def test_batch_size_does_not_matter(root):
    samples = read(root, "val")
    a, b = (predict_samples(ChannelMeans(), samples, inputs(batch_size=size)) for size in (1, 7))
    np.testing.assert_allclose(a.logits, b.logits, rtol=1e-12)
    np.testing.assert_array_equal(a.index, b.index)


def test_batches_in_any_order_and_never_a_sample_twice():
    images = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(6)

    def run(*order: list[int]):
        batches = [Batch(images[i], numbers[i], index=numbers[i]) for i in map(torch.tensor, order)]
        return predict(ChannelMeans(), batches, torch.device("cpu"), MEAN, STD, "float64")

    straight, shuffled = run([0, 1, 2, 3, 4, 5]), run([4, 1], [5, 0, 3], [2])
    np.testing.assert_allclose(shuffled.logits, straight.logits, rtol=1e-12)
    assert shuffled.labels.tolist() == shuffled.index.tolist() == list(range(6))
    with pytest.raises(AssertionError, match="twice"):
        run([0, 1], [1, 2])


def test_training_under_autocast_is_measured_in_float32(root):
    samples = read(root, "val")
    assert predict_samples(ChannelMeans(), samples, inputs(precision="bfloat16")).logits.dtype == np.float32


# ---- numbers -----------------------------------------------------------------------------------


def test_painted_images_show_the_mean_colour_only(root):
    """Where the boxes cover everything, the network sees zeros, up to the rounding of the colour."""
    measured = evaluate_backbone(ChannelMeans(), read(root, "whole"), None, inputs(), context=("mean",))
    rounding = 0.5 / 255 / min(STD)
    assert np.abs(measured.predictions["context"].logits).max() <= rounding
    assert measured.metrics["context_average_confidence"] == pytest.approx(1 / 6, abs=1e-3)
    assert np.abs(measured.predictions["val"].logits).max() > 10 * rounding
    assert mean_colour([0.485, 0.456, 0.406]) == (124, 116, 104)


def test_three_fills_and_nothing_at_all(root):
    """Where boxes cover everything the mean fill shows nothing; the blur keeps the mean of the pixels."""
    samples = read(root, "whole")
    measured = evaluate_backbone(ChannelMeans(), samples, None, inputs(), context=FILLS)
    m, said = measured.metrics, measured.predictions
    assert m["context_uniform_average_confidence"] == pytest.approx(m["context_average_confidence"], abs=1e-12)
    assert said["context_uniform"].logits.shape == (1, 6)
    np.testing.assert_allclose(said["context_blur"].logits, said["val"].logits, atol=0.15)
    assert abs(m["context_blur_average_confidence"] - m["average_confidence"]) < 0.05
    assert m["context_blur_top1"] == pytest.approx(m["top1"], abs=0.1)
    default = evaluate_backbone(ChannelMeans(), samples, None, inputs(), context=("mean",)).metrics
    assert default == {name: value for name, value in m.items() if name in default}
    assert set(m) - set(default) == {
        "context_uniform_average_confidence",
        *(f"context_blur_{name}" for name in ("top1", "average_confidence", "overconfidence", "underconfidence")),
    }


def test_the_scaled_context_confidence_does_not_depend_on_the_scale_of_the_logits():
    """The plain one does: a network whose logits are halved looks less reliant on the background."""
    rng = np.random.default_rng(0)
    labels, logits, context = rng.integers(0, 6, 200), rng.normal(size=(200, 6)), rng.normal(size=(90, 6))
    logits[np.arange(200), labels] += 2
    shown = np.sort(rng.choice(200, 90, replace=False))

    def measure(scale):
        temperatures = temperatures_of(scale * logits, labels)
        covered = Predictions(scale * context, labels[shown], shown)
        return context_metrics("mean", covered, temperatures), temperatures

    (sharp, temperatures), (flat, halved) = measure(3), measure(1.5)
    assert len(np.unique(temperatures)) == 2  # each half has that of the other
    np.testing.assert_allclose(halved, temperatures / 2, rtol=1e-5)
    assert flat["context_average_confidence"] < sharp["context_average_confidence"] - 0.05
    for name in ("context_average_confidence_scaled", "context_top1"):
        assert flat[name] == pytest.approx(sharp[name], abs=1e-5), name
    softened = np.exp(log_softmax(3 * context / temperatures[shown, None])).max(axis=1)
    assert sharp["context_average_confidence_scaled"] == pytest.approx(softened.mean(), abs=1e-12)
    assert np.isnan(context_metrics("mean", None, temperatures)["context_average_confidence_scaled"])


def test_blur_hides_the_object_and_touches_nothing_else():
    rng = np.random.default_rng(0)
    image = np.full((120, 160, 3), 100, dtype=np.uint8)
    boxes = np.array([[20.5, 10, 90.2, 80], [120, 90, 160, 120]])
    image[10:80, 20:91] = rng.choice([0, 255], size=(70, 71, 1))
    blurred = image.copy()
    blur(blurred, boxes)
    outside = np.ones((120, 160), dtype=bool)
    outside[10:80, 20:91] = outside[90:120, 120:160] = False
    np.testing.assert_array_equal(blurred[outside], image[outside])
    assert blurred[10:80, 20:91].std() < 0.15 * image[10:80, 20:91].std()
    assert blurred[40:50, 50:60].mean() == pytest.approx(image[20:70, 30:80].mean(), abs=12)
    swapped = image.copy()
    blur(swapped, boxes[::-1])
    np.testing.assert_array_equal(swapped, blurred)
    flat = np.full((50, 40, 3), 77, dtype=np.uint8)
    blur(flat, np.array([[0, 0, 40, 50.0]]))
    assert (flat == 77).all()
    # A wide Gaussian on the small copy is the Gaussian.
    edge = np.zeros((200, 200, 3), dtype=np.uint8)
    edge[:, :70] = 255
    wide = edge.copy()
    blur(wide, np.array([[0, 0, 200, 200.0]]))
    exact = gaussian_filter(edge.astype(np.float64), (50, 50, 0), mode="reflect")
    assert exact.max() > 200
    assert np.abs(wide.astype(int) - exact).max() <= 3
    upright = np.ascontiguousarray(edge.transpose(1, 0, 2))
    blur(upright, np.array([[0, 0, 200, 200.0]]))
    assert np.abs(upright.transpose(1, 0, 2).astype(int) - exact).max() <= 3


def test_objectness_deviation_of_the_crop_and_of_the_image(root):
    samples = read(root, "val")
    measured = evaluate_backbone(ChannelMeans(), samples, None, inputs(crop=16), context=())
    crop, whole = np.array([8, 8, 24, 24]), np.array([0, 0, SIDE, SIDE])

    def share(box, window):
        sides = np.minimum(box[2:], window[2:]) - np.maximum(box[:2], window[:2])
        return sides.clip(min=0).prod() / (window[2:] - window[:2]).prod()

    confidence = np.exp(measured.predictions["val"].log_p).max(axis=1)
    for suffix, window in (("", crop), ("_full", whole)):
        shares = np.array([share(samples.boxes_of(i)[0], window) for i in range(len(samples))])
        assert measured.metrics[f"mean_objectness{suffix}"] == pytest.approx(shares.mean(), abs=1e-6)
        expected = np.abs(confidence - shares).mean()
        assert measured.metrics[f"objectness_deviation{suffix}"] == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_measured_is_null_with_a_reason(root):
    measured = evaluate_backbone(ChannelMeans(), read(root, "unboxed"), None, inputs(), context=("mean",))
    null = measured.details["null"]
    assert {name for name, value in measured.metrics.items() if value is None} == set(null)
    assert null["top1_shifted"] == "DATA.SHIFTED_SPLIT is not set"
    assert null["objectness_deviation"] == null["context_overconfidence"] == "24 of 24 images have no box"
    off = evaluate_backbone(ChannelMeans(), read(root, "val"), None, inputs(), context=()).details["null"]
    assert off["context_top1"] == "EVAL.CONTEXT is off"
    assert "objectness_deviation" not in off
    blurred = evaluate_backbone(ChannelMeans(), read(root, "val"), None, inputs(), context=("blur",)).details["null"]
    assert blurred["context_top1"] == "'mean' is not in EVAL.CONTEXT_FILLS"
    assert "context_blur_top1" not in blurred
    unlike = {"top1_shifted": None, "context_overconfidence": None, "context_blur_overconfidence": None}
    both = unlike | {"context_blur_underconfidence": None, "context_uniform_average_confidence": None}
    assert null_reasons(both, 24, 24, ("blur", "uniform")) == {
        "top1_shifted": "DATA.SHIFTED_SPLIT is not set",
        "context_overconfidence": "'mean' is not in EVAL.CONTEXT_FILLS",
        "context_blur_overconfidence": "no prediction is wrong",
        "context_blur_underconfidence": "no prediction is right",
        "context_uniform_average_confidence": "not finite",
    }
    assert null_reasons(unlike, 0, 24, ("blur",))["context_blur_overconfidence"] == "24 of 24 images have no box"


# ---- tools -------------------------------------------------------------------------------------


def test_evaluate_backbone_end_to_end(run_dir, capsys):
    assert tool("evaluate_backbone")([str(run_dir), "DATA.SHIFTED_SPLIT", "shifted"]) == 0
    results = load_results(run_dir / "evaluation")
    assert results["stage"] == "backbone"
    assert results["backbone"]["label"] == "net0"
    metrics = results["metrics"]
    wanted = """
        top1 top5 nll brier ece15 ece100 mce15 mce100 cwece15 cwece15_trueclass temperature nll_scaled ece15_scaled
        overconfidence underconfidence average_confidence ece15_pycalib ece100_pycalib mce100_pycalib
        mean_objectness objectness_deviation objectness_deviation_full top1_shifted shifted_nll
        context_top1 context_average_confidence context_overconfidence context_underconfidence
    """
    assert set(wanted.split()) <= set(metrics)
    assert all(np.isfinite(value) for value in metrics.values() if value is not None)
    assert {"val", "shifted"} == set(results["data"])
    saved = np.load(run_dir / "evaluation" / results["files"]["predictions"])
    logits, labels = saved["val_logits"].astype(np.float64), saved["val_labels"]
    nll = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    assert metrics["nll"] == pytest.approx(nll.mean(), rel=1e-6)
    assert "context_average_confidence" in capsys.readouterr().out


def test_options_of_the_evaluation(root, run_dir, tmp_path):
    rng = np.random.default_rng(0)
    labels = read(root, "val").labels
    np.save(tmp_path / "cifar10h-probs.npy", 0.9 * np.eye(6)[labels] + 0.1 * rng.dirichlet(np.ones(6), len(labels)))

    def metrics(*overrides):
        assert tool("evaluate_backbone")([str(run_dir), "--output-dir", str(tmp_path / "out"), *overrides]) == 0
        return load_results(tmp_path / "out")

    plain = metrics()
    more = metrics(
        *("EVAL.CONTEXT_FILLS", "['mean', 'blur', 'uniform']", "EVAL.TEMPERATURE_SPLIT", "shifted"),
        *("EVAL.PYCALIB_SIZE", "12", "EVAL.HUMAN_LABELS", str(tmp_path)),
    )
    assert more["protocol"]["hash"] != plain["protocol"]["hash"]
    assert set(more["details"]["pycalib"]["deviation"]) == {"ece15_pycalib", "ece100_pycalib", "mce100_pycalib"}
    assert "TEMPERATURE_SPLIT" in more["details"]["temperature"]
    assert more["metrics"]["human_kl_all"] > 0
    moved = {"temperature", "nll_scaled", "ece15_scaled", "temperature_parity", "nll_scaled_parity"}
    moved |= {"cwece15_scaled", "cwece15_trueclass_scaled", "context_average_confidence_scaled"}
    moved |= {"ece15_pycalib", "ece100_pycalib", "mce100_pycalib"}
    same = set(plain["metrics"]) - moved
    assert {n: plain["metrics"][n] for n in same} == {n: more["metrics"][n] for n in same}
    with pytest.raises(InputError, match="TEMPERATURE_SPLIT 'val' is the measured split"):
        metrics("EVAL.TEMPERATURE_SPLIT", "val")
    with pytest.raises(InputError, match="did you mean 'blur'"):
        metrics("EVAL.CONTEXT_FILLS", "['blurr']")
    np.save(tmp_path / "cifar10h-probs.npy", np.eye(6)[labels[::-1]])
    with pytest.raises(InputError, match="the order of the images must differ"):
        metrics("EVAL.HUMAN_LABELS", str(tmp_path))


def test_an_epoch_chosen_on_the_measured_split_is_told(root, tmp_path):
    best = write_run(tmp_path / "best", root, 0)
    text = (best / "config.yaml").read_text()
    (best / "config.yaml").write_text(text.replace("REPORT: last", "REPORT: best").replace("PERIOD: 0", "PERIOD: 1"))
    for split, told in (("val", True), ("shifted", False)):
        assert tool("evaluate_backbone")([str(best), "DATA.VAL_SPLIT", split]) == 0
        warnings = load_results(best / "evaluation")["warnings"]
        assert any("reported epoch was chosen" in warning["what"] for warning in warnings) == told


def test_protocol_names_what_decides_the_numbers(root, run_dir, tmp_path):
    other = write_run(tmp_path / "b", root, 1)

    def protocol(run, *overrides):
        assert tool("evaluate_backbone")([str(run), "--output-dir", str(tmp_path / "out"), *overrides]) == 0
        return load_results(tmp_path / "out")["protocol"]

    first = protocol(run_dir)
    assert protocol(other, "EVAL.BATCH_SIZE", "7") == first
    assert protocol(run_dir, "DATA.EVAL_CROP", "30") != first
    assert protocol(run_dir, "DATA.VAL_SPLIT", "whole") != first


def test_localize_end_to_end(root, run_dir, tmp_path):
    other = write_run(tmp_path / "b", root, 1)
    galleries = []
    for run in (run_dir, other):
        assert tool("localize")([str(run), "LOCALIZE.MAX_IMAGES", "4", "LOCALIZE.GALLERY", "2"]) == 0
        results = load_results(run / "localization")
        assert results["stage"] == "localization"
        assert results["details"]["images"] == 4
        names = ("max_box_acc", "max_box_acc_v2", "pointing", "pointing_exact", "energy_in_box")
        assert all(0 <= results["metrics"][name] <= 1 for name in names)
        assert results["metrics"]["pointing_exact"] <= results["metrics"]["pointing"]
        folder = run / "localization"
        assert cv2.imread(str(folder / "gallery.png")) is not None
        galleries.append(json.loads((folder / results["files"]["gallery"]).read_text()))
        for row in galleries[-1]:
            assert cv2.imread(str(folder / row["tile"])).shape == (224, 224, 3)
            values = [value for _, value in row["top3"]]
            assert values == sorted(values, reverse=True)
            assert 0 < sum(values) < 1 + 1e-6
        model, samples = load_backbone(run).build(), read(root, "val")
        said = predict_samples(model, samples, inputs(precision="float32"))
        row = galleries[-1][0]
        p = np.exp(said.log_p[samples.relative.index(row["image"])])
        assert row["top3"][0] == [CLASSES[p.argmax()], pytest.approx(p.max(), rel=1e-4)]  # at the trained size
    # The same images for every backbone, spread over the classes.
    assert [row["image"] for row in galleries[0]] == [row["image"] for row in galleries[1]]
    assert len({row["label"] for row in galleries[0]}) == 2


def test_localize_without_boxes_says_so(run_dir, tmp_path):
    arguments = [str(run_dir), "--output-dir", str(tmp_path), "LOCALIZE.SPLIT", "unboxed", "LOCALIZE.GALLERY", "1"]
    assert tool("localize")(arguments) == 0
    results = load_results(tmp_path)
    assert set(results["metrics"].values()) == {None}
    assert "no image" in results["details"]["null"]


@pytest.mark.parametrize("name", ["evaluate_backbone", "localize"])
def test_bad_input_of_both_tools(name, root, run_dir, tmp_path):
    main = tool(name)
    with pytest.raises(InputError, match="nowhere"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match="BATCH_SIZE"):
        main([str(run_dir), "EVAL.BATCHSIZE", "3"])
    with pytest.raises(InputError, match="no split 'test'"):
        main([str(run_dir), "DATA.VAL_SPLIT", "test", "LOCALIZE.SPLIT", "test"])
    swapped = write_run(tmp_path / "swapped", root, 0, classes=CLASSES[::-1])
    with pytest.raises(InputError, match="classes of"):
        main([str(swapped)])
    assert not (swapped / "evaluation").exists()
    assert not (swapped / "localization").exists()


def test_unknown_map_lists_the_choices(run_dir, tmp_path):
    with pytest.raises(InputError, match="GradCAM"):
        tool("localize")([str(run_dir), "--output-dir", str(tmp_path / "out"), "LOCALIZE.METHOD", "gradcam"])
    assert not (tmp_path / "out").exists()


def test_error_is_one_line_and_exit_code_2(run_tool, tmp_path):
    done = run_tool("evaluate_backbone", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no backbone at")
    assert done.stderr.count("\n") == 1
