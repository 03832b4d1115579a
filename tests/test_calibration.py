"""Calibration measures: golden vectors, identities, closed forms."""

import json

import numpy as np
import pytest

from backbones.measuring import calibration, pycalib
from backbones.measuring.calibration import calibration_metrics, ece, log_softmax, mce, reliability


def draw(n: int = 3000, classes: int = 7, sharpness: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a classifier that is somewhat right and badly calibrated, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    return sharpness * (rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels]), labels


@pytest.mark.parametrize("name", ["k2", "k10", "k100"])
def test_golden(golden, name):
    inputs = np.load(golden / "calibration_inputs.npz")
    p, labels = inputs[f"{name}_p"].astype(np.float64), inputs[f"{name}_y"]
    metrics = calibration_metrics(np.log(p), labels)
    metrics["accuracy"] = calibration.accuracy(p, labels)
    expected = json.loads((golden / "calibration_expected.json").read_text())[name]
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_log_softmax_is_finite_shift_invariant_and_normalised():
    logits = np.array([[1000.0, 0.0, -1000.0], [1e-3, 0.0, 0.0]], dtype=np.float32)
    log_p = log_softmax(logits)
    assert log_p.dtype == np.float64
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(log_softmax(logits.astype(np.float64) + 50), log_p, rtol=1e-12)


def test_topk_counts_a_hand_made_case_and_breaks_ties_by_class():
    p = np.array([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.1, 0.1, 0.8]])
    labels = np.array([1, 2, 1])
    shares = [calibration.topk_accuracy(p, labels, k) for k in (1, 2, 3)]
    assert shares == [0, 2 / 3, 1]  # the tie of row 1 goes to class 1; row 2 has label 1 third, after 2 and 0
    assert shares[0] == calibration.accuracy(p, labels)


def test_proper_scores_against_their_definitions():
    logits, labels = draw()
    p = np.exp(log_softmax(logits))
    one_hot = np.eye(p.shape[1])[labels]
    assert calibration.brier(p, labels) == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean(), abs=1e-12)
    assert calibration.nll(np.log(p), labels) == pytest.approx(-(one_hot * np.log(p)).sum(axis=1).mean(), abs=1e-12)


def test_confidence_identity():
    logits, labels = draw()
    m = calibration_metrics(log_softmax(logits), labels)
    mixture = m["top1"] * (1 - m["underconfidence"]) + (1 - m["top1"]) * m["overconfidence"]
    assert m["average_confidence"] == pytest.approx(mixture, abs=1e-12)


def test_statistics_over_nothing_are_nan():
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    all_right = calibration.confidence_statistics(p, np.array([0, 1]))
    all_wrong = calibration.confidence_statistics(p, np.array([1, 0]))
    assert np.isnan(all_right["overconfidence"])
    assert np.isnan(all_wrong["underconfidence"])
    assert all_wrong["overconfidence"] == pytest.approx(0.85)
    assert all(np.isnan(v) for v in calibration.confidence_statistics(p[:0], np.zeros(0, int)).values())


@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("bins", [1, 5, 15])
def test_ece_bounds(bins, closed):
    logits, labels = draw()
    p = np.exp(log_softmax(logits))
    gap = abs(calibration.accuracy(p, labels) - p.max(axis=1).mean())
    coarse, fine = ece(p, labels, bins, closed), ece(p, labels, 3 * bins, closed)
    assert gap <= coarse + 1e-12
    assert coarse <= fine + 1e-12  # splitting every bin cannot hide a gap
    assert coarse <= mce(p, labels, bins, closed) + 1e-12
    if bins == 1:
        assert coarse == pytest.approx(gap, abs=1e-12)


def test_which_end_of_a_bin_is_closed():
    edges = np.array([0.0, 0.25, 0.5, 1.0])
    hits = np.ones(4, dtype=bool)
    assert reliability(edges, hits, 4, "right").count.tolist() == [2, 1, 0, 1]
    assert reliability(edges, hits, 4, "left").count.tolist() == [1, 1, 1, 1]


