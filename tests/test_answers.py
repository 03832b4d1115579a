"""The published results: what is kept, what is said of a claim, and that the pages are those of the files."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.many_runs import add_many
from scipy import stats

from backbones.core.errors import InputError
from backbones.gaussian.directions import APPEARED, ERRORS, OPPOSITE, UNDECIDED
from comparison.answers.claims import Claim, Outcome, Questions, Trial, judge_claim, read_claims
from comparison.answers.page import claims_text
from comparison.answers.predictors import correlate
from comparison.answers.readme import BEGIN, END, Beside, answer_figure, answer_text, spread_sentence
from comparison.answers.results_page import results_text
from comparison.answers.store import add_runs, compare_published, load_comparison, read_made, record
from comparison.answers.study import judge_by_study
from comparison.diagnosis.of_run import INFLUENCE_FILE, NUMBERS_FILE
from comparison.evidence.bundle import KEPT
from comparison.resampling.draws import DRAWS_FILE
from comparison.tables.formats import MINUS, MISSING, format_number

CLAIM = """
suites: {answers_one: "Which one?"}
papers: {ALS: A title}
claims:
  - paper: ALS
    place: Table 1
    claim: ALS is better.
    test: {suite: answers_one, row: ALS (all), metric: AP, expect: higher}
    limits: Few images.
  - paper: ALS
    place: Table 2
    claim: ALS is better than LS.
    test: {suite: answers_one, row: ALS (all), against: LS, metric: AP50, expect: lower}
    limits: Few images.
  - {paper: ALS, place: Table 3, claim: Something else., untested: Needs other data.}
"""


ROOT = Path(__file__).resolve().parent.parent
CACHES = (DRAWS_FILE, NUMBERS_FILE, INFLUENCE_FILE)
TOLD = {
    "command": ["tools/compare.py"],
    "device": "CPU",
    "packages": {"torch": "2.0"},
    "git": {"commit": "0123456789abcdef"},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A repository with the published runs of one suite, added in two parts."""
    root = tmp_path_factory.mktemp("published")
    (root / "docs").mkdir()
    (root / "docs" / "claims.yaml").write_text(CLAIM)
    (root / "README.md").write_text(f"# Name\n\n{BEGIN}\n\n{END}\n\n## Commands\n")
    runs = tmp_path_factory.mktemp("runs")
    add_many(
        runs, methods={"CE": (0.3, 0.02), "LS": (0.5, 0.02), "ALS (all)": (0.9, 0.02)}, seeds=3, protocols=("d@1",)
    )
    folder, parts = (
        root / "docs" / "results" / "answers_one",
        sorted(path.parent for path in runs.rglob("results.json")),
    )
    done = 0
    for part, hours in ((parts[:7], 1.0), (parts, 0.5)):
        for run in part:
            (run / "environment.json").write_text(json.dumps(TOLD))
        add_runs(folder, part, {})
        titles = {f"{run.name} seed 0: finetune (d)": (run, hours * 3600 / (len(part) - done)) for run in part}
        done += record(folder, titles, "tools/benchmark.py")
    compare_published(folder, ["", "LS"], {"primary": "AP"})
    return root


def test_runs_are_added_to_those_of_earlier_calls(published):
    folder = published / "docs" / "results" / "answers_one"
    assert [(one.stages, one.hours, one.commit) for one in read_made(folder)] == [
        (7, 1.0, "0123456789ab"),
        (11, 0.5, "0123456789ab"),
    ]
    comparison = load_comparison(folder)
    assert [(method["label"], method["runs"]) for method in comparison["methods"]] == [
        ("CE", 3),
        ("LS", 3),
        ("ALS (all)", 3),
    ]
    assert all(stage["folder"].startswith("runs/") for row in comparison["rows"] for stage in row["stages"].values())
    assert load_comparison(folder, "LS")["baseline"] == "LS"


