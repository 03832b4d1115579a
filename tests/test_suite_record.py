"""Which results a suite takes for those of its stage, and what becomes of others."""

import json
import shutil

import pytest
from helpers.suite_lab import output_of, set_compare, short

from suites.stages.record import RECORD

pytest_plugins = ["helpers.suite_fixtures"]


def folder_of(lab, pattern):
    (folder,) = lab.output.glob(f"runs/{pattern}")
    return folder


def change_results(folder, **blocks):
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | blocks))


def runs_again(lab, title, tools, why):
    """The stage is put aside with a line, made again, and everything is complete then."""
    assert title.partition(":")[0] in " ".join(lab.to_run())
    code, said = lab.run()
    assert (code, lab.called()) == (0, tools)
    assert f"{title}: {why}; put aside as " in said
    assert len(list(lab.output.glob("runs/*.old1"))) == 1
    assert lab.to_run() == []


def test_an_evaluation_of_another_set_does_not_pass_for_the_stage(finished):
    """`--eval-only ... DATASETS.TEST other` into the stage's folder."""
    folder = folder_of(finished, "CE-s0-finetune-quick-*")
    change_results(folder, protocol={"name": "quick", "hash": "of another set"})
    why = "its results are of the protocol quick@of another set, not p@1"
    runs_again(finished, "CE: finetune (quick)", ["CE finetune_coco"], why)
    assert finished.run()[0] == 0
    assert finished.called() == []


def test_a_run_with_other_settings_does_not_pass_for_the_stage(finished):
    path = folder_of(finished, "CE-s0-pretrain-*") / "config.yaml"
    settings = json.loads(path.read_text())
    moved = settings | {"DATA": {"ROOT": "/elsewhere", "NUM_WORKERS": 7}, "LOG_PERIOD": 1}
    path.write_text(json.dumps(moved))
    assert finished.to_run() == []  # of this machine: no number depends on it
    path.write_text(json.dumps(settings | {"METHOD": {"NAME": "LS"}}))
    why = "config.yaml beside its results says METHOD.NAME 'LS', not 'CE'"
    runs_again(finished, "CE: pretrain", ["CE pretrain"], why)


def test_results_of_another_tool_do_not_pass_for_the_stage(finished):
    folder = folder_of(finished, "CE-s0-localize-*")
    change_results(folder, stage="robustness")
    runs_again(finished, "CE: localize", ["CE localize"], "it holds results of the stage robustness")


def test_a_config_that_is_broken_does_not_stop_the_suite(finished):
    (folder_of(finished, "CE-s0-pretrain-*") / "config.yaml").write_text("A: [")
    assert finished.run()[0] == 0
    assert finished.called() == ["CE pretrain"]


@pytest.mark.parametrize("block", ["files", "details", "backbone", "protocol"])
def test_results_of_another_shape_are_made_again(finished, block):
    change_results(folder_of(finished, "CE-s0-evaluate-*"), **{block: []})
    assert "CE evaluate" in finished.to_run()
    assert finished.run()[0] == 0
    assert finished.called() == ["CE evaluate_backbone"]


def test_records_of_another_shape_are_made_again(finished):
    (finished.output / "report" / "inputs.json").write_text("[]")
    (folder_of(finished, "CE-s0-evaluate-*") / RECORD).write_text("[]")
    assert finished.to_run() == ["CE evaluate", "compare"]
    assert finished.run()[0] == 0
    assert finished.to_run() == []


def test_results_without_a_record_are_made_again_from_the_checkpoint(finished):
    """A call that was killed between the two."""
    folder = folder_of(finished, "CE-s0-finetune-quick-*")
    (folder / RECORD).unlink()
    assert finished.to_run() == ["CE finetune"]
    assert finished.run()[0] == 0
    assert finished.called() == ["CE finetune_coco"]
    assert finished.to_run() == []
    assert not list(finished.output.glob("runs/*.old1"))


def test_a_folder_without_a_file_that_its_results_name_is_not_complete(finished):
    folder = folder_of(finished, "CE-s0-finetune-quick-*")
    change_results(folder, files={"predictions": "predictions.json", "checkpoint": "gone.pth", "metrics": "gone.jsonl"})
    assert "CE finetune" in finished.to_run()
    (folder / "predictions.json").write_text("[]")
    assert finished.to_run() == ["compare"]  # the results were changed


