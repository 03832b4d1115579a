"""Time detectron2 fine-tuning by our engine against a loop written as detectron2's tools/train_net.py is.

    OMP_NUM_THREADS=1 python benchmarks/detectron2_loop.py [--depth 50] [--size N] [--rounds N] [--amp]

ours    detection/engines/detectron2_training.py: seeded iterations, losses checked and written to metrics.jsonl and
        TensorBoard, progress bar
plain   detectron2's SimpleTrainer (AMPTrainer) with DefaultTrainer's hooks: IterationTimer, LRScheduler, PeriodicWriter
        with the default writers; no seeds

Same config, same weights, same optimizer, both fed by our loader.  First, on the CPU, both train the same 20 iterations
at a small size, the plain loop seeded as ours: the losses must be identical.  Then they take turns of 20 iterations
(one line of the log each); every turn of ours is compared with the plain turn of its round, and the median of the
ratios counts.  On a GPU the clock is read, after synchronising at a turn's two ends; on the CPU the processor time,
because on a busy machine the clock measures the neighbours.

Target: at most 1.03.  About 2 minutes on one CPU core, with fewer proposals and channels, so that what a loop adds
weighs more, not less; a GPU takes 800 px, 16 pictures and R50-FPN as it is.  One JSON line on stdout.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from overhead_steps import take_turns
from PIL import Image

from backbones.core.config import CfgNode, load_config
from backbones.core.engine import seed_step
from backbones.core.errors import InputError, run_tool
from backbones.core.warnings import WarningCounter
from detection.config import get_defaults, validate
from detection.data.coco import load_coco
from detection.data.records import DetectionData
from detection.engines.detectron2 import import_detectron2
from detection.engines.detectron2_config import fill_config
from detection.engines.detectron2_training import Run

TURN = 20  # iterations that are timed, a log period
WARM_UP = {"cpu": 1, "cuda": 10}  # before them, in each turn: new loader processes fill their queue
TARGET = 1.03
SMALL = {"depth": 18, "size": 64, "pictures": 2, "workers": 0, "amp": False, "full": False}  # to compare losses
FEW = {
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 200, "MODEL.RPN.POST_NMS_TOPK_TRAIN": 100, "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 64, "MODEL.ROI_BOX_HEAD.FC_DIM": 256,
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    d2, device = import_detectron2(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder), max(64, 2 * args.pictures))
        difference = compare_losses(d2, data, Path(folder))
        turns = {
            "ours": OurLoop(d2, args, data, device, Path(folder, "ours")),
            "plain": PlainLoop(d2, args, data, device, Path(folder, "plain")),
        }
        seconds = take_turns({name: lambda t=turn: t.take(TURN + WARM_UP[device.type]) for name, turn in turns.items()},
                             args.rounds)  # fmt: skip
    ratios = np.divide(seconds["ours"], seconds["plain"])
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    details = {
        "ratio_quartiles": np.quantile(ratios, (0.25, 0.75)).round(4).tolist(),
        "seconds_per_iteration": {name: round(float(np.median(turn)) / TURN, 4) for name, turn in seconds.items()},
        "target": TARGET,
        **vars(args),
    }
    report = {"ratio": round(float(np.median(ratios)), 4), "losses_differ_by": difference, "device": name}
    print(json.dumps({"benchmark": "detectron2_loop"} | report | {"details": details}))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=50 if gpu else 18, choices=(18, 34, 50, 101), help="of the ResNet")
    parser.add_argument("--size", type=int, default=800 if gpu else 128, help="short side of the pictures in pixels")
    parser.add_argument("--pictures", type=int, default=16 if gpu else 2, help="pictures of an iteration")
    parser.add_argument("--workers", type=int, default=8 if gpu else 0, help="processes that read pictures")
    parser.add_argument("--full", action="store_true", default=gpu, help="as many proposals and channels as usual")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each loop")
    parser.add_argument("--amp", action="store_true", help="mixed precision (needs a GPU)")
    return parser.parse_args(argv)


def build_cfg(options: argparse.Namespace) -> CfgNode:
    """R-FPN from random weights: BN that trains, nothing frozen."""
    keys = {
        "ENGINE": "detectron2", "MODEL.RESNETS.DEPTH": options.depth, "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64 if options.depth < 50 else 256, "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.ROI_HEADS.NUM_CLASSES": 3, "INPUT.MIN_SIZE_TRAIN": [options.size], "INPUT.MAX_SIZE_TRAIN": 1333,
        "SOLVER.IMS_PER_BATCH": options.pictures, "SOLVER.BASE_LR": 0.001, "SOLVER.AMP.ENABLED": options.amp,
        "DATALOADER.NUM_WORKERS": options.workers, "SOLVER.CHECKPOINT_PERIOD": 10**6, **({} if options.full else FEW),
    }  # fmt: skip
    cfg = load_config(get_defaults(), None, [str(part) for pair in keys.items() for part in pair])
    validate(cfg)
    return cfg


class Loop:
    """A detector with its optimizer, and how it is trained; `take` runs and times its next iterations."""

    def __init__(self, d2: SimpleNamespace, options: Any, data: DetectionData, device: torch.device, out: Path) -> None:
        out.mkdir()
        cfg = build_cfg(options)
        settings = fill_config(cfg, d2.config.get_cfg(), device=str(device), processes=1)
        torch.manual_seed(0)
        model = d2.modeling.build_model(settings)
        self.run = Run(d2, settings, cfg, model, {}, out, device)
        self.d2, self.data, self.device, self.losses = d2, data, device, []

    def take(self, iterations: int) -> float:
        """Seconds of the last TURN of the next `iterations` (and one more, at whose start the clock stops)."""
        start, self.ticks = self.run.finished, []
        self.train(start, start + iterations + 1)
        self.run.finished = start + iterations + 1
        return self.ticks[-1] - self.ticks[-1 - TURN]

    def train(self, start: int, stop: int) -> None:
        raise NotImplementedError

    def keep_losses(self) -> None:
        """Note the sum of the losses of every iteration to come."""
        self.run.model.register_forward_hook(lambda *call: self.losses.append(sum(call[-1].values()).item()))

    def ticking(self, batches: Iterable[Any], start: int, stop: int) -> Iterator[Any]:
        """The batches; the clock is read whenever one is asked for, that is, once an iteration."""
        for number, batch in zip(range(start, stop), batches, strict=True):
            yield batch
            if self.device.type == "cuda" and number in (stop - 2 - TURN, stop - 2):
                torch.cuda.synchronize()
            self.ticks.append(time.perf_counter() if self.device.type == "cuda" else time.process_time())


class OurLoop(Loop):
    def train(self, start: int, stop: int) -> None:
        build = Run.build_batches
        self.run.build_batches = lambda *call: self.ticking(build(self.run, *call), start, stop)
        self.run.train(self.data, stop)


class PlainLoop(Loop):
    seeded = False

    def train(self, start: int, stop: int) -> None:
        run, hooks = self.run, self.d2.engine.hooks
        batches = self.ticking(run.build_batches(self.data, start, stop), start, stop)
        if run.scaler.is_enabled():
            trainer = self.d2.engine.AMPTrainer(run.model, batches, run.optimizer, grad_scaler=run.scaler)
        else:
            trainer = self.d2.engine.SimpleTrainer(run.model, batches, run.optimizer)
        writers = self.d2.engine.default_writers(str(run.run_dir), run.cfg.SOLVER.MAX_ITER)
        usual = [hooks.IterationTimer(), hooks.LRScheduler(run.optimizer, run.schedule)]
        seed = hooks.CallbackHook(before_step=lambda trainer: seed_step(0, trainer.iter))
        trainer.register_hooks([*([seed] if self.seeded else []), *usual, hooks.PeriodicWriter(writers, period=TURN)])
        trainer.train(start, stop)


def compare_losses(d2: SimpleNamespace, data: DetectionData, folder: Path) -> float:
    """The largest difference between the losses of the two loops over TURN iterations; an error beyond 1e-6."""
    loops = [kind(d2, argparse.Namespace(**SMALL), data, torch.device("cpu"), folder / f"small {kind.__name__}")
             for kind in (OurLoop, PlainLoop)]  # fmt: skip
    for loop in loops:
        loop.seeded = True
        loop.keep_losses()
        loop.take(TURN + 1)
    ours, plain = (np.array(loop.losses[:TURN]) for loop in loops)
    difference = float(np.abs(ours - plain).max())
    if not difference <= 1e-6:
        raise InputError(f"the losses of the two loops differ by {difference:g}; they are not comparable")
    return difference


def write_data(folder: Path, count: int) -> DetectionData:
    """Wide pictures of noise, 160 by 128 pixels, with three boxes each, in COCO's form."""
    random = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(count):
        pixels = random.integers(0, 256, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((160, 128), Image.Resampling.BILINEAR).save(folder / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 160, "height": 128})
        for category in range(1, 4):
            x, y, w, h = (int(v) for v in (*random.integers(0, 60, 2), *random.integers(20, 60, 2)))
            box = {"image_id": number, "category_id": category, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **box})
    categories = [{"id": k, "name": str(k)} for k in range(1, 4)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return load_coco(path, folder, "noise", WarningCounter())


if __name__ == "__main__":
    run_tool(main)
