"""Intervals of many numbers are those of the verdict, one by one."""

import numpy as np
import pytest
from helpers.tide_problem import tide_problem

from backbones.core.matches import load_matches
from comparison.bootstrap import interval, resample_rows
from comparison.diagnosis.intervals import bounds, weights_of
from comparison.diagnosis.per_class import per_class
from comparison.diagnosis.tide import tide
from detection.evaluation.coco import evaluate_coco


@pytest.mark.parametrize("centred", [True, False])
def test_each_interval_is_that_of_the_bootstrap(centred):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(101, 3, 4))
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    numbers[:, :, 0] = rng.normal(size=(101, 3))  # numbers in every resample
    numbers[1:, 1, 1] = np.nan  # in none
    numbers[0] = rng.normal(size=(3, 4))
    found = bounds(numbers, 0.9, centred=centred)
    for place in np.ndindex(3, 4):
        draws = numbers[(slice(1, None), *place)]
        expected = interval(float(numbers[(0, *place)]), draws, 0.9, centred=centred)
        for name, limit in expected.items():
            assert getattr(found, name)[place] == pytest.approx(limit, nan_ok=True, abs=1e-12)
    one = bounds(numbers[:, 0, 0], 0.9, centred=centred)
    assert (one.low.shape, float(one.low)) == ((), pytest.approx(found.low[0, 0]))


def test_the_resamples_are_those_of_the_verdict(tmp_path):
    path = tmp_path / "matches.npz"
    evaluate_coco(*tide_problem(1, images=20), score_threshold=0.0, matches_path=path)
    matches = load_matches(path)
    row = resample_rows([matches], resamples=30, seed=4)[0]
    weights = weights_of(matches, resamples=30, seed=4)
    for name, numbers in (("AP50", tide(matches, weights)["all"]["AP50"]), ("AP", per_class(matches, weights)["AP"])):
        mean = numbers if name == "AP50" else np.nanmean(numbers, axis=1)
        np.testing.assert_allclose(mean[1:], row.draws[name], rtol=0, atol=1e-12)
        assert mean[0] == pytest.approx(row.value[name], abs=1e-12)