def test_what_a_stage_reads_is_looked_at_again_before_it_runs(finished):
    """A run that is deleted while the suite is at work."""
    (folder_of(finished, "CE-s0-localize-*") / "results.json").unlink()
    plan = finished.plan()
    finished.plan = lambda: plan
    (folder_of(finished, "CE-s0-pretrain-*") / RECORD).write_text("{}")
    code, said = finished.run()
    assert code == 0  # made again before it is read
    assert "CE: pretrain: its results are of the stage pretraining, not None; put aside as" in said


# ---- another place --------------------------------------------------------------------------------------------------


def test_a_suite_whose_output_and_data_were_moved(finished, tmp_path):
    photos = finished.folder / "photos"
    (photos / "labels.json").write_text("[1]")
    finished.tree["DATA"].append({"NAME": "photos", "FOLDER": str(photos)})
    finished.tree["PRETRAIN"]["OVERRIDES"] = ["DATA.ROOT", "{data:photos}"]
    teacher = ["METHOD.NAME", "ILS", "TEACHER.RUN", "{run:CE}"]
    grid = {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": {"KEYS": {"A": [1]}}}
    finished.tree["ROWS"] = [finished.tree["ROWS"][1], {"LABEL": "ILS", "OVERRIDES": teacher}, grid]
    finished.tell("weights", "{}")
    assert finished.run()[0] == 0
    finished.called()
    shutil.move(photos, tmp_path / "data")
    shutil.move(finished.output, tmp_path / "results")
    finished.tree["DATA"][1]["FOLDER"], finished.output = str(tmp_path / "data"), tmp_path / "results"
    # All of it is complete.
    assert finished.to_run() == []
    code, said = finished.run()
    assert (code, finished.called()) == (0, [])
    assert f"report: {finished.output}/report/index.html" in said
    # It compares again.
    set_compare(finished)
    assert finished.run()[0] == 0
    ((tool, arguments),) = finished.calls()
    assert tool == "compare"
    assert all(text.startswith(str(finished.output)) for text in arguments if text.startswith("/"))
    record = json.loads((finished.output / "report" / "inputs.json").read_text())
    assert len(record["runs"]) == 12
    assert all((finished.output / run / "results.json").is_file() for run in record["runs"])
    # A measure that is new reads the data where they are now.
    finished.tree["EVALUATE"] = {"OVERRIDES": ["EVAL.CONTEXT", False]}
    assert finished.run()[0] == 0
    calls = [call for call in finished.calls() if call[0] == "evaluate_backbone"]
    assert [short(call).split()[0] for call in calls] == ["CE", "ILS", "LS"]
    for _, arguments in calls:
        assert arguments[-4:] == ["DATA.ROOT", str(tmp_path / "data"), "EVAL.CONTEXT", "false"]
        assert output_of(arguments).is_relative_to(tmp_path / "results")


@pytest.mark.parametrize(
    ("key", "value"),
    [("TEACHER.RUN", "{run:CE}"), ("MODEL.WEIGHTS", "{run:CE}"), ("MODEL.WEIGHTS", "{run:CE}/backbone.pth")],
)
def test_a_row_that_reads_another_row_is_repeated_if_that_is_trained_again_to_other_weights(lab, key, value):
    lab.tree |= {"FINETUNE": [], "LOCALIZE": {"ENABLED": False}, "EVALUATE": {"ENABLED": False}}
    lab.tree["ROWS"] = [
        {"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]},
        {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS", key, value]},
    ]
    for weights, repeated in (("1", "LS"), ("1", ""), ("2", "LS")):  # the same, then others
        lab.tell("weights", json.dumps({"CE": weights}))
        assert lab.run()[0] == 0
        trained = [call for call in lab.called() if call.endswith("pretrain")]
        assert trained == ["CE pretrain", *([f"{repeated} pretrain"] if repeated else [])]
        assert lab.to_run() == []
        shutil.rmtree(folder_of(lab, "CE-s0-pretrain-*"))
