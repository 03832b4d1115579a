"""How a suite runs: caching, failures, kills, the lock, what it says.  The tools are fakes: nothing is trained."""

import os
import re
import signal
import subprocess
import sys

import pytest
from suite_lab import ALL, EVERYTHING, OF_ALS, OF_CE, is_gone, set_compare, set_row, short

from backbones.core.errors import InputError
from comparison.suite_lock import LOCK
from comparison.suite_progress import Timings, last_line

pytest_plugins = ["suite_fixtures"]


def test_second_call_starts_nothing_and_shows_the_table_again(finished):
    code, said = finished.run()
    assert (code, finished.called()) == (0, [])
    assert said.count("... cached") == len(EVERYTHING)
    assert "the table" in said
    assert "report: " in said


def test_changed_row_runs_and_is_complete_again(finished):
    set_row(finished)
    assert finished.run()[0] == 0
    assert finished.called() == [*OF_ALS, "compare"]
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


def test_killed_suite_goes_on_where_it_was(lab):
    lab.tell("hang", "ALS-s0-pretrain")
    process = lab.start()
    child = lab.child()
    process.kill()
    process.wait()
    (lab.tools / "hang").unlink()
    assert lab.run()[0] == 0
    assert is_gone(child)
    names = lab.called()
    at = names.index("ALS pretrain")
    assert names[:at] + names[at + 1 :] == EVERYTHING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_suite_takes_its_stage_along(lab, number):
    lab.tell("hang", "CE-s0-localize")
    process = lab.start()
    child = lab.child()
    process.send_signal(number)
    assert process.wait(10) == 130
    assert is_gone(child)


def test_other_rows_go_on_after_a_failure(lab):
    lab.tell("fail", "CE-s0-pretrain")
    code, said = lab.run()
    calls = lab.calls()
    assert code == 1
    assert [short(c) for c in calls] == ["prepare_data", "random finetune_coco", "CE pretrain", *OF_ALS, "compare"]
    assert not any("CE-" in argument for argument in calls[-1][1])
    assert "CE: pretrain: error: told to fail" in said
    assert "CE: localize: not run: it needs CE: pretrain" in said
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
    assert "random: finetune (quick): not run: it needs data scenes: prepare" in said
    assert f"{len(ALL) - 1} stages are missing" in said


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
    assert (finished.output / LOCK).read_text().strip() == str(os.getpid())


def test_folder_that_cannot_be_written(lab):
    lab.output.write_text("a file")
    with pytest.raises(InputError, match=r"cannot write to .*out"):
        lab.run()


def test_time_that_is_left(lab):
    lab.tree["PRETRAIN"]["COST"] = 200
    stages = lab.plan().stages
    timings = Timings(lab.folder / "timings.json")
    assert timings.left([s for s in stages if s.kind == "localize"]) == ""
    pretrainings = [s for s in stages if s.kind == "pretrain"]
    assert timings.left(pretrainings) == "about 7 min left"
    assert timings.left(pretrainings, spent=150.0) == "about 4 min left"
    assert timings.left(pretrainings, spent=1000.0) == "about 3 min left"  # slow, but the other one still comes whole
    assert timings.left(stages) == "over 7 min left"
    for seconds in (20.0, 24.0, 1000.0):  # measured ones overrule the declared; one long night does not count
        timings.add("pretrain", seconds)
    assert Timings(timings.path).left(pretrainings) == "about 48 s left"


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
