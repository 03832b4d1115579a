"""Parameters of a set of scenes: every option of `tools/prepare_data.py` that changes an image.

The help of that tool quotes `OPTIONS_OF_SCENES` and `OPTIONS_OF_VOC`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from backbones.core.checks import check_range
from backbones.core.errors import InputError

OPTIONS_OF_SCENES = {
    "seed": "seed of all images",
    "image_size": "side of a classification image in pixels, at least 32",
    "train": "number of classification images to train on",
    "val": "number of classification images in val, and as many in val_shifted",
    "detection_train": "number of detection images (512 px) to train on",
    "detection_val": "number of detection images in val",
    "correlation": "probability, in [0, 1], that an image has the background of its class; 1 / 12: independent",
    "share_min": "smallest share of a classification image in the box of its object, at least 0.02",
    "share_max": "largest share, at most 1",
}
OPTIONS_OF_VOC = {
    "seed": OPTIONS_OF_SCENES["seed"],
    "train": "number of images to train on",
    "val": "number of images in val",
    "tiles": "0: scenes of 512 px; n: n x n classification images of 64 px side by side, which are learned in minutes",
}


@dataclass(frozen=True)
class SceneParameters:
    """Parameters of a set: `OPTIONS_OF_SCENES`; see draw_object_image."""

    options: ClassVar[Mapping[str, str]] = OPTIONS_OF_SCENES

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
    """Parameters of a set: `OPTIONS_OF_VOC`.

    tiles: 0: scenes of 512 px, the same as of `SceneParameters` with this seed; a third of their objects are below 32^2
        pixels.  n: n x n classification images of 64 px side by side, drawn at random, each with one object, on
        backgrounds that are independent of the class.  A detector learns their classes in minutes.
    """

    options: ClassVar[Mapping[str, str]] = OPTIONS_OF_VOC

    seed: int = 0
    train: int = 1500
    val: int = 250
    tiles: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0:
                raise InputError(f"scenes-voc: {name} is {value}; give 0 or more")
