"""One report a suite, and what is said of a report that was not made."""

import json
import re

import pytest
import yaml
from helpers.suite_lab import set_compare

from backbones.core.errors import InputError
from suites.execution.timings import Timings
from suites.plan import compare_stage

pytest_plugins = ["helpers.suite_fixtures"]


def files_of(lab):
    return {p.name: p.read_text() for p in lab.output.iterdir() if p.is_file() and p.suffix in (".json", ".yaml")}


@pytest.fixture
def other(finished, tmp_path):
    """Another suite in the same folder, with one row more than the first."""
    second = finished.copy(tmp_path / "second")
    second.output, second.name = finished.output, "table7"
    second.tree = {
        **finished.tree,
        "ROWS": [*finished.tree["ROWS"], {"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"]}],
    }
    second.tree["FINETUNE"] = finished.tree["FINETUNE"]
    return second


def test_a_second_suite_has_a_report_of_its_own(finished, other):
    page = finished.output / "report" / "index.html"
    page.write_text("the page of the first")
    before = files_of(finished)
    code, said = other.run()
    assert code == 0
    assert "CE pretrain" not in other.called()  # shared
    assert f"report: {finished.output}/report-table7/index.html" in said
    assert page.read_text() == "the page of the first"
    after = files_of(finished)
    assert {name: after[name] for name in before if name != "suites.json"} == {
        name: text for name, text in before.items() if name != "suites.json"
    }
    labels = [row["LABEL"] for row in yaml.safe_load(after["config-table7.yaml"])["ROWS"]]
    assert labels == ["random", "CE", "ALS", "LS"]
    assert "timings-table7.json" in after
    assert finished.run()[1].count(f"report: {finished.output}/report/index.html") == 1
    assert (finished.called(), other.to_run()) == ([], [])
    assert page.read_text() == "the page of the first"


def test_each_keeps_its_report_whatever_runs_in_between(finished, other):
    owners = finished.output / "suites.json"
    for suite in (other, finished, other):
        set_compare(suite)
        assert suite.run()[0] == 0
        assert json.loads(owners.read_text()) == {"suite": "", "table7": "-table7"}
    other.name = "table7!"  # as a part of a name the same as `table7_`, if not as `table7`
    assert other.plan().report.name == "report-table7_"
    owners.write_text('["suite"]')
    with pytest.raises(InputError, match=r"suites.json does not say which report is whose; delete it"):
        other.plan()


def test_the_tool_names_a_suite_by_its_file(load_tool, tmp_path, capsys):
    text = {"PRETRAIN": {"CONFIG": "configs/pretrain/quick_scenes.yaml"}, "ROWS": [{"LABEL": "CE"}]}
    (tmp_path / "mine.yaml").write_text(json.dumps(text))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "suites.json").write_text('{"quick": ""}')
    arguments = ["--config-file", str(tmp_path / "mine.yaml"), "--output-dir", str(tmp_path / "out"), "--dry-run"]
    assert load_tool("benchmark").main(arguments) == 0
    assert f"report  {tmp_path}/out/report-mine\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("PRIMARY", "APx", "unknown COMPARE.PRIMARY 'APx'"), ("MARGIN", "-1", "COMPARE.MARGIN is -1.0")],
)
def test_what_decides_is_checked_before_any_training(load_tool, tmp_path, key, value, message):
    text = {"PRETRAIN": {"CONFIG": "configs/pretrain/quick_scenes.yaml"}, "ROWS": [{"LABEL": "CE"}]}
    (tmp_path / "mine.yaml").write_text(json.dumps(text))
    arguments = ["--config-file", str(tmp_path / "mine.yaml"), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match=re.escape(message)):
        load_tool("benchmark").main([*arguments, f"COMPARE.{key}", value])
    assert not (tmp_path / "out").exists()


def test_after_a_failed_comparison_the_old_page_is_named_as_old(finished):
    page = finished.output / "report" / "index.html"
    set_compare(finished)
    finished.tell("fail", "report")
    code, said = finished.run()
    assert code == 1
    assert f"no report was written; {page} is from an earlier call" in said
    assert not re.search(r"^report:", said, re.M)
    (finished.tools / "fail").unlink()
    assert f"\nreport: {page}\n" in finished.run()[1]


def test_nothing_to_compare_leaves_the_old_page_old(finished):
    finished.tree["DATA"][0]["PREPARE"][2] = 2
    finished.tell("fail", "data")
    code, said = finished.run()
    assert code == 1
    assert "no report was written; " in said


def test_total_says_what_it_counts(finished):
    """Of this call, and of the stages of all calls before, however they ended."""
    path = finished.output / "timings.json"
    timings = Timings(path)
    timings.spent = 7200.0
    timings.spend(300.0)
    said = finished.run()[1]
    assert re.search(r"^total \d s in this call, 2 h 5 min in earlier ones, largest process", said, re.M)
    before = Timings(path).spent
    finished.tell("fail", "report")
    set_compare(finished)
    finished.processes = True  # which take some time
    assert finished.run()[0] == 1
    assert Timings(path).spent > before
    path.write_text('{"stages": [1]}')
    with pytest.raises(InputError, match=r"timings.json does not hold durations; delete it"):
        finished.run()


