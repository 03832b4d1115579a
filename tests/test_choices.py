"""What was chosen or fitted on reported images is said: the epoch, a point of a grid, the temperature of a teacher."""

import pytest
import torch
from helpers.killing import ROOT
from helpers.pretraining import arguments
from helpers.result_folders import add, backbone, compare_runs
from helpers.tools import load_tool, tool

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.choices import EPOCH, GRID, TEMPERATURE
from backbones.core.errors import InputError
from backbones.core.results import load_results, save_results
from backbones.methods.base import METHODS
from suites.checks import check_settings
from suites.loading import load_suite
from suites.plan import build_plan

SHORT = ["SOLVER.MAX_EPOCH", 1]
HELD_OUT = ["DATA.HOLDOUT", 10, "DATA.VAL_SPLIT", "holdout"]


@pytest.fixture(scope="module")
def teachers(small_scenes, tmp_path_factory):
    """Teachers with hard labels: on all images, and without 10 of them."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, options in (("all", []), ("held_out", HELD_OUT)):
        tool("pretrain")(arguments(small_scenes, folder / name, *SHORT, *options))
    return folder


def chosen(folder):
    return load_results(folder)["details"]["chosen_on_measured"]


def test_a_temperature_fitted_on_the_reported_split_is_said_and_one_of_held_out_images_is_not(
    small_scenes, teachers, tmp_path
):
    for name, options, told in (("all", [], [TEMPERATURE]), ("held_out", HELD_OUT, [])):
        run, method = tmp_path / name, ["METHOD.NAME", "ILS", "TEACHER.RUN", teachers / name]
        tool("pretrain")(arguments(small_scenes, run, *SHORT, *options, *method))
        split = "holdout" if options else "val"
        assert load_results(run)["details"]["choices"] == [{"what": TEMPERATURE, "split": split}]
        assert chosen(run) == [TEMPERATURE]  # its own validation
        measures = {"evaluate_backbone": "evaluation", "localize": "localization", "attack_backbone": "robustness"}
        fast = ["LOCALIZE.MAX_IMAGES", "1", "ATTACK.MAX_IMAGES", "1", "ATTACK.STEPS", "1", "ATTACK.RESTARTS", "1"]
        for measure, folder in measures.items():
            assert tool(measure)([str(run), "DATA.VAL_SPLIT", "val", *fast]) == 0
            results = load_results(run / folder)
            assert results["details"]["chosen_on_measured"] == told, measure
            whats = [w["what"] for w in results["warnings"] if "was chosen" in w["what"]]
            assert whats == [f"measured split on which the {what} was chosen" for what in told]


def test_a_cached_teacher_keeps_the_split_of_its_temperature(small_scenes, teachers, tmp_path):
    cache = tmp_path / "cache"
    assert tool("cache_teacher")([str(teachers / "held_out"), "--output-dir", str(cache)]) == 0
    method = ["METHOD.NAME", "ILS", "TEACHER.CACHE", cache]
    tool("pretrain")(arguments(small_scenes, tmp_path / "ils", *SHORT, "DATA.HOLDOUT", 10, *method))
    assert load_results(tmp_path / "ils")["details"]["choices"] == [{"what": TEMPERATURE, "split": "holdout"}]
    assert chosen(tmp_path / "ils") == []  # validated on val


@pytest.mark.parametrize("earlier", [False, True])
def test_a_resumed_run_keeps_the_split_that_its_temperature_was_fitted_on(small_scenes, teachers, tmp_path, earlier):
    """A checkpoint holds the temperature, which no resumed run fits again."""

    def argv(*options, resume):
        method = ["METHOD.NAME", "ILS", "TEACHER.RUN", teachers / "held_out", "DATA.HOLDOUT", 10]
        return arguments(small_scenes, tmp_path, *SHORT, *method, *options, resume=resume)

    tool("pretrain")(argv(resume=False))
    if earlier:  # a checkpoint of a version that did not record it
        state = load_checkpoint(tmp_path / "checkpoint.pth")
        del state["temperature"]
        save_checkpoint(tmp_path / "checkpoint.pth", **state)
    before = (tmp_path / "config.yaml").read_text()
    refused = r"temperature of its teacher was fitted on other images \(split val, now {}\); set DATA\.VAL_SPLIT and"
    for split, options in (("holdout", ["DATA.VAL_SPLIT", "holdout"]), ("val", ["DATA.EVAL_RESIZE", 64])):
        with pytest.raises(InputError, match=refused.format(split)):
            tool("pretrain")(argv(*options, resume=True))
    assert (tmp_path / "config.yaml").read_text() == before
    tool("pretrain")(argv(resume=True))
    assert load_results(tmp_path)["details"]["choices"] == [{"what": TEMPERATURE, "split": "val"}]
    assert chosen(tmp_path) == [TEMPERATURE]


def test_a_run_with_a_cached_teacher_resumes_with_another_validation_split(small_scenes, teachers, tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "ils"
    assert tool("cache_teacher")([str(teachers / "held_out"), "--output-dir", str(cache)]) == 0
    method = ["METHOD.NAME", "ILS", "TEACHER.CACHE", cache, "DATA.HOLDOUT", 10]
    tool("pretrain")(arguments(small_scenes, run, *SHORT, *method))
    tool("pretrain")(arguments(small_scenes, run, *SHORT, *method, "DATA.VAL_SPLIT", "holdout", resume=True))
    assert load_results(run)["details"]["choices"] == [{"what": TEMPERATURE, "split": "holdout"}]
    assert chosen(run) == [TEMPERATURE]


def test_methods_without_a_fitted_temperature_chose_nothing(small_scenes, teachers, tmp_path):
    asked = {"ILS": ["METHOD.ILS.shared_temperature", True], "ILS2": [], "KD": [], "CE": []}
    for name, options in asked.items():
        teacher = ["TEACHER.RUN", teachers / "all"] if name != "CE" else []
        argv = arguments(small_scenes, tmp_path / name, *SHORT, "METHOD.NAME", name, *options, *teacher)
        tool("pretrain")(argv)
        assert load_results(tmp_path / name)["details"]["choices"] == []


def test_the_chosen_point_of_a_grid_and_its_epoch_are_named(small_scenes, tmp_path):
    runs = []
    for amount in ("0.1", "0.2"):
        runs.append(tmp_path / amount)
        options = ["METHOD.NAME", "LS", "METHOD.LS.amount", amount, "EVAL.PERIOD", 1, "EVAL.REPORT", "best"]
        tool("pretrain")(arguments(small_scenes, runs[-1], *SHORT, *options))
    options = ["--key", "METHOD.LS.amount", "--label", "LS", "--output-dir", str(tmp_path / "ls")]
    assert tool("select_run")([*options, *map(str, runs)]) == 0
    assert tool("evaluate_backbone")([str(tmp_path / "ls")]) == 0
    assert chosen(tmp_path / "ls") == chosen(tmp_path / "ls" / "evaluation") == [EPOCH, GRID]
    earlier = load_results(tmp_path / "ls")  # of a version that did not list its choices
    del earlier["details"]["choices"], earlier["details"]["chosen_on_measured"]
    save_results(tmp_path / "ls", earlier)
    assert tool("evaluate_backbone")([str(tmp_path / "ls")]) == 0
    assert sorted(chosen(tmp_path / "ls" / "evaluation")) == sorted([EPOCH, GRID])


def test_the_comparison_notes_choices_on_reported_images(tmp_path):
    for label, own, measured in (("CE", [], []), ("ILS", [TEMPERATURE], [TEMPERATURE]), ("ILS clean", [EPOCH], [])):
        who = backbone(label)
        add(tmp_path, "pretraining", who, {"top1": 0.5}, details={"chosen_on_measured": own})
        add(tmp_path, "backbone", who, {"top1": 0.6}, details={"chosen_on_measured": measured})
    add(tmp_path, "pretraining", backbone("LS"), {"top1": 0.5}, details={"chosen_on_measured": [EPOCH]})
    found = compare_runs(tmp_path, tmp_path / "report")
    notes = [note for note in found["notes"] if note.startswith("Chosen on images")]
    assert len(notes) == 1
    assert notes[0].endswith("too good: reported epoch of LS; temperature of the teacher of ILS.")
    assert notes[0] in (tmp_path / "report" / "comparison.md").read_text()


def instance_suites():
    """Suites of the project with a method that can fit the temperature of its teacher."""
    return [
        path
        for path in sorted((ROOT / "configs" / "suites").glob("*.yaml"))
        if any(text in ("ILS", "ILS1", "ILS1Sine") for row in load_suite(path).rows for text in row.overrides)
    ]


@pytest.mark.parametrize("path", instance_suites(), ids=lambda path: path.stem)
def test_no_suite_of_the_project_fits_a_temperature_on_images_that_it_reports(path, tmp_path, monkeypatch):
    """And every row of such a suite is trained without these images."""
    monkeypatch.setenv("SMOOTH2DET_DATA", str(tmp_path))
    monkeypatch.setenv("IMAGENET", str(tmp_path))
    plan = build_plan(load_suite(path), tmp_path / "out", without_data=True)
    readers = {name: r for name, r in load_tool("benchmark").readers().items() if not name.startswith("finetune")}
    settings = check_settings(plan, readers, ["AP"])
    trained = [cfg for stage, cfg in settings.items() if stage.tool == "pretrain"]
    fitting = [cfg for cfg in trained if fits_temperature(cfg)]
    measured = {cfg.DATA.VAL_SPLIT for stage, cfg in settings.items() if stage.kind == "evaluate"}
    assert fitting
    assert not {cfg.DATA.VAL_SPLIT for cfg in fitting} & measured
    assert len({(cfg.DATA.HOLDOUT, cfg.DATA.VAL_SPLIT) for cfg in trained}) == 1


def fits_temperature(cfg):
    method = METHODS.get(cfg.METHOD.NAME)
    needs = "teacher_logits" in method.needs
    return needs and method(torch.nn.Linear(1, 2), 2, **cfg.METHOD[cfg.METHOD.NAME]).fits_temperature
