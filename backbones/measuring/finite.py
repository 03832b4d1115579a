"""Refusal of predictions that are not finite: a mean over them, or an argmax, would still look like a result."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from backbones.core.errors import Diverged, InputError


def refuse_not_finite(values: np.ndarray, names: Sequence[str], model: nn.Module, what: str = "logits") -> None:
    """Raise `InputError` for the first of n images with NaN or infinite values, with the file of the network.

    Args:
        values: (n, ...) outputs of the network for each image, on the host.
        names: n files (or other names) of the images.
        model: the network; one built by `BackboneFile.build` holds the name of its file.
    """
    if np.isfinite(values).all():
        return
    wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    refuse_image(names[int(wrong[0])], model, what, f"{len(wrong)} of {len(values)}")


def refuse_image(name: str, model: nn.Module, what: str = "logits", among: str = "") -> None:
    """Raise the error for one image: an `InputError` for a file, `Diverged` for a network in training."""
    origin = getattr(model, "origin", "")
    counted = f" ({among} images)" if among else ""
    if origin:
        raise InputError(
            f"{origin} gives NaN or infinite {what} for {name}{counted}: its weights are damaged or too large; "
            "use another backbone, or train it again"
        )
    raise Diverged(
        f"the {what} of the network in training are not finite for {name}{counted}: it diverged; "
        "lower SOLVER.BASE_LR, clip gradients or check the data"
    )
