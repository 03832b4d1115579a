"""Time loading of images against torchvision's reference pipeline, on real JPEGs and one core.

    OMP_NUM_THREADS=1 python benchmarks/loader.py [--images FOLDER] [--annotations COCO.json] [--repeats N]

Both sides produce the same normalised float batch of 224 px from files, with crops of 8 to 100 % of the area: ours
decodes with OpenCV, resizes and flips bytes and normalises the batch; the reference is RandomResizedCrop on PIL,
RandomHorizontalFlip, ToTensor, Normalize.  Ratios compare images per second of this process's CPU time.  The variants
take turns on small batches and a ratio is the median over all batches, so that a busy machine affects only a few.

    ours_over_torchvision   target >= 1.25
    objectness              speed with objectness over speed without; target >= 0.98
    parity                  mean absolute difference of equal crops, in 1/255; must be <= 2

About 25 s on one core.
"""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.images import decode_image
from backbones.core.sampling import Position, position_rng
from backbones.data.geometry import sample_crop
from backbones.data.images import normalize, resize_crop
from backbones.data.items import collate
from backbones.data.samples import Samples, build_samples
from backbones.data.training_set import TrainingSet

ROOT = Path(__file__).resolve().parent.parent
SIZE, AREA, RATIO, BATCH = 224, (0.08, 1.0), (3 / 4, 4 / 3), 8
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
PARITY_LIMIT = 2.0

LoadBatch = Callable[[Sequence[int], int], Tensor]  # indices, epoch -> (B, 3, 224, 224) float32


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; the last line is JSON."""
    args = parse_arguments(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    samples = read_samples(args.images, args.annotations)
    difference = pixel_difference(samples)
    print(f"{len(samples)} images; mean absolute difference of equal crops: {difference:.4f} / 255")
    if difference > PARITY_LIMIT:
        raise InputError(f"crops differ from PIL's by {difference:.2f} / 255, more than {PARITY_LIMIT}; not comparable")
    times = measure(build_variants(samples), len(samples), args.repeats)
    milliseconds = {name: 1e3 * seconds.sum() / (args.repeats * len(samples)) for name, seconds in times.items()}
    ratios = {
        "ours_over_torchvision": float(np.median(times["torchvision"] / times["ours"])),
        "objectness": float(np.median(times["ours"] / times["ours_objectness"])),
    }
    details = {"ms_per_image": milliseconds, "parity_255": difference, "images": len(samples)}
    result = {"benchmark": "loader", "ratios": ratios, "device": "cpu, 1 thread", "details": details}
    print(json.dumps(result))


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    shared = Path(os.environ.get("SMOOTH2DET_SHARED", ROOT.parent / "shared")) / "data/coco128"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=shared / "train2017", help="folder of JPEGs")
    parser.add_argument("--annotations", type=Path, help="COCO json with their boxes; default: one box per image")
    parser.add_argument("--repeats", type=int, default=15, help="passes over the images")
    args = parser.parse_args(arguments)
    if args.annotations is None and args.images == shared / "train2017":
        args.annotations = shared / "annotations/instances_train2017.json"
    return args


def read_samples(images: Path, annotations: Path | None) -> Samples:
    """Return the images of a folder, each with the boxes of its most frequent category."""
    paths = sorted(images.glob("*.jpg")) + sorted(images.glob("*.JPEG"))
    if annotations:
        boxes_of = read_coco_boxes(annotations)
        paths = [path for path in paths if path.name in boxes_of]
        boxes = [boxes_of[path.name] for path in paths]
    else:
        boxes = [np.array([[100.0, 100, 300, 300]]) for _ in paths]
    if not paths:
        raise InputError(f"no JPEG in {images}; give --images FOLDER, or set SMOOTH2DET_SHARED")
    names = [path.name for path in paths]
    return build_samples(
        paths=[str(path) for path in paths],
        relative=names,
        labels=np.zeros(len(paths)),
        sizes=None,
        boxes=boxes,
        classes=["object"],
        name="loader benchmark",
        split="all",
        display_names=["object"],
    )


def read_coco_boxes(annotations: Path) -> dict[str, np.ndarray]:
    """Read file name -> (m, 4) boxes of the most frequent category of the image."""
    data = load_json(annotations)
    boxes = {}
    for image in data["images"]:
        own = [a for a in data["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        if own:
            most = Counter(a["category_id"] for a in own).most_common(1)[0][0]
            corners = np.array([a["bbox"] for a in own if a["category_id"] == most])
            corners[:, 2:] += corners[:, :2]
            boxes[image["file_name"]] = corners
    return boxes


def build_variants(samples: Samples) -> dict[str, LoadBatch]:
    """Return the loaders to time, by name."""
    return {
        "ours": our_loader(samples, frozenset()),
        "ours_objectness": our_loader(samples, frozenset({"objectness"})),
        "torchvision": torchvision_loader(samples),
    }


def our_loader(samples: Samples, needs: frozenset[str]) -> LoadBatch:
    """Return our loader: `TrainingSet`, and the normalisation of the training step."""
    dataset = TrainingSet(samples, size=SIZE, crop_area=AREA, crop_ratio=RATIO, flip=0.5, seed=0, needs=needs)

    def load(indices: Sequence[int], epoch: int) -> Tensor:
        return normalize(collate([dataset[Position(epoch, i)] for i in indices]).images, MEAN, STD)

    return load


def torchvision_loader(samples: Samples) -> LoadBatch:
    """Return torchvision's reference classification pipeline (references/classification/presets.py, PIL backend)."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=AREA, ratio=RATIO),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN.tolist(), STD.tolist()),
        ]
    )

    def read(path: str) -> Tensor:
        with open(path, "rb") as file:
            return transform(Image.open(file).convert("RGB"))

    return lambda indices, epoch: torch.stack([read(samples.paths[i]) for i in indices])


def measure(variants: dict[str, LoadBatch], length: int, repeats: int) -> dict[str, np.ndarray]:
    """Return the CPU seconds of every batch in `repeats` passes over the images by variant, after a warm-up pass."""
    names, seconds = list(variants), {name: [] for name in variants}
    for epoch in range(repeats + 1):
        for low in range(0, length, BATCH):
            # Rotate the order, so that no variant always reads files that another has just cached.
            turn = (epoch + low // BATCH) % len(names)
            for name in names[turn:] + names[:turn]:
                started = time.process_time()
                variants[name](range(low, min(low + BATCH, length)), epoch)
                seconds[name].append(time.process_time() - started)
    warm_up = -(-length // BATCH)
    return {name: np.array(values[warm_up:]) for name, values in seconds.items()}


def pixel_difference(samples: Samples) -> float:
    """Return the mean absolute difference, in 1/255, from PIL's crop and resize of the same rectangles."""
    differences = []
    for index, path in enumerate(samples.paths):
        image = decode_image(path)
        x, y, w, h = sample_crop(position_rng(0, 0, index), image.shape[1], image.shape[0], AREA, RATIO)
        with Image.open(path) as opened:
            crop = opened.convert("RGB").crop((x, y, x + w, y + h)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        ours = resize_crop(image, (x, y, w, h), SIZE, SIZE).permute(1, 2, 0).numpy()
        differences.append(np.abs(ours.astype(int) - np.asarray(crop).astype(int)).mean())
    return float(np.mean(differences))


if __name__ == "__main__":
    run_tool(main)
