"""Numbers of classifiers on resampled images: the file of values per image, the draws, and the paired differences."""

import json
import shutil

import numpy as np
import pytest
from helpers.noise_runs import PER_CLASS, ChannelMeans, inputs, read
from helpers.result_folders import add, backbone, compare_runs
from helpers.tools import tool

from backbones.core.errors import InputError
from backbones.core.per_image import (
    FORMAT_VERSION,
    PER_IMAGE_FILE,
    BestShare,
    Binned,
    ImageGroup,
    Mean,
    load_per_image,
    pack_hits,
    save_per_image,
)
from backbones.core.results import load_results
from backbones.measuring.calibration import calibration_metrics, log_softmax, number_bins, scaled_metrics
from backbones.measuring.evaluation import _val_images, evaluate_backbone
from backbones.measuring.localization import BoxOverlap, LocalizationEvaluator, max_box_accuracy
from backbones.measuring.predictions import Predictions, predict_samples
from comparison.bootstrap import Resampled, difference
from comparison.resampling import draws
from comparison.resampling.draws import DRAWS_FILE, count_images, draw_per_image, resample_images
from comparison.resampling.per_image import weighted_number
from comparison.verdicts import nested

pytest_plugins = ["helpers.noise_fixtures"]


def stated(folder):
    """The metrics of results.json, and the groups of the file beside it."""
    results = load_results(folder)
    return results["metrics"], load_per_image(folder / results["files"]["per_image"])


def on_all_images(number, images):
    return weighted_number(number, np.ones((1, images), dtype=np.uint8))[0]


def assert_stated(folder, names):
    metrics, groups = stated(folder)
    found = {name: on_all_images(one, len(g.images)) for g in groups for name, one in g.numbers.items()}
    assert found.keys() == set(names)
    for name, value in found.items():
        assert value == pytest.approx(metrics[name], abs=1e-12), name
    return groups


# ---- the tools ----------------------------------------------------------------------------------------------------


def test_every_number_of_an_evaluation_follows_from_its_images(root, run_dir, tmp_path):
    rng, labels = np.random.default_rng(0), read(root, "val").labels
    np.save(tmp_path / "cifar10h-probs.npy", 0.9 * np.eye(6)[labels] + 0.1 * rng.dirichlet(np.ones(6), len(labels)))
    options = ["DATA.SHIFTED_SPLIT", "shifted", "EVAL.CONTEXT_FILLS", "['mean', 'blur', 'uniform']"]
    options += ["EVAL.HUMAN_LABELS", str(tmp_path)]
    assert tool("evaluate_backbone")([str(run_dir), "--output-dir", str(tmp_path / "out"), *options]) == 0
    names = """
        top1 top1_shifted nll ece15 overconfidence underconfidence average_confidence human_kl objectness_deviation
        context_average_confidence context_blur_average_confidence top5 nll_scaled ece15_scaled
        context_average_confidence_scaled context_top1 context_overconfidence context_underconfidence
    """
    groups = {group.name: group for group in assert_stated(tmp_path / "out", names.split())}
    assert groups.keys() == {"val", "shifted", "boxed"}
    assert groups["val"].images.tolist() == list(range(6 * PER_CLASS))
    assert groups["val"].identity == groups["boxed"].identity != groups["shifted"].identity


LOCALIZED = "max_box_acc max_box_acc_v2 max_box_acc_split max_box_acc_v2_split pointing energy_in_box"


def test_every_number_of_a_localisation_follows_from_its_images(run_dir, tmp_path):
    arguments = [str(run_dir), "--output-dir", str(tmp_path), "LOCALIZE.MAX_IMAGES", "7", "LOCALIZE.GALLERY", "0"]
    assert tool("localize")(arguments) == 0
    [group] = assert_stated(tmp_path, LOCALIZED.split())
    assert len(group.images) == 7
    assert group.numbers["max_box_acc"].hits.shape[:2] == (7, 1)
    assert group.numbers["max_box_acc_v2"].hits.shape[:2] == (7, 3)


