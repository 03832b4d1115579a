"""Training curves: what is read of metrics.jsonl, the common grid of a method's runs, the page and the evidence."""

import json
import shutil

import numpy as np
import pytest
from helpers.many_runs import ITERATIONS, add_many, log_run
from helpers.result_folders import add_detection, backbone, compare_runs

from comparison import histories
from comparison.evidence.verify import verify
from comparison.histories import POINTS, average_curves, read_series

METHODS = {"CE": (0.6, 0.02), "ALS": (0.75, 0.02)}


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def constant(value, iterations, step=1):
    return np.array([(at, value) for at in range(step - 1, iterations, step)], dtype=float)


# ---- reading ------------------------------------------------------------------------------------------------------


def test_numbers_are_read_until_a_line_that_is_not_complete(tmp_path):
    path = write(tmp_path / "metrics.jsonl", [{"iteration": 0, "loss": 2.0, "lr": 0.1}, {"iteration": 9, "val_nll": 1}])
    found = read_series(path, {"loss": "", "val_nll": "", "absent": ""})
    assert {key: values.tolist() for key, values in found.items()} == {"loss": [[0, 2]], "val_nll": [[9, 1]]}
    for end in (
        '{"iteration": 10, "lo',
        '["list"]\n{"iteration": 11, "loss": 3}\n',
        '{"loss": 3}\n',
        "\x00\n",
        "[" * 50_000,
        '{"iteration": 1e3}\n',
    ):
        path.write_text('{"iteration": 0, "loss": 2.0}\n' + end)
        assert read_series(path, {"loss": ""})["loss"].tolist() == [[0, 2]]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "null", "true", '"1.5"', "[1]", "1e300", "1" + "0" * 400])
def test_a_number_that_is_not_finite_is_left_out(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"iteration": 0, "loss": {value}}}\n{{"iteration": 1, "loss": 4}}\n')
    assert read_series(path, {"loss": ""})["loss"].tolist() == [[1, 4]]


def test_of_a_large_file_lines_are_skipped_evenly_but_no_validation(tmp_path, monkeypatch):
    lines = [{"iteration": n, "loss": n} | ({"val_nll": n} if n % 100 == 99 else {}) for n in range(1000)]
    path = write(tmp_path / "metrics.jsonl", lines)
    monkeypatch.setattr(histories, "PARSED", path.stat().st_size // 4)
    found = read_series(path, {"loss": "", "val_nll": ""})
    assert found["val_nll"][:, 0].tolist() == list(range(99, 1000, 100))
    assert 200 <= len(found["loss"]) <= 260
    assert np.diff(found["loss"][:, 0]).max() <= 5


# ---- the grid -----------------------------------------------------------------------------------------------------


def test_a_curve_is_the_mean_over_runs_with_the_lowest_and_the_highest():
    runs = [constant(1.0, 300), constant(4.0, 300), constant(2.5, 300, step=2)]
    points = average_curves(runs, 299)
    assert len(points) == POINTS
    assert all(point[1:] == [2.5, 1.0, 4.0] for point in points)
    assert [point[0] for point in points] == sorted(point[0] for point in points)
    assert 0 <= points[0][0] < points[-1][0] <= 299


def test_the_values_of_an_interval_are_averaged():
    run = np.stack([np.arange(1000.0), np.arange(1000.0) ** 2], axis=1)
    points = np.array(average_curves([run], 999))
    expected = (np.arange(1000.0) ** 2).reshape(POINTS, 10).mean(axis=1)
    assert points[:, 0] == pytest.approx(np.arange(1000.0).reshape(POINTS, 10).mean(axis=1), rel=1e-4)
    assert points[:, 1] == pytest.approx(expected, rel=1e-4)
    assert (points[:, 1:] == points[:, 1:2]).all()


def test_intervals_that_a_run_lacks_are_left_out():
    points = average_curves([constant(1.0, 1000), constant(3.0, 500)], 999)
    assert len(points) == POINTS // 2
    assert points[-1][0] < 500
    assert average_curves([constant(1.0, 1)], 0) == [[0.0, 1.0, 1.0, 1.0]]
    assert average_curves([constant(1.0, 10), np.array([[99.0, 1.0]])], 99) == []


# ---- the page and the evidence ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("histories")
    runs = add_many(folder / "runs", methods=METHODS, seeds=2, images=12, logged=True)
    data = compare_runs(runs, folder / "out", "--allow-mixed-protocols", "--bundle", str(folder / "evidence.zip"))
    shutil.rmtree(runs)
    return folder, data


def test_the_page_has_curves_per_protocol_and_of_the_backbones(made):
    folder, data = made
    named = [
        (entry["stage"], entry["name"], [curve["quantity"] for curve in entry["curves"]]) for entry in data["training"]
    ]
    assert named == [
        ("pretraining", "made", ["loss", "val_nll", "train_top1", "val_top1"]),
        ("detection", "faster-rcnn@1", ["loss"]),
        ("detection", "yolo@2", ["loss"]),
    ]
    for curve in (curve for entry in data["training"] for curve in entry["curves"]):
        assert [(one["label"], one["runs"]) for one in curve["methods"]] == [("CE", 2), ("ALS", 2)]
        points = np.array(curve["methods"][0]["points"])
        assert len(points) == ITERATIONS // (100 if "val" in curve["quantity"] else 10)
        assert (points[:, 2] <= points[:, 1]).all()
        assert (points[:, 1] <= points[:, 3]).all()
    page = (folder / "out" / "index.html").read_text()
    for text in ("How the trainings went", "Backbones, validated on made", "Detectors, yolo@2", "near iteration 399"):
        assert text in page
    names = {path.name for path in (folder / "out" / "figures").iterdir()}
    assert {"training-detection-yolo_2-loss.svg", "training-pretraining-made-val_top1.pdf"} <= names


def test_the_evidence_keeps_them_without_the_logs(made):
    found = verify(made[0] / "evidence.zip")
    assert found.problems == ()


def test_a_run_without_a_log_has_none(tmp_path):
    add_detection(tmp_path / "runs", backbone("CE"), 0.8)
    log_run(add_detection(tmp_path / "runs", backbone("ALS"), 1.0), ("loss",), np.random.default_rng(0))
    [entry] = compare_runs(tmp_path / "runs", tmp_path / "one")["training"]
    assert [one["label"] for one in entry["curves"][0]["methods"]] == ["ALS"]
    shutil.rmtree(tmp_path / "runs")
    add_detection(tmp_path / "runs", backbone("CE"), 0.8)
    assert compare_runs(tmp_path / "runs", tmp_path / "none")["training"] == []
    assert "How the trainings went" not in (tmp_path / "none" / "index.html").read_text()
