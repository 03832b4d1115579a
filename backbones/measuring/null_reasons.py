"""Why a number of an evaluation is null."""

from collections.abc import Sequence


def null_reasons(metrics: dict[str, float | None], boxed: int, images: int, context: Sequence[str]) -> dict[str, str]:
    """Why a metric is null, by its name."""
    without = f"{images - boxed} of {images} images have no box"
    unasked = "" if "mean" in context else "'mean' is not in EVAL.CONTEXT_FILLS"
    causes = {
        "objectness": without if boxed < images else "",
        "context": "EVAL.CONTEXT is off" if not context else without if not boxed else unasked,
        "shifted": "DATA.SHIFTED_SPLIT is not set" if metrics["top1_shifted"] is None else "",
        "top5": "the data set has no more than 5 classes",
        "overconfidence": "no prediction is wrong",
        "underconfidence": "no prediction is right",
        "human_kl": "no prediction is right",
    }
    missing = [name for name, value in metrics.items() if value is None]
    return {name: next((why for part, why in causes.items() if part in name and why), "not finite") for name in missing}
