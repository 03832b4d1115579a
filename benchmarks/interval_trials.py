"""The cells of interval_coverage.py, their simulations, and the files that hold these.

A simulation draws images, two methods and their seeds (`simulated_detectors`), and keeps the numbers of COLUMNS.  It
is a function of SEED, the kind of block, the cell and its own number.  A block of simulations is one npz file; a valid
file is not computed again, one of other settings is replaced.
"""

import importlib.metadata
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from simulated_detectors import Effects, Scene, draw_method, draw_run, draw_scene, measure, resample

from backbones.core.files import fingerprint, save_atomic
from comparison.bootstrap import resample_images
from comparison.verdicts.nested import Difference, Sample, difference
from detection.evaluation.matching import Boxes

SEED = 4_091_757  # chosen before the first full run
VERSION = 1  # of a simulation: raise it with every change of its numbers
IMAGES, RESAMPLES = 200, 300
BLOCKS = {"truth": 500, "trials": 50}  # simulations of a file
COLUMNS = (
    *("value", "error", "df", "images", "welch_error", "welch_df"),
    *("images_low", "images_high", "hotcoco_low", "hotcoco_high"),
)


@dataclass(frozen=True)
class Cell:
    """A design: number of seeds of methods A and B, and the effects.

    at_margin: the margin of equivalence is the true difference.
    """

    name: str
    seeds: tuple[int, int]
    effects: Effects
    at_margin: bool = False

    @property
    def same(self) -> bool:
        """Whether the true difference is 0: the methods can be exchanged."""
        return self.effects.shift == 0


SMALL = Effects(shift=0.15, image=1.0, method_image=0.5, seed=0.08, seed_image=0.3)
LARGE = replace(SMALL, seed=0.25)
CELLS = (
    *(Cell(f"small_{count}", (count, count), SMALL) for count in (2, 3, 5, 10)),
    *(Cell(f"large_{count}", (count, count), LARGE) for count in (2, 3, 5, 10)),
    Cell("unequal", (2, 5), SMALL),
    Cell("interaction", (3, 3), replace(SMALL, method_image=1.0)),
    Cell("shared", (3, 3), replace(SMALL, method_image=0.0, shift=0.0)),
    *(Cell(f"same_{count}", (count, count), replace(SMALL, shift=0.0)) for count in (3, 5, 10)),
    *(Cell(f"margin_{count}", (count, count), replace(SMALL, shift=0.4), at_margin=True) for count in (3, 5)),
)


# ---- simulations --------------------------------------------------------------------------------------------------


def estimate(effects: Effects, stream: np.random.SeedSequence) -> float:
    """Return the difference of one seed of A and one of B on a sample of images, whose mean is the true difference."""
    rng = np.random.default_rng(stream)
    scene = draw_scene(rng, IMAGES, effects)
    a, b = (measure(scene, runs[0]) for runs in _draw_runs(rng, scene, effects, (1, 1)))
    return a - b


def simulate(cell: Cell, stream: np.random.SeedSequence) -> list[float]:
    """Return the numbers of COLUMNS: our difference, Welch's, and the intervals over images only and of hotcoco."""
    rng = np.random.default_rng(stream)
    scene = draw_scene(rng, IMAGES, cell.effects)
    methods = _draw_runs(rng, scene, cell.effects, cell.seeds)
    seed = int(rng.integers(2**31))
    weights = resample_images(IMAGES, resamples=RESAMPLES, seed=seed)
    a, b = (
        Sample(
            np.array([measure(scene, run) for run in runs]), np.stack([resample(scene, run, weights) for run in runs])
        )
        for runs in methods
    )
    ours, welch = difference(a, b), difference(Sample(a.values), Sample(b.values))
    images_only = np.quantile(a.draws.mean(0) - b.draws.mean(0), [0.025, 0.975])
    theirs = hotcoco_interval(scene, methods[0][0], methods[1][0], seed) if hotcoco_version() else (np.nan, np.nan)
    return [ours.value, ours.error, ours.df, ours.images, welch.error, welch.df, *images_only.tolist(), *theirs]


