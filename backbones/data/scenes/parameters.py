"""Parameters of a set of scenes: every option of `tools/prepare_data.py` that changes an image."""

from dataclasses import asdict, dataclass
from typing import Any

from backbones.core.checks import check_range
from backbones.core.errors import InputError


@dataclass(frozen=True)
class SceneParameters:
    """Parameters of a set; counts are images, `val` is also the size of val_shifted; see draw_object_image."""

    seed: int = 0
    image_size: int = 64
    train: int = 8000
    val: int = 1000
    detection_train: int = 1500
    detection_val: int = 250
    correlation: float = 0.8
    share_min: float = 0.05
    share_max: float = 0.8

    def __post_init__(self) -> None:
        for name in ("seed", "train", "val", "detection_train", "detection_val"):
            check_range(f"scenes: {name}", getattr(self, name), 0)
        check_range("scenes: image_size", self.image_size, 32)  # pixels needed to show the shapes
        check_range("scenes: correlation", self.correlation, 0, 1)
        check_range("scenes: share_min", self.share_min, 0.02)  # about 9 x 9 pixels of 64 x 64
        check_range("scenes: share_max", self.share_max, self.share_min, 1)

    def drawing(self, correlation: float) -> dict[str, Any]:
        """Return the keyword arguments of `draw_object_image` for a split with this correlation."""
        return {"size": self.image_size, "correlation": correlation, "shares": (self.share_min, self.share_max)}


@dataclass(frozen=True)
class VocParameters:
    """Parameters of a set.

    tiles: 0: scenes of 512 px, the same as of `SceneParameters` with this seed; a third of their objects are below 32^2
        pixels.  n: n x n classification images of 64 px side by side, drawn at random, each with one object, on
        backgrounds that are independent of the class.  A detector learns their classes in minutes.
    """

    seed: int = 0
    train: int = 1500
    val: int = 250
    tiles: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0:
                raise InputError(f"scenes-voc: {name} is {value}; give 0 or more")