def test_the_rows_and_seeds_of_a_part_are_named(tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps(TOLD))
    titles = ("CE seed 0: pretrain", "CE seed 0: finetune (d)", "LS (a: b) seed 1: pretrain")
    runs = {title: (tmp_path / str(number), 600.0) for number, title in enumerate(titles)}
    for folder, _ in runs.values():
        folder.mkdir()
        (folder / "environment.json").write_text(json.dumps(TOLD))
    assert record(tmp_path, runs, "tools/benchmark.py") == 3
    assert [(one.rows, one.stages, one.hours) for one in read_made(tmp_path)] == [
        ("CE seed 0, LS (a: b) seed 1", 3, 0.5)
    ]
    assert record(tmp_path, runs, "tools/benchmark.py") == 0
    (tmp_path / "environment.json").write_text(json.dumps(TOLD | {"git": {"commit": None}}))  # outside of a clone
    assert record(tmp_path, runs | {"LS seed 0: pretrain": (tmp_path, 36.0)}, "tools/benchmark.py") == 1
    assert [(one.rows, one.commit, one.hours) for one in read_made(tmp_path)[1:]] == [("LS seed 0", "unknown", 0.01)]


def test_the_published_results_of_the_project_hold_what_is_kept_and_are_small():
    """At most 20 MiB in all; what a comparison keeps beside the runs that it reads is not committed."""
    kept = [path for path in (ROOT / "docs" / "results").rglob("*") if path.is_file() and path.name not in CACHES]
    assert kept
    assert {path.name for path in kept if path.parent.parent.name == "runs"} <= set(KEPT)
    assert sum(path.stat().st_size for path in kept) < 20 * 2**20
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert set(CACHES) <= set(ignored)


def test_published_files_are_smaller_and_name_no_folder_of_the_machine(tmp_path):
    arrays = {"scores": np.sort(np.random.default_rng(0).random(2000)).repeat(5), "names": np.array(["a", "bc"])}
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    np.savez_compressed(run / "matches.npz", **arrays)
    (run / "results.json").write_text("{}")
    told = {"command": ["/here/code/tools/pretrain.py", "--config-file", "/here/code/configs/a.yaml", f"{tmp_path}/b"]}
    (run / "environment.json").write_text(json.dumps(told))
    (run / "config.yaml").write_text(f"ROOT: {tmp_path}/data\nOTHER: /here/images/a\n")
    add_runs(
        tmp_path / "kept", [run], {tmp_path: "OUTPUT_DIR", tmp_path / "data": "DATA", Path("/here/images"): "DATA/a"}
    )
    kept = tmp_path / "kept" / "runs" / "one"
    with np.load(kept / "matches.npz") as found:
        assert sorted(found.files) == sorted(arrays)
        assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert (kept / "matches.npz").stat().st_size < (run / "matches.npz").stat().st_size
    told = json.loads((kept / "environment.json").read_text())["command"]
    assert told == ["tools/pretrain.py", "--config-file", "configs/a.yaml", "OUTPUT_DIR/b"]
    assert (kept / "config.yaml").read_text() == "ROOT: DATA\nOTHER: DATA/a/a\n"
    assert {path.name for path in kept.iterdir()} == {path.name for path in run.iterdir()}
    add_runs(tmp_path / "numbers", [run], {tmp_path: "OUTPUT_DIR"}, numbers_only=True)
    kept = tmp_path / "numbers" / "runs" / "one"
    assert {path.name for path in kept.iterdir()} == {path.name for path in run.iterdir()} - {"matches.npz"}
    told = json.loads((tmp_path / "numbers" / "hashes.json").read_text())
    assert told == {"one/matches.npz": hashlib.sha256((run / "matches.npz").read_bytes()).hexdigest()}


def test_the_page_of_a_suite_is_kept_without_images_and_linked(published):
    page = published / "docs" / "results" / "answers_one" / "page.html"
    assert "Which pretraining gives the better detector?" in page.read_text()
    assert "<img" not in page.read_text()
    said = results_text(published, read_claims(published / "docs" / "claims.yaml"))
    assert "[page.html](results/answers_one/page.html)" in said


