"""Comparisons in which some methods have classifiers only: their panels, baselines and sections."""

from helpers.result_folders import add, backbone

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
