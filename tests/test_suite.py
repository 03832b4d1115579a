"""What a suite plans: the stages, what each depends on, what is refused.  The tools are fakes: nothing is trained."""

import re
import sys
from datetime import date

import pytest
import yaml
from helpers.suite_lab import (
    ALL,
    ALS,
    CE,
    EVERYTHING,
    FINETUNE,
    PER_STAGE,
    ROOT,
    output_of,
    run_of,
    set_compare,
    set_row,
    short,
)

import backbones
from backbones.core.config import flatten, load_yaml
from backbones.core.errors import InputError
from suites.listing import describe
from suites.loading import load_suite
from suites.plan import build_plan

pytest_plugins = ["helpers.suite_fixtures"]


def test_every_stage_reads_what_the_one_before_wrote(first_run):
    lab, said, calls = first_run
    assert sorted(short(call) for call in calls) == sorted(EVERYTHING)  # the longest chain first
    folders = {short(call): output_of(call[1]) for call in calls}
    data, arguments = str(folders["prepare_data"]), {short(call): call[1] for call in calls}
    assert arguments["prepare_data"][:3] == ["scenes", "--seed", "1"]
    pairs = ["DATA.ROOT", data, "METHOD.NAME", "ALS", "LABEL", "ALS", "SEED", "0"]
    assert arguments["ALS pretrain"][-len(pairs) :] == pairs
    for measure in ("CE evaluate_backbone", "CE localize"):  # told where the data lies, which may have been moved since
        assert run_of(arguments[measure]) == folders["CE pretrain"]
        assert arguments[measure][-2:] == ["DATA.ROOT", data]
    finetune = arguments["CE finetune_coco"]
    assert finetune[finetune.index("--backbone") + 1] == str(folders["CE pretrain"])
    assert finetune[-6:] == ["A", f"{data}/..", "LABEL", "CE", "SEED", "0"]
    assert "random" in arguments["random finetune_coco"]
    assert arguments["compare"][2] == "--seed-hours"  # measured
    assert arguments["compare"][4] == "--tuning-hours"
    assert arguments["compare"][6:] == [f"{folders[name]}/results.json" for name in EVERYTHING[1:-1]]
    assert "the table" in said
    assert f"report: {lab.output}/report/index.html" in said


def set_finetune(lab):
    lab.tree["FINETUNE"][0]["OVERRIDES"] += ["SOLVER.MAX_ITER", 3]


def set_base_of_finetune(lab):
    (lab.folder / "base.yaml").write_text("DEPTH: 34\n")


def add_comment(lab):
    (lab.folder / "base.yaml").write_text("# deeper is slower\nDEPTH: 18\n")


def move_config(lab):
    (lab.folder / "pretrain.yaml").rename(lab.folder / "moved.yaml")
    lab.tree["PRETRAIN"]["CONFIG"] = f"{lab.folder}/moved.yaml"


def set_pretrain(lab):
    (lab.folder / "pretrain.yaml").write_text("LR: 0.5\n")


def set_evaluate(lab):
    lab.tree["EVALUATE"] = {"OVERRIDES": ["EVAL.CONTEXT", False]}


def set_prepare(lab):
    lab.tree["DATA"][0]["PREPARE"][2] = 2


def set_cost(lab):
    lab.tree["PRETRAIN"]["COST"] = 12


def add_row(lab):
    lab.tree["ROWS"].append({"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"]})


