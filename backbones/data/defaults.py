"""Defaults and checks of the config block DATA: the images, and how they are fed to the network.

The comments are part of the manual in backbones/config.py: meaning, unit, range, neutral value and source of every
option.
"""

from backbones.core.checks import ABOVE_0, NO_LIMIT, check_choice, check_numbers, check_range
from backbones.core.config import CfgNode
from backbones.core.errors import InputError
from backbones.core.roles import COMPARED, MACHINE, NUMBER, SEED, TEST, Block

HOLDOUT = "holdout"  # the name of the split that DATA.HOLDOUT makes
VERSIONS = ("full", "box", "mask")
# Name -> keys used only by that augmentation.
AUGMENTATIONS = {
    "random_resized_crop": ("CROP_AREA", "CROP_RATIO"),
    "pad_crop": ("PAD",),
    "resize_crop": ("RESIZE",),
    "none": (),
}

_C = Block(NUMBER)
# Class folders with ILSVRC XML: imagenet_xml (ImageNet, scenes) | tiny_imagenet | imagenet_v2 | open_images
# In memory, through torchvision: cifar10 | cifar100 | svhn | fashion_mnist
# Fine-grained: cub200 | flowers102 | stanford_cars | fgvc_aircraft
_C.NAME = "imagenet_xml"
# Folder of the data set; ~ and $VARIABLES are expanded.  The layout is described at the top of its reader.
_C.ROOT = MACHINE("")
# Split that is trained on, a name of the data set's reader; ImageNet and class folders: a subfolder of ROOT.
_C.TRAIN_SPLIT = "train"
# Metrics without a suffix are measured on this split; holdout: the part of TRAIN_SPLIT held out by HOLDOUT.
_C.VAL_SPLIT = TEST("val")
# A second validation set, with backgrounds that are independent of the class; empty: none.
_C.SHIFTED_SPLIT = TEST("")

# Number of images of TRAIN_SPLIT that are not trained on but form the split `holdout`, drawn at random (ILS App. C:
# 5000 of CIFAR, 6000 of SVHN); 0: none.
_C.HOLDOUT = 0
# Seed of this draw; -1: SEED.  A teacher with another SEED than its students needs theirs.
_C.HOLDOUT_SEED = SEED(-1)
# Samples of the training split, the same for EVERY method, so that rows stay comparable (ALS Sec. 4.1).  full: all
# images; a method that needs boxes then raises an error for an image without one | box: only images with a usable box |
# mask: one sample per object, with the other objects of the image painted with MEAN.  With box and mask, the held-out
# part also contains only images with a usable box.
_C.VERSION = "full"
# The same for VAL_SPLIT, SHIFTED_SPLIT and `holdout`; ImageNet is validated on all images, Open Images on `mask`.  With
# box and mask, `holdout` lacks those of its HOLDOUT images that have no usable box; what is trained on is unchanged.
_C.EVAL_VERSION = TEST("full")
# Largest number of training samples per class, a random choice that is the same for every run (ALS App. A.2: 50000);
# 0: all.
_C.CLASS_CAP = 0
# Share of training samples, in [0, 1], whose label is replaced with one of the other classes, drawn once before
# training (OLS Table V: 0.2 to 0.8); 0: none.  Validation labels are unchanged.
_C.NOISE_RATE = 0.0
# Seed of the label noise; -1: SEED.
_C.NOISE_SEED = SEED(-1)
# Probability, in [0, 1], that a training sample is replaced with its context, all its objects painted with MEAN; drawn
# per sample and epoch (ALS+Context: 0.15).  Required by the methods that use such samples, an error for all others; 0:
# never.
_C.CONTEXT_SHARE = COMPARED(0.0)

# Side of a training image, in pixels.
_C.IMAGE_SIZE = 224
# random_resized_crop: CROP_AREA and CROP_RATIO (ImageNet)
# pad_crop: PAD pixels around the image, then a crop of IMAGE_SIZE (CIFAR)
# resize_crop: to RESIZE x RESIZE, then a crop of IMAGE_SIZE (fine-grained data; the ratio of the sides is not kept)
# none: the whole image, resized if its size differs (SVHN)
_C.AUGMENTATION = "random_resized_crop"
# Range of a crop's share of the image area (torchvision's RandomResizedCrop).
_C.CROP_AREA = [0.08, 1.0]
# Range of a crop's width / height.
_C.CROP_RATIO = [0.75, 4 / 3]
# Black pixels on each side for pad_crop.
_C.PAD = 4
# Side in pixels for resize_crop.
_C.RESIZE = 256
# Probability of a horizontal flip, with every AUGMENTATION.
_C.FLIP = 0.5
# Largest relative change of brightness, contrast and saturation, in random order (ImageNet recipe: 0.4 each); 0: none.
_C.COLOR_JITTER = [0.0, 0.0, 0.0]
# Standard deviation of the noise along ImageNet's principal colours (AlexNet; 0.1); 0: none.
_C.LIGHTING = 0.0

