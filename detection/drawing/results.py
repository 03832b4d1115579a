"""Read what a command line asks to draw: a run, or a results file with its truth and the folder of the images."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import MATCHES_FILE, load_matches
from detection.evaluation.coco import coco_numbers
from detection.evaluation.declared import Declared
from detection.evaluation.foreign import TestSet, read_results
from detection.exchange.scenes import SceneReader, TestedImages


def load_arguments(args: argparse.Namespace) -> TestedImages:
    """Read `args.run`, or the files of `add_results_arguments` with the images in `args.images`.

    Raises:
        InputError: neither or both are given, or cannot be read.
    """
    of_files = (args.truth, args.images, args.results)
    if args.run and not any(of_files):
        return SceneReader(args.root).open(args.run)
    if args.run or not all(of_files) or len(args.results) > 1:
        raise InputError("give either a RUN, or --truth, --images and one --results")
    declared = Declared(args.box_form, args.image_by, args.category_by)
    return load_results_file(args.truth, args.results[0].path, args.images, declared)


def load_results_file(truth: str | Path, results: Path, folder: Path, declared: Declared) -> TestedImages:
    """Match the detections of a results file with their truth.

    Args:
        truth: COCO instances json, or voc:<folder>:<split>.
        results: COCO results json, or a folder of comp4 files.
        folder: holds the images by their `file_name`.
    Raises:
        InputError: the results do not fit the truth.
    """
    test = TestSet(truth)
    detections = read_results(results, test, declared)
    names = [str(image.get("file_name", "")) for image in test.images]
    sizes = np.nan_to_num(test.sizes()).astype(int).tolist()
    images = [(folder / name, width, height) for name, (width, height) in zip(names, sizes, strict=True)]
    with tempfile.TemporaryDirectory() as place:
        coco_numbers(test.truth, detections, 0.0, Path(place) / MATCHES_FILE)
        matches = load_matches(Path(place) / MATCHES_FILE)
    return TestedImages(images, test.truth, detections, matches, str(results))
