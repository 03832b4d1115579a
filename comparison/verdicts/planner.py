"""What would settle an undecided difference: more seeds, or more test images.

The half-width of the interval with S seeds per method and I images, from components measured on I0 images:

    h(S, I) = t(df) sqrt(2 (seeds + interaction I0/I) / S + 2 method_images I0/I)

A need is a criterion on the half-width: with it, a difference of exactly the measured value has a verdict.  A new
estimate of a true difference of this value lies above or below it equally often, so that the power is about 50 %; as
the half-width falls with sqrt(S), 80 % takes ((1.96 + 0.84) / 1.96)^2 = 2 times the seeds, where these limit it.

However many seeds, t sqrt(2 method_images I0/I) remains, so that some differences can only be settled by more images.
"""

import math
from dataclasses import dataclass

from comparison.verdicts.nested import Components, t_quantile
from comparison.verdicts.words import LEVEL

MOST_SEEDS, MOST_IMAGES = 50, 1000.0


@dataclass(frozen=True)
class Need:
    """What is expected to settle a difference: seeds per method, and how many times as many images (1: the same)."""

    seeds: int
    images: float = 1.0


def half_width(
    parts: Components, seeds: int, images: float = 1.0, level: float = 0.95, *, paired: bool = False
) -> float:
    """Return h for `seeds` seeds per method (at least 2) and `images` times as many images.

    paired: whether the methods share their backbones, so that S seeds give S differences instead of 2 S numbers.
    """
    over_seeds = (parts.seeds + parts.interaction / images) / seeds
    variance = 2 * over_seeds + 2 * parts.method_images / images
    if not variance:
        return 0.0
    groups = 1 if paired else 2
    df = variance**2 * (seeds - 1) * groups / (2 * over_seeds) ** 2 if over_seeds else math.inf
    return t_quantile((1 + level) / 2, df) * math.sqrt(variance)


def what_settles(
    parts: Components, value: float, margin: float, seeds: int, tests: int = 1, *, paired: bool = False
) -> Need | None:
    """Return the smallest need for an undecided difference of `value`: the interval excludes 0, or is within +-margin.

    Fewer images are never proposed, and more images only if no number of seeds suffices.  None: nothing up to
    MOST_SEEDS seeds and MOST_IMAGES times as many images does.

    Args:
        seeds: the present number per method, which did not suffice.
        tests: number of methods that are corrected together, of which this one is taken as the first (Holm).
        paired: whether the methods share their backbones; `parts` are then of this pair.
    """

    def settled(count: int, images: float) -> bool:
        excludes = half_width(parts, count, images, level=1 - LEVEL / tests, paired=paired) < abs(value)
        within = half_width(parts, count, images, level=1 - 2 * LEVEL, paired=paired) < margin - abs(value)
        return excludes or within

    for count in range(max(seeds + 1, 2), MOST_SEEDS + 1):
        if settled(count, 1.0):
            return Need(count)
    images = 1.5
    while images <= MOST_IMAGES:
        for count in range(max(seeds, 2), MOST_SEEDS + 1):
            if settled(count, images):
                return Need(count, images)
        images *= 1.5
    return None