def test_bins_without_a_gap_measure_zero():
    """Every bin's accuracy equals its confidence: no error by any standard measure, whatever the bins."""
    counts = {0.6: 10, 0.8: 20, 0.9: 40}
    confidence = np.repeat(list(counts), list(counts.values()))
    right = np.concatenate([np.arange(n) < round(c * n) for c, n in counts.items()])
    p = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.where(right, 0, 1)
    for bins in (15, 100):
        assert ece(p, labels, bins) == pytest.approx(0, abs=1e-12)
        assert mce(p, labels, bins) == pytest.approx(0, abs=1e-12)
        assert calibration.cwece(p, labels, bins) == pytest.approx(0, abs=1e-12)
    # Within the true class 0 everything is right and nothing is certain: (b) is not a calibration error.
    assert calibration.cwece_trueclass(p, labels) > 0.2


def test_a_calibrated_model_has_small_errors():
    logits, _ = draw(n=40_000)
    p = np.exp(log_softmax(logits))
    rng = np.random.default_rng(1)
    labels = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)  # drawn from the model's own distribution
    m = calibration_metrics(np.log(p), labels)
    assert m["ece15"] < 0.012  # the noise floor is about sqrt(N / n)
    assert m["cwece15"] < 0.012
    assert abs(m["average_confidence"] - m["top1"]) < 0.01


def test_classwise_errors_against_loops():
    logits, labels = draw(n=400, classes=4)
    p = np.exp(log_softmax(logits))

    def by_hand(scores, hits):
        total = 0.0
        for b in range(15):
            low, high = b / 15, (b + 1) / 15
            inside = (scores > low) & (scores <= high)
            total += abs(hits[inside].sum() - scores[inside].sum()) / len(scores)
        return total

    expected = np.mean([by_hand(p[:, k], labels == k) for k in range(4)])
    within = [by_hand(p[labels == k].max(axis=1), p[labels == k].argmax(axis=1) == k) for k in range(4)]
    assert calibration.cwece(p, labels) == pytest.approx(expected, abs=1e-12)
    assert calibration.cwece_trueclass(p, labels) == pytest.approx(np.mean(within), abs=1e-12)


def test_mce_bin_count_is_of_the_bin_that_decides():
    p = np.array([[0.95, 0.05]] * 9 + [[0.55, 0.45]])
    labels = np.array([0] * 9 + [1])
    assert mce(p, labels, 15) == pytest.approx(0.55)
    assert calibration.mce_bin_count(p, labels, 15) == 1


def test_pycalib_bins_start_at_one_over_k_and_use_nominal_centres():
    # Two classes, two bins on [0.5, 1]; pycalib's grid of "centres" is linspace(0.5 + 1/4, 1 - 1/4, 2).
    p = np.array([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.95, 0.05]])
    labels = np.array([0, 0, 0, 0])
    assert pycalib.ece_pycalib(p, labels, 2) == pytest.approx((2 * abs(0.5 - 0.75) + 2 * abs(1 - 0.75)) / 4)
    assert pycalib.mce_pycalib(p, labels, 2) == pytest.approx(0.25)
    assert np.isnan(pycalib.ece_pycalib(p[2:], labels[2:], 2))  # one class occurs: no range to bin


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_temperature_recovers_a_known_scaling(scale):
    logits, _ = draw(n=20_000, sharpness=1.0)
    p = np.exp(log_softmax(logits))
    labels = (p.cumsum(axis=1) < np.random.default_rng(2).random((len(p), 1))).sum(axis=1)
    fitted = calibration.fit_temperature(scale * logits, labels)
    assert fitted == pytest.approx(scale, rel=0.03)
    # Scaling the logits scales the optimum exactly, and the optimum beats its neighbours.
    assert fitted == pytest.approx(scale * calibration.fit_temperature(logits, labels), rel=1e-4)
    losses = [calibration.nll(log_softmax(scale * logits / t), labels) for t in (0.99 * fitted, fitted, 1.01 * fitted)]
    assert losses[1] == min(losses)


def test_temperature_stops_at_its_bounds():
    logits, labels = draw(sharpness=10.0)
    assert calibration.fit_temperature(logits, labels, bounds=(0.8, 3.0)) == pytest.approx(3.0, rel=1e-4)


