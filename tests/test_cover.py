"""What the page says that its intervals cover: seeds and images, one of them, or these networks only."""

import re
import shutil
from html import unescape

import pytest
from helpers.many_runs import add_many

from comparison.page.page import build_sections, render_page
from comparison.rows import collect_rows
from comparison.summary import build_comparison
from comparison.tables.formats import describe_cover

METHODS = {"CE": (0.55, 0.02), "ALS": (0.75, 0.02), "LS": (0.65, 0.02)}
CELL = re.compile(r'title="(Cls[^"]*; minus baseline [^"]*)"')


@pytest.mark.parametrize(
    ("covered", "said"),
    [
        ({"A": (True, True), "B": (True, True)}, "over seeds and images"),
        ({"A": (True, False)}, "over seeds"),
        ({"A": (False, True), "B": (False, True)}, "over images, for these networks"),
        (
            {"A": (False, True), "B": (True, True), "C": (False, True), "D": (True, False)},
            "over seeds and images (A, C: over images only; D: over seeds only)",
        ),
        ({"A": (False, True), "B": (True, False)}, "over seeds (A: over images only)"),
    ],
)
def test_what_intervals_cover_is_said_of_every_method(covered, said):
    assert describe_cover(covered) == said


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return add_many(tmp_path_factory.mktemp("runs"), methods=METHODS, seeds=2, protocols=("det@1",), images=12)


def page_of(runs, root, *, without=()):
    """Return the page of a copy of the runs as text, without the runs of these names."""
    shutil.copytree(runs, root, ignore=lambda _, names: [n for n in names if n.startswith(tuple(without))])
    comparison = build_comparison(collect_rows([root]), resamples=40)
    images = [{"protocol": "det", "label": "ALS", "baseline": "CE", "problem": "none", "for": [], "against": []}]
    return comparison, unescape(render_page(comparison, build_sections(comparison), images=images))


def said_of(page):
    """Return what the page says of the intervals of methods and of the diagnosis."""
    return re.findall(r"95 % intervals? (over .*?)(?:\. Filled| excludes 0\. Exploratory)", page)


def test_intervals_of_several_seeds_cover_seeds_and_images(runs, tmp_path):
    comparison, page = page_of(runs, tmp_path / "runs")
    assert said_of(page) == ["over seeds and images"] * 2
    assert "(images only)" not in page
    assert "raises the difference in AP, mean over seeds. Drawn" in page
    assert "so that other seeds can look otherwise; detections" in page
    kinds = [one["over_seeds"] for one in comparison["diagnosis"][0]["methods"]]
    assert kinds[1:] == [{"values": True, "differences": True}] * 2
    assert kinds[0] == {"values": True, "differences": False}  # the baseline has none


def test_intervals_of_single_runs_cover_images(runs, tmp_path):
    _, page = page_of(runs, tmp_path / "runs", without=[f"{label}-1" for label in METHODS])
    assert said_of(page) == ["over images, for these networks"]
    assert "(images only)" not in page
    assert "raises the difference in AP. Drawn" in page
    assert "in this direction; detections" in page


def test_a_method_of_one_seed_is_named_and_its_cells_are_marked(runs, tmp_path):
    comparison, page = page_of(runs, tmp_path / "runs", without=["LS-1"])
    assert said_of(page) == ["over seeds and images (LS: over images only)"] * 2
    assert comparison["diagnosis"][0]["methods"][1]["label"] == "LS"
    assert comparison["diagnosis"][0]["methods"][1]["over_seeds"] == {"values": False, "differences": False}
    assert [tip.endswith("] (images only)") for tip in CELL.findall(page)][:2] == [True, False]


def test_methods_of_one_seed_against_several_cover_images(runs, tmp_path):
    _, page = page_of(runs, tmp_path / "runs", without=["LS-1", "ALS-1"])
    assert said_of(page) == ["over images, for these networks"] * 2
    assert all(tip.endswith("] (images only)") for tip in CELL.findall(page))


def test_intervals_without_data_per_image_cover_seeds(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "bare", ignore=shutil.ignore_patterns("matches.npz"))
    _, page = page_of(tmp_path / "bare", tmp_path / "runs")
    assert said_of(page) == ["over seeds"]
