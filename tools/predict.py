"""Detect objects in images with the detector of a finished fine-tuning.

python tools/predict.py RUN photos/ --output-dir found               every image in the folder
python tools/predict.py RUN a.jpg b.png --output-dir found --score 0.5

Writes detections.json (COCO: images, categories, and annotations with scores) and images/<name>.png with the boxes that
score at least --score.  An image that cannot be read is named and left out; the exit code is then 2.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.checks import check_range
from backbones.core.entry import fast_imports, run_tool
from backbones.core.errors import InputError
from backbones.core.files import save_json
from backbones.core.locking import lock_run

DETECTIONS, FOLDER = "detections.json", "images"


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    images = [path for given in args.images for path in list_images(given)]
    with fast_imports():  # slow: imported after the arguments are checked
        from detection import load_detector
        from detection.drawing.predictions import save_predictions

    detector = load_detector(args.run)
    with lock_run(args.output_dir):
        tree, wrong = detector.detect_readable(images)
        save_json(args.output_dir / DETECTIONS, tree, indent=None)
        save_predictions(args.output_dir / FOLDER, tree, args.score)
    drawn = sum(one["score"] >= args.score for one in tree["annotations"])
    print(f"{len(tree['images'])} images, {drawn} boxes scored at least {args.score:g}: {args.output_dir / DETECTIONS}")
    if wrong:
        raise InputError(f"{len(wrong)} of {len(images)} images were left out: {'; '.join(wrong)}")
    return 0


def list_images(given: Path) -> Iterator[Path]:
    """Yield an image file, or the image files in a folder, sorted by name."""
    from detection.data.image_files import is_hidden, split_suffix

    if not given.is_dir():
        yield given
        return
    found = sorted(path for path in given.iterdir() if split_suffix(path.name)[1] and not is_hidden(path.name))
    if not found:
        raise InputError(f"{given}: no image in this folder; give image files or a folder that holds them")
    yield from found


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run", type=path_argument, metavar="RUN", help="folder of a finished fine-tuning")
    parser.add_argument("images", type=path_argument, nargs="+", metavar="IMAGE", help="image file, or folder of them")
    parser.add_argument("--output-dir", type=path_argument, required=True, help="folder to write to")
    parser.add_argument("--score", type=float, default=0.3, help="least score of the drawn boxes (default %(default)s)")
    args = parser.parse_args(argv)
    check_range("--score", args.score, 0, 1)
    return args


if __name__ == "__main__":
    run_tool(main)
