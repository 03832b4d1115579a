"""Time detectron2 fine-tuning with our engine against a loop written like detectron2's tools/train_net.py.

    OMP_NUM_THREADS=1 python benchmarks/detectron2_loop.py [--depth 50] [--size N] [--rounds N] [--amp]

ours    detection/engines/detectron2/training.py: seeded iterations, losses checked and written to metrics.jsonl and
        TensorBoard, progress bar
plain   detectron2's SimpleTrainer (AMPTrainer) with DefaultTrainer's hooks: IterationTimer, LRScheduler, PeriodicWriter
        with the default writers; the seeds, which it needs to do the same work, are not timed

Both use the same config, weights, optimizer and loader.  First, on the CPU, both train the same 20 iterations at a
small size: the losses must be identical.  Then they take turns, iteration by iteration, each in its own thread that
waits while the other runs, so that a busy machine slows both down alike; 20 of our iterations (one line of the log) are
compared with the 20 plain ones between them, and the result is the median of these ratios.  On a GPU, wall time is
measured after synchronising; on the CPU, processor time.

Target: at most 1.03.  About 2 minutes on one CPU core, with fewer proposals and channels, so that the overhead of a
loop weighs more, not less; a GPU uses 800 px, 16 images and the full R50-FPN.  One JSON line on stdout.
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from backbones.core.config import CfgNode, load_config
from backbones.core.engine import seed_step
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.run_log import MetricsWriter
from backbones.core.warning_counter import WarningCounter
from detection.config import get_defaults, validate
from detection.data.coco.reader import load_coco
from detection.data.records import DetectionData
from detection.engines.detectron2.config import fill_config
from detection.engines.detectron2.engine import import_detectron2
from detection.engines.detectron2.training import prepare

PERIOD = 20  # iterations per comparison, one log period
WARM_UP = 10  # iterations that are not timed
TARGET = 1.03
SMALL = {"depth": 18, "size": 64, "images": 2, "workers": 0, "amp": False, "full": False}  # for comparing losses
FEW = {
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 200, "MODEL.RPN.POST_NMS_TOPK_TRAIN": 100, "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 64, "MODEL.ROI_BOX_HEAD.FC_DIM": 256,
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Measure, and print one line of JSON."""
    args = parse_arguments(argv)
    d2, device = import_detectron2(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder), max(64, 2 * args.images))
        difference = compare_losses(d2, data, Path(folder))
        loops = [kind(d2, args, data, device, Path(folder, kind.__name__)) for kind in (OurLoop, PlainLoop)]
        take_turns(loops, WARM_UP + PERIOD * args.rounds)
    ours, plain = (np.reshape(loop.seconds[WARM_UP:], (args.rounds, PERIOD)).sum(axis=1) for loop in loops)
    ratios = ours / plain
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    details = {
        "ratio_quartiles": np.quantile(ratios, (0.25, 0.75)).round(4).tolist(),
        "seconds_per_iteration": {
            "ours": round(np.median(ours) / PERIOD, 4),
            "plain": round(np.median(plain) / PERIOD, 4),
        },
        "target": TARGET,
        **vars(args),
    }
    report = {"ratio": round(float(np.median(ratios)), 4), "losses_differ_by": difference, "device": name}
    print(json.dumps({"benchmark": "detectron2_loop"} | report | {"details": details}))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options; the defaults suit the device."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=50 if gpu else 18, choices=(18, 34, 50, 101), help="ResNet depth")
    parser.add_argument("--size", type=int, default=800 if gpu else 128, help="shorter side of the images in pixels")
    parser.add_argument("--images", type=int, default=16 if gpu else 2, help="images per iteration")
    parser.add_argument("--workers", type=int, default=8 if gpu else 0, help="loader processes")
    parser.add_argument("--full", action="store_true", default=gpu, help="default numbers of proposals and channels")
    parser.add_argument("--rounds", type=int, default=9, help=f"comparisons, of {PERIOD} iterations each")
    parser.add_argument("--amp", action="store_true", help="mixed precision (needs a GPU)")
    return parser.parse_args(argv)


def build_cfg(options: argparse.Namespace) -> CfgNode:
    """Build the config of an R-FPN from random weights, with trained BN and nothing frozen."""
    keys = {
        "ENGINE": "detectron2", "MODEL.RESNETS.DEPTH": options.depth, "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64 if options.depth < 50 else 256, "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.ROI_HEADS.NUM_CLASSES": 3, "INPUT.MIN_SIZE_TRAIN": [options.size], "INPUT.MAX_SIZE_TRAIN": 1333,
        "SOLVER.IMS_PER_BATCH": options.images, "SOLVER.BASE_LR": 0.001, "SOLVER.AMP.ENABLED": options.amp,
        "DATALOADER.NUM_WORKERS": options.workers, "SOLVER.CHECKPOINT_PERIOD": 10**6, **({} if options.full else FEW),
    }  # fmt: skip
    cfg = load_config(get_defaults(), None, [str(part) for pair in keys.items() for part in pair])
    validate(cfg)
    return cfg


