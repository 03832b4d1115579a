"""Which rows of a comparison are seeds of one method, several fine-tunings of one backbone, and the commits of rows."""

import csv
import json

import numpy as np
import pytest
import yaml
from helpers.result_folders import add, add_detection, backbone, compare_runs, load_tool

from backbones.core.errors import InputError
from backbones.core.results import BackboneIdentity, random_identity
from comparison.families import find_families
from comparison.ranking.tables import collect_table
from comparison.rows import collect_rows
from comparison.summary import build_comparison
from comparison.tables.formats import short_name
from comparison.tables.terminal import terminal_table
from suites.config import Row
from suites.grid import Grid
from suites.plan import chosen_keys


def change(folder, **blocks):
    """Merge `blocks` into the results in `folder`."""
    path = folder / "results.json"
    results = json.loads(path.read_text())
    for name, block in blocks.items():
        results[name] = {**results.get(name, {}), **block}
    path.write_text(json.dumps(results))
    return folder


def pretrained(root, label, seed, top1, *, method=None, digest=None, details=None, **config):
    """A pretraining with its config; METHOD and others as given."""
    who = BackboneIdentity(label, method or "ALS", seed, digest or f"{label}-{seed}-{top1}")
    folder = add(root, "pretraining", who, {"top1": top1}, folder=f"{who.hash}-pretrain")
    own = {"NAME": who.method, "ALS": {"beta": 0.5}, "LS": {"amount": 0.1}}
    tree = {"SEED": seed, "LABEL": label, "DATA": {"ROOT": f"/data{seed}", "NOISE_RATE": 0.0}, "METHOD": own} | config
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    change(folder, details=details or {})
    return who


def tuned(root, who, keep, seed, **options):
    folder = add_detection(root, who, keep, folder=f"{who.hash}-det{seed}", **options)
    return change(folder, details={"seed": seed})


def methods_of(root, **options):
    comparison = build_comparison(collect_rows([root]), resamples=2, **options)
    return comparison, {(m["label"], m["method"]): m for m in comparison["methods"]}


# ---- labels and settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        ("eps0", "eps1"),
        ("als0", "als1"),
        ("bs0", "bs1"),
        ("loss0", "loss1"),
        ("LS s0", "LS s1"),
        ("x-seed0", "x_seed1"),
    ],
)
def test_a_label_is_never_parsed(tmp_path, labels):
    """Two methods with two seeds each, whose names end as a seed might."""
    numbers = {(labels[0], 0): 0.1, (labels[0], 1): 0.3, (labels[1], 0): 0.5, (labels[1], 1): 0.7}
    for (label, seed), top1 in numbers.items():
        pretrained(tmp_path, label, seed, top1)
    _, methods = methods_of(tmp_path)
    assert {label: m["seeds"] for (label, _), m in methods.items()} == {label: [0, 1] for label in labels}
    means = [methods[label, "ALS"]["metrics"]["top1"]["mean"] for label in labels]
    assert means == pytest.approx([0.2, 0.6])
    table = collect_table([tmp_path], "top1")
    assert dict(zip(table.methods, table.values[0], strict=True)) == pytest.approx(
        dict(zip(labels, means, strict=True))
    )


def test_labels_with_a_seed_of_their_own_are_rows_of_one_seed(tmp_path):
    for seed in (0, 1):
        pretrained(tmp_path, f"CE s{seed}", seed, 0.5, method="CE")
    comparison, methods = methods_of(tmp_path)
    assert methods == {}
    assert any("One seed per method" in note for note in comparison["notes"])


SETTINGS = [
    ({"METHOD": {"NAME": "ALS", "ALS": {"beta": 0.25}, "LS": {"amount": 0.1}}}, r"METHOD\.ALS\.beta \(0\.5, 0\.25\)"),
    ({"DATA": {"ROOT": "/data1", "NOISE_RATE": 0.4}}, r"DATA\.NOISE_RATE \(0\.0, 0\.4\)"),
    ({"SOLVER": {"BASE_LR": 0.5}}, r"SOLVER\.BASE_LR \(unknown, 0\.5\)"),
    ({"EVAL": {"REPORT": "best"}}, r"EVAL\.REPORT \(unknown, best\)"),
]


