"""tools/compare.py on result folders: joining rows, pairing, and what is refused."""

import json
import re

import numpy as np
import pytest
import yaml
from helpers.coco_scenes import scene
from helpers.result_folders import METRIC_NAMES, add, add_detection, add_suite, backbone, compare_runs

import detection.config
from backbones.core.errors import InputError
from backbones.core.results import BackboneIdentity, load_results, save_results
from comparison.rows import collect_rows
from comparison.summary import build_comparison
from comparison.tables.terminal import terminal_table
from detection.config import protocol_hash


@pytest.fixture
def runs(tmp_path):
    return add_suite(tmp_path / "runs")


# ---- comparison.json ----------------------------------------------------------------------------------------------


def test_rows_are_joined_over_stages_and_compared_with_ce(runs, tmp_path):
    comparison = compare_runs(runs, tmp_path / "out")
    assert comparison["schema_version"] == 1
    assert comparison["baseline"] == "CE"
    rows = {row["label"]: row for row in comparison["rows"]}
    assert list(rows) == ["random", "CE", "ALS", "LS"] or list(rows) == ["random", "CE", "LS", "ALS"]
    assert all(list(row["metrics"]) == METRIC_NAMES for row in rows.values())
    assert rows["random"]["method"] == "random"
    assert rows["CE"]["protocol"] == "det@1"
    # The measure of the backbone overrules the number of the pretraining; what only that has is kept; NaN is null.
    assert (rows["CE"]["metrics"]["top1"], rows["CE"]["metrics"]["nll"]) == (0.9, 0.5)
    assert rows["CE"]["metrics"]["ece15"] is None
    assert rows["ALS"]["metrics"]["pointing"] is None
    assert rows["random"]["metrics"]["top1"] is None


