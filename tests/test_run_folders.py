"""Figures and votes of what a suite has left: its folders lie side by side and are joined by the backbone's hash."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.noise_runs import CLASSES, write_run
from helpers.tools import tool

from backbones.core.checkpoint import save_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results, make_results, save_results
from backbones.measuring import figure_data
from backbones.measuring.run_folders import REPORTS, RUNS, find_backbones, find_evaluation
from backbones.models.weights import identity, load_backbone
from suites.stages import Pretrain
from suites.stages.comparison import REPORT_RECORD
from suites.stages.factory import Factory

pytest_plugins = ["helpers.noise_fixtures", "helpers.suite_fixtures"]

HASH = "0123456789ab"
LINES = [{"iteration": k, "train_top1": k / 10} for k in range(5)]


def pretrained(folder, root, seed, stage="pretraining", metrics=True):
    run = write_run(folder, root, seed)
    if metrics:
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    who = identity(load_backbone(run))
    save_results(run, make_results(stage, who, {"name": "p", "hash": "1"}, {"top1": 0.1 + seed / 10}))
    return run


@pytest.fixture(scope="module")
def suite(root, tmp_path_factory):
    """A suite's output: rows A and B, B chosen among two points of a grid, and an old row that no report shows."""
    output = tmp_path_factory.mktemp("suite") / "out"
    runs, reported = output / RUNS, []
    made = {}
    for seed, (row, kind) in enumerate((("A", "pretrain"), ("point", "grid"), ("point2", "grid"), ("old", "pretrain"))):
        made[row] = pretrained(runs / f"{row}-s0-{kind}-{HASH}", root, seed)
    made["B"] = runs / f"B-s0-select-{HASH}"
    shutil.copytree(made["point"], made["B"])
    (made["B"] / "metrics.jsonl").unlink()  # a selection copies the backbone, not its curve
    for row in ("A", "B", "old"):
        measured = runs / f"{row}-s0-evaluate-{HASH}"
        assert tool("evaluate_backbone")([str(made[row]), "--output-dir", str(measured)]) == 0
        reported += [] if row == "old" else [made[row], measured]
    (output / "report").mkdir()
    record = {"hash": "x", "runs": [f"/another/place/runs/{path.name}" for path in reported]}
    (output / "report" / REPORT_RECORD).write_text(json.dumps(record))
    shutil.copytree(made["A"], runs / f"A-s0-pretrain-{HASH}.old1")  # put aside
    return output


def labels_of(found):
    return [json.loads((one.evaluation() / "results.json").read_text())["backbone"]["label"] for one in found]


def test_the_layout_is_that_of_a_suite(first_run, tmp_path):
    """By the code that makes it: a change of the names there must change them here."""
    lab, _, _ = first_run
    assert list(lab.output.glob(REPORTS))
    names = {path.name.split("-s0-")[1][:-13] for path in (lab.output / RUNS).iterdir()}
    assert {"pretrain", "evaluate"} <= names
    stage = Factory(tmp_path, lab.tools, {}).make(Pretrain, "title", ["a", "s0"])
    assert re.fullmatch(r"a-s0-pretrain-[0-9a-f]{12}", stage.output.name)
    assert stage.output.parent == tmp_path / RUNS


@pytest.mark.parametrize("where", ["", RUNS])
def test_the_output_of_a_suite_stands_for_the_rows_of_its_reports(suite, where):
    found = find_backbones([suite / where])
    assert labels_of(found) == ["net0", "net1"]
    assert [one.run().name for one in found] == [f"A-s0-pretrain-{HASH}", f"B-s0-select-{HASH}"]
    assert found[1].run("metrics.jsonl").name == f"point-s0-grid-{HASH}"


def test_soft_labels_of_a_row_with_a_grid_are_those_of_its_point(suite, tmp_path):
    """A selection copies no checkpoint; the label is its own."""
    output = shutil.copytree(suite, tmp_path / "out")
    point, chosen = output / RUNS / f"point-s0-grid-{HASH}", output / RUNS / f"B-s0-select-{HASH}"
    table = torch.eye(6, dtype=torch.float64) * 0.4 + 0.1
    save_checkpoint(point / "checkpoint.pth", method={"table.soft": table})
    results = load_results(chosen)
    results["details"]["classes"], results["backbone"]["label"] = CLASSES, "B"
    save_results(chosen, results)
    (panel,) = figure_data.soft_label_panels([chosen], 6)
    assert (panel["label"], [row["class"] for row in panel["rows"]]) == ("B", CLASSES)
    assert [row["own"] for row in panel["rows"]] == pytest.approx([0.5] * 6)
    (point / "checkpoint.pth").unlink()
    with pytest.raises(InputError, match=r"no .*checkpoint\.pth, which holds the soft labels"):
        figure_data.soft_label_panels([chosen], 6)


