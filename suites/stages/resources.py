"""What a stage takes from a machine."""

from dataclasses import dataclass


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
