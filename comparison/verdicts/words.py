"""The verdict on a method against the baseline, in words.

The tests over several methods are corrected together by Holm's method; the word depends on the primary number only,
which is named before the runs.  All other numbers are exploratory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from comparison.verdicts.nested import Difference

BETTER, WORSE, EQUIVALENT, IDENTICAL = "better", "worse", "equivalent", "identical"
UNDECIDED = "not distinguishable"
LEVEL = 0.05
MARGIN = 0.005  # half an AP point
SEEDS_FOR_A_VERDICT = 3


@dataclass(frozen=True)
class Verdict:
    """The word on a method, and what it rests on.

    word: one of the five above; "" if there are fewer than SEEDS_FOR_A_VERDICT seeds.
    level: of both tests.
    adjusted: Holm-adjusted p-value of "no difference"; equivalent: p-value of "at least the margin apart".  None for
        methods that are not tested: identical ones, and those with too few seeds.
    """

    word: str
    adjusted: float | None = None
    equivalent: float | None = None
    level: float = LEVEL


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p values for m tests (Holm 1979): the i-th smallest times m - i + 1, made monotone, at most 1."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = steps.clip(max=1)
    return adjusted


def judged_together(differences: Sequence[Difference | None], seeds: Sequence[int]) -> list[int]:
    """Return the indices of the methods that are tested, and corrected together; the arguments are those of `judge`."""
    return [
        index
        for index, (one, count) in enumerate(zip(differences, seeds, strict=True))
        if one is not None and one.over_seeds and count >= SEEDS_FOR_A_VERDICT
    ]


def judge(
    differences: Sequence[Difference | None],
    *,
    higher_is_better: bool = True,
    margin: float = MARGIN,
    seeds: Sequence[int],
) -> list[Verdict]:
    """Return the verdicts on methods from their differences to the baseline; None: identical detections.

    Args:
        margin: largest difference that does not matter, in the units of the number.
        seeds: the number of seeds of each method, or of the baseline if that has fewer.
    """
    tested = judged_together(differences, seeds)
    p_values = np.array([_known(differences[index]).p_value() for index in tested])
    adjusted = dict(zip(tested, map(float, holm(p_values)), strict=True))
    verdicts = []
    for index, one in enumerate(differences):
        if one is None:
            verdicts.append(Verdict(IDENTICAL))
        elif index not in adjusted:
            verdicts.append(Verdict(""))
        else:
            p, apart = adjusted[index], one.p_equivalent(margin)
            verdicts.append(Verdict(_word(one.value if higher_is_better else -one.value, p, apart), p, apart))
    return verdicts


def _word(gain: float, p: float, apart: float) -> str:
    if p < LEVEL:
        return BETTER if gain > 0 else WORSE
    return EQUIVALENT if apart < LEVEL else UNDECIDED


def _known(one: Difference | None) -> Difference:
    assert one is not None
    return one