# Shorter side of an image of an evaluation, in pixels, before the centre crop; 0: unchanged.
_C.EVAL_RESIZE = TEST(256)
# Side of the centre crop of an evaluation, in pixels.
_C.EVAL_CROP = TEST(224)
# Resize both sides to EVAL_RESIZE pixels, ignoring the aspect ratio (OLS's fine-grained data).
_C.EVAL_STRETCH = TEST(False)
# Mean per channel, RGB in [0, 1]; objects are painted over with this colour.
_C.MEAN = [0.485, 0.456, 0.406]
# Standard deviation per channel, RGB, in units of the range [0, 1].
_C.STD = [0.229, 0.224, 0.225]
# Loader processes; 0 loads in the training process.
_C.NUM_WORKERS = MACHINE(0)

# Smallest and largest value.
_RANGES = {
    "HOLDOUT": (0, NO_LIMIT),
    "CLASS_CAP": (0, NO_LIMIT),
    "NOISE_RATE": (0, 1),
    "NOISE_SEED": (-1, 2**31),
    "HOLDOUT_SEED": (-1, 2**31),
    "CONTEXT_SHARE": (0, 1),
    "IMAGE_SIZE": (1, NO_LIMIT),
    "PAD": (0, NO_LIMIT),
    "RESIZE": (1, NO_LIMIT),
    "FLIP": (0, 1),
    "COLOR_JITTER": (0, 1),
    "LIGHTING": (0, NO_LIMIT),
    "EVAL_RESIZE": (0, NO_LIMIT),
    "EVAL_CROP": (1, NO_LIMIT),
    "NUM_WORKERS": (0, NO_LIMIT),
    "MEAN": (0, 1),
    "STD": (ABOVE_0, 1),
}
_TRIPLES = {
    "COLOR_JITTER": ("brightness", "contrast", "saturation"),
    "MEAN": ("red", "green", "blue"),
    "STD": ("red", "green", "blue"),
}


def data_defaults() -> Block:
    """Return a fresh copy of the block."""
    return _C.clone()


def check_data(data: CfgNode) -> None:
    """Raise `InputError` with key and value for an invalid setting."""
    for key, (low, high) in _RANGES.items():
        if key in _TRIPLES:
            check_numbers(f"DATA.{key}", data[key], low, high, names=_TRIPLES[key])
        else:
            check_range(f"DATA.{key}", data[key], low, high)
    check_choice("DATA.AUGMENTATION", data.AUGMENTATION, AUGMENTATIONS)
    check_choice("DATA.VERSION", data.VERSION, VERSIONS)
    check_choice("DATA.EVAL_VERSION", data.EVAL_VERSION, VERSIONS)
    _check_crops(data)
    if data.TRAIN_SPLIT == HOLDOUT:
        raise InputError(f"DATA.TRAIN_SPLIT cannot be '{HOLDOUT}', the part that DATA.HOLDOUT takes out of it")
    if not data.ROOT:
        raise InputError("DATA.ROOT is not set; give the data set's folder, such as: DATA.ROOT /data/imagenet")


def idle_data_keys(data: CfgNode) -> list[str]:
    """Return the changed keys that belong to augmentations other than AUGMENTATION, and thus have no effect."""
    others = [key for name, keys in AUGMENTATIONS.items() if name != data.AUGMENTATION for key in keys]
    return [key for key in others if data[key] != _C[key]]


def _check_crops(data: CfgNode) -> None:
    for key in ("CROP_AREA", "CROP_RATIO"):
        pair = data[key]
        if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
            raise InputError(f"DATA.{key} must be [low, high] with 0 < low <= high, not {list(pair)}")
    if data.CROP_AREA[1] > 1:
        raise InputError(f"DATA.CROP_AREA cannot exceed the image: {list(data.CROP_AREA)}; its upper end is at most 1")
    if data.AUGMENTATION == "resize_crop" and data.IMAGE_SIZE > data.RESIZE:
        raise InputError(f"DATA.IMAGE_SIZE {data.IMAGE_SIZE} exceeds DATA.RESIZE {data.RESIZE}; raise the second")
    if data.EVAL_STRETCH and not data.EVAL_RESIZE:
        raise InputError(
            "DATA.EVAL_STRETCH True needs DATA.EVAL_RESIZE above 0, the length of both sides; set it, or EVAL_STRETCH "
            "False"
        )
    if data.EVAL_RESIZE and data.EVAL_CROP > data.EVAL_RESIZE:
        raise InputError(
            f"DATA.EVAL_CROP {data.EVAL_CROP} exceeds DATA.EVAL_RESIZE {data.EVAL_RESIZE}; "
            "raise the second or lower the first"
        )
