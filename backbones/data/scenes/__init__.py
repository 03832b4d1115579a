"""`scenes`: an embedded procedural data set, drawn in seconds and written in the formats of real ones.

Images show pale shapes of twelve classes, which differ in outline only, on dark textured backgrounds.  Each class has
its own background, which it is drawn on with probability `correlation`: an easy shortcut that a classifier can learn
instead of the shape.  Split `val` keeps the correlation, `val_shifted` breaks it.  Every image is a pure function of
(seed, split, index); the bytes of the files also depend on the versions of numpy and OpenCV.
"""

from backbones.data.scenes.backgrounds import BACKGROUNDS
from backbones.data.scenes.drawing import (
    SHARE_RANGE,
    ObjectImage,
    SceneImage,
    SceneObject,
    draw_detection_image,
    draw_object_image,
)
from backbones.data.scenes.sets import INDEPENDENT, SceneParameters, write_scenes
from backbones.data.scenes.shapes import CLASSES, LOOK_ALIKES
from backbones.data.scenes.sheet import write_contact_sheets
from backbones.data.scenes.voc_layout import VocParameters, write_scenes_voc
from backbones.data.scenes.writing import write_classification, write_detection

__all__ = [
    "BACKGROUNDS",
    "CLASSES",
    "INDEPENDENT",
    "LOOK_ALIKES",
    "SHARE_RANGE",
    "ObjectImage",
    "SceneImage",
    "SceneObject",
    "SceneParameters",
    "VocParameters",
    "draw_detection_image",
    "draw_object_image",
    "write_classification",
    "write_contact_sheets",
    "write_detection",
    "write_scenes",
    "write_scenes_voc",
]
