"""Evaluate boxes by the definitions of COCO and Pascal VOC.

`evaluate` is the call for users of the library; docs/results_files.md shows it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a slow import
    from detection.evaluation.results_files import Evaluated

__all__ = ["evaluate"]


def evaluate(
    truth: Mapping[str, Any] | str | Path,
    detections: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Path,
    *,
    name: str,
    output_dir: str | Path,
    seed: int = 0,
    form: str | None = None,
    box_form: str = "xywh",
    image_by: str = "id",
    category_by: str = "id",
) -> "Evaluated":
    """Evaluate the detections of any detector into a run folder, `output_dir`/NAME-SEED, for `comparison.compare`.

    Args:
        truth: COCO instances json, its path, or "voc:<folder>:<split>".
        detections: COCO results list, a mapping that holds it under "annotations", the path of either, or a folder of
            VOC's comp4 files.
        name: of the method; seed: of its training.
        form: "coco", or "voc" for VOC's numbers in addition (iscrowd is then `difficult`); default: "voc" for comp4
            files and for a truth that states it ("info": {"form": "voc"}).
        box_form, image_by, category_by: what the detections hold (`detection.evaluation.declared.Declared`).
    Returns:
        its folder and its metrics; unchanged inputs are not evaluated again.
    Raises:
        InputError: the detections do not fit the truth; says under which declaration they would.
    """
    from backbones.core.checks import check_choice
    from detection.evaluation.declared import BOX_FORMS, CATEGORY_KEYS, FORMS, IMAGE_KEYS, Declared
    from detection.evaluation.results_files import evaluate_one

    check_choice("box_form", box_form, BOX_FORMS)
    check_choice("image_by", image_by, IMAGE_KEYS)
    check_choice("category_by", category_by, CATEGORY_KEYS)
    if form is not None:
        check_choice("form", form, FORMS)
    declared = Declared(box_form, image_by, category_by)
    return evaluate_one(truth, detections, name, seed, output_dir, declared=declared, form=form)
