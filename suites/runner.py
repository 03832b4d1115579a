"""Run a plan: one stage after the other, each in its own process; complete stages are skipped.

All state is in the stages' folders, so that the same command resumes after a kill at any moment.
"""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import IO

from backbones.core.errors import Diverged, InputError
from backbones.core.files import save_json, save_text
from suites.fingerprints.data import KNOWN, load_known
from suites.folder import claim_suffix, lock_folder
from suites.plan import Plan, compare_stage, plan_again
from suites.process import reason_of, run_command, terminate_as_interrupt
from suites.progress import Display, Timings, minutes
from suites.stages import Stage
from suites.stages.comparison import PAGE

INTERRUPTED = 130
Call = Callable[[Stage, int, Callable[[float], None]], int]


def run_plan(plan: Plan, stream: IO[str] | None = None, call: Call = run_command) -> int:
    """Run every stage that is not complete, then the comparison; print the table and the path of the report.

    Args:
        call: runs the command of a stage that is ready, as `run_command` does.

    Returns:
        exit code: 0, 1 if a stage failed (the others still run), 130 if interrupted.

    Raises:
        InputError: the output folder cannot be written, or another suite is running in it.
    """
    out = stream or sys.stdout
    with lock_folder(plan.output) as lock, terminate_as_interrupt():
        plan = replace(plan, suffix=claim_suffix(plan.output, plan.name))
        save_text(plan.output / f"config{plan.suffix}.yaml", plan.suite.dump())
        save_known(plan)
        try:
            return _Run(plan, lock, Display(out, len(plan.stages) + 1), call).all()
        except KeyboardInterrupt:
            print("\nstopped; run the same command again to resume", file=out)
            return INTERRUPTED