@pytest.mark.parametrize(("other", "said"), SETTINGS)
def test_rows_of_other_settings_are_no_seeds_of_each_other(tmp_path, other, said):
    pretrained(tmp_path, "ALS", 0, 0.2)
    pretrained(tmp_path, "ALS", 1, 0.8, **other)
    comparison, methods = methods_of(tmp_path)
    assert methods == {}
    (note,) = [note for note in comparison["notes"] if "not seeds of one method" in note]
    np.testing.assert_string_equal(note.split(" differ in ")[0], "Rows labelled 'ALS'")
    with pytest.raises(InputError, match=f"rows labelled ALS differ in {said}; give them different labels"):
        collect_table([tmp_path], "top1")


@pytest.mark.parametrize(
    "other",
    [
        {"METHOD": {"NAME": "ALS", "ALS": {"beta": 0.5}, "LS": {"amount": 0.3}}},  # of another method
        {"TEACHER": {"RUN": "/runs/ce-1"}},  # of the same seed
        {"EVAL": {"PERIOD": 3}, "LOG_PERIOD": 7},
    ],
)
def test_what_differs_between_seeds_by_design(tmp_path, other):
    pretrained(tmp_path, "ALS", 0, 0.2)
    pretrained(tmp_path, "ALS", 1, 0.8, **other)
    _, methods = methods_of(tmp_path)
    assert methods["ALS", "ALS"]["metrics"]["top1"] == {
        "mean": pytest.approx(0.5), "deviation": pytest.approx(0.6 / np.sqrt(2)), "count": 2,
    }  # fmt: skip


def test_what_a_grid_chooses_may_differ_between_seeds(tmp_path):
    """The results of a selection say what it chose; what is trained after one is named by --chosen."""
    block = {"METHOD": {"NAME": "ALS", "ALS": {"beta": 0.25}, "LS": {"amount": 0.1}}}
    for root, details in ((tmp_path / "said", True), (tmp_path / "named", False)):
        selection = {"selection": {"chosen": {"values": {"METHOD.ALS.beta": 0.5}}}} if details else {}
        pretrained(root, "ALS", 0, 0.2, details=selection)
        pretrained(root, "ALS", 1, 0.8, details=selection, **block)
        chosen = [] if details else ["METHOD.ALS.beta"]
        assert methods_of(root, chosen=chosen)[1]["ALS", "ALS"]["seeds"] == [0, 1]
        assert collect_table([root], "top1", chosen).values.tolist() == [[0.5]]
    assert compare_runs(tmp_path / "named", tmp_path / "out", "--chosen", "METHOD.ALS.beta")["methods"]


def test_a_suite_names_what_its_seeds_choose():
    def row(*overrides, grid=()):
        return Row(overrides=overrides, grid=Grid(dict.fromkeys(grid, ("1",))) if grid else None)

    rows = [row("A", "1"), row("A", "{run:CE}", "B", "{chosen:LS:A}", grid=("D", "C")), row("E", "{data:x}")]
    assert chosen_keys(rows) == ["B", "C", "D"]


def test_rows_that_do_not_say_their_settings_go_by_their_label(tmp_path):
    """Detection results alone, as where a backbone was copied; beside two settings they belong to neither."""
    for seed in (0, 1):
        tuned(tmp_path, BackboneIdentity("ALS", "ALS", seed, f"copied-{seed}"), 0.5, seed)
    assert [len(family.rows) for family in find_families(collect_rows([tmp_path]))] == [2]
    who = pretrained(tmp_path, "ALS", 2, 0.5)
    tuned(tmp_path, who, 0.5, 2)
    assert [len(family.rows) for family in find_families(collect_rows([tmp_path]))] == [3]
    who = pretrained(tmp_path, "ALS", 3, 0.6, SOLVER={"BASE_LR": 3.0})
    tuned(tmp_path, who, 0.5, 3)
    assert [len(family.rows) for family in find_families(collect_rows([tmp_path]))] == [2, 1, 1]


