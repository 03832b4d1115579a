"""The benchmark that counts how often the interval of a verdict covers: its detectors, its files and its criteria."""

import importlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from backbones.core.errors import InputError
from backbones.core.matches import load_matches
from comparison.resampling.draws import draw, resample_images
from detection.evaluation.coco import evaluate_coco

FOLDER = Path(__file__).parent.parent / "benchmarks"
NO_EFFECTS = {"image": 0.0, "method_image": 0.0, "seed": 0.0, "seed_image": 0.0}


@pytest.fixture(scope="module")
def load():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module


@pytest.fixture
def detectors(load):
    return load("simulated_detectors")


@pytest.fixture
def trials(load):
    return load("interval_trials")


@pytest.fixture
def coverage(load):
    return load("interval_coverage")


@pytest.fixture
def tiny(trials, monkeypatch):
    """Settings with which a cell takes a part of a second."""
    monkeypatch.setattr(trials, "IMAGES", 20)
    monkeypatch.setattr(trials, "RESAMPLES", 20)
    monkeypatch.setitem(trials.BLOCKS, "truth", 4)
    monkeypatch.setitem(trials.BLOCKS, "trials", 3)


# ---- detectors ------------------------------------------------------------------------------------------------------


def as_results(run):
    rows = zip(run.image.tolist(), run.category.tolist(), run.xywh.tolist(), run.score.tolist(), strict=True)
    return [{"image_id": i + 1, "category_id": k + 1, "bbox": box, "score": score} for i, k, box, score in rows]


def test_numbers_are_those_of_the_evaluator_and_of_the_bootstrap(detectors, trials, tmp_path):
    """The short way, at an IoU of 0.5 only and without files, changes no bit."""
    rng = np.random.default_rng(0)
    scene = detectors.draw_scene(rng, 60, trials.SMALL)
    method = detectors.draw_method(rng, scene, trials.SMALL, -1.5)  # many boxes near an IoU of 0.5
    run = detectors.draw_run(rng, scene, method, trials.SMALL)
    path = tmp_path / "other.npz"
    result = evaluate_coco(scene.tree, as_results(run), score_threshold=0.0, matches_path=path)
    value, draws = draw(load_matches(path), resamples=50, seed=3)
    assert detectors.measure(scene, run) == result["metrics"]["AP50"]
    assert value["AP50"] == pytest.approx(result["metrics"]["AP50"], abs=1e-12)
    ours = detectors.resample(scene, run, resample_images(60, resamples=50, seed=3))
    assert np.array_equal(ours, draws["AP50"])
    assert 0.1 < value["AP75"] < value["AP50"] < 0.9


def test_effects_are_those_of_the_model(detectors):
    rng = np.random.default_rng(1)
    none = detectors.Effects(shift=0.0, **NO_EFFECTS)
    scene = detectors.draw_scene(rng, 300, none)
    assert np.array_equal(detectors.draw_method(rng, scene, none, 0.3), np.full(300, detectors.QUALITY + 0.3))
    images = detectors.draw_scene(rng, 300, replace(none, image=2.0))
    a, b = (detectors.draw_method(rng, images, none, 0.0) for _ in range(2))
    assert np.array_equal(a, b)  # C = 0
    assert a.std() == pytest.approx(2, rel=0.2)
    a, b = (detectors.draw_method(rng, images, replace(none, method_image=0.5), 0.0) for _ in range(2))
    assert (a - b).std() == pytest.approx(0.5 * math.sqrt(2), rel=0.2)


def test_better_detectors_have_higher_numbers(detectors):
    rng = np.random.default_rng(2)
    none = detectors.Effects(shift=0.0, **NO_EFFECTS)
    scene = detectors.draw_scene(rng, 400, none)

    def spread(effects, quality=1.0):
        numbers = [
            detectors.measure(scene, detectors.draw_run(rng, scene, np.full(400, quality), effects)) for _ in "0" * 12
        ]
        return np.mean(numbers), np.std(numbers)

    means = [spread(none, quality)[0] for quality in (-1, 0, 1, 2)]
    assert np.all(np.diff(means) > 0.08)
    assert 0.1 < means[0] < means[-1] < 0.95
    assert spread(replace(none, seed=0.5))[1] > 2.5 * spread(none)[1]


# ---- simulations and files ------------------------------------------------------------------------------------------


