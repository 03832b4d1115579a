"""Metrics of a comparison: order, title, better direction and meaning."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One column. better: +1 higher, -1 lower, 0 neither."""

    name: str
    title: str
    group: str
    better: int
    meaning: str


CLASSIFICATION, CONTEXT = "Classification and calibration", "Context"
LOCALIZATION, ROBUSTNESS, DETECTION = "Localisation (CAM)", "Attacks", "Detection after fine-tuning"
VOC = "Detection after fine-tuning, by Pascal VOC's definitions"
DETECTORS = (DETECTION, VOC)  # groups measured on a fine-tuned detector
GROUPS = (CLASSIFICATION, CONTEXT, LOCALIZATION, ROBUSTNESS, *DETECTORS)

_TABLE = (
    ("top1", "Top-1", CLASSIFICATION, 1, "accuracy on the validation images"),
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
    ("overconfidence", "Overconf.", CLASSIFICATION, -1, "mean confidence of the wrong predictions"),
    ("underconfidence", "Underconf.", CLASSIFICATION, -1, "mean of 1 minus confidence over the correct predictions"),
    ("average_confidence", "Mean conf.", CLASSIFICATION, 0, "mean confidence of all predictions; compare with Top-1"),
    ("human_kl", "Human KL", CLASSIFICATION, -1, "KL divergence from human votes, in nats, over correct predictions"),
    (
        "context_average_confidence",
        "Context conf.",
        CONTEXT,
        -1,
        "mean confidence on images whose objects are painted over, so that only the background is visible",
    ),
    (
        "context_blur_average_confidence",
        "Blurred conf.",
        CONTEXT,
        -1,
        "the same with the objects blurred instead of painted over, so that no edge reveals their shape",
    ),
    (
        "context_uniform_average_confidence",
        "Conf. of nothing",
        CONTEXT,
        -1,
        "confidence on an image of uniform colour",
    ),
    (
        "objectness_deviation",
        "Objectness dev.",
        CONTEXT,
        -1,
        "mean absolute difference of the confidence and the share of the image that the object covers",
    ),
    (
        "max_box_acc",
        "MaxBox Acc",
        LOCALIZATION,
        1,
        "share of images where the box of the class activation map matches an object at IoU 0.5",
    ),
    ("max_box_acc_v2", "MaxBox Acc V2", LOCALIZATION, 1, "the same with every contour, mean over IoU 0.3, 0.5 and 0.7"),
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
METRICS = tuple(Metric(*row) for row in _TABLE)
BY_NAME = {metric.name: metric for metric in METRICS}
DIRECTED = tuple(metric.name for metric in METRICS if metric.better)  # a verdict needs a better direction
ARROW = {1: "↑", -1: "↓", 0: ""}


def best_value(name: str, values: list[float | None]) -> float | None:
    """Return the best value of a column; None if no direction is better or fewer than two rows have a number."""
    known = [value for value in values if value is not None]
    better = BY_NAME[name].better
    if better == 0 or len(known) < 2:
        return None
    return max(known) if better > 0 else min(known)
