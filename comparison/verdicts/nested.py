"""The difference of two methods over seeds and images.

Seeds are nested in methods: seed 0 of two methods are two unrelated networks.  Images are crossed with both: all runs
are measured on the same ones.  This is the design of multi-reader multi-case studies with readers nested in treatments
(Obuchowski & Rockette 1995; Hillis 2007, 2014), with seeds as readers and images as cases.  With S_A and S_B seeds, the
sample variances s2_A and s2_B over seeds, and the covariances of two runs over image resamples,

    C      = max(cov_A + cov_B - 2 cov_AB, 0)          cov_A, cov_B: within a method, cov_AB: between the methods
    Var(D) = s2_A / S_A + s2_B / S_B + C
    df     = Var(D)^2 / [(s2_A / S_A)^2 / (S_A - 1) + (s2_B / S_B)^2 / (S_B - 1)]

and D +- t(df) sqrt(Var(D)).  s2 already contains the interaction of seed and image, so the bootstrap variance of a mean
must not be added.  Without image resamples C is 0, and this is Welch's t interval over seeds.

Where both methods have the same backbones, such as YOLOs with other class labels, the readers are crossed with the
treatments instead: the differences of the backbones form one sample, whose s2 / S and cov take the place of those
above, with S - 1 degrees of freedom if C is 0.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One number of one method.

    values: (S,) the number per seed, averaged over the fine-tunings of a seed.
    draws: (S, R) the same on R resamples of the images, which all methods share; (S, 0) without per-image data.
    images: identity of the images; samples of different images are not paired.
    tunings: per seed, the numbers of its fine-tunings.
    backbones: per seed, the hash of its weights; (): unknown.
    """

    values: np.ndarray
    draws: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    images: str = ""
    tunings: Sequence[np.ndarray] = ()
    backbones: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.draws.size:
            object.__setattr__(self, "draws", np.empty((len(self.values), 0)))
        assert self.draws.shape[0] == len(self.values)

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(self.values.mean())

    @property
    def variance(self) -> float:
        """Sample variance over seeds; 0 for a single one."""
        return float(self.values.var(ddof=1)) if self.seeds > 1 else 0.0


@dataclass(frozen=True)
class Difference:
    """Mean of method A minus mean of method B.

    error: its standard error; df: degrees of freedom of the error, inf where only images were sampled.
    over_seeds: whether the error includes the variation between seeds; otherwise it is that of these networks only.
    over_images: whether it includes the sampling of images.
    images: C above, the variance that any number of seeds leaves.
    """

    value: float
    error: float
    df: float
    over_seeds: bool
    over_images: bool
    images: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval (low, high)."""
        half = t_quantile((1 + level) / 2, self.df) * self.error
        return self.value - half, self.value + half

    def p_value(self) -> float:
        """Return the two-sided p-value of "the difference is 0"."""
        if not self.error:
            return float(self.value == 0)
        return float(2 * self._tail(abs(self.value) / self.error))

    def p_equivalent(self, margin: float) -> float:
        """Return the p-value of "the difference is at least `margin` in one direction": the larger of both tests."""
        if not self.error:
            return float(abs(self.value) >= margin)
        return float(max(self._tail((margin + side * self.value) / self.error) for side in (-1, 1)))

    def _tail(self, t: float) -> float:
        from scipy import special  # slow

        return float(special.stdtr(self.df, -t)) if math.isfinite(self.df) else float(special.ndtr(-t))


def t_quantile(share: float, df: float) -> float:
    """Return the quantile of Student's t, of the normal distribution if `df` is infinite."""
    from scipy import special  # slow

    return float(special.stdtrit(df, share)) if math.isfinite(df) else float(special.ndtri(share))


def share_backbones(a: Sample, b: Sample) -> bool:
    """Whether two methods have the same backbones, so that they differ in the fine-tuning only."""
    return bool(a.backbones) and all(a.backbones) and sorted(a.backbones) == sorted(b.backbones)


def differences_of_backbones(a: Sample, b: Sample) -> Sample:
    """Return A minus B per backbone, of methods that share them; without draws if these are of other images."""
    order = [b.backbones.index(name) for name in a.backbones]
    values = a.values - b.values[order]
    if a.images != b.images or a.draws.shape != b.draws.shape:
        return Sample(values)
    return Sample(values, a.draws - b.draws[order], a.images)


def difference(a: Sample, b: Sample) -> Difference:
    """Return A minus B; if one of them has a single seed, the error covers images only, for these networks."""
    if share_backbones(a, b):
        a = differences_of_backbones(a, b)
        b = Sample(np.zeros_like(a.values), np.zeros_like(a.draws), a.images)
    a_draws, b_draws, images = _common_draws(a, b)
    value = a.mean - b.mean
    if min(a.seeds, b.seeds) < 2:
        error = float((a_draws.mean(0) - b_draws.mean(0)).std(ddof=1)) if images else math.nan
        return Difference(value, error, math.inf, False, images, error**2)
    shared = _image_covariance(a_draws, b_draws) if images else 0.0
    parts = [sample.variance / sample.seeds for sample in (a, b)]
    total = sum(parts) + shared
    below = sum(part**2 / (sample.seeds - 1) for part, sample in zip(parts, (a, b), strict=True))
    df = total**2 / below if below > 0 else math.inf
    return Difference(value, math.sqrt(total), df, True, images, shared)