def test_cross_fit_never_measures_what_it_fitted():
    logits, labels = draw(n=500)
    temperature, scaled = calibration.cross_fit_temperature(logits, labels, seed=3)
    order = np.random.default_rng(3).permutation(500)
    first, second = order[0::2], order[1::2]
    t_first = calibration.fit_temperature(logits[first], labels[first])
    t_second = calibration.fit_temperature(logits[second], labels[second])
    np.testing.assert_allclose(scaled[second], log_softmax(logits[second] / t_first), atol=1e-12)
    np.testing.assert_allclose(scaled[first], log_softmax(logits[first] / t_second), atol=1e-12)
    assert temperature == pytest.approx((t_first + t_second) / 2)
    assert (scaled.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert calibration.nll(scaled, labels) < calibration.nll(log_softmax(logits), labels)
    again = calibration.scaled_metrics(logits, labels, seed=3)
    assert again["nll_scaled"] == pytest.approx(calibration.nll(scaled, labels), abs=1e-12)


def test_every_scaled_number_is_that_of_the_scaled_probabilities():
    logits, labels = draw(n=501)
    found = calibration.scaled_metrics(logits, labels, seed=3)
    temperatures = calibration.temperatures_of(logits, labels, seed=3)
    p = np.exp(log_softmax(logits / temperatures[:, None]))
    assert found["temperature"] == pytest.approx(temperatures[np.unique(temperatures, return_index=True)[1]].mean())
    assert found["ece15_scaled"] == calibration.ece(p, labels, 15)
    assert found["cwece15_scaled"] == calibration.cwece(p, labels, 15)
    assert found["cwece15_trueclass_scaled"] == calibration.cwece_trueclass(p, labels, 15)
    assert calibration.scaled_metrics(logits, labels, seed=3, temperatures=temperatures) == found


def test_one_sample_has_no_temperature():
    assert all(np.isnan(v) for v in calibration.scaled_metrics(np.zeros((1, 3)), np.array([0])).values())


@pytest.mark.parametrize("sharpness", [0.3, 10.0])
def test_parity_bounds_change_a_temperature_only_beyond_them(sharpness):
    logits, labels = draw(n=400, sharpness=sharpness)
    found = calibration.scaled_metrics(logits, labels)
    wide, parity = found["temperature"], found["temperature_parity"]
    assert parity == pytest.approx(np.clip(wide, *calibration.PARITY_BOUNDS), rel=1e-4)
    assert parity != pytest.approx(wide, rel=0.01)
    assert found["nll_scaled_parity"] > found["nll_scaled"]


def test_temperature_of_another_split_is_measured_as_it_is():
    (fit, fit_labels), (logits, labels) = draw(n=400, seed=1), draw(n=300, seed=2)
    found = calibration.scaled_metrics(logits, labels, fit=(fit, fit_labels))
    assert found["temperature"] == calibration.fit_temperature(fit, fit_labels)
    assert found["nll_scaled"] == calibration.nll(log_softmax(logits / found["temperature"]), labels)
    assert found["nll_scaled"] > calibration.nll(
        log_softmax(logits / calibration.fit_temperature(logits, labels)), labels
    )


def test_subsets_average_to_the_whole_and_a_large_subset_is_the_whole():
    logits, labels = draw(n=2000)
    p = np.exp(log_softmax(logits))
    whole = {name: metric(p, labels) for name, metric in pycalib.PYCALIB.items()}
    assert pycalib.pycalib_metrics(p, labels, pycalib.Subsample(10, 2000))[0] == whole
    mean, deviation = pycalib.pycalib_metrics(p, labels, pycalib.Subsample(20, 1000, seed=1))
    assert mean["ece15_pycalib"] == pytest.approx(whole["ece15_pycalib"], abs=0.02)
    assert 0 < deviation["ece15_pycalib"] < 0.02
    assert mean["mce100_pycalib"] > whole["mce100_pycalib"]  # fewer samples in the bin that decides
    again, _ = pycalib.pycalib_metrics(p, labels, pycalib.Subsample(20, 1000, seed=1))
    assert again == mean
