"""The diagnosis of methods over seeds: in comparison.json, kept beside the matches, and on the page."""

import json
import re
from html import unescape

import numpy as np
import pytest
from helpers.many_runs import add_many
from helpers.result_folders import compare_runs

from backbones.core.matches import ADDED, load_matches
from comparison.diagnosis import ahead, of_run
from comparison.diagnosis.calibration import calibration
from comparison.diagnosis.influence import influence, joint_influence
from comparison.diagnosis.intervals import weights_of
from comparison.diagnosis.tide import tide
from comparison.page import curves
from comparison.page.curves import Curve, curve_panel
from comparison.verdicts.nested import Sample, difference

METHODS = {"CE": (0.6, 0.02), "ALS": (0.8, 0.02)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return add_many(
        tmp_path_factory.mktemp("diagnosis") / "runs", methods=METHODS, seeds=3, protocols=("det@1",), images=30
    )


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return compare_runs(runs, folder), (folder / "index.html").read_text()


def matches(runs, label):
    return [load_matches(runs / f"{label}-{seed}-det@1" / "matches.npz") for seed in range(3)]


def test_a_number_has_the_interval_of_the_verdict(runs, compared):
    [entry] = compared[0]["diagnosis"]
    als = next(method for method in entry["methods"] if method["label"] == "ALS")
    weights = weights_of(matches(runs, "CE")[0], resamples=40, seed=0)
    for name, measure in {
        "error/all/Miss": lambda one: tide(one, weights)["all"]["Miss"],
        "LaECE": lambda one: calibration(one, weights).la_ece,
    }.items():
        samples = []
        for label in ("ALS", "CE"):
            found = np.array([measure(one) for one in matches(runs, label)])
            samples.append(Sample(found[:, 0], found[:, 1:]))
        expected = difference(*samples)
        assert als["differences"][name] == pytest.approx([expected.value, *expected.interval()])
        assert als["values"][name][0] == pytest.approx(samples[0].mean)
        assert als["values"][name][1] < samples[0].mean < als["values"][name][2]
    assert als["differences"]["error/all/Miss"][2] < 0  # it misses fewer objects
    assert (
        entry["objects_of_class"]
        == np.bincount(
            matches(runs, "CE")[0].object_category[matches(runs, "CE")[0].object_counts[:, 0]], minlength=4
        ).tolist()
    )


def test_the_influential_images_are_those_of_the_jackknife(runs, compared):
    als = compared[0]["diagnosis"][0]["methods"][1]
    expected = influence(matches(runs, "ALS"), matches(runs, "CE"))
    ids = matches(runs, "CE")[0].image_ids
    found = als["influence"]
    assert [one["image_id"] for one in found["for"][:3]] == ids[np.argsort(-expected)[:3]].tolist()
    assert found["for"][0]["influence"] == pytest.approx(expected.max())
    assert all(one["influence"] < 0 for one in found["against"])
    assert compared[0]["diagnosis"][0]["methods"][0]["influence"] is None  # the baseline


def test_images_left_out_together_are_those_of_the_list(runs, compared):
    als = compared[0]["diagnosis"][0]["methods"][1]["influence"]
    pair = matches(runs, "ALS"), matches(runs, "CE")
    single, ids = influence(*pair), matches(runs, "CE")[0].image_ids
    for side in ("for", "against"):
        listed = [one["image_id"] for one in als[side]]
        chosen = np.flatnonzero(np.isin(ids, listed))
        found = als["together"][side]
        assert found["images"] == len(listed) > 0
        assert found["sum"] == pytest.approx(sum(one["influence"] for one in als[side]))
        assert found["influence"] == pytest.approx(joint_influence(*pair, [chosen])[0], abs=1e-12)
        assert found["influence"] != pytest.approx(found["sum"], rel=1e-4)  # AP is not a mean over images
    strongest = np.argsort(-abs(single))[:10]
    assert als["together"]["strongest"]["sum"] == pytest.approx(single[strongest].sum())
    assert als["together"]["strongest"]["influence"] == pytest.approx(joint_influence(*pair, [strongest])[0])
    one = als["together"]["for"]
    text = f"{-one['influence']:+.3f}".replace("-", "\N{MINUS SIGN}")
    assert f"Removing these {one['images']} images together moves the difference by {text}" in compared[1]
    off = f"{abs(one['influence'] - one['sum']) / abs(one['sum']):.0%}".replace("%", "\N{NO-BREAK SPACE}%")
    assert f"{off} off" in compared[1]


def test_an_image_names_the_run_that_it_moves_most(runs, compared):
    als = compared[0]["diagnosis"][0]["methods"][1]["influence"]
    pairs = list(zip(matches(runs, "ALS"), matches(runs, "CE"), strict=True))
    ids = pairs[0][0].image_ids.tolist()
    moved = np.array([influence([own], [other]) for own, other in pairs])
    names = set()
    for side, sign in (("for", 1), ("against", -1)):
        for one in als[side]:
            seed = int(np.argmax(sign * moved[:, ids.index(one["image_id"])]))
            assert (one["run"]["name"], one["run"]["baseline"]) == (f"ALS (seed {seed})", f"CE (seed {seed})")
            assert one["run"]["influence"] == pytest.approx(moved[seed, ids.index(one["image_id"])])
            names.add(seed)
    assert len(names) > 1


def test_of_many_classes_the_most_frequent_confusions_have_intervals(compared, tmp_path, monkeypatch):
    monkeypatch.setattr(of_run, "MOST_CLASSES", 3)
    monkeypatch.setattr(of_run, "MOST_CONFUSIONS", 5)
    runs = add_many(tmp_path / "runs", methods=METHODS, seeds=3, protocols=("det@1",), images=30)
    data = compare_runs(runs, tmp_path / "out")
    [few], [many] = compared[0]["diagnosis"], data["diagnosis"]
    counts = {}
    for whole, method in zip(few["methods"], many["methods"], strict=True):
        for kind in ("values", "differences"):
            own = {name: one for name, one in method[kind].items() if name.startswith("confusion")}
            assert len(own) == (0 if kind == "differences" and method["is_baseline"] else 5)
            for name, limits in own.items():
                assert limits == pytest.approx(whole[kind][name])
        for name, (share, _, _) in whole["values"].items():
            if name.startswith("confusion"):
                row, column = map(int, name.split("/")[1:])
                if row != column and column < 4:
                    counts[name] = counts.get(name, 0) + share * few["objects_of_class"][row]
    chosen = {name for name in many["methods"][0]["values"] if name.startswith("confusion")}
    assert min(counts[name] for name in chosen) >= max(count for name, count in counts.items() if name not in chosen)
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count(" taken for ") >= 5


def test_it_is_computed_once(runs, tmp_path, monkeypatch):
    first = compare_runs(runs, tmp_path / "a")
    monkeypatch.setattr(of_run, "_numbers", None)
    monkeypatch.setattr(of_run, "influence_on_row", None)
    assert compare_runs(runs, tmp_path / "b")["diagnosis"] == first["diagnosis"]


def test_files_of_an_earlier_version_have_what_they_allow(tmp_path):
    runs = add_many(tmp_path / "runs", methods=METHODS, seeds=1, protocols=("det@1",), images=10)
    for path in runs.glob("*/matches.npz"):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files if name not in ADDED}
        np.savez(path, **arrays)
    [entry] = compare_runs(runs, tmp_path / "out")["diagnosis"]
    values = entry["methods"][1]["values"]
    assert "error/all/Loc" in values
    assert not any(name.startswith(("LaECE", "share", "confusion")) for name in values)
    low, high = entry["methods"][1]["differences"]["error/all/FN"][1:]
    assert low < high  # of single networks: over images