def add_seed(lab):
    lab.tree["ROWS"][1]["SEEDS"] = [0, 1]


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        (set_row, [*ALS, "compare"]),
        (set_finetune, [*FINETUNE, "compare"]),
        (set_base_of_finetune, [*FINETUNE, "compare"]),
        (add_comment, []),
        (move_config, []),
        (set_pretrain, [*CE, *ALS, "compare"]),
        (set_evaluate, ["CE evaluate", "ALS evaluate", "compare"]),
        (set_prepare, ALL),
        (set_cost, []),
        (set_compare, ["compare"]),
        (add_row, [*(f"LS {kind}" for kind in PER_STAGE), "compare"]),
        (add_seed, [*(f"CE seed 1 {kind}" for kind in PER_STAGE), "compare"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_change_reruns_exactly_what_it_concerns(finished, change, rerun):
    assert finished.to_run() == []
    change(finished)
    assert finished.to_run() == rerun


def test_another_version_reruns_everything(finished, monkeypatch):
    monkeypatch.setattr(backbones, "__version__", "9")
    assert finished.to_run() == ALL


def test_files_of_a_data_folder_count(finished, monkeypatch):
    lab, photos = finished, finished.folder / "photos"
    monkeypatch.setenv("PHOTOS", str(photos))
    lab.tree["DATA"].append({"NAME": "photos", "FOLDER": "$PHOTOS"})
    lab.tree["FINETUNE"].append({**lab.tree["FINETUNE"][0], "NAME": "photos", "OVERRIDES": ["A", "{data:photos}"]})
    assert lab.to_run() == [*FINETUNE, "compare"]
    lab.run()
    calls = lab.calls()
    assert all(arguments[-6:-4] == ["A", str(photos)] for _, arguments in calls[:-1])
    assert all("finetune-photos" in output_of(arguments).name for _, arguments in calls[:-1])
    assert "--allow-mixed-protocols" in calls[-1][1]
    photos.rename(lab.folder / "moved")
    monkeypatch.setenv("PHOTOS", str(lab.folder / "moved"))
    assert lab.to_run() == []
    (lab.folder / "moved" / "b.jpg").write_text("b")
    assert lab.to_run() == [*FINETUNE, "compare"]


def test_dry_run_starts_nothing(lab):
    assert lab.to_run() == ALL
    assert lab.called() == []
    assert not lab.output.exists()


def test_dry_run_lists_the_commands_that_run(first_run):
    lab, _, calls = first_run
    text = describe(lab.plan(), commands=True)
    listed = [line.split() for line in text.splitlines() if line.startswith(f"  {sys.executable}")]
    # The comparison is the last, and is given no failures.
    called = [[sys.executable, str(lab.tools / f"{tool}.py"), *arguments] for tool, arguments in calls]
    assert sorted(listed) == sorted(called)
    assert listed[-1] == called[-1]
    assert text.count(": cached\n") == len(ALL)
    short = describe(lab.plan()).splitlines()  # without commands, one line a stage
    assert short == [line for line in text.splitlines() if not line.startswith("  ")]
    assert [line.startswith("[") for line in short[-len(ALL) :]] == [True] * len(ALL)


def test_report_that_was_deleted_is_made_again(finished):
    (finished.output / "report" / "index.html").unlink()
    assert finished.to_run() == ["compare"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ROWZ": []}, "unknown key 'ROWZ'; did you mean 'ROWS'"),
        ({"PRETRAIN": {"CONFG": ""}}, r"unknown key 'PRETRAIN.CONFG'; did you mean 'PRETRAIN.CONFIG'"),
        ({"ROWS": [{"LABL": "x"}]}, r"ROWS\[0\]: unknown key 'LABL'; did you mean 'LABEL'"),
        ({"ROWS": ["CE"]}, r"ROWS\[0\] must be a mapping"),
        ({"ROWS": [{"OVERRIDES": []}]}, r"ROWS\[0\]: LABEL is missing"),
        ({"ROWS": [{"LABEL": "a"}, {"LABEL": "a"}]}, "ROWS: LABEL 'a' is duplicated"),
        ({"ROWS": [{"LABEL": "a", "OVERRIDES": ["SEED"]}]}, "ROWS a: OVERRIDES come as KEY VALUE pairs; 'SEED' has no"),
        ({"ROWS": [{"LABEL": "a", "OVERRIDES": "SEED 1"}]}, r"ROWS\[0\]: OVERRIDES must be of type list"),
        ({"ROWS": [{"LABEL": "a", "BACKBONE": "rand"}]}, "ROWS a: BACKBONE: no file .*lab/rand; give 'random'"),
        ({"ROWS": [{"LABEL": "a", "BACKBONE": "random", "OVERRIDES": ["A", 1]}]}, "ROWS a: a random backbone is not"),
        ({"ROWS": [{"LABEL": "a", "SEEDS": [-1]}]}, "ROWS a: SEEDS"),
        ({"ROWS": []}, "ROWS is empty"),
        ({"ROWS": [{"LABEL": "a", "OVERRIDES": ["A", date(2026, 12, 1)]}]},
         "ROWS a: OVERRIDES: 2026-12-01 is read as a date, not as a text; quote it"),
        ({"COMPARE": {"ARGUMENTS": ["--note", date(2026, 12, 1)]}}, "COMPARE: ARGUMENTS: 2026-12-01 is read as a date"),
        ({"SEEDS": [0, 0]}, "SEEDS"),
        ({"EVALUATE": {"OVERRIDES": ["A", "{data:scene}"]}}, "unknown DATA entry 'scene'; did you mean 'scenes'"),
        ({"DATA": [{"NAME": "scenes"}]}, "DATA scenes: give either PREPARE"),
        ({"DATA": [{"NAME": "scenes", "PREPARE": ["scenes", "--output=x"]}]}, "PREPARE: the suite sets --output"),
        ({"DATA": [{"NAME": "scenes", "FOLDER": "$NO_SUCH_VARIABLE/x"}]}, "DATA scenes: FOLDER: .*NO_SUCH_VARIABLE"),
        ({"DATA": [{"NAME": "scenes", "FOLDER": "/no/such"}]}, "DATA scenes: FOLDER: folder /no/such does not exist"),
        ({"FINETUNE": [{"NAME": "quick"}]}, "FINETUNE quick: CONFIG is missing"),
        ({"FINETUNE": [{"NAME": "q", "CONFIG": "absent.yaml"}]}, r"cannot read the config file .*absent.yaml"),
        ({"PRETRAIN": {"CONFIG": "x", "OVERRIDES": ["SEED", 7]}}, "PRETRAIN.OVERRIDES: .* sets SEED .* use SEEDS"),
        ({"PRETRAIN": {"CONFIG": "x", "OVERRIDES": ["DATA.HOLDOUT_SEED", 7]},
          "ROWS": [{"LABEL": "T", "SEED_OFFSET": 1}]},
         "ROWS T has a SEED_OFFSET: PRETRAIN.OVERRIDES: the suite sets DATA.HOLDOUT_SEED itself"),
        ({"FINETUNE": [{"NAME": "q", "OVERRIDES": ["SEED", 3]}]}, "FINETUNE q: OVERRIDES: .* SEED .* FINETUNE_SEEDS"),
        ({"PRETRAIN": {"OVERRIDES": []}}, "ROWS CE: has no CONFIG"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_starts(lab, change, message):
    lab.tree |= change
    with pytest.raises(InputError, match=message):
        lab.run()
    assert not lab.output.exists()


@pytest.mark.parametrize("label", ["OLS", "LS 0.1", "1e3", "yes", "a: b", "x #2", "[", "null", "ALS (k-1)", 'a "b"'])
def test_labels_survive_the_command_line(lab, label):
    lab.tree["ROWS"][1]["LABEL"] = label
    stage = next(stage for stage in lab.plan().stages if stage.title == f"{label}: pretrain")
    assert yaml.safe_load(stage.command[stage.command.index("LABEL") + 1]) == label
    assert re.fullmatch(r"[\w.+-]+", stage.output.name)


# Those of the papers' tables are in test_papers.py, those of YOLO in test_suite_yolo.py.
SUITES = sorted(
    p for p in (ROOT / "configs" / "suites").glob("*.yaml") if not re.match("(als|ils|ols)_|.*yolo", p.name)
)


@pytest.fixture
def small_data(tmp_path, monkeypatch):
    """Folders as the suites on real data want them, without images."""
    for name in ("tiny-imagenet/tiny-imagenet-200", "coco128", "bccd", "cifar10"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("SMOOTH2DET_DATA", str(tmp_path))


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suites_of_the_project(load_tool, path, tmp_path, capsys):
    arguments = ["--config-file", str(path), "--output-dir", str(tmp_path / "out"), "--dry-run"]
    assert load_tool("benchmark").main(arguments) == 0
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "out").exists()
    suite = load_suite(path)
    if any(row.backbone for row in suite.rows):
        compared = [row for row in suite.rows if not row.seed_offset]  # without teachers
        methods = [dict(zip(r.overrides[::2], r.overrides[1::2], strict=True)) for r in compared]
        labels = [row.label.removesuffix(" (all)") for row in compared]
        assert labels == ["random", *(m["METHOD.NAME"] for m in methods[1:])]
    assert path.read_text().startswith(("# python tools/benchmark.py", "# SMOOTH2DET_DATA=", "# IMAGENET="))
    for stage in build_plan(suite, tmp_path / "out").stages:
        if stage.kind == "finetune" and any(
            row.backbone for row in suite.rows
        ):  # random initialisation forbids frozen statistics, for every row
            settings = dict(flatten(load_yaml(stage.config)))
            assert (settings["MODEL.RESNETS.NORM"], settings["MODEL.BACKBONE.FREEZE_AT"]) == ("BN", 0)


def test_tool_refuses_what_a_later_stage_would(load_tool, tmp_path, monkeypatch):
    monkeypatch.delenv("SMOOTH2DET_DATA", raising=False)

    def refusal(suite, *overrides):
        arguments = ["--config-file", f"configs/suites/{suite}.yaml", "--output-dir", str(tmp_path / "out")]
        with pytest.raises(InputError) as refused:
            load_tool("benchmark").main([*arguments, *overrides])
        return str(refused.value)

    said = refusal("quick", "ROWS", "[{LABEL: A, OVERRIDES: [METHOD.NAMEE, CE]}]")
    assert "A: pretrain: command line: unknown key 'METHOD.NAMEE'; did you mean 'METHOD.NAME'?" in said
    selected = "LS: evaluate: its GRID is selected on DATA.VAL_SPLIT 'holdout', which EVALUATE would report"
    assert selected in refusal("quick_grid", "EVALUATE.OVERRIDES", "[]")
    assert selected in refusal("quick_grid", "EVALUATE.OVERRIDES", "[DATA.VAL_SPLIT, val, DATA.SHIFTED_SPLIT, holdout]")
    best = "[DATA.ROOT, '{data:scenes}', EVAL.PERIOD, 1, EVAL.REPORT, best]"
    said = refusal("quick", "PRETRAIN.OVERRIDES", best)
    assert "CE: evaluate: its epoch is selected on DATA.VAL_SPLIT 'val', which EVALUATE would report" in said


def test_tool_says_in_one_line_what_is_not_set(run_tool, tmp_path, monkeypatch):
    monkeypatch.delenv("SMOOTH2DET_DATA", raising=False)
    done = run_tool("benchmark", "--config-file", "configs/suites/real_small.yaml", "--output-dir", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "SMOOTH2DET_DATA" in done.stderr
    assert not (tmp_path / "out").exists()
