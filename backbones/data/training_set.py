"""Samples to augmented tensors for training.  Pictures stay uint8: the device normalises them.

Every random draw of a sample comes from `position_rng(seed, epoch, index)`, so a sample is the same whichever process
loads it and after whatever restart.  Objectness is computed from the crop rectangle, never from a mask.
"""

from torch.utils.data import Dataset

from backbones.core.errors import InputError
from backbones.core.pictures import decode_picture
from backbones.core.sampling import Position, position_rng
from backbones.data.geometry import sample_crop
from backbones.data.images import resize_crop
from backbones.data.items import Item
from backbones.data.samples import Samples


class TrainingSet(Dataset):
    """Random crop, resize and flip, as torchvision's RandomResizedCrop and RandomHorizontalFlip.

    Args:
        size: side of the crop in pixels after resizing.
        crop_area: share of the picture's area, low and high, in (0, 1].
        crop_ratio: width / height of the crop in the source, low and high.
        flip: probability of a horizontal flip.
        needs: optional fields of the batch to fill: "objectness", "boxes"; `index` always is.
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
    ) -> None:
        if not 0 < crop_area[0] <= crop_area[1] <= 1:
            raise InputError(f"DATA.CROP_AREA {list(crop_area)}: must be a range within (0, 1]")
        if not 0 < crop_ratio[0] <= crop_ratio[1]:
            raise InputError(f"DATA.CROP_RATIO {list(crop_ratio)}: must be a range of positive numbers")
        if needs & {"objectness", "boxes"}:
            samples.require_boxes()
        self.samples, self.size, self.flip, self.seed, self.needs = samples, size, flip, seed, needs
        self.crop_area, self.crop_ratio = crop_area, crop_ratio

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: Position) -> Item:
        epoch, index = position
        rng = position_rng(self.seed, epoch, index)
        image = decode_picture(self.samples.paths[index])
        crop = sample_crop(rng, image.shape[1], image.shape[0], self.crop_area, self.crop_ratio)
        flip = rng.random() < self.flip
        pixels = resize_crop(image, crop, self.size, self.size)
        if flip:
            pixels = pixels.flip(2)
        label, boxes = int(self.samples.labels[index]), self.samples.boxes_of(index)
        return Item(pixels, label, index, self.needs, boxes, crop, flip, (image.shape[1], image.shape[0]))
