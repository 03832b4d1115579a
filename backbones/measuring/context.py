"""Context images: objects are covered, or the whole image is uniform (Krothapalli & Abbott, Table 1).

A classifier that is right when no object is visible relies on the background; so does one that is confident, if the
scale of its logits is that of the others (temperature scaling).  Three fills:

    mean     every box of the source image is painted with the data set's mean colour, zeros for the network (as in the
             paper).  The rectangle still shows the object's aspect ratio, and networks trained with painted rectangles
             have learned them; the other fills are controls for this.
    blur     every box is blurred until only the colours of the object are left; no edge shows the box.
    uniform  the mean colour everywhere: the prediction without any content, one image per network.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from backbones.core.checks import check_choice
from backbones.data.batch import Batch
from backbones.data.evaluation_set import Cover
from backbones.data.images import resize_crop
from backbones.data.masking import mean_colour, paint_boxes
from backbones.measuring.calibration import confidence_statistics, log_softmax
from backbones.measuring.predictions import Predictions

FILLS = ("mean", "blur", "uniform")
# Standard deviation of the blur, as a share of the geometric mean of the box's sides.  A wave with the length of the
# side keeps exp(-2 pi^2 / 16) = 0.29 of its contrast, one with half that length keeps 0.007.
BLUR_SHARE = 0.25
_SCALED = "average_confidence_scaled"
NAMES = ("top1", "average_confidence", "overconfidence", "underconfidence")


def check_fills(fills: Sequence[str], key: str) -> None:
    """Raise `InputError` for an unknown fill."""
    for fill in fills:
        check_choice(key, fill, FILLS)


def build_cover(fill: str, mean: Sequence[float]) -> Cover:
    """Build the function for `EvaluationSet(cover=...)`; mean: RGB in [0, 1]."""
    return blur if fill == "blur" else partial(paint_boxes, colour=mean_colour(list(mean)))


def blur(image: np.ndarray, boxes: np.ndarray, share: float = BLUR_SHARE) -> None:
    """Replace every pixel of (H, W, 3) that a box touches with a Gaussian mean of its neighbourhood, in place.

    Every box is blurred from the original image, so that the order of boxes matters only where they overlap.

    share: standard deviation over sqrt(width height) of the box.
    """
    source = image.copy()
    for rows, columns in _touched(boxes):
        sides = rows.stop - rows.start, columns.stop - columns.start
        sigma = max(share * float(np.sqrt(sides[0] * sides[1])), 1e-3)
        margin = int(np.ceil(3 * sigma))
        top, left = max(rows.start - margin, 0), max(columns.start - margin, 0)
        region = source[top : rows.stop + margin, left : columns.stop + margin]
        smooth = _smooth(region, sigma)
        y, x = rows.start - top, columns.start - left
        inside = smooth[y : y + sides[0], x : x + sides[1]]
        image[rows, columns] = inside[: image.shape[0] - rows.start, : image.shape[1] - columns.start]


def _smooth(region: np.ndarray, sigma: float) -> np.ndarray:
    """Apply a Gaussian blur; a wide one on a smaller copy with at least 4 pixels per standard deviation, much faster.

    OpenCV is not used: its threads, once started, would make loader processes hang that are forked later.
    """
    height, width = region.shape[:2]
    factor = max(1.0, sigma / 4)
    small = _resize(region, max(1, round(width / factor)), max(1, round(height / factor)))
    scale = small.shape[0] / height, small.shape[1] / width
    small = gaussian_filter(small.astype(np.float32), (sigma * scale[0], sigma * scale[1], 0), mode="reflect")
    return _resize(small.round().astype(np.uint8), width, height)


def _resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return resize_crop(image, (0, 0, image.shape[1], image.shape[0]), width, height).permute(1, 2, 0).numpy()


def _touched(boxes: np.ndarray) -> list[tuple[slice, slice]]:
    """Return the rows and columns of the pixels that each (x0, y0, x1, y1) touches."""
    low, high = np.floor(boxes[:, :2]).astype(int).tolist(), np.ceil(boxes[:, 2:]).astype(int).tolist()
    return [(slice(y0, y1), slice(x0, x1)) for (x0, y0), (x1, y1) in zip(low, high, strict=True)]


def uniform_batch(mean: Sequence[float], side: int) -> Batch:
    """Return a batch of one image of side x side pixels in the mean colour; its label has no meaning."""
    colour = torch.tensor(mean_colour(list(mean)), dtype=torch.uint8)
    nothing = torch.zeros(1, dtype=torch.int64)
    return Batch(colour[None, :, None, None].expand(1, 3, side, side), nothing, index=nothing)


def context_metrics(fill: str, found: Predictions | None, temperatures: np.ndarray | None = None) -> dict[str, float]:
    """Return `context_*` for the fill "mean", `context_<fill>_*` for the others; nan without predictions.

    Low accuracy and confidence and high underconfidence are better.  The confidence depends on the scale of the logits,
    whatever a network relies on: "mean" also has it after temperature scaling.

    temperatures: of the images whose objects are covered (`backbones.measuring.calibration.temperatures_of`).
    """
    prefix = "context_" if fill == "mean" else f"context_{fill}_"
    names = ("average_confidence",) if fill == "uniform" else NAMES
    names = (*names, _SCALED) if fill == "mean" else names
    metrics = dict.fromkeys(names, np.nan)
    if found is not None:
        metrics |= {"top1": found.top1()} | confidence_statistics(np.exp(found.log_p), found.labels)
    if found is not None and temperatures is not None:
        metrics[_SCALED] = float(np.mean(scaled_confidence(found, temperatures)))
    return {prefix + name: metrics[name] for name in names}


def scaled_confidence(found: Predictions, temperatures: np.ndarray) -> np.ndarray:
    """Return the confidence of each prediction at the temperature of its image, `temperatures[index]`."""
    return np.exp(log_softmax(found.log_p / temperatures[found.index][:, None]).max(axis=1))
