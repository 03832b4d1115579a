"""Faults of all kinds while several stages run: the rest completes, a rerun does exactly what is missing.

The tools are fakes in processes of their own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.small_disk import small_disk_at
from helpers.suite_lab import is_gone, wait_for

import suites.cleaning as cleaning
from backbones.core.errors import InputError
from backbones.core.files import save_json
from suites.execution import runner, timings
from suites.execution.local import LocalExecutor
from suites.execution.slots import Slot
from suites.stages import record, trainings
from suites.stages.measures import Measure

pytest_plugins = ["helpers.suite_fixtures"]

ROWS = [f"R{number:02d}" for number in range(12)]


@pytest.fixture
def dozen(lab):
    """A lab of twelve trainings, in three slots."""
    lab.tree |= {"FINETUNE": [], "EVALUATE": {"ENABLED": False}, "LOCALIZE": {"ENABLED": False}}
    lab.tree["ROWS"] = [{"LABEL": row, "OVERRIDES": ["METHOD.NAME", "CE", "ROW", row]} for row in ROWS]
    lab.processes = 3
    return lab


@pytest.fixture
def small_disk(dozen):
    """The folder of R07's training is a full disk of its own, until it is called."""
    [folder] = [stage.output for stage in dozen.plan().stages if stage.title == "R07: pretrain"]
    folder.mkdir(parents=True)
    with small_disk_at(folder, 1 << 16):
        (folder / "filler").write_bytes(bytes(1 << 16))
        yield (folder / "filler").unlink


def check_nothing_is_half_written(lab):
    for path in lab.output.rglob("*.json"):
        json.loads(path.read_text())
    assert [path for path in lab.output.rglob("*") if path.suffix in (".part", ".tmp")] == []


def test_three_killed_one_refused_one_on_a_full_disk(dozen, small_disk):
    killed, refused, full = ["R01", "R05", "R10"], "R03", "R07"
    dozen.tell("die", "".join(f"{row}-s0-pretrain\n" for row in killed))
    dozen.tell("fail", f"{refused}-s0-pretrain")
    code, said = dozen.run()
    called = dozen.called()
    assert code == 1
    assert sorted(called) == sorted(["prepare_data", *(f"{row} pretrain" for row in ROWS if row != full), "compare"])
    for row in killed:
        assert f"{row}: pretrain: ended by SIGKILL" in said
    assert f"{refused}: pretrain: error: told to fail" in said
    assert f"{full}: pretrain: error: cannot write " in said
    assert "No space left on device" in said
    assert "5 stages did not finish; rerun to retry:" in said
    failures = json.loads((dozen.output / "failures.json").read_text())
    assert {entry["label"] for entry in failures} == {*killed, refused, full}
    assert all(entry["what"] == "pretrain" and entry["seed"] == 0 and entry["reason"] for entry in failures)
    check_nothing_is_half_written(dozen)

    for order in ("die", "fail"):
        (dozen.tools / order).unlink()
    small_disk()
    code, said = dozen.run()
    assert (code, sorted(dozen.called())) == (
        0,
        sorted([*(f"{row} pretrain" for row in (*killed, refused, full)), "compare"]),
    )
    assert not (dozen.output / "failures.json").exists()
    assert dozen.to_run() == []


