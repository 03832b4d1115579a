"""Each kind of stage is one class, which says what it needs; that nothing asks for its name is in test_no_names.py."""

import json
from pathlib import Path

from helpers.suite_lab import ROOT

from backbones.core.errors import Diverged
from suites.config import Suite
from suites.plan import compare_stage
from suites.stages import KINDS, Stage
from suites.stages.measures import Measure

pytest_plugins = ["helpers.suite_fixtures"]


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield from (sub, *subclasses(sub))


def test_every_kind_is_registered_once():
    named = [cls for cls in subclasses(Stage) if "kind" in vars(cls)]
    assert {cls.kind: cls for cls in named} == dict(KINDS)
    assert len(named) == len(KINDS) == 10
    for cls in KINDS.values():
        assert not cls.__abstractmethods__
        assert (ROOT / "tools" / f"{cls.default_tool}.py").is_file()
        if issubclass(cls, Measure):
            assert Suite().measuring(cls.kind).enabled == (cls.kind != "attack")  # the costly one is asked for


def test_a_plan_has_a_stage_of_every_kind_and_each_knows_itself(lab):
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}}
    lab.tree["ROWS"].append({"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid})
    (lab.folder / "mine.pth").write_text("weights")
    lab.tree["ROWS"].append({"LABEL": "mine", "BACKBONE": "mine.pth", "CONFIG": "pretrain.yaml"})
    lab.tree["ATTACK"] = {"ENABLED": True}
    assert lab.run()[0] == 0
    stages = lab.plan().stages
    assert {stage.kind for stage in stages} == set(KINDS) - {"compare"}
    for stage in stages:
        assert type(stage) is KINDS[stage.kind]
        assert stage.complete()
        assert stage.log.is_file()
        assert stage.trains == ("--resume" in stage.command)
        assert (stage.verdict() != "") == stage.decides
        assert (stage.cached(), stage.table()) == ("cached", "")
        marker = Path(stage.own_folder) / "suite.json"
        stage.forget()
        assert not marker.exists()
        assert not stage.complete()
        stage.record()
        assert stage.complete()
        assert stage.foreign() == ""


def test_an_attack_is_a_measure_that_a_suite_asks_for(lab):
    """OLS Tables VI and VII: the attacked split and bounds enter the hash of the attack, and of no other stage."""

    def hashes():
        return {stage.title: stage.hash for stage in lab.plan().stages}

    without = hashes()
    assert not [title for title in without if "attack" in title]
    lab.tree["ATTACK"] = {"ENABLED": True, "OVERRIDES": ["ATTACK.MAX_IMAGES", 0]}
    added = hashes()
    assert added.keys() - without.keys() == {"CE: attack", "ALS: attack"}
    lab.tree["ATTACK"]["OVERRIDES"] += ["ATTACK.SPLIT", "test"]
    changed = {title for title, value in hashes().items() if added[title] != value}
    assert changed == {"CE: attack", "ALS: attack"}
    assert lab.run()[0] == 0
    plan = lab.plan()
    stage = next(stage for stage in plan.stages if stage.title == "CE: attack")
    assert stage.complete()
    assert stage.tool == "attack_backbone"
    assert stage.command[-4:] == ("ATTACK.MAX_IMAGES", "0", "ATTACK.SPLIT", "test")
    assert str(stage.output / "results.json") in compare_stage(plan, plan.stages).command


def test_only_a_point_of_a_grid_may_diverge(lab):
    grid = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}}
    lab.tree["ROWS"] = [{"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": grid}, lab.tree["ROWS"][1]]
    for stage in lab.plan().stages:
        stage.output.mkdir(parents=True, exist_ok=True)
        assert stage.accept_divergence("it diverged") == (stage.kind == "grid") == stage.complete()
        assert stage.cached() == ("cached, diverged" if stage.kind == "grid" else "cached")


def test_a_training_diverges_by_its_exit_code_not_by_its_words(lab):
    """A message that only sounds like it, such as that about a box, fails the stage."""
    lab.tree["ROWS"] = [
        {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}}}
    ]
    lab.tree |= {"FINETUNE": [], "LOCALIZE": {"ENABLED": False}}
    lab.tell("losses", json.dumps({"METHOD.LS.amount 0.2": "diverge"}))
    codes = lab.exit_codes = {Diverged.exit_code: 2}  # what the tool ends with instead
    code, said = lab.run()
    assert code == 1
    assert "LS: grid 2 of 2: error: the loss is not finite" in said
    codes.clear()
    code, said = lab.run()
    assert code == 0
    assert "LS: grid 2 of 2 ... diverged after" in said


def test_candidates_are_paired_by_name(lab):
    """The order in which a selection lists them says nothing."""
    lab.tell("weights", json.dumps({"point": "same"}))
    lab.tree["ROWS"] = [
        {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}}}
    ]
    assert lab.run()[0] == 0
    select = next(stage for stage in lab.plan().stages if stage.decides)
    first, second = select.inputs
    results = json.loads((first.output / "results.json").read_text())
    results["backbone"]["hash"] = "others"
    (first.output / "results.json").write_text(json.dumps(results))
    path = select.output / "selection.json"
    selection = json.loads(path.read_text())
    assert [item["run"] for item in selection["candidates"]] == [first.output.name, second.output.name]
    selection["candidates"][0]["backbone"] = "others"
    assert select.foreign() == "its results are of weights that have been trained again since"
    path.write_text(json.dumps(selection | {"candidates": selection["candidates"][::-1]}))
    assert select.finished()
    assert select.foreign() == ""
