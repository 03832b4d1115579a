"""Run a plan: one stage after the other, each in a process of its own; what is complete is left as it is.

Nothing is remembered but what lies in the stages' folders, so that the same command goes on after a kill at any moment.
"""

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import replace
from io import FileIO
from itertools import count
from pathlib import Path
from typing import IO

from backbones.core.disk import append, shortage, writing
from backbones.core.errors import InputError
from backbones.core.files import save_json, save_text
from backbones.core.launch import die_with_parent, end_with_parent
from suites.data import KNOWN, load_known
from suites.lock import lock_folder, terminate_as_interrupt
from suites.plan import Plan, compare_stage, go_on
from suites.progress import Display, Timings, last_line, minutes
from suites.record import remove_record
from suites.reports import claim_suffix
from suites.sources import BY_TOOL, class_source
from suites.stages import COMMAND_MARK, PAGE, REPORT_RECORD, TABLE, TRAININGS, Stage
from suites.training import ROOT

INTERRUPTED = 130
# What core.engine says of a training that diverged.
NOT_FINITE = "not finite"
# Seconds: between two looks at a child, and for it to end when told to; torchrun gives its processes 30 s.
_TICK, _GRACE, _GRACE_OF_SEVERAL = 1.0, 10.0, 45.0


def run_plan(plan: Plan, stream: IO[str] | None = None) -> int:
    """Run every stage that is not complete, then the comparison; print the table and where the report is.

    Returns:
        exit code: 0, 1 if a stage failed (the others are run nevertheless), 130 if interrupted.

    Raises:
        InputError: the output folder cannot be written, or another suite is at work in it.
    """
    out = stream or sys.stdout
    with lock_folder(plan.output) as lock, terminate_as_interrupt():
        plan = replace(plan, suffix=claim_suffix(plan.output, plan.name))
        save_text(plan.output / f"config{plan.suffix}.yaml", plan.cfg.dump(sort_keys=False))
        save_known(plan)
        try:
            return _Run(plan, lock, Display(out, len(plan.stages) + 1)).all()
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from here", file=out)
            return INTERRUPTED


