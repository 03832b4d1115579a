"""Risk-coverage and reliability of classifiers: closed forms, a slow implementation, and the page."""

import itertools

import numpy as np
import pytest
from helpers.result_folders import add, add_detection, backbone, compare_runs

from backbones.core.per_image import Binned, ImageGroup, Mean, save_per_image
from backbones.measuring.calibration import number_bins
from comparison.classifiers import BINS, reliability_bins, risk_at_every_coverage


def slow_risk(confidence, right):
    """Mean over all orders of the images that sort by confidence, most confident first."""
    orders = [
        order
        for order in itertools.permutations(range(len(right)))
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order))
    ]
    risks = [[sum(not right[i] for i in order[:k]) / k for k in range(1, len(right) + 1)] for order in orders]
    return np.mean(risks, axis=0)


def test_the_risk_of_a_perfect_order_and_of_the_opposite():
    right = np.array([True] * 6 + [False] * 2)
    confidence = np.linspace(0.9, 0.2, 8)
    assert risk_at_every_coverage(confidence, right) == pytest.approx([0] * 6 + [1 / 7, 2 / 8])
    assert risk_at_every_coverage(-confidence, right) == pytest.approx([1, 1, 2 / 3, 2 / 4, 2 / 5, 2 / 6, 2 / 7, 2 / 8])


def test_the_risk_of_a_constant_confidence_is_the_error_at_every_coverage():
    right = np.arange(10) % 5 != 0
    assert risk_at_every_coverage(np.full(10, 0.7), right) == pytest.approx(np.full(10, 0.2))


def test_the_area_of_a_perfect_order_tends_to_its_closed_form():
    error, images = 0.3, 200_000  # integral of max(0, c - (1 - e)) / c over c
    right = np.arange(images) < (1 - error) * images
    area = risk_at_every_coverage(np.linspace(1, 0.5, images), right).mean()
    assert area == pytest.approx(error + (1 - error) * np.log(1 - error), abs=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_a_slow_implementation_agrees_with_ties(seed):
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 8))
    confidence = rng.choice([0.3, 0.5, 0.9], images)
    right = rng.random(images) < 0.6
    assert risk_at_every_coverage(confidence, right) == pytest.approx(slow_risk(confidence, right))


def test_bins_are_those_of_the_calibration_error():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(500), np.arange(1, BINS + 1) / BINS])  # with the edges
    right = rng.random(len(confidence)) < confidence
    bins, at = reliability_bins(confidence, right), number_bins(confidence, BINS)
    for n in range(BINS):
        chosen = at == n
        assert bins["count"][n] == chosen.sum()
        assert bins["confidence"][n] == pytest.approx(confidence[chosen].sum())
        assert bins["right"][n] == right[chosen].sum()


def add_classifier(root, label, seed, confidence, right, *, identity="images"):
    who = backbone(label, seed=seed)
    gap = right - confidence
    numbers = {
        **{"top1": Mean(right), "average_confidence": Mean(confidence)},
        "ece15": Binned(gap, number_bins(confidence, BINS)),
    }
    ece = sum(abs(gap[number_bins(confidence, BINS) == n].sum()) for n in range(BINS)) / len(gap)
    metrics = {"top1": float(right.mean()), "average_confidence": float(confidence.mean()), "ece15": float(ece)}
    folder = add(root, "backbone", who, metrics)
    files = save_per_image(folder, [ImageGroup("val", identity, np.arange(len(right)), numbers)])
    add(root, "backbone", who, metrics, files=files)
    for protocol in ("a@1", "b@2"):  # a backbone counts once, however many detectors it has
        add_detection(root, who, 0.8, protocol=protocol, details={"seed": seed})


def test_the_page_shows_the_mean_over_the_backbones_of_a_method(tmp_path):
    rng = np.random.default_rng(1)
    said = {}
    for label, seed in itertools.product(("CE", "ALS"), (0, 1)):
        confidence = rng.uniform(0.2, 1, 150).round(2)
        said[label, seed] = confidence, rng.random(150) < confidence
        add_classifier(tmp_path / "runs", label, seed, *said[label, seed])
    found = compare_runs(tmp_path / "runs", tmp_path / "out", "--allow-mixed-protocols")
    [entry] = found["classifiers"]
    assert (entry["protocol"], entry["images"]) == ("p@1", 150)
    assert [(one["label"], one["is_baseline"], one["backbones"]) for one in entry["methods"]] == [
        ("CE", True, 2), ("ALS", False, 2),
    ]  # fmt: skip
    risks = [risk_at_every_coverage(*said["ALS", seed]) for seed in (0, 1)]
    als = entry["methods"][1]
    assert als["aurc"] == pytest.approx(np.mean(risks))
    assert als["risk"] == pytest.approx([np.mean([r[int(np.ceil(1.5 * p)) - 1] for r in risks]) for p in range(1, 101)])
    assert als["risk"][-1] == pytest.approx(np.mean([1 - said["ALS", seed][1].mean() for seed in (0, 1)]))
    assert sum(one["count"] for one in als["bins"]) == 300
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Risk of the most confident images" in page
    assert "Reliability of the classifiers" in page
    assert f"{als['risk'][49]:.3f}" in page[page.index("How far to trust the classifiers") :]
    names = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"classifiers-risk", "classifiers-reliability"} <= names


def test_classifiers_of_other_images_are_apart_and_those_without_values_absent(tmp_path):
    rng = np.random.default_rng(2)
    for label, identity in (("CE", "images"), ("ALS", "others")):
        confidence = rng.uniform(0.2, 1, 40)
        add_classifier(tmp_path / "runs", label, 0, confidence, rng.random(40) < 0.7, identity=identity)
    add(tmp_path / "runs", "backbone", backbone("LS"), {"top1": 0.8})
    found = compare_runs(tmp_path / "runs", tmp_path / "out", "--allow-mixed-protocols")
    assert [[one["label"] for one in entry["methods"]] for entry in found["classifiers"]] == [["CE"], ["ALS"]]
