"""Every setting of a suite, with its meaning; `configs/suites/*.yaml` use these names as keys, in capitals.

A suite pretrains one backbone per row and seed, measures and fine-tunes it, and compares all of them.
OVERRIDES are lists of KEY VALUE for the stage's own config, as on its command line.  In them, `{data:NAME}` is replaced
by the folder of that DATA entry; in those of a row, `{run:LABEL}` and `{chosen:LABEL:KEY}` refer to results of an
earlier row (suites/references.py).  CONFIG and FOLDER are relative to the yaml file that names them if they exist
there; otherwise CONFIG is relative to the repository root, FOLDER to the current folder.
"""

from dataclasses import dataclass, field, make_dataclass

from backbones.core.config import CfgNode
from suites.entries import Texts, defaults_of, field_of, to_tree
from suites.grid import Grid, read_grid
from suites.references import CHOSEN, find
from suites.stages import KINDS
from suites.stages.resources import KEEP_WEIGHTS, Resources, Size

DETECTORS = ("finetune_coco", "finetune_voc")
LOCAL, SLURM = "local", "slurm"
EXECUTORS = (LOCAL, SLURM)
# BACKBONE of a row that fine-tunes from random initialisation.
RANDOM = "random"
# In BACKBONE: replaced by the seed.
SEED = "{seed}"


@dataclass(frozen=True)
class DataEntry:
    """An entry of DATA."""

    # Name for `{data:NAME}`.
    name: str = ""
    # Arguments of tools/prepare_data.py, beginning with the name of the data set; the tool writes it below the suite's
    # output folder ...
    prepare: Texts = ()
    # ... or an existing folder; ~ and $VARIABLES are expanded.  Its content enters the hashes (images by name and
    # size, all other files by content: suites/fingerprints/data.py), its path does not.  Data that a config names
    # itself, such as ${IMAGENET}, does not enter the hashes: if it changes, nothing is rerun.
    folder: str = ""
    # Here and below: expected duration of the stage in seconds, and size of its folder in GB with KEEP weights, used
    # until a stage of its kind has been measured; 0: unknown.
    cost: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class Pretraining:
    """PRETRAIN: tools/pretrain.py."""

    # Config file; a row may have its own.
    config: str = ""
    # Applied to every row, before the row's own overrides.
    overrides: Texts = ()
    cost: float = 0.0
    disk: float = 0.0
    # Here and in FINETUNE: the share of DISK that KEEP results deletes, and what KEEP all adds to DISK.
    disk_of_weights: float = 0.0
    disk_of_optimizer: float = 0.0


@dataclass(frozen=True)
class Measuring:
    """EVALUATE: tools/evaluate_backbone.py; LOCALIZE: tools/localize.py; ATTACK: tools/attack_backbone.py."""

    enabled: bool = True
    # Applied to the config of the pretraining.
    overrides: Texts = ()
    cost: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class FinetuneEntry:
    """An entry of FINETUNE."""

    # Name of the protocol, in messages and folders.
    name: str = ""
    # Name of the tool, one of `DETECTORS`: finetune_coco (Faster R-CNN) or finetune_voc (YOLO) ...
    tool: str = "finetune_coco"
    # ... and its config file.
    config: str = ""
    overrides: Texts = ()
    cost: float = 0.0
    disk: float = 0.0
    disk_of_weights: float = 0.0
    disk_of_optimizer: float = 0.0


@dataclass(frozen=True)
class Launch:
    """LAUNCH: how stages are started; changes no hash and no folder."""

    # Where stages run: local (this machine) or slurm (jobs of a cluster, docs/cluster.md), one of `EXECUTORS`.
    executor: str = LOCAL
    # Processes per training (pretraining and fine-tuning) on one machine, one per GPU, started by torchrun; times
    # RESOURCES.<KIND>.NODES.  Batch sizes in the configs are totals; batch norm sees the share of its process.
    num_gpus: int = 1
    # Stages that run at once, each in a slot with cores and GPUs of its own; 0: what the cores, the memory and the GPUs
    # of this machine allow.  Changes no number.  On a cluster: only what estimates assume; 0: as many as are ready.
    jobs: int = 0
    # Times a stage is started again in the same call if a signal ended it, for example because the memory was full; a
    # training resumes from its checkpoint.  An error that the tool reports itself is not retried.
    retries: int = 1


@dataclass(frozen=True)
class Cluster:
    """CLUSTER: what the jobs of all kinds of stages ask for, where RESOURCES does not say otherwise."""

    # Time limit in minutes.
    time: int = 720
    # Empty: the default of the cluster.
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    # Further options of sbatch, such as --mail-type=FAIL.
    extra: Texts = ()
    # Lines of bash that every job runs first, such as `module load cuda`.
    setup: Texts = ()
    # Whether a small job calls the suite again when others have ended, to submit what they decide and to compare;
    # needs sbatch on the machines where jobs run.  Otherwise: --wait, or call again.
    follow_up: bool = True


# RESOURCES: a block per kind of stage, such as PRETRAIN, with the keys of `Resources`.
ResourcesByKind = make_dataclass(
    "ResourcesByKind",
    [(field_of(kind), Resources, cls.default_resources) for kind, cls in KINDS.items()],
    frozen=True,
)
DEFAULT_RESOURCES = ResourcesByKind()


