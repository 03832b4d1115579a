"""What a stage takes from a machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """What a stage of a kind takes; `RESOURCES.<KIND>` of a suite overrides the defaults of the kind."""

    # Threads per process.  They never depend on what is free, since they change the last digits of sums; they are
    # written to results.json.
    threads: int = 1
    # Expected memory per process in GB; limits the default of LAUNCH.JOBS.
    memory: float = 2.0
