"""Measure the divergence of classifiers from human votes on CIFAR-10's test images (CIFAR-10H), in nats.

python tools/compare_human_labels.py runs/ce runs/ols --human-labels data/cifar10h --output human.json

Each run must have been evaluated by tools/evaluate_backbone.py on the same images.  RUN can also be the folder of
such an evaluation, or the output folder of a suite, for all of its rows.  Three means are reported: over the images
that the classifier gets right, over all images, and over those that all given classifiers get right.
"""

import argparse

import numpy as np

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.files import save_json
from backbones.core.results import load_results
from backbones.measuring.human_labels import compare_human_labels
from backbones.measuring.run_folders import find_backbones


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    from backbones.data.cifar10h import check_agreement, load_cifar10h  # slow
    from backbones.measuring.figure_data import load_predictions

    q = load_cifar10h(args.human_labels)
    named = find_backbones(args.runs)
    folders = [one.evaluation() for one in named]
    found = [load_predictions(folder, "val") for folder in folders]
    labels = found[0][1]
    if any(not np.array_equal(labels, other) for _, other in found):
        raise InputError("the runs were not evaluated on the same images; evaluate all of them on one split")
    check_agreement(q, labels, found[0][0].shape[1])
    metrics, common = compare_human_labels(q, [log_p for log_p, _ in found], labels)
    names = [load_results(folder)["backbone"]["label"] for folder in folders]
    rows = [{"run": str(one.given), "label": name} | own for one, name, own in zip(named, names, metrics, strict=True)]
    finite = [{key: None if value != value else value for key, value in row.items()} for row in rows]  # no nan in json
    save_json(args.output, {"images": len(labels), "right_by_all": common, "rows": finite})
    print(f"{'':<20}{'right':>8}{'all':>8}{'common':>8}   (all are right on {common} of {len(labels)} images)")
    for row in rows:
        print(f"{row['label']:<20}{row['human_kl']:8.4f}{row['human_kl_all']:8.4f}{row['human_kl_common']:8.4f}")
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=path_argument, metavar="RUN", help="an evaluated run, its evaluation, or a suite"
    )
    parser.add_argument("--human-labels", type=path_argument, required=True, help="folder of CIFAR-10H")
    parser.add_argument("--output", type=path_argument, required=True, help=".json file to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