def _draw_runs(
    rng: np.random.Generator, scene: Scene, effects: Effects, seeds: tuple[int, int]
) -> tuple[list[Boxes], list[Boxes]]:
    runs = []
    for shift, count in zip((effects.shift, 0.0), seeds, strict=True):
        method = draw_method(rng, scene, effects, shift)
        runs.append([draw_run(rng, scene, method, effects) for _ in range(count)])
    return runs[0], runs[1]


def as_difference(row: np.ndarray) -> Difference:
    """Return our difference from a row of COLUMNS."""
    value, error, df, images = map(float, row[:4])
    return Difference(value, error, df, over_seeds=True, over_images=True, images=images)


# ---- hotcoco ------------------------------------------------------------------------------------------------------


def hotcoco_version() -> str:
    """Return the version of hotcoco, empty if it is not installed."""
    try:
        return importlib.metadata.version("hotcoco")
    except importlib.metadata.PackageNotFoundError:
        return ""


def hotcoco_interval(scene: Scene, a: Boxes, b: Boxes, seed: int) -> tuple[float, float]:
    """Return hotcoco's 95 % interval of AP50 of a minus b; it compares two runs, here the first seeds."""
    import hotcoco

    truth, evaluated = hotcoco.COCO(scene.tree), []
    for run in (b, a):  # its difference is the second minus the first
        rows = np.column_stack([run.image + 1, run.xywh, run.score, run.category + 1]).astype(np.float64)
        evaluated.append(hotcoco.COCOeval(truth, truth.load_res(rows), "bbox"))
        evaluated[-1].evaluate()
    found = hotcoco.compare(*evaluated, n_bootstrap=RESAMPLES, seed=seed, confidence=0.95)["ci"]["AP50"]
    return float(found["lower"]), float(found["upper"])


# ---- files --------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Some simulations of a cell: those from `number` times the size of a block of the kind."""

    folder: Path
    kind: str  # a key of BLOCKS
    cell: Cell
    number: int

    @property
    def path(self) -> Path:
        """The file of the block; cells with the same effects share their blocks of the kind `truth`."""
        name = self.cell.name if self.kind == "trials" else fingerprint(repr(self.cell.effects))
        return self.folder / f"{self.kind}-{name}-{self.number:03d}.npz"


def read_block(block: Block) -> np.ndarray | None:
    """Return the simulations of a finished block: (N,) for `truth`, else (N, COLUMNS); None if it has no valid file."""
    try:
        with np.load(block.path, allow_pickle=False) as file:
            return file["rows"] if str(file["key"]) == _key(block) else None
    except Exception:  # zipfile, numpy and zlib raise errors of their own for a damaged file
        return None


def compute_block(block: Block) -> None:
    """Simulate a block and write its file."""
    first, size = block.number * BLOCKS[block.kind], BLOCKS[block.kind]
    branch = list(BLOCKS).index(block.kind), _index(block)
    streams = [np.random.SeedSequence(SEED, spawn_key=(*branch, n)) for n in range(first, first + size)]
    if block.kind == "truth":
        rows = np.array([estimate(block.cell.effects, stream) for stream in streams])
    else:
        rows = np.array([simulate(block.cell, stream) for stream in streams])

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, key=np.array(_key(block)), rows=rows)

    save_atomic(block.path, write, rows)


def _index(block: Block) -> int:
    """Return the position of the first cell with these effects, or of the cell."""
    if block.kind == "truth":
        return [cell.effects for cell in CELLS].index(block.cell.effects)
    return CELLS.index(block.cell)


def _key(block: Block) -> str:
    """Hash all that the numbers of a block depend on, except the code."""
    settings = [VERSION, SEED, IMAGES, RESAMPLES, BLOCKS[block.kind], block.kind, _index(block), block.number]
    cell = {"effects": asdict(block.cell.effects)}
    if block.kind != "truth":
        cell |= {"seeds": block.cell.seeds, "hotcoco": hotcoco_version()}
    return fingerprint(repr(settings), repr(cell))
