"""How a suite runs: caching, failures, kills, the lock, what it says.  The tools are fakes: nothing is trained."""

import os
import re
import signal
import subprocess
import sys

import pytest
from helpers.suite_lab import ALL, EVERYTHING, OF_ALS, OF_CE, is_gone, set_compare, set_row, short, wait_for

from backbones.core.errors import InputError
from suites.execution.local import LocalExecutor
from suites.execution.scheduler import Scheduler
from suites.execution.slots import Slot
from suites.execution.timings import Timings
from suites.folder import LOCK
from suites.stages.log import last_line
from suites.stages.outcome import reason_of

pytest_plugins = ["helpers.suite_fixtures"]


def test_second_call_starts_nothing_and_shows_the_table_again(finished):
    code, said = finished.run()
    assert (code, finished.called()) == (0, [])
    assert said.count("... cached") == len(EVERYTHING)
    assert "the table" in said
    assert "report: " in said


def test_changed_row_runs_and_is_complete_again(finished):
    set_row(finished)
    assert finished.run()[0] == 0
    assert sorted(finished.called()) == sorted([*OF_ALS, "compare"])
    assert finished.to_run() == []


def test_report_depends_on_what_the_results_say(finished):
    path = next(finished.output.glob("runs/CE*evaluate*")) / "results.json"
    before = path.read_text()
    path.write_text(before.replace('"metrics": {}', '"metrics": {"top1": 0.5}'))
    assert finished.to_run() == ["compare"]
    path.write_text('{"schema_version": 1')  # broken: made again, and comes out as it was
    assert finished.run()[0] == 0
    assert finished.called() == ["CE evaluate_backbone"]
    assert path.read_text() == before


def test_killed_suite_resumes(lab):
    lab.tell("hang", "ALS-s0-pretrain")
    process = lab.start()
    child = lab.child()
    process.kill()
    process.wait()
    (lab.tools / "hang").unlink()
    assert lab.run()[0] == 0
    assert is_gone(child)
    assert sorted(lab.called()) == sorted([*EVERYTHING, "ALS pretrain"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopped_suite_takes_its_stage_along(lab, number):
    lab.tell("hang", "CE-s0-localize")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a test run under nohup ignores it
    try:
        process = lab.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    child = lab.child()
    process.send_signal(number)
    assert process.wait(60) == 130
    assert is_gone(child)


def test_a_suite_under_nohup_goes_on(lab):
    lab.tell("hang", "CE-s0-pretrain")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = lab.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    child = lab.child()
    process.send_signal(signal.SIGHUP)
    (lab.tools / "hang").unlink()
    os.kill(child, signal.SIGKILL)
    assert process.wait(60) == 1
    assert sorted(name for name in lab.called() if "ALS" in name) == sorted(OF_ALS)


def test_other_rows_run_after_a_failure(lab):
    lab.tell("fail", "CE-s0-pretrain")
    code, said = lab.run()
    calls = lab.calls()
    assert code == 1
    assert [short(c) for c in calls] == ["prepare_data", "random finetune_coco", "CE pretrain", *OF_ALS, "compare"]
    assert not any("CE-" in argument for argument in calls[-1][1])
    assert "CE: pretrain: error: told to fail" in said
    assert "CE: localize ... not run: it needs CE: pretrain" in said
    (lab.tools / "fail").unlink()
    code, said = lab.run()
    assert (code, lab.called()) == (0, [*OF_CE, "compare"])


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("die", "CE: localize: ended by SIGKILL"),
        ("forget", "CE: localize: ended without writing its results"),
        ("fail", "CE: localize: error: told to fail"),
    ],
)
def test_reason_of_a_failure_is_told(finished, order, reason):
    (next(finished.output.glob("runs/CE*localize*")) / "results.json").unlink()
    finished.tell(order, "CE-s0-localize")
    finished.processes = 1
    code, said = finished.run()
    assert code == 1
    assert reason in said
    (finished.tools / order).unlink()
    assert finished.run()[0] == 0
    assert finished.called() == ["CE localize", "compare"] * 2


def test_report_that_failed_is_made_again(finished):
    set_compare(finished)
    finished.tell("fail", "report")
    code, said = finished.run()
    assert code == 1
    assert "compare: error: told to fail" in said
    (finished.tools / "fail").unlink()
    assert finished.run()[0] == 0
    assert finished.called() == ["compare", "compare"]


