"""What the names of the project's pretraining methods mean, in a few words."""

from collections.abc import Mapping, Sequence
from typing import Any

MEANINGS: Mapping[str, str] = {
    "random": "random weights, no pretraining",
    "CE": "cross-entropy with hard labels",
    "LS": "label smoothing",
    "ClassSimilarityLS": "label smoothing towards similar classes",
    "CutMix": "a rectangle of another image is pasted into each image",
    "RICAP": "crops of four images form one image",
    "Mixup": "weighted means of two images and labels",
    "CutOut": "a square of each image is hidden",
    "CutOutLS": "CutOut with label smoothing",
    "CutOutOLS": "CutOut with the labels of OLS",
    "ALS": "adaptive label smoothing, softer for smaller objects",
    "ALSContext": "ALS, and uniform labels for images without their objects",
    "ALSCutMix": "CutMix with the labels of ALS",
    "Bootsoft": "labels mixed with the network's own predictions",
    "Boothard": "labels mixed with the classes that the network predicts",
    "DisturbLabel": "some labels are replaced at random",
    "SCE": "symmetric cross-entropy",
    "GCE": "generalised cross-entropy",
    "PairwiseConfusion": "cross-entropy plus the distance between predictions of pairs",
    "BYOT": "be your own teacher: self-distillation between stages",
    "BYOTOLS": "BYOT with the labels of OLS",
    "SelfDistillation": "labels predicted by a teacher of the same architecture",
    "PSKD": "labels mixed with the predictions of the last epoch",
    "KD": "knowledge distillation from a larger teacher",
    "TFKD": "teacher-free distillation",
    "BetaSmoothing": "label smoothing by random amounts",
    "TwoView": "cross-entropy on two views of each image plus their divergence",
    "ILS1": "instance-based label smoothing by one amount per sample",
    "ILS1Sine": "ILS1 with a sinusoidal amount",
    "ILS2": "label smoothing shared among the wrong classes as a teacher predicts",
    "ILS": "instance-based label smoothing, ILS1 and ILS2 together",
    "OLS": "online label smoothing, by the predictions of the last epoch",
    "OLSSingle": "ablation of OLS: the prediction for one other sample",
}


def explain_methods(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (method, meaning) of the known methods of rows, in their order.

    Rows from results files are left out: their names are their users' own.

    Args:
        rows: "rows" of comparison.json.
    """
    ours = dict.fromkeys(row["method"] for row in rows if not row["from_results_file"])
    found = [(name, MEANINGS.get(name, "")) for name in ours]
    return [(name, meaning) for name, meaning in found if meaning]