class _Run:
    """One pass over the plan; `failures` maps each stage that failed or could not run to the reason."""

    def __init__(self, plan: Plan, lock: int, display: Display, call: Call) -> None:
        self.plan, self.lock, self.display, self.call = plan, lock, display, call
        self.timings = Timings(plan.output / f"timings{plan.suffix}.json")
        self.failures: dict[Stage, str] = {}
        self.to_do = [stage for stage in plan.stages if not stage.complete()]
        self.seen: set[tuple[Path, str]] = set()  # the stages that were reached
        self.decided = False  # whether a selection has chosen since the plan was made
        self.reported = False  # whether this call wrote the page
        # Represents the comparison in the estimate of the time left; its inputs are only known at the end.
        self.last: Stage | None = compare_stage(plan, plan.stages)

    def all(self) -> int:
        """Run every stage, then the comparison; return the exit code."""
        begun = time.monotonic()
        while stage := self.next():
            self.seen.add((stage.output, stage.waits))
            self.one(stage)
        comparison = compare_stage(self.plan, [stage for stage in self.plan.stages if stage not in self.failures])
        if comparison.inputs:
            self.last = None
            self.one(comparison)
            self.reported = comparison not in self.failures
        return self.summarize(time.monotonic() - begun)

    def next(self) -> Stage | None:
        """Return the first stage not reached yet, after updating those that depend on a selection."""
        left = self.unseen()
        waits = left and left[0].waits and left[0].waits not in (failed.title for failed in self.failures)
        if left and (waits or self.decided):
            self.decided = False
            self.plan = plan_again(self.plan)
            left = self.unseen()
            self.to_do = [stage for stage in left if not stage.complete()]
            self.last, self.display.total = compare_stage(self.plan, self.plan.stages), len(self.plan.stages) + 1
        return left[0] if left else None

    def unseen(self) -> list[Stage]:
        """Return the stages not reached yet."""
        return [stage for stage in self.plan.stages if (stage.output, stage.waits) not in self.seen]

    def one(self, stage: Stage) -> None:
        """Run `stage` unless it is complete or cannot run."""
        self.display.begin(stage.title)
        if stage not in self.to_do and not stage.complete():  # its inputs have been made again
            self.to_do.append(stage)
        if stage not in self.to_do:
            self.display.end(stage.cached())
        elif reason := self.hindrance(stage):
            self.to_do.remove(stage)
            self.failures[stage] = f"not run: {reason}"
            self.display.end(self.failures[stage])
        else:
            self.execute(stage)
        if stage not in self.failures and (table := stage.table()):
            print(f"\n{table}", file=self.display.stream)

    def hindrance(self, stage: Stage) -> str:
        """Return why `stage` cannot run: an input is missing, or no longer matches the stage's hash; "" if it can."""
        if missing := [item.title for item in stage.inputs if item in self.failures]:
            return f"it needs {missing[0]}"
        if stage.waits:
            return f"it needs {stage.waits}"
        changed = [f"the output of {item.title}" for item in stage.inputs if not item.complete()]
        changed += map(str, self.plan.changed_data(stage))
        changed += filter(None, [stage.changed_source()])
        return f"{changed[0]} has changed since the suite was started; start it again" if changed else ""

    def execute(self, stage: Stage) -> None:
        """Run the command of `stage`, and record its output."""
        if said := put_aside(stage):
            self.display.note(said)
        stage.forget()
        fresh, begun = not stage.trains or not stage.log.exists(), time.monotonic()
        try:
            code = self.call(stage, self.lock, lambda spent: self.display.tick(spent, self.left(spent), stage.log))
        finally:
            seconds = time.monotonic() - begun
            self.timings.spend(seconds)
        self.to_do.remove(stage)
        if code == 0 and _finished(stage):
            stage.record()
            self.decided |= stage.decides
            if fresh:  # a stage resumed from a checkpoint takes less time
                self.timings.add(stage.timing_key, seconds)
            self.display.end("   ".join(filter(None, [f"{seconds:.0f} s", stage.verdict(), self.left()])))
            return
        reason = reason_of(code, stage)
        if code == Diverged.exit_code and stage.accept_divergence(reason):
            self.display.end(f"diverged after {seconds:.0f} s: {reason}")
            return
        self.failures[stage] = reason
        self.display.end(f"failed after {seconds:.0f} s: {reason}")

    def left(self, spent: float = 0.0) -> str:
        """Estimate the time left, `spent` seconds into the first of the remaining stages."""
        return self.timings.left([*self.to_do, *([self.last] if self.last else [])], spent)

    def summarize(self, seconds: float) -> int:
        """Print the total time, the path of the report, and the stages that did not finish; return the exit code."""
        kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        memory = f", largest process {kilobytes / 1024**2:.2f} GiB" if kilobytes else ""
        before = self.timings.spent_before
        earlier = f" in this call, {minutes(before)} in earlier ones" if before else ""
        print(f"\ntotal {minutes(seconds)}{earlier}{memory}", file=self.display.stream)
        page = self.plan.report / PAGE
        if page.is_file():
            said = f"report: {page}" if self.reported else f"no report was written; {page} is from an earlier call"
            print(said, file=self.display.stream)
        if self.failures:
            count = f"{len(self.failures)} stage{'s' * (len(self.failures) > 1)}"
            print(f"{count} did not finish; rerun to retry:", file=self.display.stream)
        for stage, reason in self.failures.items():
            log = f" (full log: {stage.log})" if stage.log.exists() else ""
            print(f"  {stage.title}: {reason}{log}", file=self.display.stream)
        return 1 if self.failures else 0


def put_aside(stage: Stage) -> str:
    """Rename a folder whose content is not from this stage, since a tool that resumes would start from it.

    Returns:
        what was done and why, "" for nothing.
    """
    if not (reason := stage.foreign()):
        return ""
    number = next(n for n in count(1) if not stage.output.with_name(f"{stage.output.name}.old{n}").exists())
    aside = stage.output.rename(stage.output.with_name(f"{stage.output.name}.old{number}"))
    return f"{reason}; put aside as {aside.name}"


def save_known(plan: Plan) -> None:
    """Keep the digests of data folders for the next call, together with those of other suites in the folder."""
    before = load_known(plan.output)
    if any(before.get(folder) != item for folder, item in plan.known.items()):
        save_json(plan.output / KNOWN, {**before, **plan.known})


def _finished(stage: Stage) -> bool:
    try:
        return stage.finished()
    except InputError:
        return False
