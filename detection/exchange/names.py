"""Names of the tensors of a ResNet, by torchvision and by detectron2.

torchvision -> detectron2 (X stands for 1..3):
    conv1 -> stem.conv1,  bn1 -> stem.conv1.norm,  layer{i}.{j} -> res{i+1}.{j},
    convX -> convX,  bnX -> convX.norm,  downsample.0 -> shortcut,  downsample.1 -> shortcut.norm
"""

import re

_RENAMES = (
    (r"^layer(\d)\.", lambda m: f"res{int(m[1]) + 1}."),
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)


def detectron2_name(name: str) -> str:
    """Return detectron2's name of a torchvision tensor, without `backbone.` (FPN would match nothing)."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


_BACK = (
    (r"^stem\.fc\.", "fc."),  # its name in detectron2's tools/convert-torchvision-to-d2.py
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^res([2-5])\.", lambda m: f"layer{int(m[1]) - 1}."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
)


def torchvision_name(name: str) -> str:
    """Return torchvision's name of a detectron2 tensor, the inverse of `detectron2_name`; other names are unchanged."""
    for pattern, replacement in _BACK:
        name = re.sub(pattern, replacement, name)
    return name
