"""Every setting of a suite, with its meaning; `configs/suites/*.yaml` are written in these keys, in capitals.

A suite pretrains one backbone per row and seed, measures and fine-tunes it, and compares all of them.
OVERRIDES are lists of KEY VALUE for the stage's own config, as on its command line; in them `{data:NAME}` stands for
the folder of that entry of DATA, and in those of a row `{run:LABEL}` and `{chosen:LABEL:KEY}` for what an earlier row
left (suites/references.py).  Files named in CONFIG are looked for below the repository's root.
"""

from dataclasses import dataclass, field
from typing import Any

from backbones.core.config import CfgNode
from suites.entries import Texts, defaults_of, to_tree
from suites.grid import Grid, read_grid
from suites.references import CHOSEN, find

DETECTORS = ("finetune_coco", "finetune_voc")


@dataclass(frozen=True)
class DataEntry:
    """An entry of DATA."""

    # Name for `{data:NAME}`.
    name: str = ""
    # Arguments of tools/prepare_data.py, the name of the data set first, which writes it below the suite's output
    # folder ...
    prepare: Texts = ()
    # ... or a folder that exists; ~ and $VARIABLES are expanded.  What it holds enters the hashes (images by name and
    # size, all other files by content: suites/fingerprints/data.py), where it lies does not.  Data that a config names
    # itself, such as ${IMAGENET}, does not enter them: a change of it reruns nothing.
    folder: str = ""
    # Here and below: seconds the stage is expected to take, until one of its kind has been timed; 0: unknown.
    cost: float = 0.0


@dataclass(frozen=True)
class Pretraining:
    """PRETRAIN: tools/pretrain.py."""

    # Config file, unless the row has its own.
    config: str = ""
    # For every row; those of the row come after these.
    overrides: Texts = ()
    cost: float = 0.0


@dataclass(frozen=True)
class Measuring:
    """EVALUATE: tools/evaluate_backbone.py, and LOCALIZE: tools/localize.py."""

    enabled: bool = True
    # These change the config of the pretraining.
    overrides: Texts = ()
    cost: float = 0.0


@dataclass(frozen=True)
class FinetuneEntry:
    """An entry of FINETUNE."""

    # Name of the protocol, in messages and folders.
    name: str = ""
    # One of `DETECTORS`: finetune_coco (Faster R-CNN) or finetune_voc (YOLO), of tools/ ...
    tool: str = "finetune_coco"
    # ... and its config file.
    config: str = ""
    overrides: Texts = ()
    cost: float = 0.0


@dataclass(frozen=True)
class Launch:
    """LAUNCH: how trainings (pretraining and fine-tuning) are started; it changes no hash and no folder."""

    # Processes of each on this machine, one a GPU, by torchrun.  Batch sizes of the configs are totals; BN sees its
    # process's share.
    num_gpus: int = 1


@dataclass(frozen=True)
class Comparing:
    """COMPARE: tools/compare.py."""

    arguments: tuple[Any, ...] = ()
    cost: float = 0.0


@dataclass(frozen=True)
class Row:
    """An entry of ROWS."""

    # Name of the row in every table.
    label: str = ""
    # Empty: pretrain one.  random: fine-tune from random initialisation; such a row has no CONFIG and no OVERRIDES.
    backbone: str = ""
    # Empty: PRETRAIN.CONFIG.
    config: str = ""
    overrides: Texts = ()
    # {}: one training.  Else one for every point of a grid, with the keys of `suites/grid.py::Grid`; the best by
    # validation is the row, and only that is measured, fine-tuned and compared.  Rows with equal points share them.
    grid: Grid | None = field(default=None, metadata={"read": read_grid})
    # Empty: SEEDS.
    seeds: tuple[int, ...] = ()

    def chosen_keys(self) -> set[str]:
        """The config keys whose value its grid, or a choice that it refers to, decides."""
        pairs = zip(self.overrides[::2], self.overrides[1::2], strict=True)
        return {*(self.grid.keys if self.grid else ()), *(key for key, value in pairs if find([value], CHOSEN))}


@dataclass(frozen=True)
class Suite:
    """A whole suite, every key of it set."""

    # Every row runs once with each of these seeds (pretraining and fine-tuning).
    seeds: tuple[int, ...] = (0,)
    # What the stages read.
    data: tuple[DataEntry, ...] = ()
    pretrain: Pretraining = Pretraining()
    evaluate: Measuring = Measuring()
    localize: Measuring = Measuring()
    # The detection protocols.  Every backbone goes through each.
    finetune: tuple[FinetuneEntry, ...] = ()
    launch: Launch = Launch()
    compare: Comparing = Comparing()
    # The backbones to compare.
    rows: tuple[Row, ...] = ()

    def seeds_of(self, row: Row) -> tuple[int, ...]:
        """The seeds of a row, its own or those of the suite."""
        return row.seeds or self.seeds

    def measuring(self, kind: str) -> Measuring:
        """The block of a kind of measure."""
        return getattr(self, kind)

    def dump(self) -> str:
        """The suite as yaml."""
        return CfgNode(to_tree(self)).dump(sort_keys=False)


DEFAULTS = defaults_of(Suite)  # as a tree of keys
