"""Detections and truth on the images of a test set: read, chosen, drawn, and refused in one line."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.coco_scenes import scene
from helpers.detection_files import HEIGHT, WIDTH, make_tree, save_image, write_coco, write_voc
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.results import make_results, random_identity, save_results
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import load_data
from detection.drawing import reading as scenes_module
from detection.drawing.choosing import Choice, choose_scenes
from detection.drawing.pens import DASHED, DOTTED, MOST_COVERED, SOLID, Labels, Pen, _cut, _overlap
from detection.drawing.reading import CROWD, FOUND, IGNORED, MATCHED, MISSED, WRONG, Box, SceneReader
from detection.drawing.results import read_scenes
from detection.drawing.scenes import DETECTIONS, MEANING, OBJECTS, _label, draw_legend, draw_scene
from detection.evaluation.coco import evaluate_coco

# On the boxes of helpers.detection_files: image, class, box, score -> expected outcome and error.
MADE = [
    (1, 1, [28, 36, 18, 29], 0.9, MATCHED, ""),
    (1, 1, [28, 36, 18, 28], 0.8, WRONG, "Dupe"),
    (1, 1, [50, 15, 32, 18], 0.7, WRONG, "Cls"),
    (2, 1, [3, 35, 29, 25], 0.6, WRONG, "Loc"),
    (2, 1, [52, 21, 24, 20], 0.5, WRONG, "Both"),
    (3, 2, [0, 0, 10, 10], 0.4, WRONG, "Bkg"),
    (3, 2, [60, 37, 23, 26], 0.1, MATCHED, ""),
]


def write_run(folder, name, detections):
    """Write the files of a finished fine-tuning with these detections on the data set `name`."""
    folder.mkdir(exist_ok=True)
    test = load_data([name], "", WarningCounter())
    (folder / "predictions.json").write_text(json.dumps(detections))
    config = {"DATASETS": {"ROOT": "", "TEST": [name]}}
    (folder / "config.yaml").write_text(json.dumps(config))  # json is yaml
    evaluate_coco(test.to_coco(), detections, score_threshold=0.05, matches_path=folder / "matches.npz")
    files = {"predictions": "predictions.json", "matches": "matches.npz"}
    data = {"test": {"fingerprint": test.fingerprint}}
    results = make_results("detection", random_identity(0), {"name": "p", "hash": "1"}, {}, data=data, files=files)
    save_results(folder, results)
    return folder


def made_detections():
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score, *_ in MADE
    ]


@pytest.fixture
def name(tmp_path):
    return write_coco(tmp_path)


@pytest.fixture
def run(tmp_path, name):
    return write_run(tmp_path / "run", name, made_detections())


@pytest.fixture
def show(load_tool, tmp_path, capsys):
    """Run the tool; return the ids of the images that it has drawn."""

    def call(*arguments, out="out"):
        flags = [*map(str, arguments), "--output-dir", str(tmp_path / out)]
        assert load_tool("show_detections").main(flags) == 0
        assert str(tmp_path / out / "contact_sheet.png") in capsys.readouterr().out
        return sorted(int(path.stem) for path in (tmp_path / out / "images").iterdir())

    return call


# ---- scenes -------------------------------------------------------------------------------------------------------


def pycocotools_outcomes(tree, detections, least):
    """Return ({(image, box, score): outcome}, {(image, box): outcome}) of detections and objects at IoU 0.5."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: Any = COCO()
    truth.dataset = json.loads(json.dumps(tree))
    truth.createIndex()
    evaluation: Any = COCOeval(truth, truth.loadRes([one for one in detections if one["score"] >= least]), "bbox")
    evaluation.evaluate()
    found, objects = {}, {}
    for one in evaluation.evalImgs:
        if one is None or one["aRng"] != evaluation.params.areaRng[0]:
            continue
        for n, key in enumerate(one["dtIds"]):
            box = evaluation.cocoDt.anns[key]
            outcome = IGNORED if one["dtIgnore"][0, n] else MATCHED if one["dtMatches"][0, n] else WRONG
            found[box["image_id"], tuple(box["bbox"]), box["score"]] = outcome
        for n, key in enumerate(one["gtIds"]):
            box = truth.anns[key]
            outcome = CROWD if box["iscrowd"] else MATCHED if one["gtMatches"][0, n] else MISSED
            objects[box["image_id"], tuple(box["bbox"])] = outcome
    return found, objects


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_outcomes_are_those_of_pycocotools(tmp_path, least):
    tree, detections = scene(7, images=10, crowd=0.4)
    tree["images"] = [{**one, "file_name": f"{one['id']}.jpg", "width": 600, "height": 640} for one in tree["images"]]
    tree["categories"] = [{**one, "name": f"class {one['id']}"} for one in tree["categories"]]
    for one in tree["images"]:
        save_image(tmp_path / "images" / one["file_name"], (600, 640))
    (tmp_path / "ann.json").write_text(json.dumps(tree))
    run = write_run(tmp_path / "run", f"coco:{tmp_path / 'ann.json'}:{tmp_path / 'images'}", detections)
    found, objects = pycocotools_outcomes(tree, detections, least)
    scenes = SceneReader().read(run, least_score=least)
    assert list(scenes) == sorted(one["id"] for one in tree["images"])
    drawn = [(key, box) for key, one in scenes.items() for box in one.detections]
    truth = [(key, box) for key, one in scenes.items() for box in one.truth]
    assert {(key, box.xywh, box.score): box.outcome for key, box in drawn} == found
    assert {(key, box.xywh): box.outcome for key, box in truth} == objects
    assert set(found.values()) == {MATCHED, WRONG, IGNORED}
    assert set(objects.values()) == {MATCHED, MISSED, CROWD}
    names = {one["id"]: one["name"] for one in tree["categories"]}
    said = {(one["image_id"], tuple(one["bbox"]), one["score"]): names[one["category_id"]] for one in detections}
    assert all(box.label == said[key, box.xywh, box.score] for key, box in drawn)
    assert all(
        one.detections == tuple(sorted(one.detections, key=lambda box: -(box.score or 0))) for one in scenes.values()
    )