class Loop:
    """A detector with its optimizer and training loop, which waits for `take_turns` between two iterations."""

    def __init__(self, d2: SimpleNamespace, options: Any, data: DetectionData, device: torch.device, out: Path) -> None:
        out.mkdir()
        cfg = build_cfg(options)
        d2_cfg = fill_config(cfg, d2.config.get_cfg(), device=str(device), processes=1)
        torch.manual_seed(0)
        self.detector = prepare(d2, d2_cfg, cfg, d2.modeling.build_model(d2_cfg), device)
        self.d2, self.data, self.device, self.out, self.losses = d2, data, device, out, []
        self.seconds: list[float] = []
        self.relay: tuple[threading.Semaphore, threading.Semaphore] | None = None
        self.error: BaseException | None = None

    def train(self, stop: int) -> None:
        """Train to iteration `stop`, with a call of `before_step` before each."""
        raise NotImplementedError

    def before_step(self) -> None:
        """Stop the clock of an iteration, wait for this loop's turn, and start the clock of the next."""
        if self.relay is None:
            return
        # detectron2 keeps the storage of the running trainer in a global list.
        stack = self.d2.utils.events._CURRENT_STORAGE_STACK
        own, (go, done) = list(stack), self.relay
        self.seconds.append(self.now() - self.began)
        stack.clear()
        done.release()
        go.acquire()
        stack[:] = own
        self.began = self.now()

    def now(self) -> float:
        """Return the time in seconds: processor time on a CPU, wall time after synchronising on a GPU."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def in_a_thread(self, stop: int) -> None:
        """Train in turns with the other loop, and keep an error for the main thread."""
        assert self.relay
        go, done = self.relay
        go.acquire()
        self.began = self.now()
        try:
            self.train(stop)
        except BaseException as error:
            self.error = error
        finally:
            done.release()

    def keep_losses(self) -> None:
        """Record the sum of the losses of every further iteration."""
        self.detector.model.register_forward_hook(lambda *call: self.losses.append(sum(call[-1].values()).item()))


class OurLoop(Loop):
    """The training loop of our engine."""

    def train(self, stop: int) -> None:
        own = self.detector.before_step
        self.detector.before_step = lambda trainer, log: (self.before_step(), own(trainer, log))[1]
        with MetricsWriter(self.out) as writer:
            options = {"start": 0, "stop": stop, "save": lambda finished: None, "writer": writer, "run_dir": self.out}
            self.detector.train(self.data, **options)


class PlainLoop(Loop):
    """detectron2's trainer with the hooks of its DefaultTrainer, without our code."""

    def train(self, stop: int) -> None:
        own, hooks = self.detector, self.d2.engine.hooks
        batches = own.batches(self.data, 0, stop)
        if own.scaler.is_enabled():
            trainer = self.d2.engine.AMPTrainer(own.model, batches, own.optimizer, grad_scaler=own.scaler)
        else:
            trainer = self.d2.engine.SimpleTrainer(own.model, batches, own.optimizer)
        writers = self.d2.engine.default_writers(str(self.out), own.cfg.SOLVER.MAX_ITER)
        usual = [hooks.IterationTimer(), hooks.LRScheduler(own.optimizer, own.schedule)]
        relay = hooks.CallbackHook(before_step=self.relay_and_seed)
        trainer.register_hooks([relay, *usual, hooks.PeriodicWriter(writers, period=PERIOD)])
        trainer.train(0, stop)

    def relay_and_seed(self, trainer: Any) -> None:
        """Seed before the clock starts: a plain loop has no seeds, but both loops must do the same work."""
        self.before_step()
        seed_step(0, trainer.iter)
        self.began = self.now()


def take_turns(loops: list[Loop], iterations: int) -> None:
    """Fill `seconds` of each loop, one iteration at a time, alternating which loop comes first."""
    threads = []
    for loop in loops:
        loop.relay = threading.Semaphore(0), threading.Semaphore(0)
        threads.append(threading.Thread(target=loop.in_a_thread, args=(iterations + 1,), daemon=True))
        threads[-1].start()
    for number in range(iterations + 2):  # the start, the iterations, and the one after the last
        for loop in loops if number % 2 else loops[::-1]:
            go, done = loop.relay
            go.release()
            done.acquire()
            if loop.error:
                raise loop.error
    for loop in loops:
        del loop.seconds[0]  # the time until the first iteration


def compare_losses(d2: SimpleNamespace, data: DetectionData, folder: Path) -> float:
    """Return the largest difference of the two loops' losses over PERIOD iterations; raise InputError above 1e-6."""
    loops = [kind(d2, argparse.Namespace(**SMALL), data, torch.device("cpu"), folder / f"small {kind.__name__}")
             for kind in (OurLoop, PlainLoop)]  # fmt: skip
    for loop in loops:
        loop.keep_losses()
        loop.train(PERIOD)
    ours, plain = (np.array(loop.losses) for loop in loops)
    difference = float(np.abs(ours - plain).max())
    if not difference <= 1e-6:
        raise InputError(f"the losses of the two loops differ by {difference:g}; they are not comparable")
    return difference


def write_data(folder: Path, count: int) -> DetectionData:
    """Write wide images of noise, 160 x 128 pixels, with three boxes each, in COCO's format, and load them."""
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