def test_without_data_nothing_runs(lab):
    lab.tell("fail", "data")
    code, said = lab.run()
    assert (code, lab.called()) == (1, ["prepare_data", "random finetune_coco", "compare"][:1])
    assert "random: finetune (quick) ... not run: it needs data scenes: prepare" in said
    assert f"{len(ALL) - 1} stages did not finish; rerun to retry:" in said


def test_two_suites_do_not_share_a_folder(lab):
    lab.tell("hang", "CE-s0-pretrain")
    process = lab.start()
    lab.child()
    try:
        with pytest.raises(InputError, match=rf"another suite is at work in .*process {process.pid}"):
            lab.run()
    finally:
        process.terminate()
        process.wait()


def test_lock_of_a_dead_process_holds_nobody_up(finished):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (finished.output / LOCK).write_text(str(gone.pid))
    assert finished.run()[0] == 0
    assert (finished.output / LOCK).read_text().split()[0] == str(os.getpid())


def test_folder_that_cannot_be_written(lab):
    lab.output.write_text("a file")
    with pytest.raises(InputError, match=r"cannot write to .*out"):
        lab.run()


def test_time_that_is_left(lab):
    """Estimated by the longest chain and the slots; what is measured overrules what is declared."""
    lab.tree["PRETRAIN"]["COST"] = 200
    stages = lab.plan().stages
    timings, scheduler = Timings(lab.folder / "timings.json"), Scheduler(stages)
    pretrain = next(stage for stage in stages if stage.kind == "pretrain")
    assert timings.estimate(next(stage for stage in stages if stage.kind == "localize")) is None
    assert [scheduler.seconds_left(timings.seconds, slots) for slots in (1, 2, 3)] == [400, 200, 200]
    scheduler.start(pretrain)
    assert scheduler.seconds_left(timings.seconds, 1) == pytest.approx(400, abs=2)
    scheduler.running[pretrain.key] -= 150
    assert scheduler.seconds_left(timings.seconds, 1) == pytest.approx(250, abs=2)
    scheduler.running[pretrain.key] -= 850  # slow, but the other one still comes whole
    assert scheduler.seconds_left(timings.seconds, 1) == 200
    scheduler.end(pretrain)
    for seconds in (20.0, 24.0, 1000.0):  # one long night does not count
        timings.add(pretrain, seconds)
    assert Timings(timings.path).estimate(pretrain) == 24
    assert scheduler.seconds_left(Timings(timings.path).seconds, 1) == 24


def test_lines_say_what_is_left(first_run):
    said = first_run[1]
    assert re.search(r"^\[1/11\] data scenes: prepare \.\.\. \d+ s   about 10 min left$", said, re.M)
    assert re.search(r"^\[11/11\] compare \.\.\. \d+ s$", said, re.M)
    assert re.search(r"^total \d+ s, largest process \d\.\d\d GiB$", said, re.M)