def test_without_a_report_all_that_is_there_is_shown(suite, tmp_path):
    output = shutil.copytree(suite, tmp_path / "out")
    shutil.rmtree(output / "report")
    assert labels_of(find_backbones([output])) == ["net0", "net1", "net3"]
    for path in (output / RUNS).iterdir():
        shutil.rmtree(path)
    with pytest.raises(InputError, match="no finished pretraining in"):
        find_backbones([output])


@pytest.mark.parametrize("row", ["A", "B"])
@pytest.mark.parametrize("kind", ["run", "evaluate"])
def test_a_stage_of_a_suite_finds_the_others_of_its_backbone(suite, row, kind):
    run = {"A": f"A-s0-pretrain-{HASH}", "B": f"B-s0-select-{HASH}"}[row]
    (found,) = find_backbones([suite / RUNS / (run if kind == "run" else f"{row}-s0-evaluate-{HASH}")])
    assert found.run().name == run
    assert found.evaluation().name == f"{row}-s0-evaluate-{HASH}"


def test_runs_by_hand_are_found_as_before(suite, tmp_path):
    run = shutil.copytree(suite / RUNS / f"A-s0-pretrain-{HASH}", tmp_path / "ce")
    (found,) = find_backbones([run])
    with pytest.raises(InputError, match=r"ce is not evaluated; run tools/evaluate_backbone\.py"):
        found.evaluation()
    shutil.copytree(suite / RUNS / f"A-s0-evaluate-{HASH}", run / "evaluation")
    for path in (run, run / "evaluation"):
        (found,) = find_backbones([path])
        assert (found.run(), found.evaluation()) == (run, run / "evaluation")
    assert find_backbones([run / "backbone.pth"])[0].run() == run / "backbone.pth"
    alone = shutil.copytree(run / "evaluation", tmp_path / "alone" / "measures")
    assert find_evaluation(alone) == alone
    with pytest.raises(InputError, match="the run of this backbone is not beside it"):
        find_backbones([alone])[0].run()


def test_two_evaluations_of_a_backbone_are_named(suite, tmp_path):
    output = shutil.copytree(suite, tmp_path / "out")
    first = output / RUNS / f"A-s0-evaluate-{HASH}"
    second = shutil.copytree(first, output / RUNS / f"A-s0-evaluate-{HASH[::-1]}")
    with pytest.raises(InputError, match=f"has 2 evaluations, .*{first.name} and .*{second.name}; give one of them"):
        find_evaluation(output / RUNS / f"A-s0-pretrain-{HASH}")
    assert find_evaluation(second) == second
    assert labels_of(find_backbones([output])) == ["net0", "net1"]  # the report says which


def plot(kind, runs, output, *arguments):
    assert tool("plot_backbone")([kind, *map(str, runs), "-o", str(output), *arguments]) == 0
    return json.loads(output.with_suffix(".json").read_text())


def test_every_figure_reads_what_a_suite_has_left(suite, tmp_path):
    png = tmp_path / "a.png"
    by_folder = [suite / RUNS / f"{row}-s0-evaluate-{HASH}" for row in "AB"]
    for runs in ([suite], [suite / RUNS], by_folder):
        panels = plot("reliability", runs, png)
        measured = [json.loads((path / "results.json").read_text())["metrics"]["ece15"] for path in by_folder]
        assert [panel["ece"] for panel in panels] == pytest.approx(measured)
    curves = plot("curves", by_folder, png)
    assert [(one["label"], one["train"]["value"]) for one in curves] == [
        (label, [line["train_top1"] for line in LINES]) for label in ("net0", "net1")
    ]
    assert plot("maps", [suite], png, "--images", "2")["backbones"] == ["net0", "net1"]
    assert [panel["label"] for panel in plot("tsne", by_folder, png, "--classes", "3", "--per-class", "2")] == [
        "net0", "net1",
    ]  # fmt: skip
    (point,) = plot("ablation", [suite], png, "--key", "SOLVER.BASE_LR", "--metric", "nll")
    assert point["runs"] == 2
    assert plot("classes", by_folder[:1], png) == {"train": [4] * 6, "val": [4] * 6}
    with pytest.raises(InputError, match=r"shows the data of one run, .*holds 2; give one"):
        plot("classes", [suite], png)


def test_votes_of_what_a_suite_has_left(suite, tmp_path):
    _, labels = figure_data.load_predictions(suite / RUNS / f"A-s0-evaluate-{HASH}", "val")
    np.save(tmp_path / "cifar10h-probs.npy", np.eye(6)[labels])
    arguments = ["--human-labels", str(tmp_path), "--output", str(tmp_path / "human.json")]
    assert tool("compare_human_labels")([str(suite), *arguments]) == 0
    rows = json.loads((tmp_path / "human.json").read_text())["rows"]
    for row, name in zip(rows, "AB", strict=True):
        results = json.loads((suite / RUNS / f"{name}-s0-evaluate-{HASH}" / "results.json").read_text())
        assert row["label"] == results["backbone"]["label"]
        assert row["human_kl_all"] == pytest.approx(results["metrics"]["nll"])
