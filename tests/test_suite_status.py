"""`--status` tells from the folders what runs, failed and waits; `--clean` deletes what no suite needs, and no more."""

import io
import json
import os
import signal
import socket

import pytest
from helpers.suite_lab import set_row

from backbones.core.errors import InputError
from suites.cleaning import ask, clean, find_leftovers
from suites.execution import attempts
from suites.status import describe_status, find_states

pytest_plugins = ["helpers.suite_fixtures"]


def states_of(lab):
    return {stage.title: state for stage, (state, _) in find_states(lab.plan()).items()}


def test_states_of_a_new_and_of_a_finished_suite(lab):
    states = states_of(lab)
    assert states["data scenes: prepare"] == "ready"
    assert {state for title, state in states.items() if title != "data scenes: prepare"} == {"waiting"}
    assert lab.run()[0] == 0
    assert set(states_of(lab).values()) == {"complete"}
    assert describe_status(lab.plan()) == "10 stages: 10 complete"


def test_running_stages_are_told_while_the_suite_runs(lab):
    lab.tell("hang", "CE-s0-pretrain\nALS-s0-pretrain")
    suite = lab.start(slots=2)
    lab.children(2)
    said = describe_status(lab.plan())
    assert states_of(lab)["CE: pretrain"] == states_of(lab)["ALS: pretrain"] == "running"
    assert f"running: CE: pretrain, for 0 s, process {suite.pid} on {socket.gethostname()}" in said.replace(
        "for 1 s", "for 0 s"
    )
    assert "waiting: 6 (2 evaluate, 2 localize, 2 finetune quick)" in said
    suite.kill()
    suite.wait()
    assert states_of(lab)["CE: pretrain"] == "interrupted"
    assert "interrupted: CE: pretrain, " in describe_status(lab.plan())
    (lab.tools / "hang").unlink()
    assert lab.run()[0] == 0
    assert set(states_of(lab).values()) == {"complete"}


def test_a_stopped_suite_leaves_no_attempt(lab):
    lab.tell("hang", "CE-s0-pretrain")
    suite = lab.start()
    lab.child()
    suite.terminate()
    assert suite.wait(60) == 130
    assert states_of(lab)["CE: pretrain"] == "ready"
    assert list(lab.output.rglob(attempts.FILE_NAME)) == []


@pytest.mark.parametrize("code", [None, -9])
def test_a_stage_that_waits_for_another_try_when_the_suite_is_stopped_leaves_no_attempt(lab, code):
    lab.tell("die", "CE-s0-localize")
    lab.tree["LAUNCH"]["RETRIES"], call = 9, lab.call_here
    tries = []

    def call_here(stage):
        if (found := call(stage)) != -signal.SIGKILL:
            return found
        tries.append(stage)
        if len(tries) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return code

    lab.call_here = call_here
    assert lab.run()[0] == 130
    assert len(tries) == 2
    assert list(lab.output.rglob(attempts.FILE_NAME)) == []


def test_failed_stages_are_told_with_reason_and_log(lab):
    lab.tell("fail", "CE-s0-pretrain")
    lab.run()
    said = describe_status(lab.plan())
    stage = next(stage for stage in lab.plan().stages if stage.title == "CE: pretrain")
    assert "failed: CE: pretrain, 0 s ago: error: told to fail" in said
    assert f"log {stage.log}" in said
    assert "waiting: 3 (1 evaluate, 1 localize, 1 finetune quick)" in said


def test_an_attempt_of_another_process_is_not_believed_forever(finished):
    """A stage whose folder is complete is complete, whatever a file beside it says."""
    stage = next(stage for stage in finished.plan().stages if stage.title == "CE: pretrain")
    path = stage.own_folder / attempts.FILE_NAME
    for pid in (os.getpid(), 2**30):
        path.write_text(json.dumps({"begun": 0.0, "pid": pid, "host": socket.gethostname()}))
        assert finished.run()[0] == 0
        assert finished.called() == []
    assert states_of(finished)["CE: pretrain"] == "complete"
    for text in (
        "[",
        "[]",
        '{"begun": 0}',
        '{"begun": "x", "pid": 1, "host": "h"}',
        '{"begun": 0, "pid": "1", "host": "h"}',
    ):
        path.write_text(text)
        assert attempts.load(stage) is None


# ---- clean ----------------------------------------------------------------------------------------------------------


def names(paths):
    return sorted(path.name.rsplit("-", 1)[0] for path in paths)


