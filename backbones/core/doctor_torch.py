"""Checks of torch, its GPUs, and torchvision's compiled operators, which fail if the two builds do not match."""

import shutil
from typing import Any

from backbones.core.doctor import (
    ABILITIES,
    GB,
    OK,
    OLDEST_TORCH,
    PROBLEM,
    SCALE,
    SCALE_GPU,
    Check,
    Package,
    check_package,
    import_quietly,
    reason,
)

_TOGETHER = "reinstall both from one index: pip install --upgrade --force-reinstall torch torchvision"


def check_torch() -> list[Check]:
    """Check torch, its GPUs, torchvision, and torchvision's operators on every kind of device."""
    packages = [check_package(Package(name, text, ABILITIES)) for name, text in OLDEST_TORCH.items()]
    if packages[0].state == PROBLEM:
        return packages
    torch = import_quietly("torch")
    checks = [packages[0], check_gpus(torch), packages[1]]
    if packages[1].state == PROBLEM:  # usually a build for another version of torch
        checks[-1] = Check("torchvision", PROBLEM, packages[1].found, _TOGETHER, ABILITIES)
        return checks
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return checks + [check_operators(torch, device) for device in devices]


def check_gpus(torch: Any) -> Check:
    """Check the GPUs that torch can use, and their memory."""
    cuda = torch.version.cuda
    if not torch.cuda.is_available():
        built = f"torch is built for {'CUDA ' + cuda if cuda else 'the CPU'}"
        fix = "run it on a machine with an NVIDIA GPU"
        if shutil.which("nvidia-smi"):
            fix = "check `nvidia-smi` and the driver" if cuda else "install a CUDA build of torch and torchvision"
        return Check("GPU", PROBLEM, f"no GPU ({built})", fix, (SCALE,))
    gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    listed = ", ".join(f"{gpu.name} {gpu.total_memory / GB:.0f} GB" for gpu in gpus)
    bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: leave SOLVER.AMP.ENABLED False"
    found = f"{listed}; CUDA {cuda}, {bf16}"
    if min(gpu.total_memory for gpu in gpus) < SCALE_GPU * GB:
        fix = f"COCO's protocols need {SCALE_GPU} GB per GPU; lower SOLVER.IMS_PER_BATCH and INPUT.MAX_SIZE_TRAIN"
        return Check("GPU", PROBLEM, found, fix, (SCALE,))
    return Check("GPU", OK, found)


def check_operators(torch: Any, device: str) -> Check:
    """Check that NMS and RoIAlign run on `device` and give the right numbers."""
    name = f"torchvision operators ({device})"
    try:
        wrong = wrong_operators(torch, device)
    except Exception as error:  # a mismatched build raises anything; it is reported
        return Check(name, PROBLEM, reason(error), _TOGETHER, ABILITIES)
    if wrong:
        return Check(name, PROBLEM, f"{' and '.join(wrong)} give wrong numbers", _TOGETHER, ABILITIES)
    return Check(name, OK, "nms and roi_align run")


def wrong_operators(torch: Any, device: str) -> list[str]:
    """Return the names of the operators whose results differ from the exact values."""
    ops = import_quietly("torchvision.ops")
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]], dtype=torch.float32, device=device)
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    kept = ops.nms(boxes, scores, 0.5).tolist()  # the second covers 0.81 of the first
    # The mean of a linear ramp over a cell is its value at the cell's centre.
    ramp = torch.arange(8.0, device=device).expand(1, 1, 8, 8)
    rois = torch.tensor([[0, 1, 1, 5, 5]], dtype=torch.float32, device=device)
    pooled = ops.roi_align(ramp, rois, 2, sampling_ratio=2, aligned=True)[0, 0, 0].tolist()
    near = [abs(value - centre) < 1e-4 for value, centre in zip(pooled, (1.5, 3.5), strict=True)]
    return [name for name, right in (("nms", kept == [0, 2]), ("roi_align", all(near))) if not right]
