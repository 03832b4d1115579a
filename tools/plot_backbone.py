"""Draw the papers' figures of classifiers from run folders.  Writes FILE.png and its data, FILE.json.

python tools/plot_backbone.py reliability runs/ce runs/als -o fig.png          after tools/evaluate_backbone.py
python tools/plot_backbone.py classes runs/ce -o fig.png                       samples per class
python tools/plot_backbone.py maps runs/ce runs/als --covered 1 -o fig.png     Grad-CAM++; the last image also masked
python tools/plot_backbone.py tsne runs/ce runs/ols -o fig.png                 features before the last layer
python tools/plot_backbone.py curves runs/ce runs/ols --metric top1 -o fig.png     detectors too: --metric AP
python tools/plot_backbone.py soft_labels runs/ols -o fig.png                  soft labels that a run of OLS learned
python tools/plot_backbone.py ablation runs/ols-* --key METHOD.OLS.hard_weight --metric top1 -o fig.png

RUN is the folder of a pretraining run or of its evaluation, or the output folder of a suite, for all of its rows.
"""

import argparse
from typing import Any

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.entry import run_tool
from backbones.core.files import save_atomic, save_json

KINDS = ("reliability", "classes", "maps", "tsne", "curves", "soft_labels", "ablation")


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    from backbones.measuring.figure_data import check_request  # slow

    check_request(args)
    figure, numbers = draw(args)
    save_atomic(args.output, lambda path: figure.savefig(path))
    save_json(args.output.with_suffix(".json"), numbers)
    print(f"{args.output} and {args.output.with_suffix('.json').name}")
    return 0


def draw(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the matplotlib figure and its data."""
    from backbones.measuring import figure_data, figures

    if args.kind == "reliability":
        bins = args.bins or (100 if args.variant == "pycalib" else 15)
        found = figure_data.reliability_panels(args.runs, args.variant, bins, args.split)
        return figures.draw_reliability(found, args.variant), found
    if args.kind == "classes":
        return figures.draw_histogram(counts := figure_data.class_counts(args.runs[0], args.set)), counts
    if args.kind == "maps":
        rows, labels = figure_data.map_rows(args.runs, args.set, args.method, args.images, args.covered)
        listed = [[{"image": t.image_id, "covered": t.covered, "top3": t.top3} for t in row] for row in rows]
        said = {"backbones": labels, "rows": listed}
        return figures.draw_maps(rows, labels, f"{args.method} of the true class"), said
    if args.kind == "tsne":
        numbers = {"classes": args.classes, "per_class": args.per_class, "seed": args.seed}
        return figures.draw_embedding(panels := figure_data.embedding_panels(args.runs, args.set, **numbers)), panels
    if args.kind == "curves":
        found = figure_data.curves(args.runs, args.metric)
        return figures.draw_curves(found, args.metric), found
    if args.kind == "soft_labels":
        return figures.draw_soft_labels(panels := figure_data.soft_label_panels(args.runs, args.classes)), panels
    points = figure_data.ablation_points(args.runs, args.key, args.metric)
    return figures.draw_ablation(points, args.key, args.metric), points


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="figure to draw")
    said = "folder of a run, of its evaluation, or of a suite"
    parser.add_argument("runs", nargs="+", type=path_argument, metavar="RUN", help=said)
    parser.add_argument("-o", "--output", type=path_argument, required=True, help=".png file to write")
    parser.add_argument("--variant", choices=("standard", "pycalib"), default="standard", help="reliability: binning")
    parser.add_argument("--bins", type=int, default=0, help="reliability: number of bins (default: 15; pycalib: 100)")
    parser.add_argument("--split", default="val", help="reliability: val, shifted or context (default %(default)s)")
    parser.add_argument("--metric", default="top1", help="curves and ablation: metric (default %(default)s)")
    parser.add_argument("--key", default="", help="ablation: config key that differs between the runs")
    parser.add_argument("--method", default="GradCAMPlusPlus", help="maps: CAM, GradCAM or GradCAMPlusPlus")
    parser.add_argument("--covered", type=int, default=0, help="maps: last images to repeat with objects painted over")
    ints = (("images", 6, "maps"), ("classes", 10, "tsne, soft_labels"), ("per-class", 50, "tsne"), ("seed", 0, "tsne"))
    for name, default, kinds in ints:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{kinds} (default %(default)s)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY VALUE", help="change config keys of the runs")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