def test_every_number_of_attacks_follows_from_its_images(run_dir, tmp_path):
    arguments = [str(run_dir), "--output-dir", str(tmp_path), "ATTACK.MAX_IMAGES", "9", "ATTACK.BATCH_SIZE", "4"]
    arguments += ["ATTACK.BOUNDS", "[0.02, 8]", "ATTACK.STEPS", "3", "ATTACK.RESTARTS", "1"]
    assert tool("attack_backbone")(arguments) == 0
    metrics, [group] = stated(tmp_path)
    assert_stated(tmp_path, metrics)
    assert {"fgsm_8_top1_error", "pgd_0.02_top1_error", "any_8_top1_error", "clean_top5_error"} <= set(metrics)
    assert len(group.images) == 9
    wrong = {name.removesuffix("_top5_error"): one.value for name, one in group.numbers.items() if "top5" in name}
    assert 0 < wrong["any_0.02"].mean() < 1
    methods = [wrong[f"{method}_0.02"] for method in ("fgsm", "pgd", "pgd_random", "margin")]
    np.testing.assert_array_equal(wrong["any_0.02"], np.max([wrong["clean"], *methods], axis=0))
    assert tool("evaluate_backbone")([str(run_dir), "--output-dir", str(tmp_path / "e")]) == 0
    right = stated(tmp_path / "e")[1][0].numbers["top1"].value[group.images]
    np.testing.assert_array_equal(group.numbers["clean_top1_error"].value, 1 - right)


def test_without_numbers_there_is_no_file(root, run_dir, tmp_path):
    """A split without boxes has no localisation, and no context images."""
    (tmp_path / PER_IMAGE_FILE).write_text("of an earlier run")
    arguments = [str(run_dir), "--output-dir", str(tmp_path), "LOCALIZE.SPLIT", "unboxed", "LOCALIZE.GALLERY", "0"]
    assert tool("localize")(arguments) == 0
    assert "per_image" not in load_results(tmp_path)["files"]
    assert (
        tool("evaluate_backbone")([str(run_dir), "--output-dir", str(tmp_path / "e"), "DATA.VAL_SPLIT", "unboxed"]) == 0
    )
    [group] = stated(tmp_path / "e")[1]
    assert group.name == "val"
    assert not {"objectness_deviation", "human_kl"} & group.numbers.keys()


def test_a_number_that_does_not_exist_is_not_written(root):
    """Without a wrong prediction, results.json and the file lack the overconfidence."""
    samples = read(root, "val")
    samples.labels = predict_samples(ChannelMeans(), samples, inputs()).logits.argmax(1)
    measured = evaluate_backbone(ChannelMeans(), samples, None, inputs())
    assert measured.metrics["overconfidence"] is None
    val = next(one for one in measured.per_image if one.name == "val")
    assert "overconfidence" not in val.numbers
    assert {"underconfidence", "top1"} <= val.numbers.keys()


def test_images_are_identified_by_their_data_names_and_labels(root, tmp_path):
    samples = read(root, "val")
    every = np.arange(len(samples))
    shutil.copytree(root, tmp_path / "moved")
    assert read(tmp_path / "moved", "val").identify(every) == samples.identify(every)
    assert samples.identify(every[1:]) != samples.identify(every) != read(root, "whole").identify(every)
    other = read(root, "val")
    other.labels = np.roll(other.labels, 1)
    assert other.identify(every) != samples.identify(every)


# ---- the numbers --------------------------------------------------------------------------------------------------


def test_resamples_in_blocks_are_the_resamples():
    for images, resamples, seed in ((1, 3, 0), (40, 250, 0), (333, 101, 7)):
        counts = count_images(images, resamples, seed)
        assert counts.dtype == np.uint8
        np.testing.assert_array_equal(counts[0], 1)
        np.testing.assert_array_equal(counts[1:], resample_images(images, resamples=resamples, seed=seed))