def test_scenes_hold_the_image_and_only_the_wanted_ids(run, tmp_path):
    scenes = SceneReader().read(run, [3, 1], least_score=0.3)
    assert list(scenes) == [3, 1]
    assert (scenes[3].width, scenes[3].height) == (WIDTH, HEIGHT)
    assert scenes[3].path == tmp_path / "images" / "p3.jpg"
    assert [(box.label, box.outcome) for box in scenes[3].truth] == [("red", MISSED), ("blue", MISSED)]
    assert [box.outcome for box in scenes[1].detections] == [MATCHED, WRONG, WRONG]
    assert [box.outcome for box in SceneReader().read(run, [3])[3].truth] == [MISSED, MATCHED]


def test_runs_on_one_test_set_share_it(run, name, tmp_path, monkeypatch):
    other = write_run(tmp_path / "other", name, made_detections()[1:])
    read, load = [], scenes_module.load_test_set
    monkeypatch.setattr(scenes_module, "load_test_set", lambda *given: read.append(given) or load(*given))
    reader = SceneReader("/moved")
    first, second = (reader.read(folder, [1])[1] for folder in (run, other))
    assert read == [(run, "/moved")]
    assert [len(one.detections) for one in (first, second)] == [3, 2]
    assert second.detections[0].outcome == MATCHED  # a Dupe in the other run


def other_predictions(run):
    (run / "predictions.json").write_text(json.dumps(made_detections()[1:]))


def other_stage(run):
    tree = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**tree, "files": {}}))


def other_truth(run):
    tree = make_tree()
    tree["annotations"][0]["bbox"][0] += 1
    (run.parent / "ann.json").write_text(json.dumps(tree))


