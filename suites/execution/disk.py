"""The disk that a suite needs: what its stages will leave, compared with what is free."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from backbones.core.disk import existing_folder, size_text
from backbones.core.doctor import OK, PROBLEM, QUICK, Check, reason
from backbones.core.errors import InputError
from suites.execution.timings import Timings
from suites.loading import load_suite
from suites.plan import Plan, build_plan, compare_stage
from suites.stages import Stage
from suites.stages.resources import KEEPS
from suites.training import ROOT

QUICK_SUITE = ROOT / "configs" / "suites" / "quick.yaml"


def estimate_disk(plan: Plan, rest: Sequence[Stage], timings: Timings) -> Iterator[str]:
    """Describe the bytes that the stages of `rest` will leave, with each KEEP; nothing if unknown.

    A training needs more while it runs: its checkpoint has the optimizer state, and is there twice while it is written.
    """
    known = [stage for stage in rest if timings.size(stage) is not None]
    if not known:
        return
    keep, free = plan.suite.keep, free_bytes(plan.output)
    sizes = {way: 1e9 * sum(timings.size(stage, way) or 0.0 for stage in known) for way in KEEPS}
    clear = [way for way in KEEPS if way != keep and all(timings.size(stage, way) is not None for stage in known)]
    others = ", ".join(f"{way} {size_text(sizes[way])}" for way in clear)
    unknown = Counter(stage.timing_key for stage in rest if stage not in known)
    missing = ", ".join(f"{number} {kind}" for kind, number in unknown.items())
    yield (
        f"disk    about {size_text(sizes[keep])} with KEEP {keep}{f' ({others})' if others else ''}"
        f"{f', without {missing}, whose DISK is unknown' if missing else ''}; {size_text(free)} free"
    )
    if sizes[keep] > free:
        yield f"note    the disk is too small: {size_text(sizes[keep])} needed, {size_text(free)} free in {plan.output}"


def check_space(path: Path, output_dir: Path) -> Check:
    """Check for `tools/doctor.py` whether what a suite will leave fits on the disk of its output folder."""
    name = f"disk for {path.stem}"
    blocks = (QUICK,) if path == QUICK_SUITE else ()
    try:
        plan = build_plan(load_suite(path), output_dir, without_data=True, name=path.stem)
        timings = Timings(plan.output / f"timings{plan.suffix}.json")
        stages = [*plan.stages, compare_stage(plan, plan.stages)]
    except InputError as error:
        return Check(name, PROBLEM, reason(error), "fix the suite", blocks)
    sizes = [timings.size(stage) for stage in stages if not stage.complete()]
    needed, free = 1e9 * sum(size or 0.0 for size in sizes), free_bytes(plan.output)
    unknown = sum(size is None for size in sizes)
    place = f"{size_text(free)} free in {existing_folder(plan.output)}"
    found = f"about {size_text(needed)} with KEEP {plan.suite.keep}, {place}"
    found += f", without {unknown} stages whose DISK is unknown" if unknown else ""
    if needed <= free:
        return Check(name, OK, found)
    return Check(
        name, PROBLEM, found, f"free {size_text(needed - free)}, or use KEEP results or another folder", blocks
    )


def free_bytes(output: Path) -> int:
    """Return the free bytes on the disk of a folder that need not exist."""
    return shutil.disk_usage(existing_folder(output)).free
