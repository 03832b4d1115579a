"""Read what a command line asks to draw: a run, or a results file with its truth and the folder of the images."""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import MATCHES_FILE, load_matches
from backbones.core.results import load_results
from detection.data.catalog import locate
from detection.drawing.reading import Scene, SceneReader, TestedImages
from detection.evaluation.coco import coco_numbers
from detection.evaluation.declared import VOC, Declared
from detection.evaluation.foreign import TestSet, adapt, read_results
from detection.evaluation.results_files import truth_of


def load_arguments(args: argparse.Namespace) -> TestedImages:
    """Read `args.run`, or the files of `add_results_arguments` with the images in `args.images`.

    A truth voc:<folder>:<split> states where its images are.

    Raises:
        InputError: neither or both are given, or cannot be read.
    """
    if args.run and not any((args.truth, args.images, args.results)):
        return SceneReader(args.root).open(args.run)
    located = args.images or isinstance(args.truth, str)
    if args.run or not args.truth or not located or len(args.results) != 1:
        raise InputError(f"give either a RUN, or --truth, --images and one --results; {VOC}... needs no --images")
    return load_results_file(args.truth, args.results[0].path, _image_folder(args), _declared(args))


def load_results_file(truth: str | Path, results: Path, folder: Path, declared: Declared) -> TestedImages:
    """Match the detections of a results file with their truth.

    Args:
        truth: COCO instances json, or voc:<folder>:<split>[:<classes.txt>].
        results: COCO results json, or a folder of comp4 files.
        folder: holds the images by their `file_name`.
    Raises:
        InputError: the results do not fit the truth.
    """
    test = TestSet(truth)
    detections = read_results(results, test, declared)
    with tempfile.TemporaryDirectory() as place:
        coco_numbers(test.truth, detections, 0.0, Path(place) / MATCHES_FILE)
        matches = load_matches(Path(place) / MATCHES_FILE)
    return TestedImages(_list_images(test, folder), test.truth, detections, matches, str(results))


def _declared(args: argparse.Namespace) -> Declared:
    return Declared(args.box_form, args.image_by, args.category_by)


def _list_images(test: TestSet, folder: Path) -> list[tuple[Path, int, int]]:
    names = [str(image.get("file_name", "")) for image in test.images]
    sizes = np.nan_to_num(test.sizes()).astype(int).tolist()
    return [(folder / name, width, height) for name, (width, height) in zip(names, sizes, strict=True)]


# ---- a comparison of runs and results files -----------------------------------------------------------------------

_runs = SceneReader()  # reads each test set once
_test_set = lru_cache(1)(TestSet)  # of all results files of a command line


def read_scenes(
    args: argparse.Namespace, folders: Sequence[Path], run: str | Path, image_ids: Iterable[int] | None = None,
    *, least_score: float = 0.0,
) -> dict[int, Scene]:  # fmt: skip
    """Return image id -> scene of a run of ours, or of a results file on a command line.

    Args:
        args: of `add_results_arguments`; folders: what `evaluate_arguments` made of its files.
        run: folder of a run, or one of `folders`; the others are those of `TestedImages.scenes`.
    Raises:
        InputError: the folder of the images is missing, or one of them; otherwise as `SceneReader.open`.
    """
    files = dict(zip([folder.resolve() for folder in folders], args.results, strict=True))
    one = files.get(Path(run).resolve())
    if one is None:
        return _runs.read(run, image_ids, least_score=least_score)
    test = _test_set(args.truth, box_areas=True)  # these results are evaluated already
    images = _list_images(test, _image_folder(args))
    wanted = test.truth.image_ids.tolist() if image_ids is None else list(image_ids)
    chosen = [path for key, (path, _, _) in zip(test.truth.image_ids.tolist(), images, strict=True) if key in wanted]
    if missing := [path for path in chosen if not path.is_file()]:
        raise InputError(
            f"{missing[0]}: no such image, though {test.where} names it ({len(missing)} of {len(chosen)} are missing); "
            "correct --images"
        )
    read = truth_of(test, load_results(run))
    detections = adapt(read_results(one.path, test, _declared(args)), test, read)
    tested = TestedImages(images, read.truth, detections, load_matches(Path(run) / MATCHES_FILE), str(one.path))
    return tested.scenes(wanted, least_score=least_score)


def _image_folder(args: argparse.Namespace) -> Path:
    if args.images is not None:
        return args.images
    if isinstance(args.truth, str):  # voc:<folder>:<split>[:<classes.txt>]
        return locate(args.truth, "").images
    raise InputError(f"{args.truth} names its images but not their folder; give it with --images FOLDER")
