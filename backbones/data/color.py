"""Random changes of an image's colours, as in torchvision's ColorJitter and AlexNet's lighting.

Computed in float32 and rounded once at the end; torchvision rounds after each step, so that levels can differ by one.
"""

import numpy as np
import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # weights of red, green, blue in torchvision's conversion to grey
# Principal components of ImageNet's RGB colours in [0, 1]: variances, and directions in columns (fb.resnet.torch; the
# OLS code has the same numbers).
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_GREY, _VALUES, _VECTORS = (torch.tensor(numbers) for numbers in (GREY, EIGENVALUES, EIGENVECTORS))


class ColorChange:
    """Brightness, contrast and saturation in random order, then noise along the principal colours.

    Args:
        jitter: largest relative change a of brightness, contrast, saturation; each factor is uniform on [1 - a, 1 + a].
        lighting: standard deviation of the noise, in units of the components' variances.
    """

    def __init__(self, jitter: tuple[float, float, float], lighting: float) -> None:
        self.jitter, self.lighting = jitter, lighting

    def __bool__(self) -> bool:
        return any(self.jitter) or self.lighting > 0

    def __call__(self, rng: np.random.Generator, pixels: Tensor) -> Tensor:
        """Return (3, H, W) uint8 pixels with randomly changed colours."""
        image = pixels / 255
        if any(self.jitter):
            factors = 1 + np.array(self.jitter) * rng.uniform(-1, 1, 3)
            for change in rng.permutation(3):
                image = CHANGES[change](image, float(factors[change]))
        if self.lighting:
            noise = torch.from_numpy(rng.normal(0, self.lighting, 3).astype(np.float32))
            image = image + (_VECTORS @ (noise * _VALUES))[:, None, None]
        return image.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def adjust_brightness(image: Tensor, factor: float) -> Tensor:
    """Return image * factor, clipped, for an image (3, H, W) in [0, 1]; factor 1 changes nothing."""
    return (image * factor).clamp_(0, 1)


def adjust_contrast(image: Tensor, factor: float) -> Tensor:
    """Move pixels away from (factor > 1) or towards the mean of the grey image, clipped; 0 returns that mean."""
    mean = torch.tensordot(_GREY, image.mean(dim=(1, 2)), 1)
    return (image * factor).add_((1 - factor) * mean).clamp_(0, 1)


def adjust_saturation(image: Tensor, factor: float) -> Tensor:
    """Move pixels away from (factor > 1) or towards the grey image, clipped; 0 returns the grey image."""
    grey = torch.tensordot(_GREY, image, 1)
    return (image * factor).add_((1 - factor) * grey).clamp_(0, 1)


CHANGES = (adjust_brightness, adjust_contrast, adjust_saturation)