def test_every_part_is_on_the_page(compared):
    data, page = compared[0], unescape(compared[1])
    assert "What the detectors get wrong" in page
    for text in (
        "AP50 that would be gained without the errors of a kind, all sizes", "Calibration of the detections",
        "Recall at IoU 0.5 of all detections, by the share of the image that the object covers", "AP by class ↑",
        "Most frequent confusions ↓",
        ">Cls ↓<", "0.3 % ↑<",
        "Precision and recall at IoU 0.5", "Reliability of the detections",
    ):  # fmt: skip
        assert text in page, text
    miss = data["diagnosis"][0]["methods"][1]["differences"]["error/all/Miss"][0]
    assert f'<span class="sub better">{miss:+.3f}'.replace("-", "\N{MINUS SIGN}") in page
    json.dumps(data, allow_nan=False)


def test_a_curve_has_the_band_of_its_interval():
    band = [(0.0, 0.5, 1.2), (0.5, 0.25, 0.75), (1.0, -0.5, 0.5)]
    curve = Curve("CE", "#123456", [(0.0, 0.9), (0.5, 0.5), (1.0, 0.1)], band, strong=True)
    panel = curve_panel("title", "x", "y", [curve])
    [points] = re.findall(r'<path d="M([^"]*)Z" fill="#123456" fill-opacity="([^"]*)" class="band"', panel)
    found = [tuple(map(float, point.split())) for point in points[0].split("L")]
    left, right, top, bottom = (getattr(curves, name) for name in ("LEFT", "RIGHT", "TOP", "BOTTOM"))
    middle, across = (left + right) / 2, bottom - top
    upper = [(left, top), (middle, bottom - 0.75 * across), (right, bottom - 0.5 * across)]
    lower = [(right, bottom), (middle, bottom - 0.25 * across), (left, bottom - 0.5 * across)]  # within the axes
    assert found == [pytest.approx(point) for point in (*upper, *lower)]
    others = [curve._replace(strong=False)] * 2
    shown = [
        re.findall(r'fill-opacity="([\d.]+)" class="band"', curve_panel("t", "x", "y", chosen))
        for chosen in (others, [curve, *others])
    ]
    assert shown[0] == [points[1]] * 2  # of few curves, all
    assert shown[1] == [points[1], "0", "0"]


def test_the_curves_of_the_page_have_bands(compared):
    page = compared[1]
    assert len(re.findall(r'fill-opacity="0\.18" class="band"', page)) == 2 * 3  # two methods, three figures


def test_several_processes_compute_the_same(tmp_path, monkeypatch):
    """With files that are large enough; what they leave is read, not computed again."""
    runs = add_many(tmp_path / "runs", methods=METHODS, seeds=2, protocols=("det@1",), images=10)
    first = compare_runs(runs, tmp_path / "a")
    kept = [path for name in ("draws", "diagnosis", "influence") for path in runs.glob(f"*/{name}.npz")]
    assert len(kept) == 12
    for path in kept:
        path.unlink()
    monkeypatch.setattr(ahead, "LARGE", 0)
    monkeypatch.setattr(ahead, "count_cores", lambda: 2)
    monkeypatch.setattr(of_run, "_numbers", None)
    assert compare_runs(runs, tmp_path / "b") == first
    assert all(path.is_file() for path in kept)
