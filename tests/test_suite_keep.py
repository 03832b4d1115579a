"""KEEP says what finished stages leave: the suite stays complete, resumes, and compares the same numbers."""

import json
from pathlib import Path

import pytest
from helpers.suite_lab import FINETUNE, Lab

from backbones.core.errors import InputError
from suites.cleaning import find_leftovers
from suites.execution.timings import Timings
from suites.listing import describe

pytest_plugins = ["helpers.suite_fixtures"]

BLOCKS = 4096e-9  # GB
WEIGHTS = ("checkpoint.pth", "backbone.pth")


@pytest.fixture
def heavy(lab):
    """A lab whose trainings write files with weights, with the hash of each backbone in the results."""
    lab.tell("heavy", "")
    lab.tell("weights", "{}")
    lab.tree["KEEP"] = "results"
    return lab


def weights(lab: Lab) -> list[str]:
    """Return such as `CE pretrain` for every folder with weights."""
    folders = {path.parent.name for name in WEIGHTS for path in lab.output.glob(f"runs/*/{name}")}
    return sorted(f"{name.split('-')[0]} {name.split('-')[2]}" for name in folders)


def report(lab: Lab) -> str:
    """Return the hash over everything that the comparison reads."""
    return json.loads((lab.output / "report" / "inputs.json").read_text())["hash"]


def test_a_suite_keeps_only_results_and_compares_the_same(heavy, tmp_path):
    other = heavy.copy(tmp_path / "other")
    other.tree["KEEP"] = "all"
    assert [lab.run()[0] for lab in (heavy, other)] == [0, 0]
    assert weights(heavy) == []
    assert weights(other) == sorted([*FINETUNE, "CE pretrain", "ALS pretrain"])
    names = [sorted(path.name for path in lab.output.glob("runs/*")) for lab in (heavy, other)]
    assert names[0] == names[1]
    assert report(heavy) == report(other)
    heavy.calls()
    assert heavy.run()[0] == 0
    assert heavy.calls() == []
    assert find_leftovers(heavy.plan()) == []
    other.tree["KEEP"] = "results"  # what was complete before is treated the same
    other.calls()
    assert other.run()[0] == 0
    assert (other.calls(), weights(other), other.to_run()) == ([], [], [])


def test_weights_stay_until_every_stage_that_reads_them_is_complete(heavy):
    heavy.tell("fail", "CE-s0-localize")
    assert heavy.run()[0] == 1
    assert weights(heavy) == ["CE pretrain"]
    heavy.tell("fail", "nothing")
    heavy.called()
    assert heavy.run()[0] == 0
    assert heavy.called() == ["CE localize", "compare"]
    assert weights(heavy) == []


def test_a_stage_that_is_added_later_trains_what_it_reads_again(heavy):
    heavy.tree["ROWS"].append({"LABEL": "student", "OVERRIDES": ["TEACHER.RUN", "{run:CE}"]})
    heavy.tree["ROWS"].append({"LABEL": "second", "OVERRIDES": ["TEACHER.RUN", "{run:student}"]})
    assert heavy.run()[0] == 0
    assert weights(heavy) == []
    heavy.tree["ATTACK"] = {"ENABLED": True}
    attacks = [f"{label} attack" for label in ("ALS", "CE", "second", "student")]
    trained = [f"{label} pretrain" for label in ("ALS", "CE", "second", "student")]
    assert sorted(heavy.to_run()) == sorted([*attacks, *trained, "compare"])
    heavy.called()
    assert heavy.run()[0] == 0
    tools = [name.replace(" attack", " attack_backbone") for name in attacks]
    assert sorted(heavy.called()) == sorted([*tools, *trained, "compare"])
    assert weights(heavy) == []


def test_only_the_trainings_on_the_way_to_what_is_added_run_again(heavy):
    heavy.tree["ROWS"].append({"LABEL": "student", "OVERRIDES": ["TEACHER.RUN", "{run:CE}"]})
    assert heavy.run()[0] == 0
    [folder] = heavy.output.glob("runs/student-s0-localize-*")
    (folder / "results.json").unlink()
    heavy.called()
    assert heavy.run()[0] == 0
    assert heavy.called() == ["CE pretrain", "student pretrain", "student localize"]