class _Run:
    """One pass over the plan: `failures` maps a stage that did not come about to the reason."""

    def __init__(self, plan: Plan, lock: int, display: Display) -> None:
        self.plan, self.lock, self.display = plan, lock, display
        self.timings = Timings(plan.output / f"timings{plan.suffix}.json")
        self.failures: dict[Stage, str] = {}
        self.to_do = [stage for stage in plan.stages if not stage.complete()]
        self.seen: set[tuple[Path, str]] = set()  # the stages that were reached
        self.chosen = False  # by a selection, since the plan was made
        self.reported = False  # whether the page is of this call
        # Stands for the comparison in the time that is left: what it compares is known at the end.
        self.last: Stage | None = compare_stage(plan, plan.stages)

    def all(self) -> int:
        begun = time.monotonic()
        while stage := self.next():
            self.seen.add((stage.output, stage.waits))
            self.one(stage)
        comparison = compare_stage(self.plan, [stage for stage in self.plan.stages if stage not in self.failures])
        if comparison.inputs:
            self.compare(comparison)
        return self.summarize(time.monotonic() - begun)

    def next(self) -> Stage | None:
        """The first stage that was not reached yet, after another look at those that depend on a selection."""
        left = self.unseen()
        waits = left and left[0].waits and left[0].waits not in (failed.title for failed in self.failures)
        if left and (waits or self.chosen):
            self.chosen = False
            self.plan = go_on(self.plan)
            left = self.unseen()
            self.to_do = [stage for stage in left if not stage.complete()]
            self.last, self.display.total = compare_stage(self.plan, self.plan.stages), len(self.plan.stages) + 1
        return left[0] if left else None

    def unseen(self) -> list[Stage]:
        return [stage for stage in self.plan.stages if (stage.output, stage.waits) not in self.seen]

    def one(self, stage: Stage) -> None:
        """Run `stage` unless it is complete or cannot be."""
        self.display.begin(stage.title)
        if stage not in self.to_do and not stage.complete():  # what it was made of has been made again
            self.to_do.append(stage)
        if stage not in self.to_do:
            self.display.end("cached, diverged" if stage.diverged.is_file() else "cached")
        elif reason := self.hindrance(stage):
            self.to_do.remove(stage)
            self.failures[stage] = f"not run: {reason}"
            self.display.end(self.failures[stage])
        else:
            self.execute(stage)

    def hindrance(self, stage: Stage) -> str:
        """Why `stage` cannot be run: what it needs is missing, or is no longer what its hash says; "" for nothing."""
        if missing := [item.title for item in stage.inputs if item in self.failures]:
            return f"it needs {missing[0]}"
        if stage.waits:
            return f"it needs {stage.waits}"
        changed = [f"what {item.title} has left" for item in stage.inputs if not item.complete()]
        changed += map(str, self.plan.changed_data(stage))
        if stage.source and class_source(stage.tool, stage.labels) != stage.source:
            changed.append(f"the source of {BY_TOOL[stage.tool].key} {stage.labels}")
        return f"{changed[0]} has changed since the suite was started; start it again" if changed else ""

    def compare(self, stage: Stage) -> None:
        """Compare what is complete, unless the report was made of exactly that."""
        self.last = None
        if not stage.complete():
            self.to_do.append(stage)
            # Files of two reports must not pass for one, should this be killed half way.
            (stage.output / REPORT_RECORD).unlink(missing_ok=True)
        self.one(stage)
        if stage in self.failures:
            return
        self.reported = True
        runs = [run.output.relative_to(self.plan.output).as_posix() for run in stage.inputs]
        save_json(stage.output / REPORT_RECORD, {"hash": stage.hash, "suite": self.plan.name, "runs": runs})
        lines = (stage.output / TABLE).read_text(encoding="utf-8").splitlines()
        shown = "\n".join(line for line in lines if not line.startswith("report: "))  # `summarize` names it, last
        print(f"\n{shown.strip()}", file=self.display.stream)

    def execute(self, stage: Stage) -> None:
        if said := put_aside(stage):
            self.display.note(said)
        remove_record(stage.output.parent if stage.kind == "prepare" else stage.output)
        fresh, begun = stage.kind not in TRAININGS or not stage.log.exists(), time.monotonic()
        with writing(stage.log):
            stage.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            code = self.child(stage)
        finally:
            seconds = time.monotonic() - begun
            self.timings.spend(seconds)
        self.to_do.remove(stage)
        if code == 0 and (stage.kind == "compare" or _finished(stage)):
            stage.record()
            self.chosen |= stage.kind == "select"
            if fresh:  # one that went on from a checkpoint took less than the stage takes
                self.timings.add(stage.timing_key, seconds)
            left = self.left()
            said = f"   {last_line(stage.log)}" if stage.kind == "select" else ""
            self.display.end(f"{seconds:.0f} s{said}{f'   {left}' if left else ''}")
            return
        reason = _reason(code, stage)
        if stage.kind == "grid" and code > 0 and NOT_FINITE in reason:  # the others are chosen from
            save_json(stage.diverged, {"reason": reason})
            self.display.end(f"diverged after {seconds:.0f} s: {reason}")
            return
        self.failures[stage] = reason
        self.display.end(f"failed after {seconds:.0f} s: {self.failures[stage]}")

    def child(self, stage: Stage) -> int:
        """The exit code of the stage's process; its output goes to the log, and it never outlives this one."""
        begun, alone = time.monotonic(), stage.processes == 1
        with ExitStack() as files:
            with writing(stage.log):
                log = files.enter_context(stage.log.open("ab", buffering=0))
                append(log, f"{COMMAND_MARK} {shlex.join(stage.command)}\n".encode())
                output = files.enter_context(_standard_output(stage, log))
            child = subprocess.Popen(
                stage.command, stdin=subprocess.DEVNULL, stdout=output, stderr=log, cwd=ROOT,
                pass_fds=[self.lock], preexec_fn=die_with_parent if alone else end_with_parent,
                env=os.environ | {"PYTHONIOENCODING": "utf-8"},  # in which its output is read again
            )  # fmt: skip
            try:
                while True:
                    with suppress(subprocess.TimeoutExpired):
                        return child.wait(_TICK)
                    spent = time.monotonic() - begun
                    self.display.tick(spent, self.left(spent), stage.log)
            finally:
                _stop(child, _GRACE if alone else _GRACE_OF_SEVERAL)

    def left(self, spent: float = 0.0) -> str:
        """How long what is still to be done will take, after `spent` seconds of the first stage of it."""
        return self.timings.left([*self.to_do, *([self.last] if self.last else [])], spent)

    def summarize(self, seconds: float) -> int:
        """What took how long, where the report is, what is missing."""
        kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        memory = f", largest process {kilobytes / 1024**2:.2f} GiB" if kilobytes else ""
        before = self.timings.spent_before
        earlier = f" in this call, {minutes(before)} in earlier ones" if before else ""
        print(f"\ntotal {minutes(seconds)}{earlier}{memory}", file=self.display.stream)
        page = self.plan.report / PAGE
        if page.is_file():
            said = f"report: {page}" if self.reported else f"no report was made; {page} is that of an earlier call"
            print(said, file=self.display.stream)
        if self.failures:
            what = "stages are missing; the same command tries them again:"
            print(f"{len(self.failures)} {what}", file=self.display.stream)
        for stage, reason in self.failures.items():
            log = f" (all of it: {stage.log})" if stage.log.exists() else ""
            print(f"  {stage.title}: {reason}{log}", file=self.display.stream)
        return 1 if self.failures else 0


def put_aside(stage: Stage) -> str:
    """Rename a folder whose content is not what the stage left there, as a tool that resumes would start from it.

    Returns:
        what was done and why, "" for nothing.
    """
    if stage.kind == "compare" or not (reason := stage.foreign()):
        return ""
    number = next(n for n in count(1) if not stage.output.with_name(f"{stage.output.name}.old{n}").exists())
    aside = stage.output.rename(stage.output.with_name(f"{stage.output.name}.old{number}"))
    return f"{reason}; put aside as {aside.name}"


def save_known(plan: Plan) -> None:
    """Keep the digests of data folders for the next call, beside those of other suites in the folder."""
    before = load_known(plan.output)
    if any(before.get(folder) != item for folder, item in plan.known.items()):
        save_json(plan.output / KNOWN, {**before, **plan.known})


def _finished(stage: Stage) -> bool:
    try:
        return stage.finished()
    except InputError:
        return False


def _standard_output(stage: Stage, log: FileIO) -> AbstractContextManager[FileIO]:
    """Where the tool prints to: the comparison's table gets a file of its own, to be shown by every later call."""
    return (stage.output / TABLE).open("wb", buffering=0) if stage.kind == "compare" else nullcontext(log)


def _reason(code: int, stage: Stage) -> str:
    """Why the stage failed, in a line."""
    said = last_line(stage.log)
    if stage.processes > 1 and code > 0:  # torchrun says a page after what its processes said
        said = last_line(stage.log, "error: ") or said
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    if code == 0:
        return "ended without writing its results"
    return said or f"ended with exit code {code} and not a word{shortage(stage.log)}"


def _stop(child: subprocess.Popen, grace: float) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