def test_the_cells_are_16(trials):
    names = [cell.name for cell in trials.CELLS]
    assert len(set(names)) == len(names) == 16
    assert [cell.name for cell in trials.CELLS if cell.same] == ["shared", "same_3", "same_5", "same_10"]
    assert [cell.name for cell in trials.CELLS if cell.at_margin] == ["margin_3", "margin_5"]


def test_a_simulation_depends_on_its_number_only(trials, tiny):
    cell = trials.CELLS[0]
    streams = [np.random.SeedSequence(1, spawn_key=(n,)) for n in (0, 1, 0)]
    first, second, again = (np.array(trials.simulate(cell, stream)) for stream in streams)
    assert first.shape == (len(trials.COLUMNS),)
    assert np.array_equal(first, again, equal_nan=True)
    assert first[0] != second[0]
    one = trials.as_difference(first)
    assert one.error**2 == pytest.approx(first[4] ** 2 + first[3])  # Welch's variance and C
    assert first[6] < first[7]


def run(coverage, capsys, *arguments):
    code = coverage.main([str(argument) for argument in arguments])
    *table, line = capsys.readouterr().out.splitlines()
    return code, table, json.loads(line)


def test_a_run_resumes_with_the_same_result(coverage, trials, tiny, capsys, tmp_path):
    wanted = ("--cells", "small_2", "margin_3", "margin_5", "--simulations", 7, "--estimates", 10)
    whole = run(coverage, capsys, *wanted, "--output-dir", tmp_path / "whole")
    files = sorted((tmp_path / "whole").iterdir())
    assert len(files) == 3 * 3 + 2 * 3  # 7 simulations in threes; 10 estimates in fours, of two kinds of effects
    kept, lost, damaged = files[0], files[1], files[-1]
    before = kept.stat().st_mtime_ns
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert run(coverage, capsys, *wanted, "--output-dir", tmp_path / "whole") == whole
    assert sorted((tmp_path / "whole").iterdir()) == files
    assert kept.stat().st_mtime_ns == before
    assert run(coverage, capsys, *wanted) == whole  # without a folder
    assert [row["simulations"] for row in whole[2]["details"]["cells"]] == [7, 7, 7]
    assert len(whole[1]) == 4


def test_a_file_of_other_settings_is_replaced(trials, tiny, monkeypatch, tmp_path):
    block = trials.Block(tmp_path, "trials", trials.CELLS[0], 1)
    trials.compute_block(block)
    rows = trials.read_block(block)
    assert rows.shape == (3, len(trials.COLUMNS))
    monkeypatch.setattr(trials, "SEED", trials.SEED + 1)
    assert trials.read_block(block) is None
    trials.compute_block(block)
    assert not np.array_equal(trials.read_block(block)[:, 0], rows[:, 0])


def test_the_command_line_is_checked(coverage):
    for wrong in (["--jobs", "0"], ["--simulations", "0"], ["--estimates", "1"]):
        with pytest.raises(InputError, match="must be 1 or more"):
            coverage.main(wrong)


def test_hotcoco_is_asked_for_a_minus_b(trials, detectors, monkeypatch):
    """As its manual describes compare(): the second evaluation minus the first."""
    rng = np.random.default_rng(4)
    scene = detectors.draw_scene(rng, 10, trials.SMALL)
    method = detectors.draw_method(rng, scene, trials.SMALL, 0.0)
    a, b = (detectors.draw_run(rng, scene, method, trials.SMALL) for _ in range(2))

    class COCO:
        def __init__(self, tree):
            assert len(tree["images"]) == 10

        def load_res(self, rows):
            assert rows.dtype == np.float64
            return rows

    class COCOeval:
        def __init__(self, truth, rows, kind):
            assert isinstance(truth, COCO)
            self.rows, self.kind, self.evaluated = rows, kind, False

        def evaluate(self):
            self.evaluated = True

    def compare(first, second, n_bootstrap, seed, confidence):
        assert first.evaluated
        assert second.evaluated
        assert (first.kind, second.kind, n_bootstrap, seed, confidence) == ("bbox", "bbox", trials.RESAMPLES, 5, 0.95)
        assert np.array_equal(first.rows[:, 5], b.score)
        assert np.array_equal(second.rows[:, [0, 6]], np.stack([a.image + 1, a.category + 1], 1))
        assert np.array_equal(second.rows[:, 1:5], a.xywh)
        return {"ci": {"AP50": {"lower": -0.1, "upper": 0.2}}}

    monkeypatch.setitem(sys.modules, "hotcoco", SimpleNamespace(COCO=COCO, COCOeval=COCOeval, compare=compare))
    assert trials.hotcoco_interval(scene, a, b, 5) == (-0.1, 0.2)