@dataclass(frozen=True)
class Comparing:
    """COMPARE: tools/compare.py."""

    # Its options.  Paths in --truth, --results, --images and --bundle are relative to this yaml file; the report is
    # made again if the content of the files to read changes (images: their names and sizes).
    arguments: Texts = ()
    # The number that decides whether a method is better than the baseline, named before the runs: a metric of
    # comparison.json ...
    primary: str = "AP"
    # ... and the largest difference in it that does not matter: methods can be equivalent within it.
    margin: float = 0.005
    cost: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class Row:
    """An entry of ROWS."""

    # Name of the row in every table.
    label: str = ""
    # Empty: pretrain one.  random: fine-tune from random initialisation; such a row has no CONFIG and no OVERRIDES.
    # Otherwise a run folder or a backbone file of this project, relative to this yaml file, or with IMPORT a checkpoint
    # of another program.  `{seed}` in the path is replaced by each seed of the row; without it, the one backbone is
    # fine-tuned once with each of FINETUNE_SEEDS, or of the row's seeds.
    backbone: str = ""
    # How to read BACKBONE: arguments of tools/import_backbone.py, such as [--source, torchvision, --arch, resnet50].
    import_: Texts = ()
    # Empty: PRETRAIN.CONFIG.  With a BACKBONE file: the pretraining config of the data of its classes, for EVALUATE,
    # LOCALIZE and ATTACK; empty: the backbone is only fine-tuned.
    config: str = ""
    # Python files with the row's own method, network or data set, relative to this yaml file; their content enters the
    # hashes.
    imports: Texts = ()
    overrides: Texts = ()
    # {}: one training.  Otherwise one training per point of a grid (keys: `suites/grid.py::Grid`); only the point with
    # the best validation is measured, fine-tuned and compared.  Rows with equal points share their trainings.
    grid: Grid | None = field(default=None, metadata={"read": read_grid})
    # Empty: SEEDS.
    seeds: tuple[int, ...] = ()
    # Not 0: a teacher of other rows, trained with this added to its seed, so that it shares neither initial weights nor
    # the order of images with its students; the images held out and the label noise are those of the seed.  It is not
    # measured, fine-tuned or compared.
    seed_offset: int = 0

    @property
    def adopted(self) -> bool:
        """Whether its backbone is a file."""
        return self.backbone not in ("", RANDOM)

    def chosen_keys(self) -> set[str]:
        """Return the config keys whose values are decided by its grid or by a choice that it refers to."""
        pairs = zip(self.overrides[::2], self.overrides[1::2], strict=True)
        return {*(self.grid.keys if self.grid else ()), *(key for key, value in pairs if find([value], CHOSEN))}


@dataclass(frozen=True)
class Suite:
    """A complete suite, with every key set."""

    # Every row runs once with each of these seeds (pretraining and fine-tuning).
    seeds: tuple[int, ...] = (0,)
    # Empty: a backbone is fine-tuned once, with the seed of its pretraining.  Otherwise once with each of these seeds,
    # which shows how much of the spread is the fine-tuning's.  Rows with BACKBONE random have their seeds only.
    finetune_seeds: tuple[int, ...] = ()
    # Data sets that the stages read.
    data: tuple[DataEntry, ...] = ()
    pretrain: Pretraining = Pretraining()
    evaluate: Measuring = Measuring()
    localize: Measuring = Measuring()
    # Disabled by default: it costs as much as an evaluation times ATTACK.STEPS and ATTACK.BOUNDS.
    attack: Measuring = Measuring(enabled=False)
    # The detection protocols; every backbone is fine-tuned under each.
    finetune: tuple[FinetuneEntry, ...] = ()
    launch: Launch = Launch()
    # What the folder of a finished stage keeps, one of `KEEPS`; changes no hash, no folder and no number.  all:
    # everything.  weights: no optimizer state, which only an unfinished training needs; what can be evaluated, exported
    # and predicted with stays.  results: what the comparison reads; weights of a training are deleted once every stage
    # that reads them is complete, and trained again for a stage that is added later.
    keep: str = KEEP_WEIGHTS
    # The cluster of LAUNCH.EXECUTOR slurm; changes no hash and no folder.
    cluster: Cluster = Cluster()
    # What a stage of each kind takes from the machine; changes no hash and no folder.
    resources: ResourcesByKind = DEFAULT_RESOURCES  # type: ignore[valid-type]  # a class
    compare: Comparing = Comparing()
    # The backbones to compare.
    rows: tuple[Row, ...] = ()

    def seeds_of(self, row: Row) -> tuple[int, ...]:
        """Return the seeds of a row: its own, or those of the suite."""
        return row.seeds or self.seeds

    def backbone_seeds_of(self, row: Row) -> tuple[int, ...]:
        """Return the seeds of the backbones of a row: the first one alone if all use one file."""
        seeds = self.seeds_of(row)
        return seeds[:1] if row.adopted and SEED not in row.backbone else seeds

    def finetune_seeds_of(self, row: Row) -> tuple[int | None, ...]:
        """Return the seeds of the fine-tunings of each backbone of a row; None: that of its pretraining."""
        if row.backbone == RANDOM:
            return (None,)
        seeds = self.seeds_of(row)
        one_file = seeds if len(self.backbone_seeds_of(row)) < len(seeds) else (None,)
        return self.finetune_seeds or one_file

    def measuring(self, kind: str) -> Measuring:
        """Return the block of a kind of measure."""
        return getattr(self, kind)

    def resources_of(self, kind: str) -> Resources:
        """Return what a stage of this kind takes from the machine."""
        return getattr(self.resources, field_of(kind))

    def dump(self) -> str:
        """Return the suite as yaml."""
        return CfgNode(to_tree(self)).dump(sort_keys=False)


def size_of(block: Pretraining | FinetuneEntry) -> Size:
    """Return the expected size of the folder of a training."""
    return Size(block.disk, block.disk_of_weights, block.disk_of_optimizer)


DEFAULTS = defaults_of(Suite)  # as a tree of keys
