"""Grids of a suite: their points, what is chosen, and stages that depend on a choice.  The tools are fakes."""

import json
import re
from datetime import date

import pytest
from helpers.suite_lab import output_of, run_of

from backbones.core.errors import InputError
from suites.grid import nearest
from suites.listing import describe
from suites.plan import compare_stage

pytest_plugins = ["helpers.suite_fixtures"]

AMOUNT, SHIFT, POWER = "METHOD.LS.amount", "METHOD.ILS.shift", "METHOD.ILS.power"
LS = {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": {"KEYS": {AMOUNT: [0.05, 0.1, 0.2]}}}
SCALED = {**LS, "LABEL": "LS+TempS", "GRID": {**LS["GRID"], "SELECT": "nll_fitted"}}
SHORT = {**LS, "GRID": {**LS["GRID"], "OVERRIDES": ["SOLVER.MAX_EPOCH", 2]}}
FROM_LS = {"LABEL": "ILS", "OVERRIDES": ["METHOD.NAME", "ILS", "EPS", f"{{chosen:LS:{AMOUNT}}}"]}
NEAR_LS = {
    "LABEL": "ILS",
    "OVERRIDES": ["METHOD.NAME", "ILS"],
    "GRID": {
        "KEYS": {
            SHIFT: {"NEAR": f"{{chosen:LS:{AMOUNT}}}", "OF": [0.05, 0.1, 0.15, 0.2, 0.4], "COUNT": 3},
            POWER: [1, 2],
        }
    },
}
LOSSES = {f"{AMOUNT} 0.05": 3, f"{AMOUNT} 0.1": 1, f"{AMOUNT} 0.2": 2}


@pytest.fixture
def grid(lab):
    """A lab whose rows are set by the test, with nothing but a measure after the pretraining."""
    lab.tree |= {"FINETUNE": [], "LOCALIZE": {"ENABLED": False}}
    lab.losses = lambda table, name="losses": lab.tell(name, json.dumps(table))
    lab.losses(LOSSES)
    return lab


def rows(lab, *rows):
    lab.tree["ROWS"] = list(rows)


def of(lab, tool, key=AMOUNT):
    """Values of `key` in the calls of a tool since the last time, in order."""
    return [values_of(arguments).get(key) for name, arguments in lab.calls() if name == tool]


def values_of(arguments):
    texts = arguments[arguments.index("--output-dir") + 2 :]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def selection_of(lab, label):
    (folder,) = lab.output.glob(f"runs/{label}-s0-select-*")
    return json.loads((folder / "selection.json").read_text())


def test_points_are_all_combinations_and_the_last_key_varies_fastest(grid):
    rows(grid, {"LABEL": "ILS", "GRID": {"KEYS": {SHIFT: [0.9, 0.8], POWER: [1, 2, 4]}}})
    grid.run()
    calls = [values_of(arguments) for name, arguments in grid.calls() if name == "pretrain"]
    pairs = [(call[SHIFT], call[POWER]) for call in calls]
    assert pairs == [(shift, power) for shift in ("0.9", "0.8") for power in ("1", "2", "4")]
    assert all("LABEL" not in call and call["SEED"] == "0" for call in calls)


def test_only_the_chosen_point_is_measured_and_compared(grid):
    rows(grid, LS)
    code, said = grid.run()
    assert code == 0
    calls = grid.calls()
    assert [name for name, _ in calls][1:] == [*["pretrain"] * 3, "select_run", "evaluate_backbone", "compare"]
    chosen = selection_of(grid, "LS")["chosen"]
    assert (chosen["values"], chosen["nll"]) == ({AMOUNT: 0.1}, 1)
    (select,) = [output_of(arguments) for name, arguments in calls if name == "select_run"]
    assert run_of(calls[-2][1]) == select
    assert calls[-1][1][-2:] == [f"{select}/results.json", f"{output_of(calls[-2][1])}/results.json"]
    assert re.search(r"LS: select \.\.\. \d+ s   chosen: .*0\.1", said)
    assert grid.run()[0] == 0
    assert grid.calls() == []


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_the_comparison_knows_what_each_seed_has_chosen_for_itself(grid, seeds):
    grid.tree["SEEDS"] = seeds
    rows(grid, LS, FROM_LS)
    plan = grid.plan()
    arguments = compare_stage(plan, plan.stages).command
    keys = [arguments[i + 1] for i, text in enumerate(arguments) if text == "--chosen"]
    assert keys == (["EPS", AMOUNT] if len(seeds) > 1 else [])


def test_each_criterion_chooses_its_own_and_points_are_trained_once(grid):
    grid.losses({f"{AMOUNT} 0.05": 1, f"{AMOUNT} 0.1": 2, f"{AMOUNT} 0.2": 3}, "fitted")
    rows(grid, LS, SCALED)
    grid.run()
    calls = grid.calls()
    assert [name for name, _ in calls].count("pretrain") == 3
    assert selection_of(grid, "LS")["chosen"]["values"] == {AMOUNT: 0.1}
    scaled = selection_of(grid, "LS+TempS")
    assert (scaled["by"], scaled["chosen"]["values"], scaled["chosen"]["nll_fitted"]) == (
        "nll_fitted",
        {AMOUNT: 0.05},
        1,
    )
    read = [run_of(arguments) for name, arguments in calls if name == "evaluate_backbone"]
    assert [path.name.split("-s0")[0] for path in read] == ["LS", "LS+TempS"]


@pytest.mark.parametrize("row", [LS, SHORT], ids=["same schedule", "shorter"])
def test_rows_that_choose_the_same_are_one(grid, row):
    grid.losses(LOSSES, "fitted")
    rows(grid, row, {**SCALED, "GRID": {**row["GRID"], "SELECT": "nll_fitted"}})
    grid.run()
    calls = grid.calls()
    assert [name for name, _ in calls].count("evaluate_backbone") == 1
    assert [name for name, _ in calls].count("pretrain") == (3 if row is LS else 4)
    compare = calls[-1][1]
    assert compare[compare.index("--note") + 1].startswith("LS+TempS has the same backbone as LS")
    assert "TempS" not in " ".join(compare[compare.index("--note") + 2 :])
    assert grid.run()[0] == 0
    assert grid.calls() == []


def test_first_of_equal_candidates_is_chosen(grid):
    grid.losses({})
    rows(grid, LS)
    grid.run()
    assert selection_of(grid, "LS")["chosen"]["candidate"] == 0


@pytest.mark.parametrize(("best", "warned"), [("0.05", True), ("0.1", False), ("0.2", True)])
def test_a_choice_at_the_edge_is_told(grid, best, warned):
    grid.losses({f"{AMOUNT} {best}": -1})
    rows(grid, LS)
    grid.run()
    found = selection_of(grid, "LS")
    assert [AMOUNT in warning["what"] for warning in found["warnings"]] == [True] * warned
    assert found["chosen"]["values"] == {AMOUNT: float(best)}


@pytest.mark.parametrize("how", [None, "diverge"])
def test_a_diverged_point_is_never_chosen(grid, how):
    grid.losses({f"{AMOUNT} 0.1": how, f"{AMOUNT} 0.2": -5})
    rows(grid, LS)
    code, said = grid.run()
    assert code == 0
    assert ("diverged after" in said) == (how == "diverge")
    found = selection_of(grid, "LS")
    assert found["chosen"]["values"] == {AMOUNT: 0.2}
    assert "not finite" in found["candidates"][1]["reason"]
    assert found["warnings"][-1]["examples"] == [f"{AMOUNT} 0.1"]
    grid.calls()
    assert grid.run()[0] == 0
    assert grid.calls() == []  # it is not tried again


def test_all_diverged_is_an_error(grid):
    grid.losses({"METHOD.NAME LS": "diverge"})
    rows(grid, LS, FROM_LS)
    code, said = grid.run()
    assert code == 1
    assert (
        "LS: select: error: all 3 candidates diverged, one with: error: the loss is not finite at iteration 7" in said
    )
    assert "ILS: pretrain ... not run: it needs LS: select" in said
    assert "evaluate_backbone" not in [name for name, _ in grid.calls()]


def test_a_point_that_failed_otherwise_holds_up_the_choice(grid):
    rows(grid, LS)
    grid.tell("fail", "point-s0")
    code, said = grid.run()
    assert code == 1
    assert "LS: select ... not run: it needs LS: grid 1 of 3" in said
    (grid.tools / "fail").unlink()
    grid.calls()
    assert grid.run()[0] == 0
    assert [name for name, _ in grid.calls()] == [*["pretrain"] * 3, "select_run", "evaluate_backbone", "compare"]


MINE = """
from backbones.methods.base import METHODS, Method
@METHODS.register()
class Mine(Method):
    def __init__(self, model, num_classes, *, amount: float = 0.1):
        super().__init__(model, num_classes)
"""


@pytest.mark.parametrize(("row", "waits"), [(LS, []), (SHORT, ["LS pretrain", "LS evaluate_backbone"])])
def test_a_source_that_cannot_be_read_after_a_choice_ends_only_what_needs_a_new_plan(grid, row, waits):
    """The file is being edited when the grid chooses."""
    mine = grid.folder / "mine.py"
    mine.write_text(MINE)
    other = {"LABEL": "Mine", "IMPORTS": [str(mine)], "OVERRIDES": ["METHOD.NAME", "Mine"]}
    rows(grid, row, {"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]}, other)
    call = grid.call_here

    def edit(stage):
        if stage.kind == "grid":
            mine.write_text(MINE + "x = (")
        return call(stage)

    grid.call_here = edit
    code, said = grid.run()
    assert code == 1
    assert f"{2 + len(waits)} stages did not finish" in said
    assert ("LS: pretrain: not run: " in said.split("did not finish")[1]) == bool(waits)
    tools = {tool for tool in grid.called() if not tool.startswith("point")}
    ran = {"prepare_data", "LS select_run", "CE pretrain", "CE evaluate_backbone", "compare"}
    assert tools == ran | ({"LS evaluate_backbone"} if not waits else set())
    mine.write_text(MINE)
    assert grid.run()[0] == 0
    assert {*grid.called()} == {"Mine pretrain", "Mine evaluate_backbone", *waits, "compare"}


def test_what_waits_for_a_choice_and_cannot_run_is_counted_once(grid):
    """The teacher has failed before the grid has chosen."""
    student = {**FROM_LS, "OVERRIDES": [*FROM_LS["OVERRIDES"], "TEACHER.RUN", "{run:CE}"]}
    rows(grid, {"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]}, LS, student)
    grid.tell("fail", "CE-s0-pretrain")
    code, said = grid.run()
    assert code == 1
    assert re.findall(r"\d+ stages? did not finish", said) == ["4 stages did not finish"]
    shown = [line for line in said.splitlines() if line.startswith("[")]
    numbers = [line.partition("]")[0] for line in shown]
    assert numbers[-1] == f"[{len(shown)}/{len(shown)}"
    lost = [line.split("] ")[1].split(" ... ")[0] for line in shown if "not run: it needs" in line]
    assert lost == ["CE: evaluate", "ILS: pretrain", "ILS: evaluate"]


def test_shorter_points_are_trained_again_in_full(grid):
    rows(grid, SHORT)
    grid.run()
    calls = [(name, values_of(a)) for name, a in grid.calls() if name == "pretrain"]
    assert [(values[AMOUNT], values.get("SOLVER.MAX_EPOCH")) for _, values in calls] == [
        ("0.05", "2"), ("0.1", "2"), ("0.2", "2"), ("0.1", None),
    ]  # fmt: skip
    assert calls[-1][1]["LABEL"] == "LS"


def test_a_later_row_takes_what_an_earlier_one_chose(grid):
    rows(grid, LS, FROM_LS)
    grid.run()
    assert of(grid, "pretrain", "EPS") == [None, None, None, "0.1"]


def test_a_later_grid_lies_around_what_an_earlier_one_chose(grid):
    grid.losses({f"{AMOUNT} 0.2": -1, f"{SHIFT} 0.4": -1})
    rows(grid, LS, NEAR_LS, {"LABEL": "X", "OVERRIDES": ["Y", f"{{chosen:ILS:{SHIFT}}}"]})
    code, _ = grid.run()
    assert code == 0
    calls = [values_of(arguments) for name, arguments in grid.calls() if name == "pretrain"]
    tried = [(call[SHIFT], call[POWER]) for call in calls if SHIFT in call]
    assert tried == [(shift, power) for shift in ("0.15", "0.2", "0.4") for power in ("1", "2")]
    assert calls[-1]["Y"] == "0.4"


@pytest.mark.parametrize(
    ("near", "count", "taken"),
    [
        (0.9, 3, ["0.95", "0.9", "0.85"]),
        (0.975, 3, ["0.975", "0.95", "0.925"]),
        (0.85, 2, ["0.9", "0.85"]),
        (0.7, 1, ["0.85"]),
        (0.96, 2, ["0.975", "0.95"]),
        (2.0, 5, ["0.975", "0.95", "0.925", "0.9", "0.85"]),
    ],
)
def test_nearest_values(near, count, taken):
    of = ["0.975", "0.95", "0.925", "0.9", "0.85"]
    if near == 0.9:
        of, taken = ["0.975", "0.95", "0.9", "0.85"], ["0.95", "0.9", "0.85"]
    assert nearest(near, of, count) == taken


def test_neighbours_are_counted_not_measured():
    powers = ["1", "2", "4", "8", "16"]
    assert nearest(8, powers, 3) == ["4", "8", "16"]  # by distance 2 would come before 16
    assert nearest(4, powers, 2) == ["2", "4"]


def test_the_run_of_another_row_is_read(grid):
    rows(
        grid, {"LABEL": "CE", "SEEDS": [0, 1]},
        {"LABEL": "ILS", "SEEDS": [0, 1], "OVERRIDES": ["TEACHER.RUN", "{run:CE}"], "GRID": {"KEYS": {SHIFT: [1, 2]}}},
        {"LABEL": "KD", "OVERRIDES": ["TEACHER.RUN", "{run:ILS}"]},
    )  # fmt: skip
    grid.run()
    calls = [(output_of(a), values_of(a)) for name, a in grid.calls() if name == "pretrain"]
    folder = {(values["LABEL"], values["SEED"]): str(out) for out, values in calls if "LABEL" in values}
    for _, values in calls:
        if SHIFT in values:
            assert values["TEACHER.RUN"] == folder["CE", values["SEED"]]
    assert "/ILS-s0-select-" in calls[-1][1]["TEACHER.RUN"]
    grid.tree["ROWS"][0]["OVERRIDES"] = ["LR", 5]  # another teacher
    points = [title for title in grid.to_run() if "grid" in title]
    assert points == [f"ILS seed {seed} grid {number} of 2" for seed in (0, 1) for number in (1, 2)]


def test_a_teacher_has_another_seed_and_the_data_of_its_students(grid):
    """It is trained before them and read by them, but not measured or compared; other rows keep their folders."""
    student = {"LABEL": "ILS", "SEEDS": [0, 1], "OVERRIDES": ["METHOD.NAME", "ILS"]}
    rows(grid, {"LABEL": "CE", "SEEDS": [0, 1]}, student)
    before = {stage.output for stage in grid.plan().stages}
    teacher = {"LABEL": "T", "SEEDS": [0, 1], "SEED_OFFSET": 1000}
    rows(grid, {"LABEL": "CE", "SEEDS": [0, 1]}, teacher, student)
    stages = [stage for stage in grid.plan().stages if stage.output not in before]
    assert [stage.title for stage in stages] == ["T seed 0: pretrain", "T seed 1: pretrain"]
    assert not any(stage.compared for stage in stages)
    rows(grid, {"LABEL": "CE", "SEEDS": [0, 1]}, teacher, student | {"OVERRIDES": ["TEACHER.RUN", "{run:T}"]})
    assert grid.run()[0] == 0
    calls = [values_of(a) | {"folder": str(output_of(a))} for name, a in grid.calls() if name == "pretrain"]
    of_label = {(values["LABEL"], int(values["SEED"])): values for values in calls}
    assert set(of_label) == {(label, seed) for label in ("CE", "ILS") for seed in (0, 1)} | {("T", 1000), ("T", 1001)}
    for seed in (0, 1):
        taught = of_label["T", 1000 + seed]
        assert (taught["DATA.HOLDOUT_SEED"], taught["DATA.NOISE_SEED"]) == (str(seed), str(seed))
        assert of_label["ILS", seed]["TEACHER.RUN"] == taught["folder"]
        assert "DATA.HOLDOUT_SEED" not in of_label["ILS", seed]


def test_every_seed_chooses_for_itself(grid):
    grid.tree["SEEDS"] = [0, 1]
    grid.losses({f"{AMOUNT} 0.2": -2, "SEED 1": 1})
    rows(grid, LS, FROM_LS)
    grid.run()
    assert of(grid, "pretrain", "EPS")[6:] == ["0.2", "0.2"]


def test_killed_in_the_middle_of_a_grid(grid):
    rows(grid, LS, NEAR_LS)
    third = [stage for stage in grid.plan().stages if stage.kind == "grid"][2]
    grid.tell("hang", third.hash)
    process = grid.start()
    grid.child()
    process.kill()
    process.wait()
    (grid.tools / "hang").unlink()
    assert of(grid, "pretrain") == ["0.05", "0.1", "0.2"]
    assert grid.run()[0] == 0
    assert of(grid, "pretrain") == ["0.2", *[None] * 6]
    assert grid.run()[0] == 0
    assert grid.calls() == []


def test_dry_run_says_what_depends_on_a_choice(grid):
    rows(grid, LS, NEAR_LS, {**FROM_LS, "LABEL": "KD"}, {"LABEL": "X", "OVERRIDES": ["Y", f"{{chosen:ILS:{SHIFT}}}"]})
    text = describe(grid.plan())
    assert text.count("to run\n") == 1 + 3 + 1 + 1  # data, points, select, evaluate
    assert text.endswith(
        "then 10 more, by what LS: select chooses (ILS 8, KD 2)\n"
        "then 2 more, by what ILS: select chooses (X 2)\nthen compare"
    )
    assert "[6/19] LS: evaluate" in text
    grid.run()
    text = f"{describe(grid.plan())}\n"
    assert (text.count(": cached\n"), "then" in text) == (19, False)


def test_a_changed_grid_trains_only_what_is_new(grid):
    rows(grid, LS, FROM_LS)
    grid.run()
    grid.calls()
    grid.losses(LOSSES | {f"{AMOUNT} 0.4": 4})
    rows(grid, {**LS, "GRID": {"KEYS": {AMOUNT: [0.05, 0.1, 0.2, 0.4]}}}, FROM_LS)
    grid.run()
    assert of(grid, "pretrain") == ["0.4"]  # the choice is the same, and so is what depends on it


GRID = {"KEYS": {AMOUNT: [1, 2]}}
A = {"LABEL": "A", "GRID": GRID}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"LABEL": "A", "GRID": {"KEY": {}}}], "ROWS A: GRID: unknown key 'KEY'; did you mean 'KEYS'"),
        ([{"LABEL": "A", "GRID": {"SELECT": "nll"}}], "ROWS A: GRID: KEYS must be a mapping"),
        ([{"LABEL": "A", "GRID": {**GRID, "SELECT": "nl"}}], "unknown SELECT 'nl'; did you mean 'nll'"),
        ([{"LABEL": "A", "GRID": {"KEYS": {"X": [date(2026, 12, 1)]}}}], "GRID: KEYS X: 2026-12-01 is read as a date"),
        ([{"LABEL": "A", "GRID": {"KEYS": {"X": []}}}], "ROWS A: GRID: KEYS X: must be a list of values"),
        ([{"LABEL": "A", "GRID": {"KEYS": {"X": [1, 1]}}}], "KEYS X: the value 1 is duplicated"),
        ([{"LABEL": "A", "GRID": {"KEYS": {"X": {"NEER": 1}}}}], "unknown key 'NEER'; did you mean 'NEAR'"),
        ([{"LABEL": "A", "GRID": {"KEYS": {"X": {"NEAR": 1, "OF": [1, 2], "COUNT": 3}}}}], "COUNT must be from 1 to 2"),
        ([{"LABEL": "A", "GRID": {"KEYS": {"X": {"NEAR": "b", "OF": [1, 2]}}}}], "NEAR must be a number or"),
        ([{"LABEL": "A", "GRID": {"KEYS": {"X": {"NEAR": 1, "OF": ["b"]}}}}], "OF must be a list of numbers"),
        ([{**A, "GRID": {"KEYS": {"SEED": [0, 1]}}}], "ROWS A: GRID: KEYS: the suite sets SEED itself"),
        ([{**A, "GRID": {**GRID, "OVERRIDES": ["SEED", 1]}}], "ROWS A: GRID: OVERRIDES: the suite sets SEED itself"),
        ([{**A, "OVERRIDES": ["SEED", 5]}], "ROWS A: OVERRIDES: the suite sets SEED itself; delete it, and use"),
        ([{**A, "OVERRIDES": ["LABEL", "B"]}], "ROWS A: OVERRIDES: the suite sets LABEL itself"),
        ([{"LABEL": "A", "SEED_OFFSET": 1, "OVERRIDES": ["DATA.NOISE_SEED", 1]}],
         "ROWS A: OVERRIDES: the suite sets DATA.NOISE_SEED itself; delete it, and use SEEDS"),
        ([{**A, "OVERRIDES": [AMOUNT, 3]}], f"ROWS A: GRID: KEYS {AMOUNT} is also in OVERRIDES"),
        ([{**A, "GRID": {**GRID, "OVERRIDES": ["X"]}}], "ROWS A: GRID: OVERRIDES come as KEY VALUE pairs; 'X' has no"),
        ([{**A, "BACKBONE": "random"}], "ROWS A: a random backbone is not pretrained"),
        ([{**A, "SEED_OFFSET": 1}], "ROWS A: SEED_OFFSET makes it a teacher, which is one pretraining; delete"),
        ([{"LABEL": "A", "SEED_OFFSET": -1}], "ROWS A: SEED_OFFSET is -1; it must be between 0 and"),
        ([{"LABEL": "A", "OVERRIDES": ["X", "{chosen:A:X}"]}], "'{chosen:A:X}' does not name a pretrained row above"),
        ([{"LABEL": "B", "OVERRIDES": ["X", "{run:A}"]}, {"LABEL": "A", "OVERRIDES": ["X", "{run:B}"]}],
         "ROWS B: '{run:A}' does not name a pretrained row above this one"),
        ([A, {"LABEL": "B", "OVERRIDES": ["X", "{chosen:AA:X}"]}], "row above this one; did you mean 'A'"),
        ([A, {"LABEL": "B", "OVERRIDES": ["X", "{chosen:A:METHOD.LS.amont}"]}], f"there; did you mean '{AMOUNT}'"),
        ([{"LABEL": "A"}, {"LABEL": "B", "OVERRIDES": ["X", "{chosen:A:X}"]}], "that row has no GRID"),
        ([A, {"LABEL": "B", "OVERRIDES": ["X", "{choosen:A:X}"]}], "'{choosen:A:X}' is not a reference; did you"),
        ([A, {"LABEL": "B", "SEEDS": [4], "OVERRIDES": ["X", "{run:A}"]}], "'{run:A}': that row has no seed 4"),
        ([{"LABEL": "A", "GRID": {"KEYS": {"X": ["b", "c"]}}},
          {"LABEL": "B", "GRID": {"KEYS": {"X": {"NEAR": "{chosen:A:X}", "OF": [1, 2]}}}}],
         "ROWS B: GRID: KEYS X: NEAR: 'b' is not a number"),
    ],
)  # fmt: skip
def test_what_is_refused(grid, given, message):
    rows(grid, *given)
    with pytest.raises(InputError, match=re.escape(message)):
        grid.run()
    assert not grid.output.exists()


def test_nothing_is_selected_on_what_is_reported(grid):
    rows(grid, LS)
    grid.tree["EVALUATE"] = {"ENABLED": False}
    with pytest.raises(InputError, match="ROWS LS: a GRID needs EVALUATE, on another split"):
        grid.run()


def test_references_to_rows_belong_into_rows(grid):
    rows(grid, A)
    grid.tree["EVALUATE"] = {"OVERRIDES": ["X", "{run:A}"]}
    with pytest.raises(InputError, match=re.escape("EVALUATE.OVERRIDES: '{run:A}' is only valid in")):
        grid.run()