# ---- criteria -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "total"), [(570, 600), (0, 600), (600, 600), (3, 7)])
def test_wilson_is_that_of_scipy(coverage, count, total):
    expected = stats.binomtest(count, total).proportion_ci(0.99, method="wilson")
    assert coverage.wilson(count, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def rows_of(*values, error=0.01, df=math.inf, welch=0.005):
    """Simulations with these differences; images only: +-0.003."""
    return np.array([[v, error, df, 0.0, welch, df, v - 0.003, v + 0.003, math.nan, math.nan] for v in values])


def test_shares_by_hand(coverage, trials):
    cell = next(cell for cell in trials.CELLS if cell.name == "margin_3")
    single = np.array([0.039, 0.041])  # the truth is 0.04: 0, 0.008, 0.015, 0.018 and 0.05 away
    row = coverage.summarise(cell, rows_of(0.04, 0.032, 0.025, 0.022, -0.01), single)
    assert row["truth"] == row["margin"] == pytest.approx(0.04)
    assert row["coverage"] == 4 / 5  # within 0.0196
    assert row["half_width"] == pytest.approx(0.0196, abs=1e-4)
    assert row["welch"] == 2 / 5  # within 0.0098
    assert row["images_only"] == 1 / 5
    assert row["hotcoco"] is None
    assert row["better_or_worse"] == 4 / 5  # 0.0196 or more from 0
    assert row["equivalence_test"] == 2 / 5  # 0.0164 or more within the margin
    assert row["equivalent"] == 1 / 5  # of these, the one that is not better
    assert row["failures"][-1] == "equivalent: more than 6.8%"


def test_what_a_cell_fails_in(coverage, trials):
    cells = {cell.name: cell for cell in trials.CELLS}

    def failures(name, covered, total=600, **others):
        numbers = {"better_or_worse": 0.05, "equivalent": 0.05, "mean": 0.001, "error": 0.001}
        found = coverage.find_failures(cells[name], {"wilson": coverage.wilson(covered, total), **numbers, **others})
        return [text.split(":")[0] for text in found]

    assert failures("small_3", 570) == failures("same_3", 570) == failures("margin_3", 570) == []
    assert failures("small_3", 530) == failures("large_10", 600) == failures("unequal", 530) == ["coverage"]
    assert failures("small_2", 530) == []
    assert failures("small_2", 520) == ["coverage"]
    assert failures("same_5", 570, better_or_worse=0.07) == failures("shared", 570, better_or_worse=0.07)
    assert failures("same_5", 570, better_or_worse=0.07) == ["better or worse"]
    assert failures("small_3", 570, better_or_worse=0.9, equivalent=0.9, mean=0.1) == []
    assert failures("margin_5", 570, better_or_worse=0.9, equivalent=0.07) == ["equivalent"]
    assert failures("same_5", 570, mean=0.005) == ["true difference"]


def test_the_exit_code_tells_a_failed_cell(coverage, trials, tiny, capsys, monkeypatch):
    wanted = ("--cells", "small_2", "--simulations", 6, "--estimates", 4)
    assert run(coverage, capsys, *wanted)[0] == 0
    monkeypatch.setattr(coverage, "COVERED_BY_TWO", (0.0, 0.001))
    code, table, result = run(coverage, capsys, *wanted)
    assert (code, result["passed"]) == (1, False)
    assert table[1].endswith("coverage: the Wilson interval does not meet 0% to 0%")


@pytest.mark.exhaustive
def test_the_interval_covers_where_images_alone_do_not(tmp_path):
    """200 simulations of 3 seeds; half of them again, in two processes."""
    command = [sys.executable, str(FOLDER / "interval_coverage.py"), "--quick", "--output-dir", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (cell,) = json.loads(first[-1])["details"]["cells"]
    assert cell["simulations"] == 200
    assert 0.91 <= cell["coverage"] <= 0.985
    assert cell["images_only"] < 0.9
    for path in sorted(tmp_path.iterdir())[::2]:
        path.unlink()
    again = subprocess.run([*command, "--jobs", "2"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert again[:-1] == first[:-1]
    assert json.loads(again[-1])["details"] == json.loads(first[-1])["details"]
