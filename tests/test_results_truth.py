"""Beside runs, results files are evaluated on the ground truth as the runs read it; alone, as pycocotools does."""

import json

import pytest
from helpers.coco_scenes import pycocotools_numbers
from helpers.detection_files import WIDTH, write_coco
from helpers.result_folders import backbone, load_tool

from backbones.core.errors import InputError
from backbones.core.results import load_results, make_results, save_results
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import load_data
from detection.drawing.results import read_scenes
from detection.evaluation.evaluators import measure
from detection.evaluation.foreign import TestSet


def set_box(tree, n, box):
    tree["annotations"][n] |= {"bbox": box, "area": abs(box[2] * box[3])}


def clip(tree):
    """Two boxes of six extend beyond the border, by more than half of them."""
    set_box(tree, 0, [-30, -20, 50, 50])
    set_box(tree, 3, [70, 40, 60, 60])


def drop(tree):
    """Boxes that are empty, of negative width, and outside."""
    set_box(tree, 1, [50, 15, 0, 18])
    set_box(tree, 2, [WIDTH + 10, 5, 20, 20])
    set_box(tree, 5, [60, 37, -3, 26])


def add_root(tree):
    tree["categories"] = [{**one, "supercategory": "red"} for one in tree["categories"]]
    tree["categories"].insert(0, {"id": 0, "name": "red", "supercategory": "none"})


def change_all(tree):
    clip(tree)
    set_box(tree, 5, [60, 37, 0, 26])
    add_root(tree)


CHANGES = {
    "clipped": (clip, {"box clipped to the image, as in the runs": 2}),
    "dropped": (drop, {"empty box dropped, as in the runs": 3}),
    "root": (add_root, {"category ignored, as in the runs": 1}),
    "all": (
        change_all,
        {
            "box clipped to the image, as in the runs": 2,
            "empty box dropped, as in the runs": 1,
            "category ignored, as in the runs": 1,
        },
    ),
    "none": (lambda tree: None, {}),
}


@pytest.fixture
def files(tmp_path):
    """Write a data set after `change`, a run of ours with perfect detections, and these as a results file."""

    def write(change):
        name = write_coco(tmp_path / "data", change)
        data = load_data([name], "", WarningCounter())
        keys = ("image_id", "category_id", "bbox")
        found = [{key: one[key] for key in keys} | {"score": 0.9} for one in data.to_coco()["annotations"]]
        run = tmp_path / "runs" / "CE"
        measured = measure(data, found, 0.05, run / "matches.npz")
        protocol = {"name": "det", "hash": "1"}
        save_results(run, make_results("detection", backbone("CE"), protocol, measured.metrics))
        assert measured.metrics["AP"] == 1
        (tmp_path / "found.json").write_text(json.dumps(found))
        return run, tmp_path / "data" / "ann.json", found

    return write


def compare(tmp_path, *arguments):
    command = [*map(str, arguments), "--output-dir", str(tmp_path / "out"), "--resamples", "30"]
    assert load_tool().main(command) == 0
    return {row["label"]: row for row in json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]}


@pytest.mark.parametrize("case", CHANGES)
def test_the_test_set_of_a_run_is_read_as_the_run_reads_it(tmp_path, files, case):
    """Equal detections have equal numbers, and what differs from the file is counted."""
    change, counted = CHANGES[case]
    run, truth, _ = files(change)
    given = ("--truth", truth, "--results", f"A={tmp_path / 'found.json'}")
    rows = compare(tmp_path, run, *given)
    assert rows["A"]["protocol"] == rows["CE"]["protocol"] == "det@1"
    assert rows["A"]["metrics"] == rows["CE"]["metrics"]
    results = load_results(tmp_path / "out" / "results" / "A-0")
    assert {one["what"]: one["count"] for one in results["warnings"]} == counted


