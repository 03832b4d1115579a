"""Training steps timed by method_overhead.py."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from backbones.config import get_defaults, needs_teacher
from backbones.core.engine import autocast
from backbones.core.optimizer import build_optimizer
from backbones.data.loader import training_batches
from backbones.data.samples import Samples
from backbones.data.training_set import TrainingSet
from backbones.methods.base import METHODS, Context
from backbones.models import backbone_spec, build_model
from backbones.models.weights import BackboneFile
from backbones.pretraining.task import ClassificationTask
from backbones.pretraining.teacher import OnlineTeacher, TaughtBatches

NUM_CLASSES = 1000
IMAGE_SIZE = 224
WARM_UP = {"cuda": 10, "cpu": 0}  # steps of a turn before the clock starts, while the loader's queue fills


def take_turns(turns: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the results of each turn by round, after one uncounted round; the order rotates from round to round."""
    names = list(turns)
    for name in names:
        turns[name]()
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(turns[name]())
    return results


def step_seconds(names: list[str], args: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """Return the seconds of each method's turns, one per round; a name can end in "-cached"."""
    with tempfile.TemporaryDirectory() as folder:
        samples = synthetic_samples(Path(folder), at_least=8 * args.batch_size)
        turns = {name: build_turn(name, samples, args, device) for name in names}
        return take_turns(turns, args.repeats)


def build_teacher(arch: str, device: torch.device) -> OnlineTeacher:
    """Build a teacher with the student's architecture and random weights."""
    cfg, classes = get_defaults(), [str(k) for k in range(NUM_CLASSES)]
    model = build_model(arch, NUM_CLASSES)
    spec = backbone_spec(model, mean=cfg.DATA.MEAN, std=cfg.DATA.STD, image_size=IMAGE_SIZE, classes=classes)
    file = BackboneFile(model.state_dict(), spec, {"label": arch, "data_fingerprint": ""}, arch)
    teacher = OnlineTeacher(file, classes, device, torch.float32)
    teacher.model = teacher.model.to(memory_format=torch.channels_last)
    return teacher


def build_turn(row: str, samples: Samples, args: argparse.Namespace, device: torch.device) -> Callable[[], float]:
    """Return a function that trains for one turn and returns its seconds; turn n has the same images for all names."""
    cfg, (name, _, cached) = get_defaults(), row.partition("-")
    torch.manual_seed(0)
    model = build_model(args.arch, NUM_CLASSES).to(memory_format=torch.channels_last)
    method = METHODS.get(name)(model, NUM_CLASSES, **cfg.METHOD[name]).to(device)
    method.setup(Context(len(samples), torch.from_numpy(samples.labels), epochs=2, steps_per_epoch=1))
    method.begin_epoch(1)
    teacher = build_teacher(args.arch, device) if needs_teacher(name) and not cached else None
    task = ClassificationTask(
        method, cfg.DATA.MEAN, cfg.DATA.STD, dtype=torch.float32, channels_last=True, teacher=teacher
    ).to(device)
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(parameters, "SGD", lr=0.01, weight_decay=1e-4)
    images = TrainingSet(
        samples,
        size=IMAGE_SIZE,
        crop_area=(0.08, 1),
        crop_ratio=(3 / 4, 4 / 3),
        flip=0.5,
        seed=0,
        needs=method.needs,
        context_share=0.15 if "is_context" in method.needs else 0.0,
    )
    length = WARM_UP[device.type] + args.steps
    finished = 0

    def turn() -> float:
        nonlocal finished
        batches = training_batches(
            images,
            batch_size=args.batch_size,
            seed=0,
            start=finished,
            stop=finished + length,
            num_workers=args.workers,
            pin_memory=True,
        )
        finished += length
        taught = TaughtBatches(batches, np.zeros((len(samples), NUM_CLASSES), np.float32)) if cached else batches
        return train_turn(task, taught, optimizer, device)

    return turn


def train_turn(task: ClassificationTask, batches, optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """Train for one turn, and return the seconds of the steps after the warm-up."""
    remaining = iter(batches)
    for _ in range(WARM_UP[device.type]):
        train_step(task, next(remaining), optimizer, device)
    started = now(device)
    for batch in remaining:
        train_step(task, batch, optimizer, device)
    return now(device) - started


def train_step(task: ClassificationTask, batch, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Run one step like the training loop: forward, backward, optimizer, `after_step` of the method."""
    with autocast(device, "bfloat16" if device.type == "cuda" else "float32"):
        loss = task(batch.to(device, non_blocking=True)).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    task.method.after_step()


def now(device: torch.device) -> float:
    """Return the time in seconds: wall time after synchronising on a GPU, processor time on the CPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def synthetic_samples(folder: Path, at_least: int, files: int = 64) -> Samples:
    """Write JPEGs of ImageNet's usual size, 500 x 375, with one box each; repeat them up to `at_least` samples."""
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
