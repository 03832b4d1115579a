"""What a user declares about the results files of other detectors."""

from dataclasses import dataclass
from pathlib import Path

RELATIVE = "-relative"
BOX_FORMS = tuple(f"{form}{end}" for end in ("", RELATIVE) for form in ("xywh", "xyxy", "cxcywh"))
IMAGE_KEYS = ("id", "file_name", "stem")
CATEGORY_KEYS = ("id", "name", "index")
FORMS = ("coco", "voc")
VOC = "voc:"  # start of a ground truth voc:<folder>:<split>, in the layout of Pascal VOC


@dataclass(frozen=True)
class Declared:
    """What results files hold in place of COCO's boxes and ids; the command-line options have the same names.

    Attributes:
        box_form: one of BOX_FORMS: a corner or the centre (cx, cy) with width and height, or two corners; `-relative`:
            in 0..1, fractions of the image's width and height.
        image_by: what `image_id` holds: the truth's id, file_name, or file_name without folder and suffix.
        category_by: what `category_id` holds: the truth's id, name, or position from 0 among the sorted ids.
    """

    box_form: str = "xywh"
    image_by: str = "id"
    category_by: str = "id"


@dataclass(frozen=True)
class ResultsFile:
    """The results of one detector: the name of its method, its seed, and a COCO json or a folder of comp4 files.

    path: None for detections in memory.
    """

    name: str
    seed: int
    path: Path | None

    def __str__(self) -> str:
        return f"{self.name}@{self.seed}={self.path}"
