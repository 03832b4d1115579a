"""Differences, verdicts and components of variance as entries of comparison.json; its schema describes every key."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from comparison.verdicts.nested import Components, Difference
from comparison.verdicts.planner import Need
from comparison.verdicts.words import Verdict

_IDENTICAL = {
    "value": 0.0, **dict.fromkeys(("low", "high", "error", "df", "p")), "over_seeds": False, "over_images": False,
}  # fmt: skip


def difference_entry(one: Difference | None, level: float) -> dict[str, Any]:
    """Return the entry of a difference with its interval of this level; an infinite df becomes None.

    one: None: of identical detections, which are not tested.
    """
    if one is None:
        return dict(_IDENTICAL)
    low, high = one.interval(level)
    df = one.df if math.isfinite(one.df) else None
    return {
        "value": one.value, "low": low, "high": high, "error": one.error, "df": df,
        "p": one.p_value(), "over_seeds": one.over_seeds, "over_images": one.over_images,
    }  # fmt: skip


def verdict_entry(verdict: Verdict, needs: dict[str, Any] | None, metric: str, margin: float) -> dict[str, Any]:
    """Return the entry of the verdict on a number; needs: of `needs_entry`, None unless undecided."""
    return {
        "metric": metric, "word": verdict.word, "p": verdict.adjusted, "p_equivalent": verdict.equivalent,
        "margin": margin, "level": verdict.level, "needs": needs,
    }  # fmt: skip


@dataclass(frozen=True)
class Price:
    """Hours of runs.

    seed: of one more seed of one method; tuning: those of them that its fine-tuning takes.  None: unknown.
    """

    seed: float | None = None
    tuning: float | None = None


NO_PRICE = Price()


def needs_entry(
    need: Need | None, present: tuple[int, int], price: Price, *, shared: bool = False
) -> dict[str, Any] | None:
    """Return the entry of what would settle a difference, None if nothing would.

    Args:
        present: seeds that the method and the baseline have.
        price: of the missing seeds; runs on more images have none.
        shared: whether both have the same backbones, each of which is then trained once; without the hours of a
            fine-tuning, the price is that of two trainings, an upper bound.
    """
    if need is None:
        return None
    missing = [max(need.seeds - seeds, 0) for seeds in present]
    hours = None
    if price.seed is not None and need.images == 1:
        known = shared and price.tuning is not None
        again = (sum(missing) - max(missing)) * (price.seed - (price.tuning or 0)) if known else 0.0
        hours = sum(missing) * price.seed - again
    return {"seeds": need.seeds, "images": need.images, "hours": hours}


def variance_entry(
    protocol: str | None, metric: str, parts: Components | None, fine_tuning: float | None, *, shared: bool = False
) -> dict[str, Any]:
    """Return the components of variance of one run under a protocol, None where they are unknown.

    shared: whether methods share their backbones.
    """
    known = asdict(parts) if parts else dict.fromkeys(field.name for field in fields(Components))
    return {"protocol": protocol, "metric": metric, "fine_tuning": fine_tuning, "shared_backbones": shared, **known}
