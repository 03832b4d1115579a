"""Metrics of a comparison: order, title, better direction and meaning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One column.

    better: +1 higher, -1 lower, 0 neither; by_construction: why its best value does not count, as some methods train
    for it: it is never marked as best.
    """

    name: str
    title: str
    group: str
    better: int
    meaning: str
    by_construction: str = ""


CLASSIFICATION, CONTEXT = "Classification and calibration", "Context"
LOCALIZATION, ROBUSTNESS, DETECTION = "Localisation (CAM)", "Attacks", "Detection after fine-tuning"
VOC = "Detection after fine-tuning, by Pascal VOC's definitions"
DETECTORS = (DETECTION, VOC)  # groups measured on a fine-tuned detector
GROUPS = (CLASSIFICATION, CONTEXT, LOCALIZATION, ROBUSTNESS, *DETECTORS)

_SCALE = "smaller logits lower the confidence"

_TABLE: tuple[tuple[Any, ...], ...] = (
    ("top1", "Top-1", CLASSIFICATION, 1, "accuracy on the validation images"),
    ("top5", "Top-5", CLASSIFICATION, 1, "share of these images whose class is among the five most probable ones"),
    (
        "top1_shifted",
        "Top-1 shifted",
        CLASSIFICATION,
        1,
        "accuracy on images whose background is independent of the class",
    ),
    ("nll", "NLL", CLASSIFICATION, -1, "mean negative log likelihood of the true class, in nats (not a fraction)"),
    (
        "ece15",
        "ECE-15",
        CLASSIFICATION,
        -1,
        "expected calibration error, 15 equal bins: mean gap between accuracy and confidence",
    ),
    ("cwece15", "cwECE", CLASSIFICATION, -1, "the same (15 bins) for every class's probability, mean over classes"),
    (
        "cwece15_trueclass",
        "cwECE, true class",
        CLASSIFICATION,
        -1,
        "mean over true classes of ECE-15 within the class, as in the tables of ILS; not a calibration error",
    ),
    (
        "nll_scaled",
        "NLL, scaled",
        CLASSIFICATION,
        -1,
        "NLL after temperature scaling: logits divided by the temperature that fits other images best",
    ),
    ("ece15_scaled", "ECE-15, scaled", CLASSIFICATION, -1, "ECE-15 after temperature scaling"),
    ("cwece15_scaled", "cwECE, scaled", CLASSIFICATION, -1, "cwECE after temperature scaling"),
    (
        "cwece15_trueclass_scaled",
        "cwECE, true class, scaled",
        CLASSIFICATION,
        -1,
        "the same within the true classes",
    ),
    (
        "ece15_pycalib",
        "ECE-15, pycalib",
        CLASSIFICATION,
        -1,
        "ECE-15 as the package pycalib and the tables of ALS define it: bins from 1/K, represented by their centres",
    ),
    ("ece100_pycalib", "ECE-100, pycalib", CLASSIFICATION, -1, "the same with 100 bins"),
    (
        "mce100_pycalib",
        "MCE, pycalib",
        CLASSIFICATION,
        -1,
        "largest gap of these bins, often that of a nearly empty one",
    ),
    (
        "overconfidence",
        "Overconf.",
        CLASSIFICATION,
        -1,
        "mean confidence of the wrong predictions",
        "every smoothed label lowers it",
    ),
    ("underconfidence", "Underconf.", CLASSIFICATION, -1, "mean of 1 minus confidence over the correct predictions"),
    ("average_confidence", "Mean conf.", CLASSIFICATION, 0, "mean confidence of all predictions; compare with Top-1"),
    ("human_kl", "Human KL", CLASSIFICATION, -1, "KL divergence from human votes, in nats, over correct predictions"),
    (
        "context_average_confidence",
        "Context conf.",
        CONTEXT,
        -1,
        "mean confidence on images whose objects are painted over, so that only the background is visible; "
        "the scale of the logits decides it, not the reliance on the background: see the next two columns",
        _SCALE,
    ),
    (
        "context_average_confidence_scaled",
        "Context conf., scaled",
        CONTEXT,
        -1,
        "the same after temperature scaling, which makes networks of different scale comparable",
    ),
    ("context_top1", "Context Top-1", CONTEXT, -1, "accuracy on these images, from the background alone"),
    (
        "context_overconfidence",
        "Context overconf.",
        CONTEXT,
        -1,
        "mean confidence of the wrong predictions on these images",
        _SCALE,
    ),
    (
        "context_underconfidence",
        "Context underconf.",
        CONTEXT,
        1,
        "mean of 1 minus confidence over the correct predictions on these images",
        _SCALE,
    ),
    (
        "context_blur_average_confidence",
        "Blurred conf.",
        CONTEXT,
        -1,
        "mean confidence with the objects blurred instead of painted over, so that no edge reveals their shape",
        _SCALE,
    ),
    (
        "context_uniform_average_confidence",
        "Conf. of nothing",
        CONTEXT,
        -1,
        "confidence on an image of uniform colour",
        _SCALE,
    ),
    (
        "objectness_deviation",
        "Objectness dev.",
        CONTEXT,
        -1,
        "mean absolute difference of the confidence and the share of the image that the object covers",
        "ALS trains for it",
    ),
    (
        "max_box_acc",
        "MaxBox Acc",
        LOCALIZATION,
        1,
        "share of images where the box of the class activation map matches an object at IoU 0.5, at the threshold that "
        "is best for these images (the usual definition)",
    ),
    (
        "max_box_acc_split",
        "MaxBox Acc, split",
        LOCALIZATION,
        1,
        "the same at the threshold that is best for the other half of the images",
    ),
    (
        "max_box_acc_v2",
        "MaxBox Acc V2",
        LOCALIZATION,
        1,
        "MaxBox Acc with every contour, mean over IoU 0.3, 0.5 and 0.7",
    ),
    ("max_box_acc_v2_split", "MaxBox Acc V2, split", LOCALIZATION, 1, "the same at the thresholds of the other half"),
    ("pointing", "Pointing", LOCALIZATION, 1, "share of maps whose maximum is in an object's box (15 px tolerance)"),
    ("energy_in_box", "Energy in box", LOCALIZATION, 1, "share of the map's sum inside the objects' boxes"),
    ("fgsm_8_top1_error", "FGSM error", ROBUSTNESS, -1, "top-1 error after one gradient step of 8/255"),
    ("pgd_1_top1_error", "PGD-1 error", ROBUSTNESS, -1, "top-1 error after projected gradient steps within 1/255"),
    ("pgd_8_top1_error", "PGD-8 error", ROBUSTNESS, -1, "the same within 8/255"),
    (
        "any_8_top1_error",
        "Worst error",
        ROBUSTNESS,
        -1,
        "top-1 error under the strongest of the attacks within 8/255, including the margin attack",
    ),
    ("AP", "AP", DETECTION, 1, "COCO average precision, mean over IoU 0.50:0.95 and classes"),
    ("AP50", "AP50", DETECTION, 1, "at IoU 0.50"),
    ("AP75", "AP75", DETECTION, 1, "at IoU 0.75"),
    ("APs", "APs", DETECTION, 1, "objects below 32² pixels"),
    ("APm", "APm", DETECTION, 1, "objects of 32² to 96² pixels"),
    ("APl", "APl", DETECTION, 1, "objects above 96² pixels"),
    ("AR1", "AR1", DETECTION, 1, "average recall with 1 detection per image and class"),
    ("AR10", "AR10", DETECTION, 1, "with 10 detections"),
    ("AR100", "AR100", DETECTION, 1, "with 100 detections"),
    ("ARs", "ARs", DETECTION, 1, "AR100 of objects below 32² pixels"),
    ("ARm", "ARm", DETECTION, 1, "AR100 of objects of 32² to 96² pixels"),
    ("ARl", "ARl", DETECTION, 1, "AR100 of objects above 96² pixels"),
    (
        "VOC_mAP50",
        "VOC mAP50",
        VOC,
        1,
        "Pascal VOC's AP at IoU 0.5: area under the envelope (since VOC 2010); differs from COCO's",
    ),
    ("VOC_mAP50_11", "VOC mAP50, 11-pt", VOC, 1, "the same by 11 recalls, as VOC 2007 defines it"),
    ("VOC_mAP75", "VOC mAP75", VOC, 1, "by area at IoU 0.75"),
    ("VOC_mAP75_11", "VOC mAP75, 11-pt", VOC, 1, "by 11 recalls at IoU 0.75"),
    ("VOC_mAP", "VOC mAP", VOC, 1, "by area, mean over IoU 0.50:0.95"),
    ("VOC_mAP_11", "VOC mAP, 11-pt", VOC, 1, "by 11 recalls, mean over IoU 0.50:0.95"),
)


