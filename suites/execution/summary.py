"""The last lines of a suite: the time it took, the report, and what did not finish."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping

from suites.execution.failures import Failed
from suites.execution.progress import minutes
from suites.execution.timings import Timings
from suites.plan import Plan
from suites.stages.base import Key
from suites.stages.comparison import PAGE


def summarize(plan: Plan, failures: Mapping[Key, Failed], timings: Timings, reported: bool) -> Iterator[str]:
    """Yield the lines.

    Args:
        reported: whether this call wrote the page.
    """
    before = timings.spent_before
    earlier = f" in this call, {minutes(before)} in earlier ones" if before else ""
    yield f"\ntotal {minutes(timings.spent - before)}{earlier}{_memory()}"
    page = plan.report / PAGE
    if page.is_file():
        yield f"report: {page}" if reported else f"no report was written; {page} is from an earlier call"
    if failures:
        yield f"{_stages(len(failures))} did not finish; rerun to retry:"
    caused = Counter(failed.cause.key for failed in failures.values() if failed.cause is not failed.stage)
    for key, (stage, reason, cause) in failures.items():
        if cause is stage:
            log = f" (full log: {stage.log})" if stage.log.exists() else ""
            needed = f"; {_stages(caused[key])} that need it did not run" if caused[key] else ""
            yield f"  {stage.title}: {reason}{log}{needed}"


def _stages(number: int) -> str:
    return f"{number} stage{'s' * (number != 1)}"


def _memory() -> str:
    import resource  # not on Windows

    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    kilobytes = largest / (1024 if sys.platform == "darwin" else 1)
    return f", largest process {kilobytes / 1024**2:.2f} GiB" if kilobytes else ""
