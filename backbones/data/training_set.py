"""Training data set: samples as augmented tensors.  Images stay uint8; they are normalised on the device.

Every random draw of a sample comes from `position_rng(seed, epoch, index)`, so that a sample is the same in every
process and after every restart.  Objectness is computed from the crop rectangle, never from a mask.
"""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from backbones.core.checks import check_range
from backbones.core.sampling import Position, position_rng
from backbones.data.augmentation import build_cropping
from backbones.data.color import ColorChange
from backbones.data.geometry import Crop
from backbones.data.items import Item
from backbones.data.masking import Colour, paint_boxes
from backbones.data.samples import Samples

# Streams of random numbers of a position; the image itself uses stream 0.
SECOND_VIEW, CONTEXT = 1, 2


class TrainingSet(Dataset):
    """Samples with random crop, resize, flip and colours as in torchvision; see the keys of DATA in defaults.py.

    Args:
        size: side of the crop in pixels after resizing.
        crop_area: lower and upper share of the image's area, in (0, 1].
        crop_ratio: lower and upper width / height of the crop in the source.
        flip: probability of a horizontal flip.
        needs: optional fields of the batch to fill: "objectness", "boxes", "is_context", "second_view"; other names are
            ignored, and `index` is always filled.
        augmentation: random_resized_crop (with crop_area, crop_ratio), pad_crop (pad), resize_crop (resize), none.
        color_jitter, lighting: see `ColorChange`; zeros change nothing.
        context_share: probability that all objects of a sample are painted with `context_colour` (methods.md 2.6);
            crop, flip and colours of the sample do not depend on it.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        size: int,
        crop_area: tuple[float, float],
        crop_ratio: tuple[float, float],
        flip: float,
        seed: int,
        needs: frozenset[str] = frozenset(),
        augmentation: str = "random_resized_crop",
        pad: int = 0,
        resize: int = 0,
        color_jitter: tuple[float, float, float] = (0.0, 0.0, 0.0),
        lighting: float = 0.0,
        context_share: float = 0.0,
        context_colour: Colour = (0, 0, 0),
    ) -> None:
        check_range("DATA.CONTEXT_SHARE", context_share, 0, 1)
        if needs & {"objectness", "boxes"} or context_share:
            samples.require_boxes()
        self.samples, self.flip, self.seed, self.needs = samples, flip, seed, needs
        self.crop = build_cropping(augmentation, size, area=crop_area, ratio=crop_ratio, pad=pad, resize=resize)
        self.color = ColorChange(color_jitter, lighting)
        self.context_share, self.context_colour = context_share, context_colour

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: Position) -> Item:
        epoch, index = position
        image = self.samples.load_image(index)
        label, boxes = int(self.samples.labels[index]), self.samples.boxes_of(index)
        is_context = self._is_context(position)
        if is_context:
            paint_boxes(image, boxes, self.context_colour)
        pixels, crop, flip = self._augment(position_rng(self.seed, epoch, index), image)
        size = (image.shape[1], image.shape[0])
        item = Item(pixels, label, index, self.needs, boxes, crop, flip, size, is_context)
        if "second_view" in self.needs:
            item.second_view = self._augment(position_rng(self.seed, epoch, index, SECOND_VIEW), image)[0]
        return item

    def _is_context(self, position: Position) -> bool:
        if not self.context_share:
            return False
        return position_rng(self.seed, position.epoch, position.index, CONTEXT).random() < self.context_share

    def _augment(self, rng: np.random.Generator, image: np.ndarray) -> tuple[Tensor, Crop, bool]:
        pixels, crop = self.crop(rng, image)
        flip = rng.random() < self.flip
        if flip:
            pixels = pixels.flip(2)
        return self.color(rng, pixels) if self.color else pixels, crop, flip
