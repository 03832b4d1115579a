"""Time what soft labels add to training with hard labels.

    python benchmarks/method_overhead.py [--arch resnet50] [--batch-size N] [--steps N] [--repeats N]

    added_ms    milliseconds of `targets` and `observe` beyond cross-entropy's, 256 samples of 1,000 classes, one core;
                target: ALS at most 1, OLS at most 3
    ratios      time of a training step over cross-entropy's: loading JPEGs, forward, backward, update;
                target: ALS and OLS at most 1.02, LS at most 1.01 (the authors of ALS report 1.54)

The methods take turns, on the same pictures and crops, and each is compared with cross-entropy's turn of the same
round; the median over the rounds counts.  On a GPU a turn is a block of steps on the clock, with loader processes; on
the CPU it is one step in processor time, because on a busy machine the clock measures the neighbours.  The quartiles
and the ratio of the fastest turns, in the details, say how far the figures can be trusted.

About 5 minutes on a GPU, and 8 minutes on one idle CPU core.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from torch import nn

from backbones.config import get_defaults
from backbones.core.engine import autocast
from backbones.core.errors import run_tool
from backbones.core.optimizer import build_optimizer
from backbones.data.batch import Batch
from backbones.data.loader import training_batches
from backbones.data.samples import Samples
from backbones.data.training_set import TrainingSet
from backbones.methods import METHODS, Method
from backbones.models import Outputs, build_model
from backbones.task import ClassificationTask

BASELINE, NAMES = "CE", ("LS", "ALS", "OLS")
NUM_CLASSES = 1000
IMAGE_SIZE = 224
WARM_UP = {"cuda": 10, "cpu": 0}  # steps of a turn before the clock starts: the loader's queue fills


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    added = added_milliseconds(args.calls)
    seconds = step_seconds(args, device)
    rounds = {name: np.divide(seconds[name], seconds[BASELINE]) for name in NAMES}
    ratios = {name: round(float(np.median(rounds[name])), 4) for name in NAMES}
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    details = {
        "added_ms": added,
        "ratio_quartiles": {name: np.quantile(rounds[name], (0.25, 0.75)).round(4).tolist() for name in NAMES},
        "ratio_of_fastest": {name: round(min(seconds[name]) / min(seconds[BASELINE]), 4) for name in NAMES},
        "seconds_per_step": {name: round(median(turns) / args.steps, 4) for name, turns in seconds.items()},
        **vars(args),
    }
    print(json.dumps({"benchmark": "method_overhead", "ratios": ratios, "device": name, "details": details}))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50", help="name of the network")
    parser.add_argument("--batch-size", type=int, default=256 if gpu else 8, help="pictures of a step")
    parser.add_argument("--steps", type=int, default=40 if gpu else 1, help="timed steps of a method's turn")
    parser.add_argument("--repeats", type=int, default=9 if gpu else 40, help="rounds; every method has a turn in each")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)) - 1 if gpu else 0, help="loaders")
    parser.add_argument("--calls", type=int, default=200, help="calls of `targets` and `observe` that are timed")
    return parser.parse_args(argv)


def build_method(name: str, model: nn.Module) -> Method:
    """The method with its default arguments."""
    return METHODS.get(name)(model, NUM_CLASSES, **get_defaults().METHOD[name])


# targets and observe


def added_milliseconds(calls: int, batch_size: int = 256) -> dict[str, float]:
    """Median milliseconds of `targets` and `observe` on one core, minus cross-entropy's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    outputs = Outputs(torch.randn(batch_size, NUM_CLASSES, generator=random), {})
    labels = torch.randint(NUM_CLASSES, (batch_size,), generator=random)
    batch = Batch(outputs.logits, labels, objectness=torch.rand(batch_size, generator=random))
    methods = {name: build_method(name, nn.Identity()) for name in (BASELINE, *NAMES)}

    def call(method: Method) -> None:
        method.targets(batch)
        with torch.no_grad():
            method.observe(outputs, batch)

    seconds = take_turns({name: lambda m=method: timed_cpu(lambda: call(m)) for name, method in methods.items()}, calls)
    torch.set_num_threads(threads)
    return {name: round(1000 * (median(seconds[name]) - median(seconds[BASELINE])), 3) for name in NAMES}


def timed_cpu(work: Callable[[], None]) -> float:
    """Processor seconds of `work`."""
    started = time.process_time()
    work()
    return time.process_time() - started


def take_turns(turns: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each turn returns in each round, after one round that is not counted; another one begins each round."""
    names = list(turns)
    for name in names:
        turns[name]()
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(turns[name]())
    return results


# Training steps


def step_seconds(args: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each method's turns, one a round."""
    with tempfile.TemporaryDirectory() as folder:
        samples = synthetic_samples(Path(folder), at_least=8 * args.batch_size)
        turns = {name: build_turn(name, samples, args, device) for name in (BASELINE, *NAMES)}
        return take_turns(turns, args.repeats)


def build_turn(name: str, samples: Samples, args: argparse.Namespace, device: torch.device) -> Callable[[], float]:
    """A function that trains for one turn and returns its seconds; the n-th turn has the same pictures for any name."""
    cfg = get_defaults()
    torch.manual_seed(0)
    method = build_method(name, build_model(args.arch, NUM_CLASSES).to(memory_format=torch.channels_last)).to(device)
    task = ClassificationTask(method, cfg.DATA.MEAN, cfg.DATA.STD, dtype=torch.float32, channels_last=True).to(device)
    optimizer = build_optimizer(method.parameters(), "SGD", lr=0.01, weight_decay=1e-4)
    pictures = TrainingSet(
        samples, size=IMAGE_SIZE, crop_area=(0.08, 1), crop_ratio=(3 / 4, 4 / 3), flip=0.5, seed=0, needs=method.needs
    )
    length = WARM_UP[device.type] + args.steps
    finished = 0

    def train_step(batch: Batch) -> None:
        with autocast(device, "bfloat16" if device.type == "cuda" else "float32"):
            loss = task(batch.to(device, non_blocking=True)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def turn() -> float:
        nonlocal finished
        batches = training_batches(
            pictures,
            batch_size=args.batch_size,
            seed=0,
            start=finished,
            stop=finished + length,
            num_workers=args.workers,
            pin_memory=True,
        )
        finished += length
        remaining = iter(batches)
        for _ in range(WARM_UP[device.type]):
            train_step(next(remaining))
        started = now(device)
        for batch in remaining:
            train_step(batch)
        return now(device) - started

    return turn


def now(device: torch.device) -> float:
    """Seconds: the clock where the device works beside this process, else this process's processor time."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def synthetic_samples(folder: Path, at_least: int, files: int = 64) -> Samples:
    """JPEGs of ImageNet's usual size, 500 x 375, with one box each; listed again until they are `at_least` samples."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(files):
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        path = folder / f"{number:03d}.jpg"
        cv2.imwrite(str(path), (image + random.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8))
        paths.append(str(path))
    paths = paths * -(-at_least // files)
    corners = random.uniform(0, 200, (len(paths), 2))
    return Samples(
        paths=paths,
        labels=random.integers(0, NUM_CLASSES, len(paths)),
        boxes=np.concatenate([corners, corners + random.uniform(50, 170, corners.shape)], axis=1).astype(np.float32),
        offsets=np.arange(len(paths) + 1),
        classes=[str(k) for k in range(NUM_CLASSES)],
        fingerprint="synthetic",
        name="synthetic",
        split="train",
    )


if __name__ == "__main__":
    run_tool(main)