def test_closed_forms():
    counts = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 0, 0, 4], [0, 4, 0, 0]], dtype=np.uint8)
    mean = Mean(np.array([1.0, 2.0, 4.0, np.nan]))
    np.testing.assert_allclose(weighted_number(mean, counts), [7 / 3, 2.0, np.nan, 2.0], rtol=1e-15)
    binned = Binned(np.array([0.5, -0.25, -0.1, -0.3]), np.array([3, 3, 0, 900]))
    expected = [(0.25 + 0.1 + 0.3) / 4, (1.0 + 0.1 + 0.3) / 4, 0.3, 0.25]
    np.testing.assert_allclose(weighted_number(binned, counts), expected, rtol=1e-15)
    one = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]], dtype=bool)
    best = BestShare(pack_hits([one, np.zeros((4, 1), dtype=bool)]))
    np.testing.assert_allclose(weighted_number(best, counts), [0.25, 0.375, 0.5, 0.5], rtol=1e-15)


def test_thresholds_that_hit_the_same_images_are_kept_once():
    rng = np.random.default_rng(0)
    hits = rng.random((11, 20)) < 0.5
    packed = pack_hits([np.repeat(hits, 50, axis=1), hits[:, :3]])
    assert packed.shape == (11, 2, 3)  # 20 bits
    counts = count_images(11, 50, 1)
    expected = sum((counts @ part.astype(float)).max(1) for part in (hits, hits[:, :3])) / 22
    np.testing.assert_allclose(weighted_number(BestShare(packed), counts), expected, rtol=1e-14)


def test_calibration_of_resamples_is_that_of_repeated_images():
    rng = np.random.default_rng(1)
    logits, labels = 2 * rng.normal(size=(60, 4)), rng.integers(4, size=60)
    numbers = _val_images(Predictions(logits, labels, np.arange(60)), np.full(60, 1.5), None)
    counts = count_images(60, 40, 5)
    for r, count in enumerate(counts):
        repeated = np.repeat(np.arange(60), count)
        log_p = log_softmax(logits[repeated])
        expected = calibration_metrics(log_p, labels[repeated])
        expected |= scaled_metrics(log_p, labels[repeated], temperatures=np.full(len(repeated), 1.5))
        for name, number in numbers.items():
            assert weighted_number(number, counts)[r] == pytest.approx(expected[name], abs=1e-12), name


def test_shares_of_resamples_are_tuned_on_the_repeated_images():
    rng = np.random.default_rng(2)
    evaluator, counts = LocalizationEvaluator(), count_images(25, 30, 3)
    for _ in range(25):
        values = rng.random((12, 12)) ** 3
        evaluator.process(values, np.array([[2.0, 3.0, 8.0, 9.0]]) + rng.integers(-2, 3, (1, 4)), right=True)
    numbers = evaluator.per_image()
    steps = np.linspace(1, 0, 1000)
    evaluator.overlaps = [BoxOverlap(rng.random() * steps, rng.random(1000)) for _ in range(25)]
    tuned = evaluator.per_image()
    for r, count in enumerate(counts):
        repeated = np.repeat(np.arange(25), count)
        expected = max_box_accuracy([evaluator.overlaps[i] for i in repeated])
        for name in ("max_box_acc", "max_box_acc_v2"):
            assert weighted_number(tuned[name], counts)[r] == pytest.approx(expected[name], abs=1e-12)
        energy = np.mean([evaluator.scores[i]["energy_in_box"] for i in repeated])
        assert weighted_number(numbers["energy_in_box"], counts)[r] == pytest.approx(energy, abs=1e-12)


# ---- the file -----------------------------------------------------------------------------------------------------