def _common_draws(a: Sample, b: Sample) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the resamples in which every run has a number; false if there are fewer than 2, or of other images."""
    if a.draws.shape[1] != b.draws.shape[1] or a.images != b.images:
        return a.draws, b.draws, False
    known = np.isfinite(a.draws).all(0) & np.isfinite(b.draws).all(0)
    return a.draws[:, known], b.draws[:, known], int(known.sum()) > 1


def _image_covariance(a: np.ndarray, b: np.ndarray) -> float:
    """Return C from draws (S_A, R) and (S_B, R)."""
    covariance = np.cov(np.concatenate([a, b]))
    own, other = covariance[: len(a), : len(a)], covariance[len(a) :, len(a) :]
    return max(_between(own) + _between(other) - 2 * float(covariance[: len(a), len(a) :].mean()), 0.0)


def _between(covariance: np.ndarray) -> float:
    """Return the mean of the entries off the diagonal: between two runs of one method."""
    count = len(covariance)
    return float((covariance.sum() - np.trace(covariance)) / (count * (count - 1)))


@dataclass(frozen=True)
class Components:
    """Variances of one number of one run, pooled over methods.

    seeds: between seeds, without the interaction: of the pretraining and, divided by their number, of its fine-tunings;
    interaction: seed x image; images: shared by the seeds of a method;
    method_images: what remains of it in the difference of two methods, per method: method x image (`kappa`).
    """

    seeds: float
    interaction: float
    images: float
    method_images: float


def components(samples: Sequence[Sample]) -> Components | None:
    """Return the components of variance, None unless at least two methods have two seeds and data of the same images.

    With the variance of a run over image resamples V, its covariance with another run of its method cov2 and of another
    method cov3: interaction V - cov2, images cov2, method_images cov2 - cov3, seeds s2 - interaction; at least 0 each.
    """
    usable = [sample for sample in samples if sample.seeds > 1 and sample.draws.shape[1] > 1]
    if len(usable) < 2 or len({sample.images for sample in usable}) > 1:
        return None
    known = np.all([np.isfinite(sample.draws).all(0) for sample in usable], axis=0)
    if known.sum() < 2:
        return None
    covariance = np.cov(np.concatenate([sample.draws[:, known] for sample in usable]))
    ends = np.cumsum([sample.seeds for sample in usable])
    group = np.repeat(np.arange(len(usable)), [sample.seeds for sample in usable])
    within = [
        _between(covariance[end - s.seeds : end, end - s.seeds : end]) for s, end in zip(usable, ends, strict=True)
    ]
    cov2, cov3 = float(np.mean(within)), float(covariance[group[:, None] != group[None]].mean())
    interaction = max(float(np.trace(covariance)) / len(covariance) - cov2, 0.0)
    s2 = float(np.mean([sample.variance for sample in usable]))
    return Components(max(s2 - interaction, 0.0), interaction, max(cov2, 0.0), max(cov2 - cov3, 0.0))


def components_of_pair(a: Sample, b: Sample) -> Components:
    """Return the components of two samples of several seeds; without data of the same images, all of it is of seeds.

    The difference then has no covariance over images either.  Of methods that share their backbones, they are half of
    those of the difference, in which what the backbones have in common cancels.
    """
    if share_backbones(a, b):
        return _components_of_differences(differences_of_backbones(a, b))
    return components([a, b]) or Components((a.variance + b.variance) / 2, 0.0, 0.0, 0.0)


def _components_of_differences(own: Sample) -> Components:
    known = own.draws[:, np.isfinite(own.draws).all(0)]
    if known.shape[1] < 2:
        return Components(own.variance / 2, 0.0, 0.0, 0.0)
    covariance = np.cov(known)
    between = max(_between(covariance), 0.0)
    interaction = max(float(np.trace(covariance)) / own.seeds - between, 0.0)
    return Components(max(own.variance - interaction, 0.0) / 2, interaction / 2, 0.0, between / 2)


def fine_tuning_variance(samples: Iterable[Sample]) -> float | None:
    """Return the variance between fine-tunings of one backbone, with their interaction with images.

    It is pooled over backbones; None if no fine-tuning is repeated.
    """
    repeated = [own for sample in samples for own in sample.tunings if len(own) > 1]
    if not repeated:
        return None
    return float(sum(own.var() * len(own) for own in repeated) / sum(len(own) - 1 for own in repeated))
