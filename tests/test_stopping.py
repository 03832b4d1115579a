"""SIGTERM and Ctrl-C in every training: a checkpoint at the end of the iteration, one line, and an exact resumption.

`make test` stops in the middle of an epoch and during an evaluation; `make test-all` at every moment.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import ClassVar

import pytest
import torch
from helpers import finetuning, pretraining, yolo_tiny
from helpers.killing import ROOT, assert_equal_trees, reported
from helpers.stopping import stop_in_process
from helpers.tiny_runs import tiny_run

from backbones.core import meters, stopping
from backbones.core.checkpoint import load_checkpoint
from backbones.core.meters import Meters, Step
from backbones.core.run_log import read_metrics
from backbones.core.stopping import (
    NAMES,
    Stopped,
    Unfinished,
    agreed_signal,
    catch_signals,
    describe_stop,
    gather_finished,
    hold_signals,
    until_signal,
)

CPU = torch.device("cpu")
TERM, INT = signal.SIGTERM, signal.SIGINT


def send(number=TERM):
    os.kill(os.getpid(), number)


def held(work):
    """Do some work while signals are held; return what the signal that came raises at the end."""
    with pytest.raises(Stopped) as stopped, hold_signals():
        work()
    return stopped.value


# ---- signals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (INT, 130)])
def test_a_signal_ends_a_tool_where_it_is(number, code):
    later, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, it is ignored
    try:
        with catch_signals(), pytest.raises(Stopped) as stopped:
            later.append(send(number))
    finally:
        signal.signal(signal.SIGINT, before)
    assert later == []
    assert stopped.value.exit_code == code


def test_a_held_signal_waits_for_the_end_and_is_agreed_on():
    done = []

    def train():
        done.append(agreed_signal(1, CPU, due=True))
        send()
        done.append(agreed_signal(1, CPU, due=False))  # a process of its own never waits

    assert held(train).exit_code == 143
    assert done == [0, TERM]


def test_handlers_are_restored_and_ignored_signals_stay_ignored():
    """A job in the background of a shell ignores Ctrl-C; nobody takes that from it."""
    before = signal.signal(INT, signal.SIG_IGN)
    try:
        terminated = signal.getsignal(TERM)
        with hold_signals():
            assert signal.getsignal(INT) is signal.SIG_IGN
            assert signal.getsignal(TERM) is not terminated
            send(INT)
        assert signal.getsignal(TERM) is terminated
    finally:
        signal.signal(INT, before)


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(TERM)
    seen = []

    def work():
        with hold_signals():
            seen.append(signal.getsignal(TERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_same_signal_twice_in_a_moment_counts_once():
    """torchrun passes on what the scheduler has sent to every process already."""
    assert held(lambda: [send(), send(), send(INT)]).number == TERM


@pytest.mark.parametrize("hold", [True, False])
def test_a_forked_worker_outlives_a_signal_only_while_a_training_holds_it(hold):
    """A pool ends its workers by SIGTERM and waits for them; a data loader's belong to the last iteration, too."""
    with hold_signals() if hold else catch_signals():
        pid = os.fork()
        if not pid:
            send()
            os._exit(7)
        status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == (7 if hold else -TERM)


def test_an_evaluation_is_cut_off_only_while_signals_are_held():
    assert list(until_signal(range(3))) == [0, 1, 2]
    assert gather_finished("mine") == ["mine"]
    seen = []

    def evaluate():
        for number in until_signal(range(10)):
            seen.append(number)
            if number == 2:
                send()
        with pytest.raises(Unfinished):
            gather_finished(seen)

    held(evaluate)
    assert seen == [0, 1, 2]


def test_the_line_promises_only_what_is_there():
    with catch_signals():
        assert describe_stop(TERM, "add --resume") == (
            "stopped by SIGTERM: this call has saved nothing; run the same command again"
        )
        stopping.note_saved(3, 9)
        assert describe_stop(INT, "add --resume") == "stopped by Ctrl-C: iteration 3 of 9 is saved; add --resume"
    with catch_signals():  # the next tool of this process
        assert "saved nothing" in describe_stop(TERM, "")
    assert set(NAMES.values()) == {"SIGTERM", "Ctrl-C"}