def group(seed=0, images=30, *, identity="same", right=0.7, name="val"):
    """A group with a number of every kind."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(images).random(images)  # shared by all seeds
    hit, confidence = hard + 0.2 * rng.normal(size=images) < right, rng.random(images)
    numbers = {
        "top1": Mean(hit.astype(float)),
        "overconfidence": Mean(np.where(hit, np.nan, confidence)),
        "ece15": Binned(hit - confidence, number_bins(confidence)),
        "max_box_acc_v2": BestShare(pack_hits([rng.random((images, 9)) < 0.4 for _ in range(3)])),
    }
    return ImageGroup(name, identity, np.arange(images), numbers)


@pytest.fixture
def written(tmp_path):
    """The folder of a file, and its arrays."""
    shifted = ImageGroup("shifted", "other", np.array([1, 4, 6]), {"top1_shifted": Mean(np.array([1.0, 0, 1]))})
    empty = ImageGroup("none", "none", np.zeros(0, int), {"nll": Mean(np.zeros(0))})
    assert save_per_image(tmp_path, [group(), shifted, empty]) == {"per_image": PER_IMAGE_FILE}
    with np.load(tmp_path / PER_IMAGE_FILE) as file:
        return tmp_path, dict(file)


def test_what_is_written_is_read(written):
    folder, _ = written
    first, second = load_per_image(folder / PER_IMAGE_FILE)
    assert (first.name, first.identity, second.name, second.identity) == ("val", "same", "shifted", "other")
    assert second.images.tolist() == [1, 4, 6]
    for name, number in group().numbers.items():
        assert type(first.numbers[name]) is type(number)
        for field, array in vars(number).items():
            np.testing.assert_array_equal(getattr(first.numbers[name], field), array)
    data = (folder / PER_IMAGE_FILE).read_bytes()
    save_per_image(folder, [first, second])
    assert (folder / PER_IMAGE_FILE).read_bytes() == data
    assert save_per_image(folder, []) == {}


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("kinds", lambda a: np.where(a == "mean", "median", a), "unknown kind 'median' of top1; choices: mean, binned"),
        ("kinds", lambda a: a[1:], "kinds has 4 entries, not 5"),
        ("identities", lambda a: a[1:], "identities has 1 entries, not 2"),
        ("group", lambda a: a[1:], "group has 4 entries, not 5"),
        ("group", lambda a: a + 1, "group has values outside 0 to 1"),
        ("group", lambda a: a * 1.5, "group is float64"),
        ("groups", lambda a: np.array(["val", "val"]), "groups has duplicates"),
        ("groups", lambda a: np.array(["val", "b"]), "b/images is missing"),
        ("numbers", lambda a: np.where(a == "ece15", "top1", a), "numbers has duplicates"),
        ("numbers", lambda a: np.where(a == "ece15", "ece", a), "ece/gap is missing"),
        ("numbers", lambda a: np.zeros(len(a)), "numbers is float64"),
        ("val/images", lambda a: a[::-1], "val/images must be ascending"),
        ("val/images", lambda a: a - 1, "val/images must be ascending and at least 0"),
        ("val/images", lambda a: a[1:], "top1/value has 30 images, not 29"),
        ("top1/value", lambda a: a[None], r"top1/value is float64 of shape \(1, 30\)"),
        ("top1/value", lambda a: a.astype(int), "top1/value is int64"),
        ("top1/value", lambda a: a * np.inf, "top1/value has values that are not finite"),
        ("ece15/gap", lambda a: a * np.nan, "ece15/gap has values that are not finite"),
        ("ece15/bin", lambda a: a - 20, "ece15/bin has values below 0"),
        ("ece15/bin", lambda a: a[:-1], "ece15/bin has 29 images, not 30"),
        ("max_box_acc_v2/hits", lambda a: a.astype(int), "max_box_acc_v2/hits is int64"),
        ("max_box_acc_v2/hits", lambda a: a[:, :0], "max_box_acc_v2/hits is uint8 of shape"),
        ("max_box_acc_v2/hits", lambda a: a[..., 0], "max_box_acc_v2/hits is uint8 of shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_file_that_contradicts_itself_is_refused(written, name, change, says):
    folder, arrays = written
    np.savez(folder / "wrong.npz", **{**arrays, name: change(arrays[name])})
    with pytest.raises(InputError, match=rf"wrong\.npz: {says}.*; measure the backbone again"):
        load_per_image(folder / "wrong.npz")


def test_broken_files_and_other_versions_are_named(written):
    folder, arrays = written
    path = folder / PER_IMAGE_FILE
    data = path.read_bytes()
    np.savez(path, **{**arrays, "format_version": np.array(FORMAT_VERSION + 1)})
    with pytest.raises(InputError, match=rf"per_image\.npz: format {FORMAT_VERSION + 1}, this version reads"):
        load_per_image(path)
    for wrong in (b"", b"no zip", data[: len(data) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"cannot read .*per_image\.npz"):
            load_per_image(path)
    with pytest.raises(InputError, match=r"no such file.*none\.npz; measure the backbone again"):
        load_per_image(folder / "none.npz")


def test_draws_are_computed_once(tmp_path, monkeypatch):
    computed, path, compute = [], tmp_path / PER_IMAGE_FILE, draws.group_numbers
    monkeypatch.setattr(draws, "group_numbers", lambda *args: computed.append(1) or compute(*args))
    save_per_image(tmp_path, [group()])
    groups = load_per_image(path)
    first = draw_per_image(groups, path, resamples=20, seed=0)
    again = draw_per_image(load_per_image(path), path, resamples=20, seed=0)
    assert len(computed) == 1
    assert (tmp_path / DRAWS_FILE).is_file()
    assert first[0] == again[0]
    for name, values in first[1].items():
        np.testing.assert_array_equal(values, again[1][name])
        np.testing.assert_array_equal(values, weighted_number(groups[0].numbers[name], count_images(30, 20, 0))[1:])
    for other, seed in ((group(1), 0), (group(identity="b"), 0), (group(name="b"), 0), (group(), 1)):
        draw_per_image([other], path, resamples=20, seed=seed)
    assert len(computed) == 5


# ---- the comparison -----------------------------------------------------------------------------------------------


def add_measured(root, label, seed, one, **changes):
    """Add an evaluation with its file, and return its folder."""
    metrics = {name: on_all_images(number, len(one.images)) for name, number in one.numbers.items()}
    folder = add(root, "backbone", backbone(label, seed=seed), {})
    files = save_per_image(folder, [one])
    return add(root, "backbone", backbone(label, seed=seed), metrics | changes, files=files)


def add_two_methods(root, seeds=3, **changes):
    for seed in range(seeds):
        add_measured(root, "CE", seed, group(seed, right=0.6))
        add_measured(root, "ALS", seed, group(10 + seed, right=0.8, **changes))
    return root


def test_every_classifier_number_has_intervals_and_differences_over_images(tmp_path):
    root = add_two_methods(tmp_path / "runs")
    data = compare_runs(root, tmp_path / "out")
    rows = {(row["label"], row["seed"]): row for row in data["rows"]}
    names = group().numbers.keys()
    for (label, _), row in rows.items():
        assert row["intervals"].keys() == names
        for name in names:
            interval, paired = row["intervals"][name], row["difference_to_baseline"][name]
            assert interval["value"] == pytest.approx(row["metrics"][name], abs=1e-12)
            assert interval["low"] < interval["value"] < interval["high"]
            assert (paired["low"] < paired["high"]) == (label != "CE")
        assert row["difference_to_baseline"]["nll"]["low"] is None
    als = next(method for method in data["methods"] if method["label"] == "ALS")
    for name in names:
        found = als["differences"][name]
        assert (found["over_seeds"], found["over_images"]) == (True, True)
    # The same by the definitions, from the files.
    counts = count_images(30, 40, 0)[1:]
    samples = []
    for right, first in ((0.8, 10), (0.6, 0)):
        own = [group(first + seed, right=right).numbers["top1"] for seed in range(3)]
        drawn = np.array([counts @ one.value / 30 for one in own])
        samples.append(nested.Sample(np.array([one.value.mean() for one in own]), drawn))
    expected = nested.difference(*samples)
    assert als["differences"]["top1"]["error"] == pytest.approx(expected.error, rel=1e-9)
    assert expected.images > 0


def test_rows_of_other_images_are_not_paired(tmp_path):
    data = compare_runs(add_two_methods(tmp_path / "runs", identity="other"), tmp_path / "out")
    for row in data["rows"]:
        assert row["intervals"]["top1"]["low"] < row["intervals"]["top1"]["high"]
        if row["label"] == "ALS":
            assert row["difference_to_baseline"]["top1"]["low"] is None
            assert row["difference_to_baseline"]["top1"]["value"] > 0
    als = next(method for method in data["methods"] if method["label"] == "ALS")
    assert als["differences"]["top1"]["over_images"] is False
    assert als["differences"]["top1"]["over_seeds"] is True


def test_seeds_of_other_images_are_judged_over_seeds_only(tmp_path):
    """A held-out part that is drawn with the run's seed."""
    for seed in range(3):
        for label in ("CE", "ALS"):
            add_measured(tmp_path / "runs", label, seed, group(seed + len(label), identity=f"seed {seed}"))
    data = compare_runs(tmp_path / "runs", tmp_path / "out")
    als = next(row for row in data["rows"] if row["label"] == "ALS")
    assert als["difference_to_baseline"]["top1"]["low"] is not None  # both of one seed
    [found] = [method["differences"]["top1"] for method in data["methods"] if method["label"] == "ALS"]
    assert found["over_images"] is False


