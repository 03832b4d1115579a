"""Predictions that are not numbers are refused: a mean over them, or an argmax, would still look like a result."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from backbones.core.errors import InputError


def refuse_not_finite(values: np.ndarray, names: Sequence[str], model: nn.Module, what: str = "logits") -> None:
    """`InputError` names the first of n images whose values hold NaN or infinity, and the file of the network.

    Args:
        values: (n, ...) what the network gave for each image, on the host.
        names: n files (or other names) of the images.
        model: the network; one that `BackboneFile.build` made knows its file.
    """
    if np.isfinite(values).all():
        return
    wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    refuse_image(names[int(wrong[0])], model, what, f"{len(wrong)} of {len(values)}")


def refuse_image(name: str, model: nn.Module, what: str = "logits", among: str = "") -> None:
    """The `InputError` about one image."""
    origin = getattr(model, "origin", "")
    counted = f" ({among} images)" if among else ""
    if origin:
        raise InputError(
            f"{origin} gives NaN or infinite {what} for {name}{counted}: its weights are damaged or too large; "
            "name another backbone, or train it again"
        )
    # A grid of a suite takes a training that says so for one that diverged.
    raise InputError(
        f"the {what} of the network in training are not finite for {name}{counted}: it diverged; "
        "lower SOLVER.BASE_LR, clip gradients or check the data"
    )