REFUSED = {
    "no results": (lambda run: (run / "results.json").unlink(), "results.json"),
    "no matches": (lambda run: (run / "matches.npz").unlink(), "matches.npz; evaluate the detections again"),
    "no predictions": (lambda run: (run / "predictions.json").unlink(), "predictions.json"),
    "no config": (lambda run: (run / "config.yaml").unlink(), "config.yaml"),
    "broken matches": (lambda run: (run / "matches.npz").write_bytes(b"x"), "cannot read"),
    "predictions of another run": (other_predictions, "matches.npz is not of the detections in"),
    "not a fine-tuning": (other_stage, "no predictions to draw; give the folder of a finished fine-tuning"),
    "another truth": (other_truth, "was tested on data of the fingerprint"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_missing_or_of_another_run_is_refused(run, what):
    change, message = REFUSED[what]
    change(run)
    with pytest.raises(InputError) as refused:
        SceneReader().read(run)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_image_id_is_refused(run):
    with pytest.raises(InputError, match="its test set has no image id 77"):
        SceneReader().read(run, [1, 77])


# ---- the choice of images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["Dupe", "Cls", "Loc", "Both", "Bkg"])
def test_only_images_with_the_error_are_drawn(run, show, error):
    assert show(run, "--error", error) == [row[0] for row in MADE if row[5] == error]


def test_objects_are_missed_among_the_drawn_detections(run, show):
    """The blue box of image 3 is found with a score of 0.1; the others that lack a match are near Loc or Cls."""
    assert show(run, "--error", "Miss", out="a") == [2, 3]
    assert show(run, "--error", "Miss", "--min-score", 0.95, out="b") == [1, 2, 3]
    assert show(run, "--error", "Miss", "--class", "blue", out="c") == [2, 3]
    assert show(run, "--error", "Miss", "--class", "blue", "--min-score", 0, out="d") == [2]


def test_images_by_id_number_and_class(run, show):
    assert show(run, out="a") == [1, 2, 3]
    assert show(run, "--image-ids", 3, 2, out="b") == [2, 3]
    assert show(run, "--max-images", 2, out="c") == [1, 2]
    assert show(run, "--max-images", 1, "--sort", "errors", out="d") == [2]
    assert show(run, "--max-images", 1, "--sort", "score", "--error", "Loc", out="e") == [2]
    assert show(run, "--class", "red", out="f") == [1, 2, 3]


def test_the_order_of_images(run):
    scenes = list(SceneReader().read(run).values())

    def order(sort, *choice):
        return [one.image_id for one in choose_scenes(scenes[::-1], Choice(*choice), sort)]

    assert order("id") == [1, 2, 3]
    assert order("score", "blue") == [3, 1, 2]  # 0.4, and no detection of blue
    assert order("errors") == [2, 1, 3]  # 4, 3 and 2 boxes are wrong or missed


# ---- the drawing --------------------------------------------------------------------------------------------------


def share(image, box, colour):
    """The share of the pixels just inside the lower edge of a box that have the colour."""
    x, y, width, height = box
    row = np.asarray(image)[y + height - 1, x : x + width]
    wanted = tuple(int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return float((row == wanted).all(axis=1).mean())


def test_detections_are_solid_and_objects_dashed(run):
    one = SceneReader().read(run, [3], least_score=0.3)[3]
    image = draw_scene(one, np.zeros((HEIGHT, WIDTH, 3), np.uint8), Choice(), scale=8.0)
    assert image.size == (8 * WIDTH, 8 * HEIGHT)
    assert share(image, (0, 0, 80, 80), DETECTIONS[WRONG].colour) > 0.95
    assert 0.5 < share(image, (192, 264, 168, 144), OBJECTS[MISSED].colour) < 0.8


def test_marked_boxes_are_thicker(run):
    one = SceneReader().read(run, [1])[1]
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def blue(choice):
        image = np.asarray(draw_scene(one, black, choice, scale=8.0))
        return int((image == (0x15, 0x57, 0xC0)).all(axis=-1).sum())

    assert blue(Choice("blue")) < blue(Choice()) < blue(Choice("red"))


def test_outcomes_differ_without_colour():
    """In the dashes or in the label, which is filled or not."""
    assert {pen.dash for pen in DETECTIONS.values()} == {SOLID}
    assert {pen.dash for pen in OBJECTS.values()} == {DASHED, DOTTED}
    assert not any(pen.filled for pen in OBJECTS.values())
    assert all(pen.filled for pen in DETECTIONS.values())


@pytest.mark.parametrize("dash", [SOLID, DASHED, DOTTED])
@pytest.mark.parametrize("length", [1, 2, 7, 40, 333])
def test_dashes_reach_both_ends_and_nothing_else(dash, length):
    pieces = _cut((10, 5, 9 + length, 6), dash, 2, across=True)
    assert min(x0 for x0, *_ in pieces) == 10
    assert max(x1 for _, _, x1, _ in pieces) == 9 + length
    assert all((y0, y1) == (5, 6) and x0 <= x1 for x0, y0, x1, y1 in pieces)


def test_labels_stay_on_the_image_and_apart():
    labels, rng = Labels(Image.new("RGB", (300, 200)), 12), np.random.default_rng(0)
    for _ in range(60):
        x, y = rng.integers(-20, 300, 2).tolist()
        labels.add("wine glass 0.50", (x, y, x + 20, y + 20), Pen("#000000", SOLID, filled=True))
    assert len(labels.taken) > 3
    for n, (x0, y0, x1, y1) in enumerate(labels.taken):
        assert 0 <= x0 <= x1 < 300
        assert 0 <= y0 <= y1 < 200
        area = (x1 - x0 + 1) * (y1 - y0 + 1)
        assert all(_overlap((x0, y0, x1, y1), other) <= MOST_COVERED * area for other in labels.taken[:n])


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (5000, 40), (64, 64), (2500, 2000)])
def test_images_of_any_size_are_drawn(tmp_path, show, size):
    width, height = size
    box = [0, 0, width, height]
    tree = make_tree()
    tree["images"] = [{"id": 1, "file_name": "p1.png", "width": width, "height": height}]
    tree["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": width * height, "iscrowd": 0}
    ]
    save_image(tmp_path / "images" / "p1.png", size)
    (tmp_path / "ann.json").write_text(json.dumps(tree))
    detections = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5}]
    show(write_run(tmp_path / "run", f"coco:{tmp_path / 'ann.json'}:{tmp_path / 'images'}", detections))
    longest = max(Image.open(tmp_path / "out" / "images" / "1.png").size)
    assert 800 <= longest <= 1800  # with the legend


