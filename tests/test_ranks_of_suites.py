"""Ranks of suites with grids: which runs are rows, numbers after temperature scaling, seeds that are missing."""

import io
import json
import shutil
from functools import partial

import numpy as np
import pytest
import yaml
from helpers.result_folders import add, backbone
from helpers.suite_lab import Here
from helpers.tools import tool

from backbones.core.errors import InputError
from backbones.core.results import load_results
from comparison.ranking.tables import collect_table
from suites.execution.runner import run_plan
from suites.loading import load_suite
from suites.plan import build_plan

AMOUNTS = {"KEYS": {"METHOD.LS.amount": [0.05, 0.3]}}
SUITE = {
    "SEEDS": [0, 1],
    "PRETRAIN": {"CONFIG": ""},
    "EVALUATE": {"OVERRIDES": ["DATA.VAL_SPLIT", "val", "EVAL.TEMPERATURE_SPLIT", "holdout", "EVAL.CONTEXT", "false"]},
    "LOCALIZE": {"ENABLED": False},
    "LAUNCH": {"JOBS": 1},
    "ROWS": [
        {"LABEL": "No LS", "OVERRIDES": ["METHOD.NAME", "CE"]},
        {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": {**AMOUNTS, "SELECT": "nll"}},
        {"LABEL": "LS+TempS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": {**AMOUNTS, "SELECT": "nll_fitted"}},
        {
            "LABEL": "ILS1",
            "OVERRIDES": ["METHOD.NAME", "ILS1", "TEACHER.RUN", "{run:No LS}"],
            "GRID": {"KEYS": {"METHOD.ILS1.coefficient": [1, 2]}, "OVERRIDES": ["SOLVER.MAX_EPOCH", 1]},
        },
        {
            "LABEL": "Beta",
            "OVERRIDES": [
                "METHOD.NAME",
                "BetaSmoothing",
                "METHOD.BetaSmoothing.amount",
                "{chosen:LS:METHOD.LS.amount}",
            ],
            "SEEDS": [0],
        },
        {"LABEL": "Teacher", "OVERRIDES": ["METHOD.NAME", "CE"], "SEED_OFFSET": 1000},
    ],
}
METHODS = ["No LS", "LS", "LS+TempS", "ILS1", "Beta", "No LS+TempS"]


def call(stage):
    """Call the real tool of a stage in this process."""
    stage.log.parent.mkdir(parents=True, exist_ok=True)
    stage.standard_output.write_text("")
    return tool(stage.tool)(list(stage.command[2:])) or 0


@pytest.fixture(scope="module")
def suites(small_scenes, tmp_path_factory):
    """The folders of two finished suites, each of another network."""
    folder = tmp_path_factory.mktemp("suites")
    config = {
        "MODEL": {"ARCH": "lenet"},
        "DATA": {"ROOT": str(small_scenes), "IMAGE_SIZE": 32, "EVAL_CROP": 32, "EVAL_RESIZE": 32, "HOLDOUT": 12},
        "SOLVER": {"BATCH_SIZE": 8, "MAX_EPOCH": 2, "STEPS": [], "BASE_LR": 0.05},
    }
    config["DATA"]["VAL_SPLIT"] = "holdout"
    for arch in ("lenet", "resnet29_cifar"):
        (folder / f"{arch}-config.yaml").write_text(yaml.safe_dump({**config, "MODEL": {"ARCH": arch}}))
        tree = {**SUITE, "PRETRAIN": {"CONFIG": str(folder / f"{arch}-config.yaml")}}
        (folder / f"{arch}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        make = partial(build_plan, load_suite(folder / f"{arch}.yaml"), folder / arch, name=arch)
        assert run_plan(make(), io.StringIO(), lambda plan, lock: Here(call)) == 0
    return folder


def measured(folder, label, seed):
    """The numbers of the measured run of a row; of twins, those of the first."""
    (path,) = folder.glob(f"runs/{label.replace(' ', '_')}-s{seed}-evaluate-*/results.json")
    return load_results(path)["metrics"]


def ranks(suites, output, *options):
    folders = [str(suites / name) for name in ("lenet", "resnet29_cifar")]
    assert tool("rank_methods")([*options, *folders, "--output-dir", str(output)]) == 0
    return json.loads((output / "ranks.json").read_text())


def test_rows_of_a_suite_with_grids_are_ranked_and_points_are_not(suites, tmp_path, capsys):
    assert list((suites / "lenet").glob("runs/point-s0-grid-*"))
    found = ranks(suites, tmp_path, "--metric", "nll", "--scaled", "No LS")
    assert sorted(found["methods"]) == sorted(METHODS)
    assert [line.split(" (")[0] for line in found["datasets"]] == ["imagenet_xml lenet", "imagenet_xml resnet29_cifar"]
    values = dict(zip(found["methods"], np.array(found["values"]).T, strict=True))
    for row, name in enumerate(("lenet", "resnet29_cifar")):
        plain, scaled = (
            [np.mean([measured(suites / name, label, s)[m] for s in (0, 1)]) for label in ("No LS", "ILS1")]
            for m in ("nll", "nll_scaled")
        )
        assert values["No LS"][row] == pytest.approx(plain[0])
        assert values["ILS1"][row] == pytest.approx(plain[1])
        assert values["No LS+TempS"][row] == pytest.approx(scaled[0])
        assert values["No LS"][row] != pytest.approx(values["No LS+TempS"][row], rel=1e-6)
    missing = [f"Beta seed 1 on {line}" for line in found["datasets"]]
    assert found["missing"] == missing
    assert f"missing: {missing[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("metric", ["cwece15_trueclass", "top1"])
def test_a_row_scaled_by_its_name_has_the_scaled_number_also_if_it_shares_its_training(suites, tmp_path, metric):
    found = ranks(suites, tmp_path, "--metric", metric, "--better", "lower")
    values = dict(zip(found["methods"], np.array(found["values"]).T, strict=True))
    for row, name in enumerate(("lenet", "resnet29_cifar")):
        numbers = []
        for seed in (0, 1):
            label = "LS+TempS" if list((suites / name).glob(f"runs/LS+TempS-s{seed}-evaluate-*")) else "LS"
            numbers.append(measured(suites / name, label, seed)[metric if metric == "top1" else f"{metric}_scaled"])
        assert values["LS+TempS"][row] == pytest.approx(np.mean(numbers))


def test_a_teacher_is_neither_ranked_nor_missing(suites):
    assert list((suites / "lenet").glob("runs/Teacher-s1000-pretrain-*/results.json"))
    table = collect_table([suites / "lenet"], "nll")
    assert "Teacher" not in table.methods
    assert not any("Teacher" in name or "1000" in name for name in table.missing)


def test_what_a_suite_planned_and_did_not_measure_is_named(suites, tmp_path):
    copy = shutil.copytree(suites / "lenet", tmp_path / "lenet")
    (path,) = copy.glob("runs/No_LS-s1-evaluate-*/results.json")
    path.unlink()
    table = collect_table([copy], "nll")
    lacking = [name for name in table.missing if name.startswith("No LS seed 1")]
    assert "No LS seed 1 of lenet" in lacking
    assert len(lacking) == 2  # by the plan, and beside the other rows
    assert table.values[0, table.methods.index("No LS")] == pytest.approx(measured(copy, "No LS", 0)["nll"])


def test_a_number_after_scaling_that_does_not_exist_is_refused(tmp_path):
    for label in ("LS", "LS+TempS"):
        add(tmp_path, "backbone", backbone(label), {"nll": 0.5, "brier": 0.1, "top1": 0.7})
    with pytest.raises(InputError, match=r"'LS\+TempS' has no nll after temperature scaling; measure it again"):
        collect_table([tmp_path], "nll")
    with pytest.raises(InputError, match="has no brier after temperature scaling; rank one of nll"):
        collect_table([tmp_path], "brier")
    assert collect_table([tmp_path], "top1").values.tolist() == [[0.7, 0.7]]
    with pytest.raises(InputError, match="--scaled LSS: no run has this label; did you mean 'LS'"):
        collect_table([tmp_path], "top1", scaled=["LSS"])