def test_the_report_prices_another_seed(lab):
    """A pretrained row and seed takes 10 + 20 + 30 + 40 minutes here; data and the random row do not count."""
    blocks = {"PRETRAIN": 600, "EVALUATE": 1200, "LOCALIZE": 1800}
    for name, cost in blocks.items():
        lab.tree.setdefault(name, {})["COST"] = cost
    plan = lab.plan("SEEDS", "[0, 1]")
    timings = Timings(lab.output / "timings.json")
    assert timings.seed_hours(plan.stages) == (None, None)  # nothing is known about a fine-tuning
    assert timings.price(plan.stages) == []
    lab.tree["FINETUNE"][0]["COST"] = 2400
    plan = lab.plan("SEEDS", "[0, 1]")
    assert timings.seed_hours(plan.stages) == pytest.approx((100 / 60, 40 / 60))
    assert timings.seed_hours([stage for stage in plan.stages if stage.kind == "prepare"]) == (None, None)
    lab.tree["FINETUNE"].append({**lab.tree["FINETUNE"][0], "NAME": "long", "COST": 3600})
    longer = lab.plan("SEEDS", "[0, 1]")  # methods are compared under each protocol: a seed needs one of them
    assert timings.seed_hours(longer.stages) == pytest.approx((110 / 60, 50 / 60))
    del lab.tree["FINETUNE"][1]
    lab.tree["ROWS"].append({"LABEL": "Teacher", "OVERRIDES": ["METHOD.NAME", "CE"], "SEED_OFFSET": 1000})
    trained = sum(row.get("BACKBONE") is None for row in lab.tree["ROWS"]) - 1
    teaching = lab.plan("SEEDS", "[0, 1]")  # 10 minutes more of each seed, for the rows that are compared
    assert timings.seed_hours(teaching.stages) == pytest.approx(((100 + 10 / trained) / 60, 40 / 60))
    price = timings.price(plan.stages)
    without, priced = compare_stage(plan, plan.stages), compare_stage(plan, plan.stages, price=price)
    assert price == ["--seed-hours", "1.667", "--tuning-hours", "0.6667"]
    assert " ".join(price) in " ".join(priced.command)
    assert priced.hash == without.hash  # a duration reruns nothing
    lab.run()
    [arguments] = [arguments for tool, arguments in lab.calls() if tool == "compare"]
    assert float(arguments[arguments.index("--seed-hours") + 1]) < 0.1  # measured


@pytest.mark.parametrize("form", ["{option} {value}", "{option}={value}"])
def test_a_report_is_made_again_when_a_file_that_it_is_told_to_read_changes(lab, form):
    lab.tree |= {"FINETUNE": [], "LOCALIZE": {"ENABLED": False}, "EVALUATE": {"ENABLED": False}}
    lab.tree["ROWS"] = [{"LABEL": "CE", "OVERRIDES": ["METHOD.NAME", "CE"]}]
    for name in ("gt.json", "dets.json"):
        (lab.folder / name).write_text("[1]")
    pairs = (("--truth", "gt.json"), ("--results", "theirs@1=dets.json"))
    arguments = [word for option, value in pairs for word in form.format(option=option, value=value).split()]
    lab.tree["COMPARE"] = {"ARGUMENTS": [*arguments, "--level", 0.9]}
    assert lab.run()[0] == 0
    words = " ".join(lab.calls()[-1][1])
    for option, value in (("--truth", f"{lab.folder}/gt.json"), ("--results", f"theirs@1={lab.folder}/dets.json")):
        assert form.format(option=option, value=value) in words  # relative to the yaml file, not to the clone
    assert lab.run()[0] == 0
    assert lab.called() == []
    for name in ("gt.json", "dets.json"):
        (lab.folder / name).write_text("[2]")
        assert lab.run()[0] == 0
        assert lab.called() == ["compare"]
    moved = [word.replace("dets.json", "moved.json") for word in arguments]
    (lab.folder / "dets.json").rename(lab.folder / "moved.json")
    lab.tree["COMPARE"] = {"ARGUMENTS": [*moved, "--level", 0.9]}
    assert lab.to_run() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--truth", "gt.json"], r"COMPARE: ARGUMENTS: cannot read .*lab/gt\.json \(--truth\): No such file"),
        (["--trut", "gt.json"], "COMPARE.ARGUMENTS: --trut is a shortened --truth; write it in full"),
        (["--output-dir=x"], "COMPARE.ARGUMENTS: the suite sets --output-dir; delete it"),
    ],
)
def test_files_that_the_report_cannot_read_are_refused_before_anything_runs(lab, arguments, message):
    lab.tree["COMPARE"] = {"ARGUMENTS": arguments}
    with pytest.raises(InputError, match=message):
        lab.run()
    assert lab.calls() == []