def test_the_legend_has_what_is_drawn_and_fits(run):
    scenes = list(SceneReader().read(run).values())
    wide, narrow = draw_legend(scenes, 1200, 12), draw_legend(scenes, 420, 12)
    assert (wide.width, narrow.width) == (1200, 420)
    assert narrow.height > wide.height > draw_legend([], 420, 12).height


def test_every_outcome_has_its_line_label_and_meaning():
    boxes = {WRONG: Box((0, 0, 9, 9), "cog", WRONG, 0.5, "Bkg"), MISSED: Box((0, 0, 9, 9), "cog", MISSED)}
    known = [name for name in DETECTIONS if name != FOUND]  # a detection without truth has no legend
    assert list(MEANING) == [*(("detection", name) for name in known), *(("object", name) for name in OBJECTS)]
    assert (_label(boxes[WRONG], Choice()), _label(boxes[WRONG], Choice("key"))) == ("cog 0.50 Bkg", "")
    assert _label(replace(boxes[WRONG], outcome=MATCHED, error=""), Choice()) == "cog 0.50"
    assert _label(replace(boxes[WRONG], outcome=IGNORED, error=""), Choice()) == "cog 0.50 ignored"
    said = [_label(replace(boxes[MISSED], outcome=one), Choice()) for one in OBJECTS]
    assert said == ["", "cog missed", "cog not counted"]


# ---- results files ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, name):
    """Arguments for the results file of the made detections."""
    (tmp_path / "made.json").write_text(json.dumps(made_detections()))
    truth, images = name.removeprefix("coco:").split(":")
    return ["--truth", truth, "--results", f"made={tmp_path / 'made.json'}", "--images", images]