def test_twins_of_label_and_seed_are_told_apart(tmp_path):
    pretrained(tmp_path, "ALS", 0, 0.2, digest="aaa")
    pretrained(tmp_path, "ALS", 0, 0.8, digest="bbb")
    comparison, methods = methods_of(tmp_path)
    assert {row["name"] for row in comparison["rows"]} == {"ALS (seed 0, aaa)", "ALS (seed 0, bbb)"}
    assert methods["ALS", "ALS"]["made_of"] == "2 backbones of 1 seed"
    assert any("One seed per method" in note for note in comparison["notes"])


# ---- several fine-tunings of a backbone ---------------------------------------------------------------------------


@pytest.fixture
def fine_tunings(tmp_path):
    """CE and ALS with two pretraining seeds, each fine-tuned with the detector's seeds 5 and 6."""
    for label, shares in (("CE", (0.5, 0.6, 0.7, 0.8)), ("ALS", (0.6, 0.7, 0.9, 1.0))):
        for n, keep in enumerate(shares):
            who = backbone(label, seed=n // 2)
            tuned(tmp_path / "runs", who, keep, 5 + n % 2)
            add(tmp_path / "runs", "backbone", who, {"top1": 0.5 + n // 2 / 10})
    return tmp_path / "runs"


def test_the_detectors_seed_is_a_part_of_the_row(fine_tunings, tmp_path, capsys):
    comparison = compare_runs(fine_tunings, tmp_path / "out")
    assert len(comparison["rows"]) == 8
    rows = {(row["label"], row["seed"], row["detector_seed"]): row for row in comparison["rows"]}
    assert sorted({key[1:] for key in rows}) == [(0, 5), (0, 6), (1, 5), (1, 6)]
    assert rows["ALS", 1, 6]["name"] == "ALS (seed 1, detector seed 6)"
    for seed in (0, 1):
        for detector in (5, 6):  # paired by both seeds
            als, ce = (rows[label, seed, detector]["metrics"]["AP"] for label in ("ALS", "CE"))
            assert rows["ALS", seed, detector]["difference_to_baseline"]["AP"]["value"] == pytest.approx(als - ce)
            assert rows["CE", seed, detector]["is_baseline"]
    table = capsys.readouterr().out
    assert all(f"{label} s{seed} d{detector} " in table for label, seed, detector in rows)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "ALS (seed 1, detector seed 6)" in page
    assert "ALS (seed 1)" in page  # the backbone by itself has no detector's seed
    with (tmp_path / "out" / "comparison.csv").open() as file:
        assert [line["detector_seed"] for line in csv.DictReader(file)] == ["5", "6"] * 4


def test_two_fine_tunings_are_not_two_pretraining_seeds(fine_tunings):
    """Mean over backbones of the mean of their fine-tunings; the deviation is that of the backbones."""
    comparison, methods = methods_of(fine_tunings)
    als = methods["ALS", "ALS"]
    assert (als["seeds"], als["runs"], als["made_of"]) == ([0, 1], 4, "2 seeds x 2 fine-tunings")
    aps = [row["metrics"]["AP"] for row in comparison["rows"] if row["label"] == "ALS"]
    means = np.reshape(aps, (2, 2)).mean(axis=1)
    wanted = {"mean": pytest.approx(means.mean()), "deviation": pytest.approx(means.std(ddof=1)), "count": 2}
    assert als["metrics"]["AP"] == wanted
    assert als["metrics"]["top1"]["deviation"] == pytest.approx(0.1 / np.sqrt(2))
    assert als["difference_to_baseline"]["AP"]["count"] == 2
    assert any(
        "averaged before the mean over seeds: CE (2 seeds x 2 fine-tunings), ALS" in n for n in comparison["notes"]
    )
    assert not any("One seed" in note for note in comparison["notes"])
    table = collect_table([fine_tunings], "AP")
    assert table.values[0][table.methods.index("ALS")] == pytest.approx(means.mean())


def test_one_seed_with_two_fine_tunings_stays_one_seed(tmp_path):
    who = backbone("CE")
    for seed in (0, 1):
        tuned(tmp_path, who, 0.5 + seed / 5, seed)
    comparison, methods = methods_of(tmp_path)
    assert [row["name"] for row in comparison["rows"]] == ["CE (detector seed 0)", "CE (detector seed 1)"]
    assert methods["CE", "CE"]["made_of"] == "1 seed x 2 fine-tunings"
    assert methods["CE", "CE"]["metrics"]["AP"]["deviation"] is None
    assert any("One seed per method" in note for note in comparison["notes"])


def test_a_yolo_that_is_told_apart_by_its_labels_counts_its_backbone_once(tmp_path):
    """Its row's hash holds the class labels and the seed; backbone_hash is that of the weights."""
    for seed in (0, 1):
        who = BackboneIdentity("CE, OLS labels", "CE+OLS", 0, f"abc-labels-{seed}")
        change(tuned(tmp_path, who, 0.5, seed), details={"backbone_hash": "abc", "class_labels": {"name": "OLS"}})
    _, methods = methods_of(tmp_path)
    assert methods["CE, OLS labels", "CE+OLS"]["made_of"] == "1 seed x 2 fine-tunings"


def test_a_row_without_a_twin_of_its_detector_seed_takes_the_first_baseline_and_says_so(tmp_path):
    for seed in (1, 2):
        tuned(tmp_path, backbone("CE"), 0.5 + seed / 10, seed)
    tuned(tmp_path, backbone("ALS"), 0.9, 7)
    comparison, _ = methods_of(tmp_path)
    rows = {(row["label"], row["detector_seed"]): row for row in comparison["rows"]}
    difference = rows["ALS", 7]["metrics"]["AP"] - rows["CE", 1]["metrics"]["AP"]
    assert rows["ALS", 7]["difference_to_baseline"]["AP"]["value"] == pytest.approx(difference)
    assert "Compared with a baseline of another detector seed: ALS." in comparison["notes"]


def test_the_same_fine_tuning_twice_is_refused(tmp_path):
    tuned(tmp_path / "a", backbone("CE"), 0.5, 3)
    tuned(tmp_path / "b", backbone("CE"), 0.6, 3)
    with pytest.raises(InputError, match=r"two detection results of backbone CE .*detector's seed 3: .*give only one"):
        collect_rows([tmp_path])


def test_two_backbones_that_could_be_the_baseline_are_refused_whatever_their_detectors_seed(tmp_path):
    tuned(tmp_path, BackboneIdentity("CE", "CE", 0, "one"), 0.5, 0)
    tuned(tmp_path, BackboneIdentity("CE-long", "CE", 0, "two"), 0.5, 1)
    tuned(tmp_path, backbone("ALS"), 0.5, 0)
    with pytest.raises(InputError, match=r"several rows could be the baseline of ALS"):
        build_comparison(collect_rows([tmp_path]), resamples=2)


def test_short_names_keep_what_tells_rows_apart():
    row = {"label": "a label of many letters", "name": "a label of many letters (seed 10, detector seed 2)"}
    assert short_name(row, 16) == "a label … s10 d2"
    assert short_name(row, 40) == "a label of many letters s10 d2"
    assert short_name({"label": "CE", "name": "CE (seed 1)"}, 16) == "CE (seed 1)"


# ---- evaluations of other sets ------------------------------------------------------------------------------------


def test_evaluations_on_other_sets_count_where_they_are_named(tmp_path, capsys):
    root = tmp_path / "runs"
    for label in ("CE", "ALS"):
        run = tuned(root, backbone(label), 0.5, 0)
        other = tuned(run, backbone(label), 0.8, 0, protocol="other@2")
        change(other.rename(run / "evaluation-b"), details={"evaluation_of": {"run": run.name, "changed": {}}})
    comparison = compare_runs(root, tmp_path / "out")
    assert [row["protocol"] for row in comparison["rows"]] == ["det@1"] * 2
    (note,) = [note for note in comparison["notes"] if note.startswith("Left out")]
    assert note.count("evaluation-b") == 2
    named = sorted(root.glob("*/evaluation-b"))
    assert load_tool().main([*map(str, named), "--output-dir", str(tmp_path / "b"), "--resamples", "2"]) == 0
    rows = json.loads((tmp_path / "b" / "comparison.json").read_text())["rows"]
    assert [row["protocol"] for row in rows] == ["other@2"] * 2
    with pytest.raises(InputError, match="two detection protocols"):
        collect_rows([root, *named])
    assert len(collect_rows([root, named[0] / "results.json"], allow_mixed_protocols=True)) == 3
    alone = tmp_path / "alone"
    alone.mkdir()
    named[0].rename(alone / "evaluation-b")
    with pytest.raises(InputError, match=r"only evaluations on other data sets found, such as .*evaluation-b; give"):
        collect_rows([alone])


def test_one_data_set_under_two_names_is_not_said_to_differ(tmp_path):
    """A protocol's difference is named by what it is, not by the place of the data."""
    for label, place, hashed in (("CE", "here_val", "1"), ("ALS", "there_val", "2")):
        data = {"test": {"name": place, "fingerprint": "abc"}}
        folder = tuned(tmp_path, backbone(label), 0.5, 0, protocol=f"det@{hashed}", data=data)
        config = {"DATASETS": {"TEST": [f"coco:/{place}"]}, "SOLVER": {"MAX_ITER": int(hashed)}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"which differ in SOLVER\.MAX_ITER \(1, 2\):"):
        collect_rows([tmp_path])


# ---- commits ------------------------------------------------------------------------------------------------------


@pytest.fixture
def commits(tmp_path):
    """random, CE, LS by one commit, ALS by another, OLS by a modified one, BAN by an unknown one."""
    root = tmp_path / "runs"
    by = {"random": "a" * 40, "CE": "a" * 40, "LS": "a" * 40, "ALS": "b" * 40, "OLS": "a" * 40, "BAN": None}
    for label, commit in by.items():
        who = random_identity(0) if label == "random" else backbone(label)
        folder = tuned(root, who, 0.5, 0)
        change(folder, code={"version": "1", "commit": commit, "modified": label == "OLS"})
    return root


def test_rows_of_other_commits_are_marked(commits, tmp_path, capsys):
    comparison = compare_runs(commits, tmp_path / "out")
    rows = {row["label"]: row for row in comparison["rows"]}
    assert {label for label, row in rows.items() if row["other_commit"]} == {"ALS", "OLS"}
    assert rows["OLS"]["stages"]["detection"]["commit"] == "aaaaaaaaaaaa (modified)"
    assert rows["BAN"]["stages"]["detection"]["commit"] is None
    (note,) = [note for note in comparison["notes"] if "different commits" in note]
    assert "aaaaaaaaaaaa: random, CE, LS" in note
    assert "bbbbbbbbbbbb: ALS" in note
    assert "The commit of the code is unknown for BAN." in comparison["notes"]
    page = (tmp_path / "out" / "index.html").read_text()
    for text in (capsys.readouterr().out, (tmp_path / "out" / "comparison.md").read_text(), page):
        assert "ALS ‡" in text
        assert "CE ‡" not in text
        assert "different commits" in " ".join(text.split())
    assert "aaaaaaaaaaaa (modified)" in page


def test_files_of_an_earlier_version_name_no_commit_and_are_not_marked(tmp_path):
    for label in ("CE", "ALS"):
        folder = tuned(tmp_path / "runs", backbone(label), 0.5, 0)
        results = json.loads((folder / "results.json").read_text())
        del results["code"]
        (folder / "results.json").write_text(json.dumps(results))
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out")
    assert not any("commit" in note for note in comparison["notes"])
    assert "‡" not in terminal_table(comparison)