def _metric(row: Sequence[Any]) -> Metric:
    name, title, group, better, meaning, by_construction = row if len(row) == 6 else (*row, "")
    why = f"; never marked as best: {by_construction}" if by_construction else ""
    return Metric(name, title, group, better, meaning + why, by_construction)


METRICS = tuple(map(_metric, _TABLE))
BY_NAME = {metric.name: metric for metric in METRICS}
DIRECTED = tuple(metric.name for metric in METRICS if metric.better)  # a verdict needs a better direction
ARROW = {1: "↑", -1: "↓", 0: ""}


def explain_scores(thresholds: Sequence[float]) -> str:
    """Return which detections AP and AR count, by their scores; "" if unknown."""
    counted = " or ".join(f"those scored above {limit:g}" if limit > 0 else "all" for limit in thresholds)
    return f"of the detections, AP counts {counted}, AR all" if counted else ""


def best_value(name: str, values: list[float | None]) -> float | None:
    """Return the best value of a column; None if none is marked or fewer than two rows have a number."""
    known = [value for value in values if value is not None]
    if not is_marked(name) or len(known) < 2:
        return None
    return max(known) if BY_NAME[name].better > 0 else min(known)


def is_marked(name: str) -> bool:
    """Whether the best value of a column, and a better or worse one, is marked."""
    return BY_NAME[name].better != 0 and not BY_NAME[name].by_construction
