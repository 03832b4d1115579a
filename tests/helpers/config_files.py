"""The yaml files under configs/, and the comment that each opens with."""

import re

from helpers.killing import ROOT

DETECTION = sorted((ROOT / "configs" / "detection").rglob("*.yaml"))
YOLO = sorted((ROOT / "configs" / "yolo").rglob("*.yaml"))
PRETRAINING = sorted((ROOT / "configs" / "pretrain").rglob("*.yaml"))


def header(path):
    """The comment that the file opens with."""
    return re.match(r"(?:#.*\n)*", path.read_text())[0]


def is_mere_base(path):
    """Whether nobody runs the file itself: it says what it is the base of."""
    return re.search(r"\bBase of ", header(path)) is not None
