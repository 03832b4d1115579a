"""Comparisons in which some methods have classifiers only: their panels, baselines and sections."""

import itertools

import pytest
from helpers.many_runs import add_classifier
from helpers.result_folders import add, backbone

from backbones.core.results import BackboneIdentity
from comparison.methods import Goal
from comparison.page.page import build_sections
from comparison.rows import collect_rows
from comparison.summary import build_comparison


def compared(root, **options):
    return build_comparison(collect_rows([root]), resamples=2, **options)


def add_classifiers(root, labels, seeds=3):
    for n, label in enumerate(labels):
        for seed in range(seeds):
            add(root, "backbone", backbone(label, seed=seed), {"top1": 0.8 + n / 20 + seed / 100 * (n + 1)})


def add_detectors(root, labels, seeds=3):
    for n, label in enumerate(labels):
        for seed in range(seeds):
            metrics = {"AP": 0.4 + n / 20 + seed / 100 * (n + 1), **({"AR100": 0.5 + seed / 100} if n < 2 else {})}
            add(root, "detection", backbone(label, seed=seed), metrics, details={"seed": seed})


def test_a_method_without_a_number_leaves_its_panel_to_the_others(tmp_path):
    add_classifiers(tmp_path, ("CE", "LS", "ALS", "OLS"))
    add_detectors(tmp_path, ("CE", "LS", "ALS"))
    [forest] = build_sections(compared(tmp_path))["forests"]
    drawn = {
        figure.name: [label for label in ("LS", "ALS", "OLS") if f">{label}<" in figure.svg]
        for figure in forest["figures"]
    }
    assert drawn == {"AP-differences": ["LS", "ALS"], "AR100-differences": ["LS"]}


def test_classifiers_alone_have_no_panels_of_detectors(tmp_path):
    add_classifiers(tmp_path, ("CE", "LS"))
    assert build_sections(compared(tmp_path))["forests"] == []


# ---- YOLOs with soft class labels beside the classifiers that they start from --------------------------------------


def add_yolos(root, methods=("CE", "ALS"), labels=("LS",), seeds=3):
    """Add detectors whose rows have a hash of their own, which covers the class labels."""
    for n, (method, name) in enumerate(itertools.product(methods, labels)):
        for seed in range(seeds):
            weights = backbone(method, seed=seed).hash
            who = BackboneIdentity(f"{method}, {name} labels", f"{method}+{name}", seed, f"{weights}-{name}")
            details = {"seed": seed, "backbone_hash": weights, "class_labels": {"name": name}}
            metrics = {"AP": 0.4 + n / 10 + seed / 100 * (n + 1)}
            add(root, "detection", who, metrics, folder=f"{who.label}-{seed}", details=details)


def differences_of(comparison):
    return {one["label"]: one["differences"] and list(one["differences"]) for one in comparison["methods"]}


def baselines_of(comparison):
    return {row["label"]: row["baseline"] for row in comparison["rows"]}


def test_a_classifier_is_not_the_baseline_of_detectors(tmp_path):
    """Of equal class labels, the detectors of hard-label pretraining are."""
    add_classifiers(tmp_path, ("CE", "ALS"))
    add_yolos(tmp_path)
    found = compared(tmp_path)
    yolo = "CE, LS labels"
    assert baselines_of(found) == {yolo: yolo, "ALS, LS labels": yolo, "CE": "CE", "ALS": "CE"}
    assert differences_of(found) == {yolo: None, "ALS, LS labels": ["AP"], "CE": None, "ALS": ["top1"]}
    verdicts = {one["label"]: one["verdict"] and one["verdict"]["metric"] for one in found["methods"]}
    assert verdicts == {yolo: None, "ALS, LS labels": "AP", "CE": None, "ALS": None}
    [als] = [one for one in found["methods"] if one["label"] == "ALS, LS labels"]
    assert als["differences"]["AP"]["value"] == pytest.approx(0.11)
    assert found["baseline"] == yolo
    assert not any(note.startswith(("No baseline", "No verdict")) for note in found["notes"])


def test_the_baseline_that_is_named_is_that_of_the_primary_number(tmp_path):
    add_classifiers(tmp_path, ("CE", "ALS"))
    add_yolos(tmp_path)
    found = compared(tmp_path, goal=Goal(primary="top1"))
    assert found["baseline"] == "CE"
    assert [one["label"] for one in found["methods"] if one["verdict"]] == ["ALS"]


def test_detectors_of_several_class_labels_ask_for_a_baseline(tmp_path):
    add_classifiers(tmp_path, ("CE", "ALS"))
    add_yolos(tmp_path, labels=("LS", "OLS"))
    found = compared(tmp_path)
    assert {label for label, baseline in baselines_of(found).items() if baseline} == {"CE", "ALS"}
    [note] = [note for note in found["notes"] if note.startswith("No baseline (a row of method CE) for ")]
    assert note.endswith("name one with --baseline LABEL.")
    found = compared(tmp_path, baseline="CE, OLS labels")
    assert differences_of(found)["ALS, LS labels"] == ["AP"]


def test_detectors_of_hard_labels_are_the_baseline_beside_other_classifiers_of_ce(tmp_path):
    """Seeds 1 and 2 of CE have no detector yet."""
    add_classifiers(tmp_path, ("CE",))
    add_yolos(tmp_path, methods=("CE",))
    who = BackboneIdentity("CE, hard labels", "CE", 0, backbone("CE").hash)
    add(tmp_path, "detection", who, {"AP": 0.3}, details={"seed": 0})
    rows = compared(tmp_path)["rows"]
    assert {row["baseline"] for row in rows if row["label"] == "CE, LS labels"} == {"CE, hard labels"}


def test_a_method_whose_baseline_has_no_detector_keeps_the_differences_of_its_classifier(tmp_path):
    add_classifiers(tmp_path, ("CE", "LS"))
    add_detectors(tmp_path, ("LS",))
    assert differences_of(compared(tmp_path)) == {"CE": None, "LS": ["top1"]}


def test_classifiers_stay_on_the_page_beside_detectors_that_have_rows_of_their_own(tmp_path):
    for label, seed in itertools.product(("CE", "ALS"), range(2)):
        add_classifier(tmp_path, backbone(label, seed=seed), {"top1": 0.8}, images=50)
    add_yolos(tmp_path, seeds=2)
    found = compared(tmp_path)
    [entry] = found["classifiers"]
    assert [(one["label"], one["is_baseline"], one["backbones"]) for one in entry["methods"]] == [
        ("CE", True, 2), ("ALS", False, 2),
    ]  # fmt: skip
    [curves] = [one["curves"] for one in found["training"] if one["stage"] == "pretraining"]
    assert [(one["label"], one["runs"]) for one in curves[0]["methods"]] == [("CE", 2), ("ALS", 2)]
