"""Time a training step of YOLO against the bare forward and backward pass of its network.

    OMP_NUM_THREADS=1 python benchmarks/yolo_step.py [--arch NAME] [--size PIXELS] [--batch-size N] [--boxes M]

Both take turns on the same images, with 20 classes, mixup weights and boxes of all sizes:

    bare    forward, the sum of the three maps, backward
    step    forward, assignment, loss with online soft labels and their `observe`, backward, SGD

step_over_bare  median over the rounds of step time over bare time of the same round; target: at most 1.5
parts_ms        median milliseconds of the assignment only, and of the loss (including the assignment) with its backward
                pass to the maps

On a GPU, a turn is a block of steps in wall time; on the CPU, it is one step in processor time, as wall time would
include other processes.  About a minute on a GPU, 3 minutes on one CPU core.  One JSON line.
"""

import argparse
import json
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from overhead_steps import now, take_turns
from torch import Tensor

from backbones.core.config import CfgNode
from backbones.core.engine import autocast
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from detection.engines.yolo.anchors import VOC_ANCHORS
from detection.engines.yolo.assignment import assign
from detection.engines.yolo.building import build_yolo
from detection.engines.yolo.labels import OLS
from detection.engines.yolo.loss import YOLOLoss

NUM_CLASSES = 20
TARGET = 1.5


def main(argv: list[str] | None = None) -> None:
    """Measure, and print one line of JSON."""
    args = parse_arguments(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(args, device)
    works = {"bare": bench.bare, "step": bench.step, "assignment": bench.assignment, "loss": bench.loss_alone}
    turns = {name: lambda work=work: timed(work, args.steps, device) for name, work in works.items()}
    seconds = take_turns(turns, args.repeats)
    ratios = np.divide(seconds["step"], seconds["bare"])
    print(
        json.dumps(
            {
                "benchmark": "yolo_step",
                "step_over_bare": round(float(np.median(ratios)), 4),
                "target": TARGET,
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
                "details": {
                    "quartiles": np.quantile(ratios, (0.25, 0.75)).round(4).tolist(),
                    "parts_ms": {name: per_step(seconds[name], args.steps) for name in ("assignment", "loss")},
                    "step_ms": per_step(seconds["step"], args.steps),
                    "bare_ms": per_step(seconds["bare"], args.steps),
                    **vars(args),
                },
            }
        )
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options; the defaults suit the device."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="mobilenetv2", help="MODEL.ARCH")
    parser.add_argument("--size", type=int, default=416, help="side of the input in pixels")
    parser.add_argument("--batch-size", type=int, default=32 if gpu else 2, help="images per step")
    parser.add_argument("--boxes", type=int, default=40, help="boxes per image, half of them padding")
    parser.add_argument("--neck-width", type=int, default=512, help="MODEL.NECK_WIDTH")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=20 if gpu else 1, help="steps per turn")
    parser.add_argument("--repeats", type=int, default=9 if gpu else 15, help="rounds; one turn of both in each")
    args = parser.parse_args(argv)
    if args.size % 32 or args.size < 32:
        raise InputError(f"--size is {args.size}; give a multiple of 32")
    return args


class Bench:
    """A network, a batch, and the timed operations on them."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        settings = {"ARCH": args.arch, "NUM_CLASSES": NUM_CLASSES, "ANCHORS": VOC_ANCHORS, "NORM": "BN"}
        self.network, _ = build_yolo(
            CfgNode({**settings, "NECK_WIDTH": args.neck_width, "FREEZE_AT": 0}), backbone=None
        )
        self.network.to(device)
        self.loss, self.labels = (
            YOLOLoss(VOC_ANCHORS).to(device),
            OLS(NUM_CLASSES, hard_weight=0.5, form="softmax", empty="uniform").to(device),
        )
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-6, momentum=0.9)
        self.device, self.precision = device, args.precision
        self.images = torch.randn(args.batch_size, 3, args.size, args.size, device=device)
        self.where = tuple(part.to(device) for part in random_boxes(args.batch_size, args.boxes, args.size))
        self.maps = [raw.detach() for raw in self.forward()]

    def forward(self) -> list[Tensor]:
        """Return the raw maps of the batch."""
        with autocast(self.device, self.precision):
            return self.network(self.images)

    def bare(self) -> None:
        """Run forward and backward through a sum, the minimum cost of any loss."""
        self.network.zero_grad(set_to_none=True)
        torch.stack([raw.float().sum() for raw in self.forward()]).sum().backward()

    def step(self) -> None:
        """Run a whole training step: forward, loss with soft labels, backward, observation, optimizer."""
        self.optimizer.zero_grad(set_to_none=True)
        maps = self.forward()
        self.total(maps).backward()
        self.labels.observe(*self.loss.classified(maps, *self.where))
        self.optimizer.step()

    def assignment(self) -> None:
        """Run only the assignment of boxes to anchors."""
        boxes, labels, _ = self.where
        sizes = [(raw.shape[2], raw.shape[3]) for raw in self.maps]
        assign(boxes, labels >= 0, list(self.loss.anchors), self.loss.strides, sizes, self.loss.assign_iou)

    def loss_alone(self) -> None:
        """Compute the loss and its gradient with respect to the maps, without the network."""
        self.total([raw.requires_grad_() for raw in self.maps]).backward()
        for raw in self.maps:
            raw.grad = None

    def total(self, maps: list[Tensor]) -> Tensor:
        """Return the sum of the losses ()."""
        with autocast(self.device, self.precision):
            losses = self.loss(maps, *self.where, self.labels.targets(self.where[1]))
        return torch.stack(list(losses.values())).sum()


def random_boxes(images: int, number: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (B, M, 4) of all sizes, labels (B, M), the second half of them padding, and weights (B, M)."""
    random = torch.Generator().manual_seed(0)
    size = side * torch.exp(-3.5 * torch.rand(images, number, 2, generator=random))
    corner = torch.rand(images, number, 2, generator=random) * (side - size)
    labels = torch.randint(NUM_CLASSES, (images, number), generator=random)
    labels[:, (number + 1) // 2 :] = -1
    weights = torch.where(torch.rand(images, 1, generator=random) < 0.5, 0.6, 1.0).repeat(1, number)
    return torch.cat([corner, corner + size], dim=-1), labels, weights


def timed(work: Callable[[], None], steps: int, device: torch.device) -> float:
    """Return the seconds of `steps` calls of `work`."""
    started = now(device)
    for _ in range(steps):
        work()
    return now(device) - started


def per_step(seconds: list[float], steps: int) -> float:
    """Return the median milliseconds of one step."""
    return round(1000 * median(seconds) / steps, 2)


if __name__ == "__main__":
    run_tool(main)
