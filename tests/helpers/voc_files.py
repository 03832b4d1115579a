"""A folder in VOC layout with one annotated image, and its XML."""

from PIL import Image

from backbones.core.warning_counter import WarningCounter
from detection.data.voc.reader import load_voc

WIDTH, HEIGHT = 40, 30
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def box(name, *corners, difficult=0):
    inside = "".join(f"<{key}>{value}</{key}>" for key, value in zip(CORNERS, corners, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{inside}</bndbox></object>"


def read_voc(folder, text, classes=("cat", "dog"), stems="a\n"):
    """Write one annotated image, "a", and load it; return (data, warnings)."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations" / "a.xml").write_text(text)
    (folder / "ImageSets" / "Main" / "train.txt").write_text(stems)
    warnings = WarningCounter()
    return load_voc(folder, "train", "voc", warnings, classes), warnings.as_list()


def annotation(*objects, size=SIZE):
    return f"<annotation>{size}{''.join(objects)}</annotation>"
