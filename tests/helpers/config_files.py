"""The yaml files under configs/, and their header comments."""

import re

from helpers.killing import ROOT

DETECTION = sorted((ROOT / "configs" / "detection").rglob("*.yaml"))
YOLO = sorted((ROOT / "configs" / "yolo").rglob("*.yaml"))
PRETRAINING = sorted((ROOT / "configs" / "pretrain").rglob("*.yaml"))


def header(path):
    """Return the comment at the top of the file."""
    return re.match(r"(?:#.*\n)*", path.read_text())[0]


def is_mere_base(path):
    """Whether the file is only a base of others and not run itself, as its header says."""
    return re.search(r"\bBase of ", header(path)) is not None