def test_killed_stage_is_started_again_in_the_same_call(dozen):
    """As often as LAUNCH.RETRIES says, and no more; what a tool refuses is not tried again."""
    dozen.tree["LAUNCH"]["RETRIES"] = 2
    dozen.tell("die", "R05-s0-pretrain")
    dozen.tell("fail", "R06-s0-pretrain")
    code, said = dozen.run()
    called = dozen.called()
    assert code == 1
    assert [called.count(f"{row} pretrain") for row in ("R04", "R05", "R06")] == [1, 3, 1]
    assert said.count("R05: pretrain: ended by SIGKILL after") == 2
    assert said.count("; started again") == 2
    assert "R05: pretrain: ended by SIGKILL (full log:" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(
    ("moment", "count"), [("data", 1), ("R04-s0-pretrain\nR05-s0-pretrain\nR06-s0-pretrain", 3), ("report", 1)]
)
def test_stopped_suite_loses_nothing(dozen, number, moment, count):
    dozen.tell("hang", moment)
    suite = dozen.start(slots=3)
    children = dozen.children(count)
    suite.send_signal(number)
    assert suite.wait(60) == (-number if number == signal.SIGKILL else 130)
    # The system ends the children of a process that was killed; otherwise the suite waits for them.
    assert wait_for(lambda: all(map(is_gone, children)), 10.0 if number == signal.SIGKILL else 0.1)
    check_nothing_is_half_written(dozen)
    done = {path.parent.name.split("-")[0] for path in dozen.output.glob("runs/*/suite.json")}
    first = dozen.called()
    (dozen.tools / "hang").unlink()
    assert dozen.run()[0] == 0
    again = dozen.called()
    data = ["prepare_data"] if moment == "data" else []
    assert sorted(again) == sorted([*data, *(f"{row} pretrain" for row in ROWS if row not in done), "compare"])
    assert len(first) + len(again) == len(ROWS) + 2 + count  # only what was running was called twice
    assert dozen.to_run() == []


def test_measures_of_one_backbone_share_a_process_and_fail_alone(lab):
    lab.tree["ROWS"] = lab.tree["ROWS"][1:2]
    lab.processes = 2
    for name in ("evaluate_backbone", "localize"):
        path = lab.tools / f"{name}.py"
        path.write_text(path.read_text() + "\nraise SystemExit\n")
        path.write_text(
            f"import os\nopen({str(lab.folder / 'pids')!r}, 'a').write(f'{{os.getpid()}}\\n')\n{path.read_text()}"
        )
    lab.tell("fail", "CE-s0-evaluate")
    code, said = lab.run()
    first, second = (lab.folder / "pids").read_text().split()
    assert first == second != str(os.getpid())
    assert code == 1
    assert "CE: evaluate: error: told to fail" in said
    assert sorted(lab.called()) == sorted(
        ["prepare_data", "CE pretrain", "CE evaluate_backbone", "CE localize", "CE finetune_coco", "compare"]
    )
    logs = {path.name: path.read_text() for path in lab.output.glob("runs/CE*/*.log")}
    assert "told to fail" in logs["evaluate.log"]
    assert "told to fail" not in logs["localize.log"]
    for kind, tool in (("evaluate", "evaluate_backbone"), ("localize", "localize")):
        assert f"{tool}.py" in logs[f"{kind}.log"]
    (lab.tools / "fail").unlink()
    assert lab.run()[0] == 0
    assert lab.called() == ["CE evaluate_backbone", "compare"]


def test_killed_process_of_several_stages_keeps_what_the_first_did(lab):
    lab.tree["ROWS"] = lab.tree["ROWS"][1:2]
    lab.processes = 2
    lab.tell("die", "CE-s0-localize")
    code, said = lab.run()
    assert code == 1
    assert "CE: localize: ended by SIGKILL" in said
    lab.called()
    (lab.tools / "die").unlink()
    assert lab.run()[0] == 0
    assert lab.called() == ["CE localize", "compare"]
    assert list(Path(lab.output).glob("runs/*/attempt.json")) == []


FORK = """
import os, time
if not os.fork():
    open({told!r}, "w").write(str(os.getpid()))
    time.sleep(60)
    os._exit(0)
"""