def test_runs_of_earlier_versions_have_numbers_without_intervals(tmp_path):
    root = add_two_methods(tmp_path / "runs")
    for folder in (path for path in root.iterdir() if path.name.startswith("CE-2")):
        (folder / PER_IMAGE_FILE).unlink()
    old = add(root, "backbone", backbone("LS"), {"top1": 0.5})
    (old / PER_IMAGE_FILE).write_bytes(b"left over, and not listed")
    data = compare_runs(root, tmp_path / "out")
    rows = {(row["label"], row["seed"]): row for row in data["rows"]}
    assert rows["CE", 2]["intervals"] == rows["LS", 0]["intervals"] == {}
    assert rows["LS", 0]["difference_to_baseline"]["top1"]["value"] == pytest.approx(
        0.5 - rows["CE", 0]["metrics"]["top1"]
    )
    assert rows["ALS", 1]["difference_to_baseline"]["top1"]["low"] is not None
    als = next(method for method in data["methods"] if method["label"] == "ALS")
    assert als["differences"]["top1"]["over_images"] is False  # one seed of CE is without


def test_a_file_of_another_run_is_refused(tmp_path):
    folder = add_measured(tmp_path / "runs", "CE", 0, group(), top1=0.123)
    with pytest.raises(InputError, match=r"per_image\.npz: top1 is 0\.\d+, but 0.123 in the results beside it"):
        compare_runs(tmp_path / "runs", tmp_path / "out")
    assert folder.is_dir()