def test_a_suite_that_was_stopped_between_record_and_deletion_deletes_later(heavy, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", refuse_weights())
        code, said = heavy.run()
    assert code == 0
    assert "warning: cannot delete " in said
    assert weights(heavy)
    heavy.calls()
    assert heavy.run()[0] == 0
    assert (heavy.calls(), weights(heavy)) == ([], [])


def refuse_weights():
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path.name in WEIGHTS:
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    return refuse


def choosing(heavy, *amounts, losses):
    """Make LS, with a grid of amounts, the only row; the final training is of other settings than the points."""
    grid = {"KEYS": {"METHOD.LS.amount": list(amounts)}, "OVERRIDES": ["EPOCHS", 1]}
    heavy.tree["ROWS"] = [{"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid}]
    heavy.tell("losses", losses)
    return grid


def test_a_grid_keeps_its_points_until_it_has_chosen(heavy):
    choosing(heavy, 0.1, 0.2, losses='{"METHOD.LS.amount 0.1": 1}')
    heavy.tell("fail", "LS-s0-select")
    assert heavy.run()[0] == 1
    assert len(list(heavy.output.glob("runs/point*/backbone.pth"))) == 2
    heavy.tell("fail", "nothing")
    assert heavy.run()[0] == 0
    assert weights(heavy) == []
    heavy.calls()
    assert heavy.run()[0] == 0
    assert heavy.calls() == []


def test_a_choice_that_was_made_trains_no_point_again(heavy):
    """The final training is all that a new stage reads."""
    choosing(heavy, 0.1, 0.2, losses='{"METHOD.LS.amount 0.1": 1}')
    assert heavy.run()[0] == 0
    heavy.called()
    heavy.tree["ATTACK"] = {"ENABLED": True}
    assert heavy.run()[0] == 0
    assert sorted(heavy.called()) == ["LS attack_backbone", "LS pretrain", "compare"]
    assert weights(heavy) == []


def test_a_training_that_a_new_choice_makes_definite_is_not_taken_without_its_weights(heavy):
    """In one edit, a point more, which is not chosen, and a new stage of the training that was chosen before."""
    grid = choosing(heavy, 0.1, 0.2, losses='{"METHOD.LS.amount 0.1": 1, "METHOD.LS.amount 0.3": 9}')
    assert heavy.run()[0] == 0
    heavy.called()
    grid["KEYS"]["METHOD.LS.amount"].append(0.3)
    heavy.tree["ATTACK"] = {"ENABLED": True}
    code, said = heavy.run()
    assert code == 0, said
    assert "LS attack_backbone" in heavy.called()
    assert weights(heavy) == []


def test_trainings_of_another_suite_keep_their_weights(heavy):
    rows = heavy.tree["ROWS"]
    heavy.tree["KEEP"] = "all"
    assert heavy.run()[0] == 0
    heavy.name, heavy.tree["KEEP"] = "other", "results"
    heavy.tree["ROWS"] = [*rows[:2], {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"]}]
    assert heavy.run()[0] == 0
    assert weights(heavy) == sorted([*FINETUNE, "CE pretrain", "ALS pretrain"])


@pytest.mark.parametrize(
    ("keep", "options"), [("all", []), ("weights", ["--keep", "weights"]), ("results", ["--keep", "weights"])]
)
def test_trainings_are_told_what_to_keep(lab, keep, options):
    for stage in lab.plan("KEEP", keep).stages:
        command = list(stage.command)
        given = command[command.index("--keep") :][:2] if "--keep" in command else []
        assert given == (options if stage.trains else [])
    assert [stage.output for stage in lab.plan("KEEP", keep).stages] == [stage.output for stage in lab.plan().stages]


def test_the_default_keeps_weights_and_an_unknown_one_is_refused(lab):
    assert lab.plan().suite.keep == "weights"
    with pytest.raises(InputError, match=r"KEEP.*'result'.*results"):
        lab.plan("KEEP", "result")


def test_sizes_are_measured_for_each_keep(heavy):
    """Two files of 5 blocks of 4096 bytes with weights, of 2 without the optimizer; the rest of a folder is equal."""
    sizes = {}
    for keep in ("all", "weights"):
        heavy.tree["PRETRAIN"]["OVERRIDES"] += ["KEPT", keep]
        assert heavy.run("KEEP", keep)[0] == 0
        timings = Timings(heavy.output / "timings.json")
        [stage] = [stage for stage in heavy.plan("KEEP", keep).stages if stage.title == "CE: pretrain"]
        sizes[keep] = {way: timings.size(stage, way) for way in ("all", "weights", "results")}
        assert timings.size(stage) == sizes[keep][keep]
    assert sizes["all"]["weights"] is None
    assert sizes["all"]["results"] == pytest.approx(sizes["all"]["all"] - 2 * BLOCKS * 5)
    assert sizes["weights"]["all"] - sizes["weights"]["weights"] == pytest.approx(2 * BLOCKS * 3)
    assert sizes["weights"]["results"] == pytest.approx(sizes["weights"]["weights"] - 2 * BLOCKS * 2)


def test_sizes_that_a_cluster_reports_late_are_not_those_of_deleted_weights(heavy):
    assert heavy.run()[0] == 0
    timings = Timings(heavy.output / "timings.json")
    stages = [stage for stage in heavy.plan().stages if stage.weight_files]
    before = [timings.size(stage, "weights") for stage in stages]
    timings.replace([(stage, 7.0) for stage in stages])
    assert [timings.size(stage, "weights") for stage in stages] == before
    assert {timings.estimate(stage) for stage in stages} == {7.0}


def test_a_disk_that_is_too_small_is_said(lab, monkeypatch):
    lab.tree["FINETUNE"][0] |= {"DISK": 0.25}
    assert "too small" not in describe(lab.plan())
    monkeypatch.setattr("suites.execution.disk.free_bytes", lambda output: 500_000_000)
    assert "the disk is too small: 750.0 MB needed, 500.0 MB free in " in describe(lab.plan())