@pytest.mark.parametrize("stopped", [True, False])
def test_a_process_that_a_stage_leaves_behind_ends_with_it(lab, stopped):
    """It would hold the lock, so that the next call is refused."""
    lab.tree["ROWS"], told = lab.tree["ROWS"][1:2], lab.folder / "told"
    path = lab.tools / "pretrain.py"
    path.write_text(FORK.format(told=str(told)) + path.read_text())
    lab.tell("hang" if stopped else "fail", "CE-s0-pretrain")
    suite = lab.start()
    assert wait_for(lambda: told.exists() and told.read_text())
    if stopped:
        lab.child()
        suite.terminate()
    assert suite.wait(60) == (130 if stopped else 1)
    assert wait_for(lambda: is_gone(int(told.read_text())), 5.0)


@pytest.fixture
def measured(lab, monkeypatch):
    """A lab of one row, whose measures run in one process; they share nothing that is slow to import."""
    monkeypatch.setattr(Measure, "process_context", "")
    lab.tree["ROWS"], lab.processes = lab.tree["ROWS"][1:2], 2
    return lab


def test_a_measure_that_is_killed_takes_no_other_along(measured):
    """Nor does it use up the tries of one that had not begun."""
    measured.tell("die", "CE-s0-evaluate")
    code, said = measured.run()
    assert code == 1
    assert "CE: evaluate: ended by SIGKILL" in said
    assert "1 stage did not finish" in said
    assert measured.called().count("CE localize") == 1


def test_measures_with_other_threads_do_not_share_a_process(measured):
    measured.tree["RESOURCES"] = {"LOCALIZE": {"THREADS": 2}}
    told = measured.folder / "threads"
    for name in ("evaluate_backbone", "localize"):
        path = measured.tools / f"{name}.py"
        line = f"import os\nopen({str(told)!r}, 'a').write(f'{name} {{os.environ[\"OMP_NUM_THREADS\"]}}\\n')\n"
        path.write_text(line + path.read_text())
    assert measured.run()[0] == 0
    assert sorted(told.read_text().splitlines()) == ["evaluate_backbone 1", "localize 2"]


def check_that_only_ce_failed(lab, reason):
    lab.processes = 2
    code, said = lab.run()
    assert code == 1
    assert f"CE: pretrain: {reason}" in said
    assert "4 stages did not finish" in said
    assert said.count("ALS: ") == 4
    assert "\nreport: " in said


