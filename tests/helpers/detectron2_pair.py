"""Run by test_detectron2_runs.py: two processes of detectron2's `launch`, whose output several tests check."""

import json
import sys
from pathlib import Path

import torch

from backbones.core.distributed import rank, setup_distributed, world_size
from detection.training.fitting import fit
from detection.training.gathering import gather_detections
from detection.training.precise_bn import measure_statistics
from helpers.detectron2_tiny import EVERYTHING_SAMPLED, load_data, make_cfg
from helpers.seeded import make_backbone


def work(folder):
    torch.set_num_threads(1)
    device = setup_distributed()  # joined already, without RANK in the environment
    heard = {"rank": rank(), "world": world_size(), "device": str(device)}
    (folder / f"data{rank()}").mkdir()
    data = load_data(folder / f"data{rank()}")
    for name, overrides in RUNS.items():
        run_dir = folder / name
        run_dir.mkdir(exist_ok=True)
        found = fit(make_cfg(*overrides), make_backbone(), data, data, run_dir, device).detections
        (run_dir / f"found{rank()}.json").write_text(json.dumps(found))
    norm = torch.nn.BatchNorm1d(3)
    measure_statistics(norm, numbers_of(rank()), make_cfg("TEST.PRECISE_BN.NUM_ITER", 2))
    heard |= {"mean": norm.running_mean.tolist(), "var": norm.running_var.tolist()}
    mine = [(record.image_id, []) for record in data.records[rank() :: 2]]
    heard["whole"] = len(gather_detections([(i, [{"image_id": i}]) for i, _ in mine], data.records))
    for fault, pairs in {"drop": mine[rank() :], "twice": mine + mine[: rank()]}.items():
        try:
            gather_detections(pairs, data.records)
        except RuntimeError as error:
            heard[fault] = str(error)
    (folder / f"heard{rank()}.json").write_text(json.dumps(heard))


def numbers_of(rank):
    """Return (2, 5, 3): two batches of five cases, for one process."""
    return 1 + rank + torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(rank))


RUNS = {
    "frozenbn": [*EVERYTHING_SAMPLED, "MODEL.RESNETS.NORM", "FrozenBN"],
    "precise": [
        *EVERYTHING_SAMPLED, "MODEL.BACKBONE.FREEZE_AT", 0, "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "[]",
        "TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2,
    ],
}  # fmt: skip

if __name__ == "__main__":
    from detectron2.engine import launch

    launch(work, 2, dist_url="auto", args=(Path(sys.argv[1]),))
