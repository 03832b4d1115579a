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
    """detectron2's name of one torchvision tensor; no `backbone.` prefix (FPN would match nothing)."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


_BACK = (
    (r"^stem\.fc\.", "fc."),  # as detectron2's tools/convert-torchvision-to-d2.py calls it
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^res([2-5])\.", lambda m: f"layer{int(m[1]) - 1}."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
)


def torchvision_name(name: str) -> str:
    """torchvision's name of one of detectron2's: the inverse of `detectron2_name`; another name as it is."""
    for pattern, replacement in _BACK:
        name = re.sub(pattern, replacement, name)
    return name
