"""Draw the detections of a finished fine-tuning, or of a results file, and the truth on the images.

    python tools/show_detections.py RUN --output-dir D                            D/contact_sheet.png, D/images/<id>.png
    python tools/show_detections.py RUN --output-dir D --error Loc --sort score   the most confident misplaced boxes
    python tools/show_detections.py --truth annotations.json --results ours=detections.json --images F --output-dir D

RUN is the folder of a finished fine-tuning, or an evaluation folder in it.  Objects are dashed, detections solid.
Matches are those of COCO at IoU 0.5 among the detections that are drawn; errors are those of TIDE (docs/measures.md).
With --class or --error, only images with such a detection or object are drawn, and it is marked by thick lines.
"""

import argparse
from dataclasses import replace

import numpy as np

from backbones.core.arguments import ArgumentParser, path_argument, root_argument
from backbones.core.checks import check_choice, check_range
from backbones.core.entry import run_tool
from backbones.core.locking import lock_run
from backbones.core.matches import FALSE_POSITIVE, Matches
from comparison.diagnosis.errors import DETECTION_ERRORS, find_errors
from detection.evaluation.arguments import add_results_arguments

ERRORS = (*DETECTION_ERRORS, "Miss")


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    from detection.drawing.choosing import Choice, choose_scenes  # slow
    from detection.drawing.results import load_arguments
    from detection.drawing.sheet import save_scenes

    tested, least = load_arguments(args), args.min_score
    if args.label is not None:
        check_choice("class", args.label, tested.truth.category_names)
    errors, misses = find_kinds(tested.matches, least)
    scenes = tested.scenes(args.image_ids, least_score=least, errors=errors, misses=misses)
    choice = Choice(args.label, args.error)
    found = choose_scenes(scenes.values(), choice, args.sort)
    shown = found[: args.max_images]
    title = f"{tested.where}: {len(shown)} of {len(found)} images, detections scored at least {least:g}"
    with lock_run(args.output_dir):
        written = save_scenes(args.output_dir, shown, choice, title + f"; thick: {choice}" * bool(choice))
    print(f"{len(shown)} of {len(found)} images: {written[0]} and {written[1].parent}")
    return 0


def find_kinds(matches: Matches, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the kinds of error (N,) among detections scored at least `least`, "" for none, and the misses (G,)."""
    found = find_errors(replace(matches, score_threshold=float(np.nextafter(least, -1))))
    kinds = np.array([*DETECTION_ERRORS, "", ""])[found.kind]  # negative: no error, or not counted
    return np.where(found.outcome == FALSE_POSITIVE, kinds, ""), found.missed


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=path_argument, metavar="RUN", help="folder of a finished fine-tuning")
    parser.add_argument("--output-dir", required=True, type=path_argument, help="folder to write to")
    parser.add_argument("--image-ids", type=int, nargs="+", metavar="ID", help="only these (default: all)")
    parser.add_argument("--max-images", type=int, default=16, metavar="N", help="images to draw (default %(default)s)")
    parser.add_argument("--min-score", type=float, default=0.3, help="of the drawn detections (default %(default)s)")
    parser.add_argument("--class", dest="label", metavar="NAME", help="only images with this class, which is marked")
    parser.add_argument("--error", choices=ERRORS, help="only images with this kind of error, which is marked")
    parser.add_argument(
        "--sort", choices=("id", "score", "errors"), default="id",
        help="score, errors: images with the highest score, most errors first (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--root", type=root_argument, help="replaces the run's DATASETS.ROOT, if the data have moved")
    add_results_arguments(parser)
    args = parser.parse_args(argv)
    check_range("--max-images", args.max_images, 1)
    check_range("--min-score", args.min_score, 0)
    return args


if __name__ == "__main__":
    run_tool(main)