def test_a_results_file_is_drawn_like_a_run(run, files, tmp_path, show):
    assert show(run, out="a") == show(*files, out="b") == [1, 2, 3]
    for n in (1, 2, 3):
        one, other = (Image.open(tmp_path / out / "images" / f"{n}.png") for out in "ab")
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("classes", ["", "classes.txt"])
def test_a_voc_truth_states_the_folder_of_its_images(tmp_path, show, load_tool, classes):
    """Also if it names a file of classes; for the images of a comparison, too."""
    data = write_voc(tmp_path / "voc")
    (tmp_path / classes).exists() or (tmp_path / classes).write_text("blue\nred\n")  # without a file: sorted
    found = [{**one, "category_id": 3 - one["category_id"]} for one in made_detections()]
    (tmp_path / "made.json").write_text(json.dumps(found))
    truth = f"{data}:{tmp_path / classes}" if classes else data
    files = ["--truth", truth, "--results", f"made={tmp_path / 'made.json'}"]
    assert show(*files) == [1, 2, 3]
    compare = load_tool("compare")
    given = [*files, "--output-dir", str(tmp_path / "report"), "--resamples", "20"]
    assert compare.main(given) == 0
    folder = tmp_path / "report" / "results" / "made-0"
    scenes = read_scenes(compare.parse_arguments(given), [folder], folder)
    assert [scene.path for scene in scenes.values()] == [tmp_path / "voc" / "JPEGImages" / f"{s}.jpg" for s in "abc"]


def test_declared_boxes_and_names_are_read(files, tmp_path, show):
    rows = [
        {"image_id": f"p{image}", "category_id": category, "bbox": [x, y, x + w, y + h], "score": score}
        for image, category, (x, y, w, h), score, *_ in MADE
    ]
    (tmp_path / "made.json").write_text(json.dumps(rows))
    assert show(*files, "--box-form", "xyxy", "--image-by", "stem", "--error", "Loc") == [2]


def test_sizes_need_not_be_stated(files, tmp_path, show):
    tree = make_tree()
    tree["images"] = [{"id": one["id"], "file_name": one["file_name"]} for one in tree["images"]]
    (tmp_path / "ann.json").write_text(json.dumps(tree))
    assert show(*files) == [1, 2, 3]


# ---- what is refused ----------------------------------------------------------------------------------------------


def refusal(show, *arguments):
    with pytest.raises(InputError) as refused:
        show(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_bad_input_is_refused_in_one_line(run, files, tmp_path, show):
    either = "give either a RUN, or --truth, --images and one --results; voc:... needs no --images"
    assert refusal(show) == either
    assert refusal(show, run, *files) == either
    assert refusal(show, *files[:4]) == either
    assert refusal(show, *files, "--results", f"b={tmp_path / 'made.json'}") == either
    assert "unknown class 'rod'; did you mean 'red'?" in refusal(show, run, "--class", "rod")
    assert "no image id 9" in refusal(show, run, "--image-ids", 9)
    assert "no image has a detection or an object of class blue, error Dupe" in refusal(
        show, run, "--class", "blue", "--error", "Dupe"
    )
    assert "--max-images is 0" in refusal(show, run, "--max-images", 0)
    assert "--min-score is nan" in refusal(show, run, "--min-score", "nan")
    assert not (tmp_path / "out").exists()


def test_images_that_are_missing_or_others_are_refused(files, tmp_path, show):
    assert f"no such image: {tmp_path / 'p1.jpg'}" in refusal(show, *files[:5], tmp_path)
    save_image(tmp_path / "images" / "p2.jpg", (50, 40))
    assert "p2.jpg is 50x40, its truth states 96x72" in refusal(show, *files)


def test_a_mistyped_error_ends_with_exit_code_2(run, load_tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        load_tool("show_detections").main([str(run), "--output-dir", "x", "--error", "loc"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: argument --error: unknown 'loc'; did you mean 'Loc'?\n"