def test_a_process_that_cannot_be_started_stops_no_other(lab, monkeypatch):
    real = subprocess.Popen

    def popen(command, **options):
        if any("CE-s0-pretrain" in part for part in command):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(command, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    check_that_only_ce_failed(lab, "error: cannot start its process: [Errno 11] Resource temporarily unavailable")


def test_a_signal_without_a_name_stops_no_other_stage(lab):
    path = lab.tools / "pretrain.py"
    path.write_text(f"import os, sys\nif 'CE' in sys.argv: os.kill(os.getpid(), 40)\n{path.read_text()}")
    check_that_only_ce_failed(lab, "ended by signal 40")


def test_a_folder_that_is_deleted_while_its_stage_runs(lab):
    """With several processes, their error can then not be added to the log."""
    lab.tree["ROWS"], lab.tree["LAUNCH"]["NUM_GPUS"] = lab.tree["ROWS"][1:2], 2
    path = lab.tools / "pretrain.py"
    folder = "sys.argv[sys.argv.index('--output-dir') + 1]"
    path.write_text(f"import shutil, sys\nshutil.rmtree({folder}, ignore_errors=True)\n{path.read_text()}")
    lab.tell("fail", "CE-s0-pretrain")
    lab.processes = 1
    code, said = lab.run()
    assert code == 1
    assert "CE: pretrain: ended with exit code 2 and no output; 3 stages that need it did not run" in said
    (lab.tools / "fail").unlink()
    path.write_text((lab.tools / "localize.py").read_text())
    assert lab.run()[0] == 0


@pytest.mark.parametrize("name", ["timings.json", "failures.json", "folders.json", "suite.json", "diverged.json"])
def test_a_file_of_the_suite_that_cannot_be_written_stops_no_stage(lab, monkeypatch, name):
    """Neither an estimate nor a list is worth a day of training."""
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}, "OVERRIDES": ["EPOCHS", 1]}
    lab.tree["ROWS"] = [
        {"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]},
        {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid},
    ]
    lab.tell("losses", '{"METHOD.LS.amount 0.1": "diverge"}')
    lab.tell("fail", "CE-s0-evaluate")
    saved = []

    def save(path, content):
        first = name == "folders.json" and name not in saved  # the list can be written until the choice
        if path.name == name and not first and (name != "suite.json" or "CE-s0-pretrain" in str(path)):
            raise InputError(f"cannot write {path}: No space left on device")
        saved.append(path.name)
        save_json(path, content)

    for module in (cleaning, runner, timings, record, trainings):
        monkeypatch.setattr(module, "save_json", save)
    code, said = lab.run()
    assert code == 1
    assert "LS: finetune" in said or name == "diverged.json"
    shown = f"cannot write {lab.output}"
    assert (shown in said) == (name != "timings.json")
    assert "did not finish; rerun to retry:" in said
    (lab.tools / "fail").unlink()
    monkeypatch.undo()
    assert lab.run()[0] == 0
    assert lab.to_run() == []


def test_a_choice_that_another_call_made_before_the_lock_was_free(lab):
    """The plan is made before the folder is locked."""
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}, "OVERRIDES": ["EPOCHS", 1]}
    lab.tree["ROWS"] = [{"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid}]
    early = lab.plan()
    lab.tell("fail", "LS-s0-pretrain")
    lab.run()
    (lab.tools / "fail").unlink()
    lab.called()
    assert lab.run_plan(early)[0] == 0
    assert lab.called() == ["LS pretrain", "LS evaluate_backbone", "LS localize", "LS finetune_coco", "compare"]


STOPPABLE = """
import os, signal, sys, time
from pathlib import Path
def save(*_):
    time.sleep(1)
    Path({saved!r}).touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
Path({told!r}).write_text(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "-"))
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("title", "processes", "hurry", "saves"),
    [
        ("CE: pretrain", 1, False, True),
        ("CE: finetune (quick)", 2, False, True),
        ("CE: pretrain", 2, True, False),
        ("CE: evaluate", 1, False, False),
    ],
)
def test_a_training_that_is_cancelled_has_time_to_save(lab, monkeypatch, title, processes, hurry, saves):
    monkeypatch.setattr("suites.execution.local._GRACE", 0.2)
    told, saved = lab.folder / "told", lab.folder / "saved"
    [stage] = [stage for stage in lab.plan().stages if stage.title == title]
    code = STOPPABLE.format(told=str(told), saved=str(saved))
    command = [sys.executable, "-c", code]
    if processes > 1:  # such as torchrun, whose processes lead sessions of their own
        own = (
            f"import subprocess, signal; signal.signal(15, lambda *_: p.terminate()); p = subprocess.Popen({command!r}"
        )
        command = [sys.executable, "-c", f"{own}, start_new_session=True); p.wait()"]
    with open(os.devnull, "rb") as lock:
        executor = LocalExecutor([Slot(0)], lock.fileno(), grace=30.0)
        executor.start([replace(stage, command=tuple(command), processes=processes)])
        assert wait_for(lambda: told.exists() and told.read_text())
        executor.cancel(lambda: hurry)
    time.sleep(0 if saves else 1.5)
    assert saved.exists() == saves
    assert told.read_text() == ("100" if processes > 1 else "-")


def test_a_second_ctrl_c_waits_for_no_training(lab):
    lab.tree["ROWS"], path = lab.tree["ROWS"][1:2], lab.tools / "pretrain.py"
    path.write_text(f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{path.read_text()}")
    lab.tell("hang", "CE-s0-pretrain")
    suite, child = lab.start(), lab.child()
    suite.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        suite.wait(1.5)
    suite.send_signal(signal.SIGINT)
    assert suite.wait(30) == 130
    assert is_gone(child)