def test_annotations_without_area_have_that_of_their_box_as_in_the_run(tmp_path, files):
    """That of the stated box, which is medium; the clipped one is small."""

    def change(tree):
        clip(tree)
        for one in tree["annotations"][:2]:
            del one["area"]

    run, truth, _ = files(change)
    given = ["--truth", truth, "--results", f"A={tmp_path / 'found.json'}"]
    command = [run, *given, "--images", tmp_path / "data" / "images"]
    rows = compare(tmp_path, *command)
    assert rows["A"]["protocol"] == rows["CE"]["protocol"] == "det@1"
    assert rows["A"]["metrics"] == rows["CE"]["metrics"]
    folder = tmp_path / "out" / "results" / "A-0"
    assert {one["what"]: one["count"] for one in load_results(folder)["warnings"]} == {
        "annotation without area, that of its box is used, as in the runs": 2,
        "box clipped to the image, as in the runs": 2,
    }
    areas = TestSet(truth, box_areas=True).truth.objects.area.tolist()
    assert areas[:2] == [2500, 32 * 18]
    args = load_tool().parse_arguments([*map(str, command), "--output-dir", str(tmp_path / "out")])
    assert len(read_scenes(args, [folder], folder)) == 3
    with pytest.raises(InputError, match=r"ann\.json: 2 x annotations without area: annotation id 1 .*; COCO's sizes"):
        compare(tmp_path, *given)


def test_the_images_of_such_results_are_drawn_with_their_truth(tmp_path, files):
    """Without the dropped box, and with the clipped one."""
    run, truth, _ = files(change_all)
    command = [run, "--truth", truth, "--results", f"A={tmp_path / 'found.json'}"]
    compare(tmp_path, *command)
    more = ["--images", tmp_path / "data" / "images", "--output-dir", tmp_path / "out"]
    args, folder = load_tool().parse_arguments([*map(str, command), *map(str, more)]), tmp_path / "out/results/A-0"
    scenes = read_scenes(args, [folder], folder)
    assert [len(scene.truth) for scene in scenes.values()] == [2, 2, 1]
    assert {box.outcome for scene in scenes.values() for box in scene.truth} == {"matched"}
    assert scenes[1].truth[0].xywh == (0, 0, 20, 30)


@pytest.mark.parametrize("case", CHANGES)
def test_without_a_run_the_numbers_are_those_of_pycocotools(tmp_path, files, case):
    _, truth, found = files(CHANGES[case][0])
    rows = compare(tmp_path, "--truth", truth, "--results", f"A={tmp_path / 'found.json'}")
    expected = pycocotools_numbers(json.loads(truth.read_text()), found)
    for name, number in expected.items():
        if rows["A"]["metrics"][name] is not None:
            assert rows["A"]["metrics"][name] == pytest.approx(number, abs=1e-9)
    assert (expected["AP"] < 0.9) == (case in ("clipped", "dropped", "all"))


def test_detections_of_an_ignored_category_are_counted(tmp_path, files):
    run, truth, found = files(add_root)
    more = [*found, {**found[0], "category_id": 0}]
    (tmp_path / "more.json").write_text(json.dumps(more))
    rows = compare(tmp_path, run, "--truth", truth, "--results", f"A={tmp_path / 'more.json'}")
    assert rows["A"]["metrics"]["AP"] == 1
    (warning,) = [w for w in load_results(tmp_path / "out/results/A-0")["warnings"] if "detection" in w["what"]]
    assert (warning["what"], warning["count"]) == ("detection of an ignored category dropped", 1)


def test_results_beside_those_of_files_alone_stay_with_their_truth(tmp_path, files):
    """The protocol of results files alone is that of boxes as they are in the file."""
    _, truth, found = files(clip)
    given = ["--truth", truth, "--results"]
    compare(tmp_path, *given, f"A={tmp_path / 'found.json'}")
    alone = (tmp_path / "out" / "results").rename(tmp_path / "alone")
    (tmp_path / "half.json").write_text(json.dumps(found[::2]))
    rows = compare(tmp_path, alone, *given, f"B={tmp_path / 'half.json'}")
    assert rows["A"]["protocol"] == rows["B"]["protocol"]
    assert load_results(tmp_path / "out" / "results" / "B-0")["warnings"] == []