def test_differences_are_row_minus_baseline_with_a_paired_interval(runs, tmp_path):
    rows = {row["label"]: row for row in compare_runs(runs, tmp_path / "out")["rows"]}
    for label, row in rows.items():
        for name in ("AP", "APs", "AR100"):
            difference = row["difference_to_baseline"][name]
            expected = row["metrics"][name] - rows["CE"]["metrics"][name]
            assert difference["value"] == pytest.approx(expected, abs=1e-9)
            assert difference["low"] <= difference["high"]
        if label in ("CE", "LS"):  # LS has CE's detections
            assert row["difference_to_baseline"]["AP"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert rows["random"]["difference_to_baseline"]["AP"]["value"] < 0
    assert rows["LS"]["difference_to_baseline"]["top1"]["value"] == pytest.approx(0.02)
    assert rows["LS"]["difference_to_baseline"]["top1"]["low"] is None
    assert rows["random"]["difference_to_baseline"]["top1"]["value"] is None
    for row in rows.values():
        ap = row["intervals"]["AP"]
        assert ap["low"] <= ap["value"] <= ap["high"]


def test_without_a_ce_row_there_are_no_differences(runs, tmp_path):
    roots = [path for path in runs.iterdir() if not path.name.startswith("CE")]
    comparison = build_comparison(collect_rows(roots), resamples=5)
    assert comparison["baseline"] is None
    assert all(row["difference_to_baseline"] is None for row in comparison["rows"])
    assert any("No baseline" in note for note in comparison["notes"])
    named = build_comparison(collect_rows(roots), baseline="LS", resamples=5)
    assert named["baseline"] == "LS"
    with pytest.raises(InputError, match="did you mean 'ALS'"):
        build_comparison(collect_rows(roots), baseline="ASL", resamples=5)


def test_seeds_are_paired_and_averaged(tmp_path):
    root = tmp_path / "runs"
    for seed, tops in enumerate([(0.5, 0.6), (0.7, 0.9)]):
        for label, top1 in zip(("CE", "ALS"), tops, strict=True):
            who = backbone(label, seed=seed)
            add(root, "backbone", who, {"top1": top1})
            add_detection(root, who, 0.9 - 0.2 * seed)
    comparison = compare_runs(root, tmp_path / "out")
    als = [row for row in comparison["rows"] if row["label"] == "ALS"]
    assert [row["difference_to_baseline"]["top1"]["value"] for row in als] == pytest.approx([0.1, 0.2])
    assert [row["name"] for row in als] == ["ALS (seed 0)", "ALS (seed 1)"]
    method = next(m for m in comparison["methods"] if m["label"] == "ALS")
    assert method["seeds"] == [0, 1]
    assert method["metrics"]["top1"]["mean"] == pytest.approx(0.75)
    assert method["metrics"]["top1"]["deviation"] == pytest.approx(0.3 / np.sqrt(2))
    assert not any("One seed" in note for note in comparison["notes"])
    assert "2 seeds each" in (tmp_path / "out" / "index.html").read_text()


# ---- protocols and duplicates -------------------------------------------------------------------------------------


def test_mixed_protocols_are_refused_unless_allowed(runs, tmp_path):
    add_detection(runs, backbone("CE"), 0.5, protocol="other@2")
    add_detection(runs, backbone("ALS"), 0.4, protocol="other@2")
    with pytest.raises(InputError, match=r"(det@1.*other@2|other@2.*det@1).*--allow-mixed-protocols"):
        compare_runs(runs, tmp_path / "out")
    comparison = compare_runs(runs, tmp_path / "out", "--allow-mixed-protocols")
    assert any("not comparable" in note for note in comparison["notes"])
    assert "not comparable" in (tmp_path / "out" / "index.html").read_text()
    rows = {(row["label"], row["protocol"]): row for row in comparison["rows"]}
    assert len(rows) == 6
    for protocol in ("det@1", "other@2"):  # each within its own protocol
        als, ce = rows["ALS", protocol], rows["CE", protocol]
        expected = als["metrics"]["AP"] - ce["metrics"]["AP"]
        assert als["difference_to_baseline"]["AP"]["value"] == pytest.approx(expected)


def test_sizes_by_box_and_by_segmentation_are_told_apart(runs, tmp_path):
    for label, name, area in (("CE", "voc_2007_test", "box"), ("LS", "coco_2017_val", "segmentation")):
        data = {"test": {"name": name, "area": area}}
        add_detection(runs, backbone(label), 0.5, protocol=f"{area}@2", data=data)
        notes = compare_runs(runs, tmp_path / label, "--allow-mixed-protocols")["notes"]
        says = [note for note in notes if "the box (voc_2007_test), the segmentation (coco_2017_val)" in note]
        assert len(says) == (label == "LS")


def test_voc_numbers_stand_beside_cocos_under_their_own_title(tmp_path):
    for label, value in (("CE", 0.7), ("ALS", 0.75)):
        folder = add_detection(tmp_path / "runs", backbone(label), 0.8)
        metrics = load_results(folder)["metrics"] | {"VOC_mAP50": value, "VOC_mAP50_11": value - 0.01}
        add(tmp_path / "runs", "detection", backbone(label), metrics, protocol="det@1")
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out")
    als = next(row for row in comparison["rows"] if row["label"] == "ALS")
    assert als["difference_to_baseline"]["VOC_mAP50"]["value"] == pytest.approx(0.05)
    assert als["metrics"]["AP50"] != als["metrics"]["VOC_mAP50"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert re.search(r'colspan="2">Detection after fine-tuning, by Pascal VOC', page)
    assert "The backbone alone" not in page  # a detector's numbers are none of the classifier
    assert "VOC mAP50, 11-pt" in (tmp_path / "out" / "comparison.md").read_text()


def test_backbones_measured_in_two_ways_are_refused(runs, tmp_path):
    add(runs, "backbone", backbone("OLS"), {"top1": 0.5}, protocol="other@2")
    with pytest.raises(InputError, match="two backbone protocols"):
        compare_runs(runs, tmp_path / "out")


def test_two_results_of_one_stage_are_named(runs, tmp_path):
    add(runs, "backbone", backbone("CE"), {"top1": 0.5}, folder="again")
    with pytest.raises(InputError, match=r"two backbone results of backbone CE .*again"):
        compare_runs(runs, tmp_path / "out")


def test_the_same_folder_twice_is_read_once(runs):
    assert len(collect_rows([runs, runs, runs / "CE-0-backbone-p@1"])) == 4


def test_different_images_are_refused(runs, tmp_path):
    truth, _ = scene(21, images=10)
    truth["images"].append({"id": 99999, "width": 9, "height": 9})
    add_detection(runs, backbone("OLS"), 0.5, truth=truth)
    with pytest.raises(InputError, match="differ in 1 images"):
        compare_runs(runs, tmp_path / "out")


def test_two_baselines_of_a_seed_must_be_told_apart(runs):
    who = BackboneIdentity("CE-long", "CE", 0, "another")
    add_detection(runs, who, 0.5)
    with pytest.raises(InputError, match=r"CE in .*, CE-long in .*--baseline"):
        build_comparison(collect_rows([runs]), resamples=2)
    assert build_comparison(collect_rows([runs]), baseline="CE-long", resamples=2)["baseline"] == "CE-long"


# ---- what makes two protocols ---------------------------------------------------------------------------------------


def add_protocol(root, label, protocol, keep=0.5, *, engine="torchvision", test="coco_2017_val", settings=None):
    """A detection result with what names its protocol, and its config beside it."""
    folder = add_detection(root, backbone(label), keep, protocol=protocol, data={"test": {"name": test}})
    results = json.loads((folder / "results.json").read_text())
    results["details"]["engine"] = engine
    (folder / "results.json").write_text(json.dumps(results))
    config = {"ENGINE": engine, "LABEL": label, "SEED": 3, "SOLVER": {"MAX_ITER": 90000} | (settings or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("other", "options", "unlike"),
    [
        ("syncbn@2", {"settings": {"MAX_ITER": 180000}}, "SOLVER.MAX_ITER (90000, 180000)"),
        ("frozenbn@2", {"settings": {"MAX_ITER": 180000}}, "SOLVER.MAX_ITER (90000, 180000)"),
        ("frozenbn@2", {"engine": "detectron2"}, "ENGINE (torchvision, detectron2)"),
        ("frozenbn@2", {"test": "bccd_test"}, "test.name (coco_2017_val, bccd_test)"),
    ],
)
def test_two_protocols_are_two_sections_or_refused(tmp_path, other, options, unlike):
    for label, keep in (("CE", 0.8), ("ALS", 0.9)):
        add_protocol(tmp_path / "runs", label, "frozenbn@1", keep)
        add_protocol(tmp_path / "runs", label, other, keep - 0.2, **options)
    with pytest.raises(InputError) as refused:
        compare_runs(tmp_path / "runs", tmp_path / "out")
    for text in ("frozenbn@1", other, f"which differ in {unlike}:", "--allow-mixed-protocols"):
        assert text in str(refused.value)
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out", "--allow-mixed-protocols")
    assert f"Rows of several protocols (frozenbn@1, {other})" in comparison["notes"][0]
    called_out = [
        note for note in comparison["notes"] if "The name 'frozenbn' stands for 2 detection protocols" in note
    ]
    assert [f"1 and 2, which differ in {unlike}" in note for note in called_out] == (
        [True] if "frozenbn" in other else []
    )
    texts = [(tmp_path / "out" / name).read_text() for name in ("comparison.md", "index.html")]
    texts.append(terminal_table(comparison))
    names = ["frozenbn@1", other]
    if "frozenbn" in other:  # both by what differs
        key, *values = unlike.replace("(", "").replace(")", "").replace(",", "").split()
        names = [f"frozenbn, {key} {value}@{number}" for number, value in enumerate(values, 1)]
    assert {row["protocol"] for row in comparison["rows"]} == {*names}
    headings = [{f"## {name}" for name in names}, {*names}, {f"protocol: {name}" for name in names}]
    for text, wanted in zip(texts, headings, strict=True):
        assert "numbers of different protocols are not comparable" in " ".join(text.split())
        assert all(heading in text for heading in wanted)
    sections = texts[0].split("\n## ")[1:]
    assert len(sections) == 2
    assert all(section.count("| AP ↑ |") == 1 for section in sections)  # each its own table


@pytest.mark.parametrize(
    ("stated", "unlike"),
    [
        ("both", "SOLVER.MAX_ITER (3, 5)"),  # by the results alone
        ("one", "SOLVER.MAX_ITER (3, 5)"),  # the other's config is read for the keys that the hash covers
        ("none", "SEED (0, 1) and SOLVER.MAX_ITER (3, 5)"),  # of an earlier version: any key may be what differs
    ],
)
def test_results_name_the_settings_of_their_protocol(tmp_path, stated, unlike):
    for n, (protocol, iterations) in enumerate((("a@1", 3), ("a@2", 5))):
        folder = add_detection(tmp_path, backbone("CE"), 0.5, protocol=protocol)
        results = json.loads((folder / "results.json").read_text())
        if stated == "both" or (stated == "one" and n == 0):
            results["protocol"]["settings"] = {"SOLVER.MAX_ITER": iterations, "SOLVER.STEPS": [1]}
        save_results(folder, results)
        if stated != "both":
            config = {"SEED": n, "SOLVER": {"MAX_ITER": iterations, "STEPS": [1]}}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError) as refused:
        compare_runs(tmp_path, tmp_path / "out")
    assert f", which differ in {unlike}: their numbers" in str(refused.value)


@pytest.mark.parametrize(("stated", "unlike"), [((0, 1), "which differ in crop (64, 224): their"), ((1,), "")])
def test_settings_that_one_measure_does_not_state_are_not_differences(tmp_path, stated, unlike):
    """Measures have no config file beside them: of results before version 0.4 nothing is known."""
    for n, (label, protocol, crop) in enumerate((("CE", "p@1", 64), ("OLS", "p@2", 224))):
        folder = add(tmp_path / "runs", "backbone", backbone(label), {"top1": 0.5}, protocol=protocol)
        results = json.loads((folder / "results.json").read_text())
        results["protocol"] |= {"settings": {"crop": crop, "mean": [0.5]}} if n in stated else {}
        save_results(folder, results)
    with pytest.raises(InputError) as refused:
        compare_runs(tmp_path / "runs", tmp_path / "out")
    assert unlike in str(refused.value)
    assert ("which differ" in str(refused.value)) == bool(unlike)


def test_engine_and_test_set_are_a_part_of_the_hash():
    cfg = detection.config.get_defaults()
    other = detection.config.get_defaults()
    other.ENGINE = "detectron2"
    hashes = {
        protocol_hash(cfg, "train", "test"),
        protocol_hash(other, "train", "test"),
        protocol_hash(cfg, "train", "t"),
    }
    assert len(hashes) == 3


def test_measures_of_several_protocols_are_called_out_too(runs, tmp_path):
    add(runs, "backbone", backbone("OLS"), {"top1": 0.5}, protocol="other@2")
    comparison = compare_runs(runs, tmp_path / "out", "--allow-mixed-protocols")
    assert any(
        note.startswith("The backbone measures are those of several protocols (p@1, other@2)")
        or note.startswith("The backbone measures are those of several protocols (other@2, p@1)")
        for note in comparison["notes"]
    )


def test_pretrainings_validated_on_other_data_show_no_accuracy(tmp_path):
    for label, name in (("CE", "imagenet_xml"), ("ALS", "open_images")):
        data = {"train": {"name": "anything"}, "val": {"name": name}}
        add(tmp_path / "runs", "pretraining", backbone(label), {"top1": 0.7}, protocol=f"{name}@1", data=data)
        add_detection(tmp_path / "runs", backbone(label), 0.5)
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out")
    assert "validated on several data sets (imagenet_xml, open_images)" in comparison["notes"][0]
    assert all(row["metrics"]["top1"] is None and row["metrics"]["AP"] > 0 for row in comparison["rows"])
    add(tmp_path / "same", "pretraining", backbone("CE"), {"top1": 0.7}, data={"val": {"name": "imagenet_xml"}})
    assert compare_runs(tmp_path / "same", tmp_path / "out")["rows"][0]["metrics"]["top1"] == 0.7
