"""Differences over seeds and images against scipy, statsmodels, a closed-form analysis of variance, and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from comparison.verdicts.entries import NO_PRICE, Price, needs_entry
from comparison.verdicts.nested import Components, Sample, components, components_of_pair, difference
from comparison.verdicts.planner import Need, half_width, what_settles
from comparison.verdicts.words import Verdict, holm, judge, judged_together


def sample(*values):
    return Sample(np.array(values, dtype=float))


@pytest.mark.parametrize("counts", [(2, 2), (3, 3), (2, 5), (5, 2), (10, 4)])
def test_without_images_it_is_welch(counts):
    rng = np.random.default_rng(sum(counts))
    a, b = rng.normal(0.4, 0.02, counts[0]), rng.normal(0.42, 0.05, counts[1])
    ours, welch = difference(Sample(a), Sample(b)), stats.ttest_ind(a, b, equal_var=False)
    assert ours.value == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    assert ours.df == pytest.approx(welch.df, rel=1e-12)
    assert ours.p_value() == pytest.approx(welch.pvalue, rel=1e-9)
    assert ours.interval(0.9) == pytest.approx(tuple(welch.confidence_interval(0.9)), rel=1e-9)
    assert (ours.over_seeds, ours.over_images, ours.images) == (True, False, 0.0)


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("shift", [0.0, 0.02, -0.3])
def test_equivalence_is_that_of_two_one_sided_tests(margin, shift):
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 0.03, 6), rng.normal(shift, 0.05, 4)
    expected = weightstats.ttost_ind(a, b, -margin, margin, usevar="unequal")[0]
    assert difference(Sample(a), Sample(b)).p_equivalent(margin) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", [[0.01], [0.04, 0.01, 0.03], [0.5, 0.5, 0.001, 0.02], [0.9, 0.8, 1.0]])
def test_holm(p):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert list(holm(np.array(p))) == pytest.approx(list(multitest.multipletests(p, method="holm")[1]), rel=1e-12)


def test_holm_by_hand():
    assert list(holm(np.array([0.04, 0.01, 0.03]))) == pytest.approx([0.06, 0.03, 0.06])
    assert not holm(np.array([])).size


def two_methods(rng, seeds, images, *, seed, interaction, method_image, image, shift=0.0):
    """A mean over images of y = method + image + method x image + seed + seed x image, per image (methods, S, I)."""
    shared = rng.normal(0, image, images)
    return [
        shift * number
        + shared
        + rng.normal(0, method_image, images)
        + rng.normal(0, seed, (seeds, 1))
        + rng.normal(0, interaction, (seeds, images))
        for number in range(2)
    ]


def as_sample(values, weights):
    return Sample(values.mean(1), values @ weights.T / values.shape[1])


def test_a_mean_agrees_with_the_closed_form():
    """For a mean, the bootstrap covariance of two runs is their covariance over images / I."""
    rng = np.random.default_rng(1)
    y = two_methods(rng, 3, 4000, seed=0.02, interaction=0.5, method_image=0.3, image=1.0, shift=0.1)
    weights = rng.multinomial(4000, np.full(4000, 1 / 4000), size=6000)
    ours = difference(*(as_sample(one, weights) for one in y))
    covariance = np.cov(np.concatenate(y)) / 4000
    own = [covariance[:3, :3], covariance[3:, 3:]]
    within = [(one.sum() - np.trace(one)) / 6 for one in own]
    closed = sum(within) - 2 * covariance[:3, 3:].mean()
    assert ours.images == pytest.approx(closed, rel=0.08)  # 6,000 resamples
    expected = sum(one.mean(1).var(ddof=1) / 3 for one in y) + ours.images
    assert ours.error**2 == pytest.approx(expected, rel=1e-12)
    below = sum((one.mean(1).var(ddof=1) / 3) ** 2 / 2 for one in y)
    assert ours.df == pytest.approx(expected**2 / below, rel=1e-12)


def test_components_are_those_of_the_simulation():
    rng = np.random.default_rng(2)
    true = {"seed": 0.03, "interaction": 0.9, "method_image": 0.6, "image": 1.0}
    y = two_methods(rng, 60, 1000, **true)
    weights = rng.multinomial(1000, np.full(1000, 1 / 1000), size=3000)
    found = components([as_sample(one, weights) for one in y])
    assert found is not None
    assert found.seeds == pytest.approx(true["seed"] ** 2, rel=0.35)  # 120 seeds
    assert found.interaction == pytest.approx(true["interaction"] ** 2 / 1000, rel=0.1)
    assert found.images == pytest.approx((true["image"] ** 2 + true["method_image"] ** 2) / 1000, rel=0.1)
    assert found.method_images == pytest.approx(true["method_image"] ** 2 / 1000, rel=0.1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_of_a_mean(seeds):
    """Over 400 simulations of a true difference of 0.1, the 95 % interval covers it; images alone do not."""
    rng = np.random.default_rng(seeds)
    covered = images_only = 0
    for _ in range(400):
        y = two_methods(rng, seeds, 60, seed=0.15, interaction=0.3, method_image=0.5, image=1.0, shift=0.1)
        weights = rng.multinomial(60, np.full(60, 1 / 60), size=200)
        a, b = (as_sample(one, weights) for one in y)
        low, high = difference(b, a).interval()
        covered += low <= 0.1 <= high
        draws = b.draws.mean(0) - a.draws.mean(0)
        low, high = np.quantile(draws - draws.mean() + b.mean - a.mean, [0.025, 0.975])
        images_only += low <= 0.1 <= high
    assert 0.915 <= covered / 400 <= 0.985
    assert images_only / 400 < 0.9


def test_one_seed_counts_images_only():
    rng = np.random.default_rng(3)
    draws = rng.normal(0.4, 0.01, (1, 500)), rng.normal(0.42, 0.01, (1, 500))
    ours = difference(Sample(np.array([0.4]), draws[0]), Sample(np.array([0.42]), draws[1]))
    assert (ours.over_seeds, ours.over_images, ours.df) == (False, True, math.inf)
    assert ours.error == pytest.approx((draws[0] - draws[1]).std(ddof=1))
    assert not math.isfinite(difference(sample(0.4), sample(0.5)).error)  # nothing is known


def test_no_division_by_zero():
    same = sample(0.5, 0.5, 0.5)
    ours = difference(same, same)
    assert (ours.value, ours.error, ours.p_value(), ours.p_equivalent(0.01)) == (0.0, 0.0, 1.0, 0.0)
    assert ours.interval() == (0.0, 0.0)
    other = difference(sample(0.7, 0.7), same)
    assert (other.p_value(), other.p_equivalent(0.01)) == (0.0, 1.0)
    draws = np.full((3, 10), 0.5)
    assert difference(Sample(same.values, draws), Sample(same.values, draws)).error == 0.0
    assert half_width(Components(0, 0, 0, 0), 3) == 0.0
    assert half_width(Components(0, 0, 0, 1e-4), 3) == pytest.approx(1.96 * math.sqrt(2e-4), rel=1e-3)
    assert components([same, same]) is None


def test_resamples_without_a_number_are_left_out():
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.4, 0.01, (2, 3, 100))
    whole = difference(Sample(a.mean(1), a[:, 10:]), Sample(b.mean(1), b[:, 10:]))
    broken = a.copy()
    broken[0, :10] = math.nan
    assert difference(Sample(a.mean(1), broken), Sample(b.mean(1), b)) == whole


# ---- words ----------------------------------------------------------------------------------------------------------


def words(*differences, seeds=3, **options):
    return [one.word for one in judge(differences, seeds=[seeds] * len(differences), **options)]


def test_words():
    base = sample(0.40, 0.41, 0.405)
    better, worse = difference(sample(0.50, 0.51, 0.505), base), difference(sample(0.30, 0.31, 0.305), base)
    near = difference(sample(0.401, 0.411, 0.404), base)
    assert words(better, worse, near, None) == ["better", "worse", "not distinguishable", "identical"]
    assert words(better, worse, higher_is_better=False) == ["worse", "better"]
    assert words(near, margin=0.05) == ["equivalent"]
    assert words(better, seeds=2) == [""]  # too few seeds for a verdict
    assert words(difference(sample(0.5), sample(0.4))) == [""]


def test_a_correction_for_many_methods():
    """p = 0.02 alone is better; among five it is not, unless the others are as clear."""
    base = sample(0.0, 1.0, 2.0, 3.0)
    one = next(
        d for d in (difference(sample(*(base.values + x)), base) for x in np.arange(0, 9, 0.05)) if d.p_value() < 0.02
    )
    unclear = difference(base, base)
    assert words(one) == ["better"]
    assert words(one, unclear, unclear, unclear, unclear)[0] == "not distinguishable"


# ---- planning -------------------------------------------------------------------------------------------------------


def test_methods_with_too_few_seeds_are_not_corrected_for():
    """p and price of a method are those without the two that cannot have a word: one and two seeds."""
    base = sample(0.40, 0.41, 0.405)
    found = [difference(sample(*values), base) for values in ((0.41, 0.42, 0.409), (0.5, 0.51), (0.3,))]
    assert judged_together(found, [3, 2, 1]) == [0]
    assert judged_together([*found, None, found[0]], [3, 2, 1, 3, 5]) == [0, 4]
    first, second, third = judge(found, seeds=[3, 2, 1])
    assert first == judge(found[:1], seeds=[3])[0]
    assert first.adjusted == found[0].p_value()
    assert second == third == Verdict("")


def test_two_samples_without_common_images_have_seeds_only():
    """The plan of a Welch test: both variances, 0.0004 and 0.0016, in the mean."""
    a, b = sample(0.40, 0.42, 0.44), sample(0.50, 0.54, 0.58)
    assert components([a, b]) is None
    parts = components_of_pair(a, b)
    assert parts == Components(pytest.approx(0.001), 0.0, 0.0, 0.0)
    assert half_width(parts, 3) == pytest.approx(stats.t.ppf(0.975, 4) * math.sqrt(2 * 0.001 / 3))
    drawn = [Sample(one.values, np.random.default_rng(n).normal(size=(3, 50)), "x") for n, one in enumerate((a, b))]
    assert components_of_pair(*drawn) == components(drawn)


def on_shared_backbones(rng, seeds, draws=0):
    """Return two methods on the same backbones, the second one in another order; what they share is large."""
    shared, names = rng.normal(0.5, 0.1, seeds), tuple(f"weights {n}" for n in range(seeds))
    a, b = (shared + rng.normal(0, 0.01, seeds) for _ in range(2))
    noise = rng.normal(0, 0.01, (2, seeds, draws))
    order = np.roll(np.arange(seeds), 1)
    own = Sample(a, a[:, None] + noise[0], "x", backbones=names)
    return own, Sample(b[order], (b[:, None] + noise[1])[order], "x", backbones=tuple(names[n] for n in order))


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_methods_on_the_same_backbones_are_paired(seeds):
    a, b = on_shared_backbones(np.random.default_rng(seeds), seeds)
    order = [b.backbones.index(name) for name in a.backbones]
    ours, paired = difference(a, b), stats.ttest_rel(a.values, b.values[order])
    assert ours.value == pytest.approx(a.mean - b.mean)
    assert ours.df == pytest.approx(seeds - 1)
    assert ours.p_value() == pytest.approx(paired.pvalue, rel=1e-9)
    assert ours.interval(0.9) == pytest.approx(tuple(paired.confidence_interval(0.9)), rel=1e-9)
    apart = difference(Sample(a.values), Sample(b.values))
    assert apart.error > 3 * ours.error


def test_images_of_paired_methods_add_the_covariance_of_their_differences():
    a, b = on_shared_backbones(np.random.default_rng(0), 4, draws=500)
    order = [b.backbones.index(name) for name in a.backbones]
    d, draws = a.values - b.values[order], a.draws - b.draws[order]
    covariance = np.cov(draws)
    between = max((covariance.sum() - np.trace(covariance)) / 12, 0.0)
    one = difference(a, b)
    assert one.images == pytest.approx(between)
    assert one.error**2 == pytest.approx(d.var(ddof=1) / 4 + between)
    parts = components_of_pair(a, b)
    interaction = np.trace(covariance) / 4 - between
    expected = (max(d.var(ddof=1) - interaction, 0) / 2, interaction / 2, 0.0, between / 2)
    assert (parts.seeds, parts.interaction, parts.images, parts.method_images) == pytest.approx(expected)


def test_backbones_that_are_only_partly_shared_are_not_paired():
    a, b = on_shared_backbones(np.random.default_rng(1), 4)
    fewer = Sample(b.values[:3], backbones=b.backbones[:3])
    unknown = Sample(b.values, backbones=("", *b.backbones[1:]))
    for other in (fewer, unknown):
        assert difference(a, other) == difference(Sample(a.values), Sample(other.values))


def test_paired_methods_need_the_seeds_of_a_paired_test():
    a, b = on_shared_backbones(np.random.default_rng(2), 5)
    parts, one = components_of_pair(a, b), difference(a, b)
    assert half_width(parts, 5, paired=True) == pytest.approx(stats.t.ppf(0.975, 4) * one.error)
    need = what_settles(parts, 0.01, 0.0, seeds=3, paired=True)
    assert need is not None
    d = one.error * math.sqrt(5)

    def reach(seeds):
        return stats.t.ppf(0.975, seeds - 1) * d / math.sqrt(seeds)

    assert reach(need.seeds) < 0.01 <= reach(need.seeds - 1)


def test_shared_backbones_are_paid_once():
    need, price = Need(10), Price(seed=1.0, tuning=0.25)
    assert needs_entry(need, (3, 5), price)["hours"] == pytest.approx(7 + 5)
    assert needs_entry(need, (3, 3), price, shared=True)["hours"] == pytest.approx(7 * (0.75 + 2 * 0.25))
    assert needs_entry(need, (3, 3), Price(1.0), shared=True)["hours"] == pytest.approx(14)  # an upper bound
    assert needs_entry(need, (3, 3), NO_PRICE, shared=True)["hours"] is None
    assert needs_entry(Need(3, images=2.0), (3, 3), price)["hours"] is None


def test_half_width_is_that_of_an_interval_with_these_components():
    parts, rng = Components(4e-4, 1e-4, 2e-4, 5e-5), np.random.default_rng(5)
    for seeds in (2, 3, 8):
        measured = []
        for _ in range(400):
            values = [rng.normal(0, math.sqrt(parts.seeds + parts.interaction), seeds) for _ in range(2)]
            one = difference(*map(Sample, values))
            measured.append(one.error**2 + 2 * parts.method_images)
        expected = 2 * (parts.seeds + parts.interaction) / seeds + 2 * parts.method_images
        assert np.mean(measured) == pytest.approx(expected, rel=0.15)
        assert half_width(parts, seeds) > 1.96 * math.sqrt(expected) * 0.999


def test_what_settles_has_a_power_of_a_half_and_twice_the_seeds_of_eighty_percent():
    """As the page says: of differences that come out around the true one, which is the measured one."""
    parts, true = Components(4e-4, 0, 1e-4, 0), 0.012
    need = what_settles(parts, true, 0.0, seeds=3)
    assert need is not None
    for seeds, low, high in ((need.seeds, 0.48, 0.56), (2 * need.seeds, 0.77, 0.85)):
        error = math.sqrt(2 * (parts.seeds + parts.interaction) / seeds)
        df = 2 * (seeds - 1)
        power = stats.nct.sf(stats.t.ppf(0.975, df), df, true / error)
        assert low < power < high


def test_what_settles_a_difference():
    noisy_seeds = Components(4e-4, 0, 0, 1e-6)
    need = what_settles(noisy_seeds, 0.02, 0.005, seeds=3)
    assert need is not None
    assert need.images == 1.0
    assert half_width(noisy_seeds, need.seeds) < 0.02 <= half_width(noisy_seeds, need.seeds - 1)
    few_images = Components(1e-6, 0, 0, 4e-4)
    need = what_settles(few_images, 0.02, 0.005, seeds=3)
    assert need is not None
    assert need.images > 1
    assert half_width(few_images, 50) > 0.02  # no number of seeds does it
    assert half_width(few_images, need.seeds, need.images) < 0.02
    assert what_settles(Components(1e-8, 0, 0, 1e-8), 0.02, 0.005, seeds=3) == Need(4)  # 3 did not suffice
    assert what_settles(Components(1.0, 0, 0, 1.0), 1e-9, 0.0, seeds=3) is None
    need = what_settles(noisy_seeds, 0.02, 0.0, seeds=3, tests=5)  # corrected for five methods
    assert need is not None
    assert half_width(noisy_seeds, need.seeds, level=0.99) < 0.02 <= half_width(noisy_seeds, need.seeds - 1, level=0.99)