# ---- losses between two lines --------------------------------------------------------------------------------------


def filled(first, stop, meters=None):
    meters = meters or Meters()
    meters.begin(first)
    for n in range(first, stop):
        losses = {"a": torch.tensor(n / 3), "b": torch.tensor(1 / (n + 1))}
        meters.add(Step(sum(losses.values()), losses, {"rate": (torch.tensor(n), 10)}))
        meters.add_scalar("accuracy", n / 7)
    return meters


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_meters_from_a_checkpoint_give_the_same_means(cut):
    resumed = Meters()
    resumed.load_state_dict(filled(0, cut).state_dict())
    assert filled(cut, 8, resumed).flush() == filled(0, 8).flush()
    assert resumed.empty
    assert resumed.first == 8
    assert resumed.state_dict() == {}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2)])
def test_meters_from_another_number_of_processes_give_the_same_means(before, after, monkeypatch):
    """Each process has the same losses, so that their mean is that of one process."""
    whole = filled(0, 8).flush()
    monkeypatch.setattr(meters, "world_size", lambda: before)
    monkeypatch.setattr(meters, "all_reduce_sum", lambda *tensors: [one.mul_(before) for one in tensors])
    first = filled(0, 4)
    first.gather(CPU)
    state = first.state_dict()
    assert state["processes"] == before
    resumed = Meters()
    monkeypatch.setattr(meters, "world_size", lambda: after)
    resumed.load_state_dict(state)
    others = filled(4, 8)  # of the other processes, which have no losses from the checkpoint
    sums = {name: values * (after - 1) for name, values in others._columns(CPU).items()}
    filled(4, 8, resumed)
    columns = resumed._columns(CPU)
    for name, column in columns.items():
        column[4:] += sums[name]
        assert (column / after).mean().item() == pytest.approx(whole[name])


# ---- every training ------------------------------------------------------------------------------------------------


class Pretraining:
    """Ten iterations, two epochs with a validation each; lines every three, checkpoints every four iterations."""

    tool, iterations = "pretrain", 10
    options = ("SOLVER.MAX_EPOCH", 2, "SOLVER.CHECKPOINT_PERIOD", 0.8, "EVAL.PERIOD", 1, "METHOD.NAME", "OLS")
    # moment -> function whose call brings the signal, the number of that call, and the iteration that is then saved
    moments: ClassVar = {
        "before the first step": ("backbones.pretraining.run.build_task", 1, None),
        "in the first step": ("backbones.core.engine.seed_step", 1, 1),
        "in an epoch": ("backbones.core.engine.seed_step", 7, 7),
        "in a validation": ("backbones.measuring.predictions.normalize", 1, 5),
        "in a checkpoint": ("backbones.pretraining.run.save_checkpoint", 1, 5),
        "in the last validation": ("backbones.measuring.predictions.normalize", 2, 10),
        "in the last checkpoint": ("backbones.pretraining.run.save_checkpoint", 3, 10),
        "after the last step": ("backbones.pretraining.run.fitted_metrics", 1, 10),
    }

    def __init__(self, scenes, folder):
        self.scenes = scenes

    def argv(self, out, *, resume=False):
        return pretraining.arguments(self.scenes, out, *self.options, resume=resume)