def test_tool_that_says_nothing(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("$ python x.py\n")
    assert last_line(log) == ""
    log.write_text("$ python x.py\nreading\n 10%|#  \r 90%|## \r\n")
    assert last_line(log) == "90%|##"


# ---- weights ------------------------------------------------------------------------------------------------------


@pytest.fixture
def weighty(lab):
    """A lab whose results name weights; ILS is taught by CE, LS is chosen of two."""
    lab.tell("weights", "{}")
    lab.tree["FINETUNE"], lab.tree["LOCALIZE"] = lab.tree["FINETUNE"][:1], {"ENABLED": False}
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}}
    lab.tree["ROWS"] = [
        {"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]},
        {"LABEL": "ILS", "OVERRIDES": ["METHOD.NAME", "ILS", "TEACHER.RUN", "{run:CE}"]},
        {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid},
    ]
    assert lab.run()[0] == 0
    lab.called()
    return lab


def delete(lab, pattern):
    for folder in lab.output.glob(f"runs/{pattern}"):
        (folder / "results.json").unlink()


def test_a_training_made_again_with_the_same_weights_changes_nothing(weighty):
    delete(weighty, "CE-s0-pretrain-*")
    assert weighty.run()[0] == 0
    assert weighty.called() == ["CE pretrain"]
    assert weighty.run()[0] == 0
    assert weighty.called() == []


def test_other_weights_rerun_what_was_made_of_them(weighty):
    delete(weighty, "CE-s0-pretrain-*")
    weighty.tell("weights", '{"CE": "others", "ILS": "others too"}')
    assert weighty.run()[0] == 0
    of = ["pretrain", "evaluate_backbone", "finetune_coco"]
    assert weighty.called() == [*(f"CE {tool}" for tool in of), *(f"ILS {tool}" for tool in of), "compare"]
    assert weighty.to_run() == []
    # Checkpoints of the old weights are not resumed from, and not lost.
    aside = {path.name.rsplit("-", 1)[0] for path in weighty.output.glob("runs/*.old1")}
    assert aside == {
        "CE-s0-evaluate",
        "CE-s0-finetune-quick",
        *(f"ILS-s0-{kind}" for kind in ("pretrain", "evaluate", "finetune-quick")),
    }


def test_other_weights_of_a_point_are_chosen_from_again(weighty):
    assert weighty.to_run() == []
    points = sorted(weighty.output.glob("runs/point-*"), key=lambda path: (path / "config.yaml").read_text())
    (points[1] / "results.json").unlink()
    weighty.tell("weights", '{"point": "others"}')
    weighty.tell("losses", '{"METHOD.LS.amount 0.2": -1}')
    assert weighty.run()[0] == 0
    assert weighty.called() == [
        "point pretrain",
        "LS select_run",
        "LS evaluate_backbone",
        "LS finetune_coco",
        "compare",
    ]
    assert weighty.to_run() == []


# ---- several processes --------------------------------------------------------------------------------------------


def test_trainings_alone_are_launched_in_several_processes(lab):
    plain = {stage.title: stage for stage in lab.plan().stages}
    lab.tree["LAUNCH"] = {"NUM_GPUS": 8}
    several = {stage.title: stage for stage in lab.plan().stages}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=8"]
    for title, stage in several.items():
        assert (stage.hash, stage.output) == (plain[title].hash, plain[title].output)
        many = stage.kind in ("pretrain", "finetune")
        assert list(stage.command) == [sys.executable, *(launcher if many else []), *plain[title].command[1:]]
    lab.tree["LAUNCH"] = {"NUM_GPUS": 0}
    with pytest.raises(InputError, match=r"LAUNCH.NUM_GPUS is 0; it must be at least 1"):
        lab.plan()


def test_several_processes_run_and_their_reason_is_told(lab):
    """By torchrun itself: the fake tools run once in each process."""
    lab.tree |= {"ROWS": lab.tree["ROWS"][1:2], "FINETUNE": [], "LAUNCH": {"NUM_GPUS": 2}}
    lab.processes = 1
    lab.tell("fail", "CE-s0-pretrain")
    code, said = lab.run()
    assert code == 1
    assert "CE: pretrain: error: told to fail" in said  # not the page of torchrun
    (lab.tools / "fail").unlink()
    lab.calls()
    assert lab.run()[0] == 0
    assert lab.called().count("CE pretrain") == 2


def test_exit_code_of_several_processes_is_that_of_the_first_that_refuses(lab):
    """torchrun itself ends with 1."""
    grid = {"KEYS": {"METHOD.LS.amount": [0.1]}}
    lab.tree |= {"ROWS": [{"LABEL": "LS", "GRID": grid}], "FINETUNE": [], "LAUNCH": {"NUM_GPUS": 2}}
    lab.tell("losses", '{"METHOD.LS.amount 0.1": "diverge"}')
    stage = next(stage for stage in lab.plan().stages if stage.trains)
    with (lab.folder / "lock").open("w") as lock:
        executor = LocalExecutor([Slot(0)], lock.fileno())
        executor.start([stage])
        [(_, code, _)] = executor.look(60.0)
    assert (code, reason_of(code, stage)) == (3, "error: the loss is not finite at iteration 7: {}")
    assert set(lab.called()) == {"point pretrain"}


def test_processes_of_a_killed_suite_end(lab):
    lab.tree |= {"ROWS": lab.tree["ROWS"][1:2], "FINETUNE": [], "LAUNCH": {"NUM_GPUS": 2}}
    lab.tell("hang", "CE-s0-pretrain")
    process = lab.start()
    children = lab.children(2)
    process.kill()  # torchrun is told by the system, and tells its processes
    process.wait()
    assert wait_for(lambda: all(map(is_gone, children)))