def test_claims_are_answered_by_the_files(published):
    questions = read_claims(published / "docs" / "claims.yaml")
    text = claims_text(published, questions)
    comparison = load_comparison(published / "docs" / "results" / "answers_one")
    method = comparison["methods"][2]
    assert method["verdict"]["word"] == "better"
    gain = method["differences"]["AP"]
    assert f"| {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] | better | as claimed |" in text
    assert "| higher (exploratory) | opposite |" in text
    assert "| not tested | Needs other data. |" in text
    assert "Of 3 claims of the papers, 2 have results: 1 came out as claimed, 1 opposite, 0 not decided." in text
    assert f"| ALS (all) (3 seeds) | {method['metrics']['AP']['mean']:.3f}" in results_text(published, questions)


def test_too_few_seeds_have_no_interval_in_the_results(published, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(published, root)
    path = root / "docs" / "results" / "answers_one" / "comparison.json"
    comparison = json.loads(path.read_text())
    comparison["methods"][1]["verdict"]["word"] = ""
    path.write_text(json.dumps(comparison))
    text = results_text(root, read_claims(root / "docs" / "claims.yaml"))
    mean = comparison["methods"][1]["metrics"]["AP"]
    assert f"| {mean['mean']:.3f} ± {mean['deviation']:.3f} | {MISSING} | no verdict with fewer than 3 seeds |" in text


def test_the_spread_of_fine_tunings_stands_beside_that_of_seeds(published, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(published, root)
    first = root / "docs" / "results" / "answers_one"
    shutil.copytree(first, root / "docs" / "results" / "answers_two")
    path = root / "docs" / "results" / "answers_two" / "comparison.json"
    comparison = json.loads(path.read_text())
    [known] = comparison["variances"]
    unknown = dict.fromkeys(("seeds", "interaction", "images", "method_images"))
    path.write_text(json.dumps(comparison | {"variances": [known | unknown | {"fine_tuning": 0.0004}]}))
    claims = root / "docs" / "claims.yaml"
    claims.write_text(claims.read_text().replace('"Which one?"', '"Which one?", answers_two: "How much?"'))
    _, text = results_text(root, read_claims(claims)).split("## answers_two")
    assert "of AP of one run: between fine-tunings of one backbone 0.0200." in text
    said = f"Between seeds, each with its pretraining and one fine-tuning, under {known['protocol']}"
    assert f"{said}: {known['seeds'] ** 0.5:.4f} in answers_one." in text


def test_the_spread_names_the_fine_tuning_where_it_was_repeated():
    def one(protocol, seeds, tuning, metric="AP"):
        return {"variances": [{"protocol": protocol, "metric": metric, "seeds": seeds, "fine_tuning": tuning}]}

    own = one("a", 0.0009, None)
    assert spread_sentence(own, [one("a", None, 0.0005, metric="VOC_mAP50")]) == ""
    assert spread_sentence(one("a", 0.0009, 0.0004), [one("a", None, 0.0005)]) == ""
    assert spread_sentence(own, [own, one("b", None, 0.0004)]) == ""
    most = spread_sentence(own, [own, one("a", None, 0.0005)])
    assert most.startswith("Most of the spread comes from the fine-tuning: its standard deviation is 0.022 on one")
    assert "and 0.030 between seeds" in most
    assert spread_sentence(own, [one("a", None, 0.0001)]).startswith("Less than half of the spread comes")


def entry(word, value, low, high, metric="AP", seeds=(3, 3)):
    """A comparison of A with CE; seeds: of A and of CE that have the number."""
    difference = {"value": value, "low": low, "high": high, "over_seeds": low is not None and min(seeds) > 1}
    judged = {"verdict": {"word": word, "metric": metric}, "differences": {metric: difference, "nll": difference}}
    counts = [{name: {"count": count} for name in (metric, "nll")} for count in seeds]
    methods = [{"label": "A", "metrics": counts[0], **judged}, {"label": "CE", "metrics": counts[1], "verdict": None}]
    return {"primary": metric, "baseline": "CE", "methods": [one | {"baseline": "CE"} for one in methods]}


@pytest.mark.parametrize(
    ("word", "metric", "numbers", "expect", "answer"),
    [
        ("better", "AP", (0.1, 0.05, 0.15), "higher", "as claimed"),
        ("worse", "AP", (-0.1, -0.15, -0.05), "higher", "opposite"),
        ("not distinguishable", "AP", (0.1, 0.01, 0.19), "higher", "not decided"),  # Holm decides, not the interval
        ("equivalent", "AP", (0.001, 0.0, 0.002), "higher", "not decided"),
        ("better", "nll", (-0.1, -0.15, -0.05), "lower", "as claimed"),
        ("better", "nll", (0.1, -0.05, 0.25), "lower", "not decided"),
        ("worse", "nll", (0.1, 0.05, 0.15), "lower", "opposite"),
    ],
)  # fmt: skip
def test_the_answer_follows_verdict_or_interval(word, metric, numbers, expect, answer):
    claim = Claim("P", "T", "c", Trial("s", "A", metric, expect), limits="l")
    outcome = judge_claim(claim, entry(word, *numbers))
    assert (outcome.answer, outcome.exploratory) == (answer, metric != "AP")


def readme(comparison, judged=(), others=None):
    beside = Beside(others or {}, "A note.", "A spread.")
    text = answer_text(f"before {BEGIN} PREVIOUS {END} after", comparison, judged, beside)
    assert text.startswith(f"before {BEGIN}")
    assert text.endswith(f"{END} after")
    assert "PREVIOUS" not in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120
    return " ".join(text.split())


def test_the_readme_says_which_methods_are_better_and_by_how_much(published):
    comparison = load_comparison(published / "docs" / "results" / "answers_one")
    text = readme(comparison)
    assert "**Yes, with ALS (all): the detector is better than with hard labels (CE).**" in text
    values = [row["metrics"]["AP"] for row in comparison["rows"] if row["label"] == "CE"]
    assert f"(CE) reach {sum(values) / 3:.3f} AP." in text
    assert " A note. A spread. - Of 0 claims" in text
    gain = comparison["methods"][2]["differences"]["AP"]
    numbers = f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] AP"
    assert f"| ALS (all) | {numbers.removesuffix(' AP')} | better | |" in text.replace(MINUS, "-")
    assert "| pretrained with (3 seeds each) | AP minus that of CE | verdict | settled by (CE too) |" in text
    other = readme(comparison, others={"Elsewhere": comparison}).replace(MINUS, "-")
    assert f"ALS (all) better ({numbers.removesuffix(' AP')})." in other
    assert "- Elsewhere, AP against CE: LS " in other
    assert "- Elsewhere: not run yet." in readme(comparison, others={"Elsewhere": None})
    figure = answer_figure(comparison)
    assert f"ALS (all) (3 seeds) {gain['value']:+.3f}" in figure.replace("\N{MINUS SIGN}", "-")


def test_intervals_over_seeds_only_are_told(published, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(published, root)
    path = root / "docs" / "results" / "answers_one" / "comparison.json"
    comparison, told = load_comparison(path.parent), "Published without values per image: intervals are over seeds only"
    assert told not in results_text(root, read_claims(root / "docs" / "claims.yaml"))
    assert "seeds only" not in readme(comparison, others={"Elsewhere": comparison})
    for method in comparison["methods"]:
        for one in (method["differences"] or {}).values():
            one["over_images"] = False
    path.write_text(json.dumps(comparison))
    assert told in results_text(root, read_claims(root / "docs" / "claims.yaml"))
    text = readme(comparison, others={"Elsewhere": comparison})
    assert "- Elsewhere, AP against CE, intervals over seeds only: LS " in text


def test_the_readme_promises_nothing_without_a_verdict(published):
    comparison = load_comparison(published / "docs" / "results" / "answers_one")
    methods = [one | {"verdict": one["verdict"] and one["verdict"] | {"word": ""}} for one in comparison["methods"]]
    few = comparison | {"methods": methods}
    text = readme(few)
    assert "**Not known yet: no method has 3 published seeds.**" in text
    value = format_number(methods[1]["differences"]["AP"]["value"], signed=True)
    assert f"| LS | {value} | no verdict with fewer than 3 seeds |" in text
    assert "; ALS (all) no verdict with fewer than 3 seeds (" in readme(comparison, others={"Elsewhere": few})
    assert "](docs/answer.svg)" not in text
    assert answer_figure(comparison | {"methods": methods}) == ""
    methods = [one for one in comparison["methods"] if one["label"] != "ALS (all)"]
    text = readme(comparison | {"methods": methods})
    assert "**Not known yet: LS cannot be distinguished from hard labels on the drawn images measured here. " in text
    assert "Hard labels (CE) stay the cheap default: no other method has shown a better detector here.**" in text
    assert "Even no pretraining" not in text
    ls = methods[1]["differences"]["AP"]
    assert f"Those of undecided methods extend ±{(ls['high'] - ls['low']) / 2:.3f} on average." in text
    assert text.endswith(f"with at least three seeds; the numbers above suggest that you need more. {END} after")
    control = methods[1] | {"label": "none", "method": "random"}
    control["differences"] = control["differences"] | {"AP": ls | {"value": -0.05, "low": -0.09, "high": -0.01}}
    text = readme(comparison | {"methods": [*methods, control]}).replace(MINUS, "-")
    said = "| no pretraining | -0.050 [-0.090, -0.010] | not distinguishable after the correction for several methods |"
    assert said in text
    assert "Even no pretraining is not told from hard labels yet" in text
    control["verdict"] = control["verdict"] | {"word": ""}
    text = readme(comparison | {"methods": [*methods, control]}).replace(MINUS, "-")
    assert "| no pretraining | -0.050 | no verdict with fewer than 3 seeds | |" in text
    methods = [one | {"verdict": one["verdict"] and one["verdict"] | {"word": "worse"}} for one in methods]
    text = readme(comparison | {"methods": methods})
    assert "**Not at our scale: none of LS is better than hard labels (CE).**" in text
    methods[1] = methods[1] | {"label": "A", "verdict": methods[1]["verdict"] | {"word": "not distinguishable"}}
    other = methods[1] | {"label": "B", "verdict": methods[1]["verdict"] | {"word": "worse"}}
    text = readme(comparison | {"methods": [*methods, other]})
    assert "**Not known yet: A cannot be distinguished from hard labels on the drawn images" in text
    assert "; not better: B. Hard labels (CE) stay" in text
    assert "No results are published yet." in readme(None)
    assert answer_figure(None) == ""
    with pytest.raises(InputError, match=r"README.md: must contain"):
        answer_text("no marks", None, (), Beside())


def test_better_means_lower_where_lower_is_better():
    claim = Claim("P", "T", "c", Trial("s", "A", "nll", "lower"), limits="l")
    assert judge_claim(claim, entry("better", -0.1, -0.2, -0.05, metric="nll")).answer == "as claimed"


@pytest.mark.parametrize("metric", ["AP", "nll"])
def test_too_few_seeds_decide_nothing_and_show_no_interval(metric):
    """Also if the number that decides has seeds enough, and only the claim's own lacks some, on either side."""
    claim = Claim("P", "T", "c", Trial("s", "A", metric, "higher"), limits="l")
    for seeds in ((2, 3), (1, 3), (3, 2), (3, 1)):
        for word in ("", "better"):
            found = judge_claim(claim, entry(word, 0.1, 0.05, 0.15, seeds=seeds))
            assert found == Outcome("not decided", "fewer than 3 seeds")


def test_identical_detections_decide_nothing():
    claim = Claim("P", "T", "c", Trial("s", "A", "AP", "higher"), limits="l")
    found = judge_claim(claim, entry("identical", 0.0, None, None))
    assert (found.answer, found.word, found.difference["value"]) == ("not decided", "identical", 0.0)


STUDIED = "CE of A is lower than that of B"


def study(folder, verdict="appeared", se=0.02, command=()):
    """Write the numbers of a synthetic study with one direction, with a difference of -0.05."""
    direction = {"statement": STUDIED, "difference": -0.05, "se": se, "published": -0.1, "verdict": verdict}
    numbers = {"directions": [direction], "replicates": 7, "environment": {"command": ["gaussian_study.py", *command]}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "numbers.json").write_text(json.dumps(numbers))
    return numbers


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [(APPEARED, "as claimed"), (OPPOSITE, "opposite"), (UNDECIDED, "not decided")],
)
def test_a_direction_of_the_study_answers_a_claim(tmp_path, verdict, answer):
    claim = Claim("P", "T", "c", None, limits="l", study=STUDIED)
    found = judge_by_study(claim, study(tmp_path, verdict))
    low, high = -0.05 - ERRORS * 0.02, -0.05 + ERRORS * 0.02
    assert (found.answer, found.word, found.exploratory) == (answer, verdict, False)
    assert found.difference == {"value": -0.05, "low": pytest.approx(low), "high": pytest.approx(high)}
    assert judge_by_study(claim, None) == Outcome("not tested")
    single = judge_by_study(claim, study(tmp_path, "not decided", se=None))
    assert single.difference == {"value": -0.05, "low": None, "high": None}
    with pytest.raises(InputError, match="no direction 'CE of A is higher than that of B'; did you mean"):
        judge_by_study(replace(claim, study="CE of A is higher than that of B"), study(tmp_path))


def test_the_study_is_published_with_its_counts(load_tool, published, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(published, root)
    claims = root / "docs" / "claims.yaml"
    claims.write_text(claims.read_text().replace("untested: Needs other data.", f"study: {STUDIED}, limits: Small."))
    tool = load_tool("publish").main
    with pytest.raises(InputError, match=r"numbers.json does not exist; run tools/gaussian_study.py"):
        tool(["--root", str(root), "--study", str(tmp_path / "gaussian")])
    study(tmp_path / "gaussian", command=["--quick"])
    with pytest.raises(InputError, match="is a preview"):
        tool(["--root", str(root), "--study", str(tmp_path / "gaussian")])
    assert tool(["--root", str(root)]) == 0
    assert "Not run yet: `gaussian_study`. Small. |" in (root / "docs" / "claims.md").read_text()
    study(tmp_path / "gaussian", command=["--output-dir", str(tmp_path / "gaussian")])
    assert tool(["--root", str(root), "--study", str(tmp_path / "gaussian")]) == 0
    kept = (root / "docs" / "results" / "gaussian_study" / "numbers.json").read_text()
    assert "OUTPUT_DIR" in kept
    assert str(tmp_path) not in kept
    claimed, text = ((root / "docs" / name).read_text().replace(MINUS, "-") for name in ("claims.md", "results.md"))
    assert f"| `gaussian_study`: {STUDIED} | -0.050 [-0.090, -0.010] | appeared | as claimed | Small. |" in claimed
    assert "with 7 replicates" in text
    assert "1 published differences: 1 appeared, 0 are opposite, 0 could not be decided." in text
    assert f"| {STUDIED} | appeared | -0.050 [-0.090, -0.010] | -0.100 |" in text


def test_a_claim_without_results_is_not_tested():
    claim = Claim("P", "T", "c", Trial("s", "A", "AP", "higher"), limits="l")
    assert judge_claim(claim, None) == Outcome("not tested")
    assert Questions({}, {}, [claim]).baselines("s") == [""]
    with pytest.raises(InputError, match="s has no row 'A'"):
        judge_claim(claim, {"methods": [{"label": "B"}], "primary": "AP"})
    assert judge_claim(claim, {"methods": [], "primary": "AP"}).answer == "not decided"  # one seed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("metric: AP,", "metric: APP,"), "claim 1: test: unknown metric 'APP'"),
        (("expect: higher", "expect: more"), "claim 1: test: unknown expect 'more'"),
        (("suite: answers_one", "suite: answers_two"), "claim 1: test: unknown suite 'answers_two'"),
        (("untested: Needs other data.", "limits: none"), "claim 3: give `test` or `study`, or `untested`"),
        (("    limits: Few images.\n", ""), "claim 1: `limits` is missing"),
        (("place: Table 1", "plaze: Table 1"), "claim 1: unknown key 'plaze'; did you mean 'place'"),
        (("    place: Table 1\n", ""), "claim 1: `place` is missing"),
        (("row: ALS (all),", ""), "claim 1: test: `row` is missing"),
        (("test: {suite", "test: [suite, {suite"), "claims.yaml"),
        (("papers: {ALS: A title}", ""), "`papers` is missing"),
        (("place: Table 1", "place: Table 1\n    own: maybe"), "claim 1: `own` is 'maybe'; it must be true or false"),
    ],
)
def test_claims_that_cannot_be_meant_are_refused(tmp_path, change, message):
    (tmp_path / "claims.yaml").write_text(CLAIM.replace(change[0], change[1], 1))
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        read_claims(tmp_path / "claims.yaml")