def test_clean_deletes_what_changed_settings_left_and_nothing_else(finished, capsys):
    finished.run()  # keeps the list of its folders
    assert find_leftovers(finished.plan()) == []
    set_row(finished)
    assert finished.run()[0] == 0
    mine = finished.output / "runs" / "mine"
    mine.mkdir()
    leftovers = find_leftovers(finished.plan())
    assert names(leftovers) == ["ALS-s0-evaluate", "ALS-s0-finetune-quick", "ALS-s0-localize", "ALS-s0-pretrain"]
    clean(finished.plan(), lambda: False)
    said = capsys.readouterr().out
    assert all(str(path) in said for path in leftovers)
    assert "4 folders that no suite needs, " in said
    assert all(path.exists() for path in leftovers)
    clean(finished.plan(), True)
    assert capsys.readouterr().out.endswith("deleted\n")
    assert not any(path.exists() for path in leftovers)
    assert mine.exists()
    assert finished.to_run() == []


def test_clean_keeps_the_folders_of_other_suites(finished, capsys):
    finished.run()
    first, rows = finished.plan(), finished.tree["ROWS"]
    finished.name, finished.tree["ROWS"] = "other", rows[:2]
    assert finished.run()[0] == 0
    assert find_leftovers(finished.plan()) == []
    (finished.output / f"folders{first.suffix}.json").unlink()
    with pytest.raises(InputError, match=r"folders.json does not list the folders of the suite suite, .*run it once"):
        clean(finished.plan(), True)


def test_clean_keeps_what_a_selection_has_yet_to_decide(lab):
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}, "OVERRIDES": ["EPOCHS", 1]}
    lab.tree["ROWS"] = [{"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid}]
    lab.tell("losses", '{"METHOD.LS.amount 0.1": 1}')
    assert lab.run()[0] == 0
    [select] = lab.output.glob("runs/LS-s0-select-*")
    (select / "results.json").unlink()
    assert find_leftovers(lab.plan()) == []


def test_clean_keeps_what_a_selection_of_another_suite_has_yet_to_decide(lab):
    """Its suite was interrupted before it chose again: the folders of its last choice are not lost."""
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}, "OVERRIDES": ["EPOCHS", 1]}
    rows, lab.tree["ROWS"] = lab.tree["ROWS"], [{"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid}]
    lab.tell("losses", '{"METHOD.LS.amount 0.1": 1}')
    assert lab.run()[0] == 0
    [select] = lab.output.glob("runs/LS-s0-select-*")
    (select / "results.json").unlink()
    lab.tell("fail", "LS-s0-select")
    assert lab.run()[0] == 1
    lab.name, lab.tree["ROWS"] = "other", rows
    assert lab.run()[0] == 0
    assert find_leftovers(lab.plan()) == []


@pytest.fixture
def leftover(lab):
    folder = lab.output / "runs" / "old-s0-pretrain-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "file").write_text("12345")
    return folder


@pytest.mark.parametrize(
    "stdin", [None, io.StringIO(""), io.StringIO("\n"), io.StringIO("n\n"), io.StringIO("yesno\n")]
)
def test_without_a_clear_answer_nothing_is_deleted(lab, leftover, monkeypatch, capsys, stdin):
    monkeypatch.setattr("sys.stdin", stdin)
    clean(lab.plan(), ask)
    assert leftover.exists()
    said = capsys.readouterr().out
    assert "1 folder that no suite needs, 5 B\ndelete them? [y/N] " in said
    assert said.endswith("nothing was deleted\n")


def test_a_folder_that_cannot_be_deleted_is_told_in_one_line(lab, leftover, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Y\n"))

    def refuse(path):
        raise PermissionError(13, "Permission denied", f"{path}/file")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", refuse)
        with pytest.raises(InputError, match=rf"cannot delete {leftover}/file: Permission denied"):
            clean(lab.plan(), True)
    clean(lab.plan(), ask)
    assert not leftover.exists()


def test_clean_makes_no_folder(lab):
    with pytest.raises(InputError, match=r"out does not exist; check --output-dir"):
        clean(lab.plan(), True)
    assert not lab.output.exists()


def test_clean_waits_for_no_running_suite(lab):
    lab.tell("hang", "CE-s0-pretrain")
    suite = lab.start()
    lab.child()
    with pytest.raises(InputError, match=r"another suite is at work in "):
        clean(lab.plan(), True)
    suite.kill()
    suite.wait()


def test_a_folder_put_aside_is_a_leftover(finished):
    finished.run()
    [folder] = finished.output.glob("runs/CE-s0-localize-*")
    folder.rename(folder.with_name(f"{folder.name}.old1"))
    assert finished.run()[0] == 0
    assert [path.name for path in find_leftovers(finished.plan())] == [f"{folder.name}.old1"]


@pytest.mark.parametrize(("option", "mode"), [("--yes", "--clean"), ("--commands", "--dry-run")])
def test_an_option_without_its_mode_starts_nothing(load_tool, lab, capsys, option, mode):
    with pytest.raises(SystemExit) as ended:
        load_tool("benchmark").main(["--config-file", str(lab.write()), "--output-dir", str(lab.output), option])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {option} is for {mode}; add that, or leave it out\n"
    assert not lab.output.exists()
