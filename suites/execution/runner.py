"""Run a plan: every stage in a process of its own, as many at once as there are slots; complete stages are skipped.

All state is in the stages' folders, so that the same command resumes after a kill at any moment.
"""

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO

from backbones.core.errors import Diverged, InputError
from backbones.core.files import save_json, save_text
from suites.cleaning import save_folders
from suites.cluster.claims import HELD
from suites.cluster.claims import load_last as load_claim
from suites.cluster.ledger import folder_of, key_of
from suites.execution import attempts
from suites.execution.executor import Ended, Executor
from suites.execution.failures import describe_failures
from suites.execution.keeping import Keeper, revive
from suites.execution.local import LocalExecutor
from suites.execution.progress import Display, minutes
from suites.execution.scheduler import Scheduler
from suites.execution.slots import make_slots, this_machine
from suites.execution.stopping import note_signals
from suites.execution.summary import summarize
from suites.execution.timings import Timings
from suites.fingerprints.data import save_known
from suites.folder import claim_suffix, lock_folder
from suites.plan import Plan, compare_stage, plan_again
from suites.stages import Stage
from suites.stages.base import Key
from suites.stages.outcome import reason_of

INTERRUPTED, TERMINATED = 130, 143  # exit codes of a tool after Ctrl-C and SIGTERM
_LOOK = 0.5  # seconds between two updates of the display
# Builds the executor of a plan that holds the suite's lock.
Build = Callable[[Plan, int], Executor]


def build_local(plan: Plan, lock: int) -> Executor:
    """Return the executor of this machine, with LAUNCH.JOBS slots."""
    return LocalExecutor(make_slots(this_machine(), plan.stages, plan.suite.launch.jobs), lock)


def run_plan(plan: Plan, stream: IO[str] | None = None, build: Build = build_local) -> int:
    """Run every stage that is not complete, then the comparison; print the table and the path of the report.

    Returns:
        exit code: 0, 1 if a stage failed (the others still run), 130 if interrupted.

    Raises:
        InputError: the output folder cannot be written, another suite is running in it, or LAUNCH.JOBS is too high.
    """
    out = stream or sys.stdout
    with lock_folder(plan.output) as lock, note_signals() as signals:
        plan = replace(plan, suffix=claim_suffix(plan.output, plan.name))
        save_text(plan.output / f"config{plan.suffix}.yaml", plan.suite.dump())
        revive(plan.stages)
        if any(stage.decides for stage in plan.stages):
            plan = plan_again(plan)  # the suite that held the lock may have chosen meanwhile
        save_known(plan.output, plan.known)
        save_folders(plan)
        executor = build(plan, lock)
        with Display(out, len(plan.stages) + 1) as display:
            run = _Run(plan, executor, display, signals)
            try:
                code = run.all()
            finally:
                noted = len(signals)
                executor.cancel(lambda: signal.SIGINT in signals[noted:])
                run.forget_stopped()
        if code == INTERRUPTED:
            print("\nstopped; run the same command again to resume", file=out)
        return code