def test_rank_correlation_is_spearmans_with_the_spread_of_methods():
    rng = np.random.default_rng(0)
    rows = []
    for label in "ABCDEF":
        level = rng.normal()
        for _ in range(4):
            ap = level + rng.normal(0, 0.1)
            rows.append({"label": label, "metrics": {"AP": ap, "top1": np.exp(ap), "nll": rng.normal(), "ece15": None}})
    found = {one.metric: one for one in correlate(rows, ["nll", "top1", "ece15"])}
    assert list(found) == ["top1", "nll"]  # strongest first; ece15 is not known
    assert found["top1"].value == pytest.approx(1)
    nll, ap = ([row["metrics"][name] for row in rows] for name in ("nll", "AP"))
    assert found["nll"].value == pytest.approx(stats.spearmanr(nll, ap).statistic)
    assert found["nll"].low < found["nll"].value < found["nll"].high
    assert (found["nll"].backbones, found["nll"].methods) == (24, 6)
    assert correlate(rows[:8], ["nll"]) == []  # two methods


def test_the_tool_refuses_an_outdated_page(load_tool, published, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(published, root)
    tool = load_tool("publish").main
    assert tool(["--root", str(root)]) == 0
    assert tool(["--root", str(root), "--check"]) == 0
    page = root / "docs" / "claims.md"
    page.write_text(page.read_text().replace("as claimed", "wonderful"))
    with pytest.raises(InputError, match=r"docs/claims.md is not up to date; run python tools/publish.py"):
        tool(["--root", str(root), "--check"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["suite.yaml"], "give the output folder of the suite, too"),
        (["--numbers-only", "--study", "runs/gaussian"], "--numbers-only is for a suite"),
        (["--check", "--study", "runs/gaussian"], "--check publishes nothing"),
    ],
)
def test_the_tool_refuses_what_it_would_ignore(load_tool, capsys, given, said):
    with pytest.raises(SystemExit):
        load_tool("publish").main(given)
    assert said in capsys.readouterr().err


def test_the_published_files_name_no_folder_of_a_machine():
    found = Path(__file__).parents[1] / "docs" / "results"
    named = re.compile(r"""(?<![\w./])/(?:root|home|Users|work|mnt|tmp|data|scratch|opt)/[^"'\s]*""")
    texts = [path for path in found.rglob("*") if path.suffix in (".json", ".yaml", ".md", ".html")]
    assert len(texts) > 1
    assert {str(path): named.findall(path.read_text()) for path in texts if named.search(path.read_text())} == {}


def test_the_pages_of_the_project_are_those_of_its_files(load_tool):
    assert load_tool("publish").main(["--check"]) == 0
