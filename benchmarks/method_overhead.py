"""Time the overhead of every method over training with hard labels.

    python benchmarks/method_overhead.py [--methods NAME ...] [--arch resnet50] [--batch-size N] [--repeats N]

added_ms    milliseconds of `targets` and `observe` beyond those of cross-entropy, for 256 samples of 1,000 classes on
            one core; target for methods that only compute targets: at most 3
ratios      time of a training step (loading JPEGs, forward, backward, update) over that of cross-entropy; targets: at
            most 1.02 for methods that only compute targets, 1.03 with a cached teacher, 1.40 with an online one (the
            authors of ALS report 1.54 for theirs); none for methods with additional passes or classifiers
ols_loop    time of OLS's update as a loop over the samples, its common form, over ours; target: at least 20

The methods take turns on the same images and crops, and each is compared with the turn of cross-entropy in the same
round; the result is the median over the rounds.  On a GPU, a turn is a block of steps in wall time, with loader
processes; on the CPU, it is one step in processor time, as wall time would include other processes.  The quartiles and
the ratio of the fastest turns, in the details, show how reliable the figures are.

About 15 minutes on a GPU, or on one idle CPU core.  A table goes to stderr, one JSON line to stdout.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from overhead_steps import step_seconds, take_turns
from torch import Tensor, nn

from backbones.config import get_defaults, needs_teacher
from backbones.core.entry import run_tool
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Context, Method
from backbones.methods.manual import DEFAULT
from backbones.models import Outputs, build_model

BASELINE = DEFAULT
NUM_CLASSES = 1000
# Suffix of rows with cached teacher logits.
CACHED = "-cached"


def main(argv: list[str] | None = None) -> None:
    """Measure, and print one line of JSON."""
    args = parse_arguments(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    added = added_milliseconds(args.methods, args.calls)
    rows = [name for name in args.methods if name != BASELINE]
    rows += [name + CACHED for name in rows if needs_teacher(name)]
    seconds = step_seconds([BASELINE, *rows], args, device)
    rounds = {name: np.divide(seconds[name], seconds[BASELINE]) for name in rows}
    ratios = {name: round(float(np.median(rounds[name])), 4) for name in rows}
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    details = {
        "added_ms": added,
        "ratio_quartiles": {name: np.quantile(rounds[name], (0.25, 0.75)).round(4).tolist() for name in rows},
        "ratio_of_fastest": {name: round(min(seconds[name]) / min(seconds[BASELINE]), 4) for name in rows},
        "seconds_per_step": {name: round(median(turns) / args.steps, 4) for name, turns in seconds.items()},
        "targets": {name: target(name) for name in rows},
        **vars(args),
    }
    print_table(added, ratios, details)
    report = {"ratios": ratios, "ols_loop": round(ols_loop_ratio(args.calls), 1), "device": name, "details": details}
    print(json.dumps({"benchmark": "method_overhead"} | report))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options; the defaults suit the device."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS.names(), help="names; default: all")
    parser.add_argument("--arch", default="resnet50" if gpu else "resnet18", help="name of the network")
    parser.add_argument("--batch-size", type=int, default=256 if gpu else 8, help="images per step")
    parser.add_argument("--steps", type=int, default=20 if gpu else 1, help="timed steps per turn")
    parser.add_argument("--repeats", type=int, default=7 if gpu else 20, help="rounds; one turn per method in each")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)) - 1 if gpu else 0, help="loaders")
    parser.add_argument("--calls", type=int, default=200, help="timed calls of `targets` and `observe`")
    return parser.parse_args(argv)


def target(row: str) -> float | None:
    """Return the ratio that a row should not exceed, None without a target."""
    if row.endswith(CACHED):
        return 1.03
    if needs_teacher(row):
        return 1.40
    return None if is_heavy(row) else 1.02


def is_heavy(name: str) -> bool:
    """Whether the method has additional passes through a network, or classifiers."""
    method = METHODS.get(name)(build_model("resnet18", NUM_CLASSES), NUM_CLASSES)
    own = len(list(method.parameters())) - len(list(method.model.parameters()))
    return own > 0 or "second_view" in method.needs


def print_table(added: dict[str, float], ratios: dict[str, float], details: dict) -> None:
    """Print one line per method to stderr."""
    print(f"{'method':<24}{'added ms':>10}{'step ratio':>12}{'target':>8}  quartiles", file=sys.stderr)
    for name, ratio in ratios.items():
        low, high = details["ratio_quartiles"][name]
        own = "" if name not in added else f"{added[name]:.3f}"
        wanted = details["targets"][name] or "-"
        print(f"{name:<24}{own:>10}{ratio:>12.4f}{wanted:>8}  {low:.3f} to {high:.3f}", file=sys.stderr)


# targets and observe


class Given(nn.Module):
    """A network that returns its input as logits."""

    def forward(self, x: Tensor) -> Outputs:
        """Return x (B, K) as logits."""
        return Outputs(x, {})

    def feature_channels(self) -> dict[str, int]:
        """Return one stage, so that no shallow classifier is built."""
        return {"res5": 1}


def added_milliseconds(names: list[str], calls: int, batch_size: int = 256) -> dict[str, float]:
    """Return the median milliseconds of `targets` and `observe` on one core, minus those of cross-entropy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batch = logits_batch(batch_size)
    outputs = Outputs(batch.images, {})
    methods = {name: build_ready(name, batch) for name in dict.fromkeys([BASELINE, *names])}

    def call(method: Method) -> None:
        method.targets(batch)
        with torch.no_grad():
            method.observe(outputs, batch)

    seconds = take_turns({name: lambda m=method: timed_cpu(lambda: call(m)) for name, method in methods.items()}, calls)
    torch.set_num_threads(threads)
    return {name: round(1000 * (median(turns) - median(seconds[BASELINE])), 3) for name, turns in seconds.items()}