def test_detectors_of_one_backbone_share_its_numbers(tmp_path, monkeypatch):
    computed, compute = [], draws.group_numbers
    monkeypatch.setattr(draws, "group_numbers", lambda *args: computed.append(1) or compute(*args))
    monkeypatch.setattr(draws, "DRAWS_FILES", {})
    root = add_two_methods(tmp_path / "runs", seeds=1)
    for seed in range(3):
        folder = add(root, "detection", backbone("CE"), {"AP": 0.3}, folder=f"CE-detector-{seed}")
        results = json.loads((folder / "results.json").read_text())
        (folder / "results.json").write_text(json.dumps(results | {"details": {"seed": seed}}))
    data = compare_runs(root, tmp_path / "out")
    assert [len(row["intervals"]) for row in data["rows"]] == [4, 4, 4, 4]
    assert len(computed) == 2  # once per backbone


def test_differences_of_numbers_are_from_centred_draws():
    rng = np.random.default_rng(0)
    a, b = (Resampled({"x": value}, {"x": rng.normal(value + 1, 0.1, 200)}, {"x": "i"}) for value in (2.0, 1.5))
    found = difference(a, b, "x", 0.9)
    drawn = a.draws["x"] - b.draws["x"]
    low, high = np.quantile(drawn - drawn.mean() + 0.5, [0.05, 0.95])
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.5, low, high), rel=1e-12)
    other = Resampled(b.value, b.draws, {"x": "j"})
    assert difference(a, other, "x")["value"] == 0.5
    assert np.isnan([difference(a, other, "x")[end] for end in ("low", "high")]).all()


def test_samples_of_other_images_are_not_paired():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(3, 50))
    a, same, other = (nested.Sample(drawn[:, 0], drawn + n, images) for n, images in enumerate("xxy"))
    assert nested.difference(a, same).over_images
    assert not nested.difference(a, other).over_images
    assert nested.components([a, same]) is not None
    assert nested.components([a, same, other]) is None