class _Run:
    """One pass over the plan.

    signals: not empty: stop.
    """

    def __init__(self, plan: Plan, executor: Executor, display: Display, signals: Sequence[int]) -> None:
        self.plan, self.executor, self.display, self.signals = plan, executor, display, signals
        self.timings = Timings(plan.output / f"timings{plan.suffix}.json")
        self.scheduler, self.keeper = Scheduler(plan.stages), Keeper(plan)
        self.saved = time.monotonic()
        # Represents the comparison in the estimate of the time left; its inputs are only known at the end.
        self.last = compare_stage(plan, ())
        self.fresh: dict[Stage, bool] = {}  # running stages: whether they started from nothing
        self.tries: Counter[Key] = Counter()
        self.comparison: Stage | None = None
        self.reported = False  # whether this call wrote the page

    def all(self) -> int:
        """Run every stage, then the comparison; return the exit code."""
        self.loop()
        if not self.signals:
            self.compare()
        if self.signals and (running := self.scheduler.active()):
            self.display.print(f"stopping: {', '.join(stage.title for stage in running)}")
        self.spend()
        if self.signals:
            return INTERRUPTED
        for line in summarize(self.plan, self.scheduler.failures, self.timings, self.reported):
            self.display.print(line)
        return 1 if self.scheduler.failures else 0

    def loop(self) -> None:
        """Run the stages until none is running and none can be started."""
        self.settle()
        while not self.signals:
            while not self.signals and self.executor.free and (stages := self.scheduler.next(self.timings.seconds)):
                self.start(stages)
                self.settle()
            if not self.scheduler.running and self.executor.free:
                break  # otherwise, a process whose stages have ended is about to free its slot
            for ended in self.executor.look(_LOOK):
                self.end(ended)
                self.settle()
            self.show()

    def settle(self) -> None:
        """Settle the stages that need not run, or cannot."""
        for stage in self.scheduler.settle():
            failed = self.scheduler.failures.get(stage.key)
            self.display.end(stage, failed.reason if failed else stage.cached())
        with self.display.warning():
            self.keeper.release(self.scheduler.complete)

    def compare(self) -> None:
        """Compare what was measured; the page shows what failed."""
        failures = self.scheduler.failures
        compared = [stage for stage in self.plan.stages if stage.key not in failures]
        path = self.plan.output / f"failures{self.plan.suffix}.json"
        found = describe_failures(failures, self.plan.stages)
        try:
            save_json(path, found) if found else path.unlink(missing_ok=True)
            price = self.timings.price(self.plan.stages)
            self.comparison = compare_stage(self.plan, compared, path if found else None, price)
        except (InputError, OSError) as error:
            self.comparison = self.last
            self.scheduler.start(self.last)
            self.fail(self.last, f"error: {error}")
            return
        if self.comparison.inputs:
            self.scheduler.replan([*self.plan.stages, self.comparison])
            self.loop()
            self.reported = self.comparison.key in self.scheduler.complete
            if self.reported and (table := self.comparison.table()):
                self.display.print(f"\n{table}")

    # ---- a stage ------------------------------------------------------------------------------------

    def start(self, stages: Sequence[Stage]) -> None:
        """Start stages in one process, without those that cannot run any more."""
        ready = [stage for stage in stages if self.prepare(stage)]
        if not ready:
            return
        try:
            self.executor.start(ready)
        except InputError as error:
            for stage in ready:
                self.fail(stage, f"error: {error}")

    def prepare(self, stage: Stage) -> bool:
        """Prepare the folder of `stage`, and count it as running; return whether it can run."""
        self.scheduler.start(stage)
        try:
            if reason := self.hindrance(stage):
                self.fail(stage, f"not run: {reason}")
                return False
            if said := attempts.put_aside(stage):
                self.display.print(f"{stage.title}: {said}")
            stage.forget()
            self.fresh[stage] = not stage.trains or not stage.log.exists()
            attempts.begin(stage)
        except (InputError, OSError) as error:
            self.fail(stage, f"error: {error}")
            return False
        return True

    def hindrance(self, stage: Stage) -> str:
        """Return what no longer matches the hash of `stage`; "" if it can run."""
        folder = folder_of(self.plan.output, key_of(stage))
        if (claim := load_claim(folder)) and claim.state == HELD and not claim.abandoned:
            return f"job {claim.job} of a cluster works on it on {claim.host}; if that is gone, delete {folder}"
        changed = [f"the output of {item.title}" for item in stage.inputs if not item.complete()]
        changed += map(str, self.plan.changed_data(stage))
        changed += filter(None, [stage.changed_source()])
        return f"{changed[0]} has changed since the suite was started; start it again" if changed else ""

    def end(self, ended: Ended) -> None:
        """Record the output of a stage whose tool has ended, or why there is none."""
        stage, code, seconds = ended
        self.spend()
        if code is None:
            self.again(stage)
        elif not (reason := reason_of(code, stage) if code else attempts.complete(stage)):
            if self.fresh[stage]:  # a stage resumed from a checkpoint takes less time
                self.timings.add(stage, seconds)
            self.scheduler.end(stage)
            lost = self.take_choice(stage) if stage.decides else []
            self.display.end(stage, "   ".join(filter(None, [f"{seconds:.0f} s", stage.verdict(), self.left()])))
            for sketch in lost:
                self.display.end(sketch, self.scheduler.failures[sketch.key].reason)
        elif not self.signals:  # otherwise, a signal to all processes of the suite has ended it: Ctrl-C
            try:
                self.take_failure(stage, code, seconds, reason)
            except InputError as error:
                self.fail(stage, f"error: {error}")

    def take_choice(self, stage: Stage) -> list[Stage]:
        """Plan again with the choice of a selection; return the stages that fail because this is not possible."""
        try:
            plan = plan_again(self.plan)
            revive(plan.stages)  # what the choice has just made definite
        except InputError as error:  # a source or config has changed meanwhile
            return self.scheduler.fail_sketches(stage, f"not run: {error}")
        self.plan, self.keeper = plan, Keeper(plan)
        with self.display.warning():
            save_folders(plan)
        self.scheduler.replan(plan.stages)
        self.display.total = len(plan.stages) + 1
        return []

    def take_failure(self, stage: Stage, code: int, seconds: float, reason: str) -> None:
        """Start a stage again that was killed; otherwise count it as failed."""
        killed = (
            code < 0 or code == TERMINATED or (stage.processes > 1 and code == 1)
        )  # torchrun ends with 1 if one of its processes is
        if code == Diverged.exit_code and stage.accept_divergence(reason):
            attempts.forget(stage)
            self.scheduler.end(stage)
            self.display.end(stage, f"diverged after {seconds:.0f} s: {reason}")
        elif killed and self.tries[stage.key] < self.plan.suite.launch.retries:
            self.tries[stage.key] += 1
            self.again(stage)
            self.display.print(f"{stage.title}: {reason} after {seconds:.0f} s; started again")
        else:
            self.fail(stage, reason, f"failed after {seconds:.0f} s: {reason}")

    def again(self, stage: Stage) -> None:
        """Count a stage as ready again."""
        attempts.forget(stage)
        self.scheduler.again(stage)

    def fail(self, stage: Stage, reason: str, said: str = "") -> None:
        """Count a stage as failed, and show why."""
        attempts.fail(stage, reason)
        self.scheduler.fail(stage, reason)
        self.display.end(stage, said or reason)

    def forget_stopped(self) -> None:
        """Remove the attempts of the stages that were running when the suite was stopped."""
        for stage in filter(None, map(self.scheduler.graph.stages.get, self.scheduler.running)):
            attempts.forget(stage)

    # ---- what is shown ---------------------------------------------------------------------------------

    def left(self) -> str:
        """Estimate the time left by the critical path and the slots: `about 6 min left`."""
        scheduler = self.scheduler
        rest = [*scheduler.unfinished(), *([] if self.comparison else [self.last])]
        known = [stage for stage in rest if self.timings.estimate(stage) is not None]
        if not known:
            return ""
        seconds = scheduler.seconds_left(self.timings.seconds, self.executor.slots)
        seconds += 0.0 if self.comparison else self.timings.seconds(self.last)
        if len(known) < len(rest) and seconds < 1:
            return ""
        return f"{'about' if len(known) == len(rest) else 'at least'} {minutes(seconds)} left"

    def show(self) -> None:
        """Show the running stages, one line each, and how many there are of each state."""
        if self.display.live:
            scheduler = self.scheduler
            running = [(stage, scheduler.seconds_of(stage.key)) for stage in scheduler.active()]
            waiting = len(scheduler.stages) - len(scheduler.complete) - len(scheduler.failures) - len(running)
            if not self.comparison:
                waiting += 1
            numbers = {"complete": len(scheduler.complete), "running": len(running), "waiting": waiting}
            numbers["failed"] = len(scheduler.failures)
            counts = ", ".join(f"{number} {state}" for state, number in numbers.items() if number)
            self.display.show(running, f"{counts}   {self.left()}")

    def spend(self) -> None:
        """Count the time since the last call."""
        now = time.monotonic()
        self.timings.spend(now - self.saved)
        self.saved = now