class FasterRCNN:
    """Nine iterations with lines every two and checkpoints every four."""

    tool, iterations = "finetune_coco", 9
    options = ("SOLVER.LOG_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 4)
    moments: ClassVar = {
        "before the first step": ("detection.engines.base.check_precision", 1, None),
        "in an epoch": ("backbones.core.engine.seed_step", 7, 7),
        "in a checkpoint": ("detection.training.checkpoint.save_checkpoint", 1, 5),
        "in the last checkpoint": ("detection.training.checkpoint.save_checkpoint", 3, 9),
        "after the last step": ("detection.engines.torchvision.engine.scale_to_original", 2, 9),
    }

    def __init__(self, scenes, folder):
        self.scenes = scenes

    def argv(self, out, *, resume=False):
        flags = ["--resume"] if resume else []
        return finetuning.arguments(self.scenes, out, *self.options, flags=flags)


class YOLO(FasterRCNN):
    """The same, with labels that are learned online."""

    tool = "finetune_voc"
    options = (*FasterRCNN.options, "CLASS_LABELS.NAME", "OLS")
    moments = FasterRCNN.moments | {"after the last step": ("detection.engines.yolo.inference.suppress", 1, 9)}

    def __init__(self, scenes, folder):
        self.root = yolo_tiny.write_data(folder / "data")

    def argv(self, out, *, resume=False):
        flags = ["--resume"] if resume else []
        return yolo_tiny.arguments(self.root, out, *self.options, flags=flags)


TRAININGS = (Pretraining, FasterRCNN, YOLO)
ALWAYS = {(Pretraining, "in an epoch"), (Pretraining, "in a validation")}
CASES = [
    pytest.param(one, moment, marks=[] if (one, moment) in ALWAYS else pytest.mark.exhaustive)
    for one in TRAININGS
    for moment in one.moments
]


@pytest.fixture(scope="module")
def uninterrupted(small_scenes, tmp_path_factory, load_tool):
    """Return a training and the folder of its uninterrupted run; each is run once."""
    known = {}

    def run(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp("whole")
            training = kind(small_scenes, folder)
            load_tool(kind.tool).main(training.argv(folder / "run"))
            known[kind] = training, folder / "run"
        return known[kind]

    return run


@pytest.mark.parametrize(("kind", "moment"), CASES)
def test_a_stopped_training_resumes_bit_equal(uninterrupted, tmp_path, load_tool, kind, moment):
    training, whole = uninterrupted(kind)
    run, main = tmp_path / "run", load_tool(kind.tool).main
    target, call, saved = kind.moments[moment]
    assert stop_in_process(main, training.argv(run), target, call) == 143
    assert not (run / "results.json").exists()
    assert (run / "checkpoint.pth").exists() == (saved is not None)
    if saved is not None:
        assert load_checkpoint(run / "checkpoint.pth")["iteration"] == saved
    main(training.argv(run, resume=saved is not None))
    assert_equal_trees(load_checkpoint(whole / "checkpoint.pth"), load_checkpoint(run / "checkpoint.pth"))
    assert reported(run) == reported(whole)
    assert list(run.glob("*.tmp")) == []


# ---- processes -----------------------------------------------------------------------------------------------------


def start(command, **environment):
    # A test run in the background ignores SIGINT, and its children would inherit that.
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(process, folder, lines):
    """Wait until metrics.jsonl in `folder` has `lines` lines."""
    deadline = time.monotonic() + 300
    while not ((folder / "metrics.jsonl").exists() and len(read_metrics(folder / "metrics.jsonl")) >= lines):
        assert process.poll() is None, process.stderr.read()[-500:]
        assert time.monotonic() < deadline
        time.sleep(0.005)


LONG = ("SOLVER.MAX_EPOCH", 400, "LOG_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 400, "DATA.NUM_WORKERS", 1)


@pytest.mark.parametrize(("number", "name", "code"), [(TERM, "SIGTERM", 143), (INT, "Ctrl-C", 130)])
def test_the_tool_says_what_is_saved_and_how_to_resume(small_scenes, tmp_path, number, name, code):
    process = start(["tools/pretrain.py", *pretraining.arguments(small_scenes, tmp_path, *LONG)])
    wait_for_lines(process, tmp_path, 3)
    process.send_signal(number)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == code
    saved = load_checkpoint(tmp_path / "checkpoint.pth")["iteration"]
    assert saved >= 3
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == saved
    line = f"stopped by {name}: iteration {saved} of 2000 is saved; run the same command with --resume to resume"
    assert error.splitlines()[-1] == line
    assert "Traceback" not in error
    assert not (tmp_path / "run.lock").exists()


SLOW_SAVE = """
import sys, time
from backbones.pretraining import run
save = run.save_checkpoint
run.save_checkpoint = lambda *args, **kwargs: (print("saving", flush=True), time.sleep(600))
sys.argv = sys.argv[1:]
import runpy
runpy.run_path("tools/pretrain.py", run_name="__main__")
"""


@pytest.mark.exhaustive
def test_a_second_signal_ends_at_once(small_scenes, tmp_path):
    """The first waits for the checkpoint, which is stuck."""
    argv = pretraining.arguments(small_scenes, tmp_path / "run", *LONG)
    process = start(["-c", SLOW_SAVE, "tools/pretrain.py", *argv])
    wait_for_lines(process, tmp_path / "run", 2)
    process.send_signal(TERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(stopping.REPEAT_SECONDS + 1)
    process.send_signal(TERM)
    assert process.wait(30) == -TERM
    assert not (tmp_path / "run" / "checkpoint.pth").exists()
    process.stderr.close()


@pytest.mark.exhaustive
@pytest.mark.parametrize("launcher", ["own", "torchrun"])
def test_all_processes_stop_at_the_same_iteration(small_scenes, tmp_path, launcher):
    """SIGTERM reaches the launcher only; the run is then that of two processes without a stop."""
    own = launcher == "own"
    first = ["tools/finetune_coco.py"] if own else ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    flags = ["--num-gpus", "2"] if own else []
    options = ("SOLVER.MAX_ITER", 40, "SOLVER.LOG_PERIOD", 4, "SOLVER.CHECKPOINT_PERIOD", 1000)

    def command(out, *more):
        argv = finetuning.arguments(small_scenes, out, *options, flags=[*flags, *more])
        return [*first, *([] if own else ["--standalone", "tools/finetune_coco.py"]), *argv]

    whole, run = tmp_path / "whole", tmp_path / "run"
    uninterrupted = start(command(whole))
    assert uninterrupted.wait(300) == 0, uninterrupted.stderr.read()[-800:]
    process = start(command(run))
    wait_for_lines(process, run, 2)
    process.send_signal(TERM)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == (143 if own else 1) or not own
    saved = load_checkpoint(run / "checkpoint.pth")["iteration"]
    assert 8 <= saved < 40
    line = f"stopped by SIGTERM: iteration {saved} of 40 is saved; run the same command with --resume to resume"
    assert error.splitlines().count(line) == 1
    resumed = start(command(run, "--resume"))
    assert resumed.wait(300) == 0, resumed.stderr.read()[-800:]
    assert_equal_trees(load_checkpoint(whole / "checkpoint.pth"), load_checkpoint(run / "checkpoint.pth"))
    assert reported(run) == reported(whole)
    uninterrupted.stderr.close()
    resumed.stderr.close()


@pytest.mark.exhaustive
@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (INT, 130)])
def test_a_stopped_study_keeps_its_replicates(tmp_path, load_tool, number, code):
    def argv(name):
        options = ["--quick", "--replicates", "2", "--workers", "1", "--rows", "ls"]
        return ["--output-dir", str(tmp_path / name), *options]

    main = load_tool("gaussian_study").main
    main(argv("whole"))
    assert stop_in_process(main, argv("run"), "backbones.gaussian.study._run", 2, number) == code
    assert [path.name for path in (tmp_path / "run" / "replicates").iterdir()] == ["0000.npz"]
    main(argv("run"))
    whole, run = ((tmp_path / name / "numbers.json").read_bytes() for name in ("whole", "run"))
    assert whole == run


@pytest.mark.detectron2
@pytest.mark.parametrize("moment", ["in an epoch", "in a checkpoint", "after the last step"])
def test_a_stopped_training_with_detectron2_resumes_bit_equal(small_scenes, tmp_path, load_tool, moment):
    main, argv = tiny_run("detectron2", small_scenes, tmp_path, load_tool, *FasterRCNN.options)
    main(argv(tmp_path / "whole"))
    target, call, saved = {
        "in an epoch": ("detection.engines.detectron2.training.seed_step", 7, 7),
        "in a checkpoint": FasterRCNN.moments["in a checkpoint"],
        "after the last step": ("detection.engines.detectron2.inference.to_results", 1, 9),
    }[moment]
    run = tmp_path / "run"
    assert stop_in_process(main, argv(run), target, call) == 143
    assert load_checkpoint(run / "checkpoint.pth")["iteration"] == saved
    main(argv(run, flags=["--resume"]))
    assert_equal_trees(load_checkpoint(tmp_path / "whole" / "checkpoint.pth"), load_checkpoint(run / "checkpoint.pth"))
    assert reported(run) == reported(tmp_path / "whole")
