"""Learning rates as pure functions of the iteration."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from backbones.core.checks import check_choice
from backbones.core.errors import InputError

Schedule = Callable[[int], float]
NAMES = ("constant", "cosine", "steps")


def build_schedule(
    name: str,
    *,
    base_lr: float,
    max_iter: int,
    steps: Sequence[int] = (),
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_factor: float = 1e-3,
    final_lr: float = 0.0,
) -> Schedule:
    """Return the learning rate as a function of the 0-based iteration.

    Args:
        name: `steps` multiplies by `gamma` at each iteration of `steps`; `cosine` decays from `base_lr` to `final_lr`
            over the iterations after the warm-up; `constant` stays at `base_lr`.
        steps: increasing iterations below `max_iter`.
        warmup_iters: iterations of the linear warm-up from `warmup_factor * base_lr`.

    Raises:
        InputError: a step is at or beyond the end (it would silently have no effect), or the steps are out of order.
    """
    check_choice("learning-rate schedule", name, NAMES)
    if steps and (max(steps) >= max_iter or min(steps) <= 0 or list(steps) != sorted(set(steps))):
        raise InputError(f"STEPS {list(steps)} must increase and be between 0 and the end at {max_iter}; change them")

    def decay(iteration: int) -> float:
        if name == "steps":
            return base_lr * gamma ** bisect_right(steps, iteration)
        if name == "cosine":
            done = (iteration - warmup_iters) / max(max_iter - warmup_iters, 1)
            return final_lr + (base_lr - final_lr) * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
        return base_lr

    def schedule(iteration: int) -> float:
        if iteration < warmup_iters:
            alpha = iteration / warmup_iters
            return decay(iteration) * (warmup_factor * (1 - alpha) + alpha)
        return decay(iteration)

    return schedule
