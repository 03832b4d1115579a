"""What a stage takes from a machine, and what it leaves on its disk."""

from dataclasses import dataclass
from typing import NamedTuple

from backbones.core.arguments import KEEP_ALL, KEEP_WEIGHTS

# KEEP of a suite: everything; no optimizer states; only what the comparison reads and unfinished stages need.
KEEP_RESULTS = "results"
KEEPS = (KEEP_ALL, KEEP_WEIGHTS, KEEP_RESULTS)


class Size(NamedTuple):
    """Size of a stage's folder in GB; 0: unknown.

    folder: of all files with KEEP weights; weights: of those that KEEP results deletes; optimizer: what KEEP all adds.
    """

    folder: float = 0.0
    weights: float = 0.0
    optimizer: float = 0.0

    def with_keep(self, keep: str) -> float:
        """Return the size that KEEP leaves."""
        return self.folder + {KEEP_ALL: self.optimizer, KEEP_WEIGHTS: 0.0, KEEP_RESULTS: -self.weights}[keep]


UNKNOWN = Size()


@dataclass(frozen=True)
class Resources:
    """What a stage of a kind takes; `RESOURCES.<KIND>` of a suite overrides the defaults of the kind."""

    # Threads per process.  They never depend on what is free, since they change the last digits of sums; they are
    # written to results.json.
    threads: int = 1
    # Expected memory per process in GB; limits the default of LAUNCH.JOBS, and is what a job of a cluster asks for.
    memory: float = 2.0
    # Here and below: of a job of a cluster (LAUNCH.EXECUTOR slurm).  Cores per process, for the workers that read data,
    # too; 0: one per thread.
    cores: int = 0
    # GPUs per process; 0: none.
    gpus: int = 0
    # Of a training: machines with LAUNCH.NUM_GPUS processes each.  On this machine, it starts the processes of all.
    nodes: int = 1
    # Time limit in minutes, at least 30; 0: that of CLUSTER, like every empty text below.  A training that reaches it
    # resumes in the next job.
    time: int = 0
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    # Further options of sbatch, such as --exclusive or --mail-type=FAIL; added to those of CLUSTER.
    extra: tuple[str, ...] = ()
    # Jobs of this kind that may run at once; 0: any number.
    parallel: int = 0