def logits_batch(size: int) -> Batch:
    """Return a batch of random logits instead of images, with all optional fields that methods need."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(size, NUM_CLASSES, generator=random)
    labels = torch.randint(NUM_CLASSES, (size,), generator=random)
    return Batch(
        logits,
        labels,
        index=torch.arange(size),
        objectness=torch.rand(size, generator=random),
        boxes=torch.tensor([20.0, 20, 150, 160]).repeat(size, 1, 1),
        is_context=torch.rand(size, generator=random) < 0.15,
        teacher_logits=torch.randn(size, NUM_CLASSES, generator=random),
    )


def build_ready(name: str, batch: Batch) -> Method:
    """Build the method with its default arguments, set up for a data set of this batch."""
    method = METHODS.get(name)(Given(), NUM_CLASSES, **get_defaults().METHOD[name])
    method.setup(Context(len(batch), batch.labels, epochs=2, steps_per_epoch=1))
    method.begin_epoch(0)
    return method


def ols_loop_ratio(calls: int) -> float:
    """Return the time of OLS's update as a loop over the samples, over that of `observe`, for right predictions."""
    batch = logits_batch(256)
    logits = batch.images + 20 * torch.nn.functional.one_hot(batch.labels, NUM_CLASSES)
    method, total, count = build_ready("OLS", batch), torch.zeros(NUM_CLASSES, NUM_CLASSES), torch.zeros(NUM_CLASSES)

    def loop() -> None:
        p = logits.softmax(dim=1)
        for i in range(len(batch)):
            if p[i].argmax() == batch.labels[i]:
                total[batch.labels[i]] += p[i]
                count[batch.labels[i]] += 1

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    turns = {
        "loop": lambda: timed_cpu(loop),
        "ours": lambda: timed_cpu(lambda: method.observe(Outputs(logits, {}), batch)),
    }
    seconds = take_turns(turns, calls)
    torch.set_num_threads(threads)
    return median(seconds["loop"]) / median(seconds["ours"])


def timed_cpu(work: Callable[[], None]) -> float:
    """Return the processor seconds of `work`."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    run_tool(main)
