"""tools/validate_data.py: the verdict on sound sets and on broken copies, each problem named with its place."""

import copy
import json
import re

import numpy as np
import pytest
from PIL import Image

from backbones.core.arguments import ArgumentParser
from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.core.findings import ERROR, EXAMPLES, WARNING, Findings, Kind
from backbones.core.image_checks import StatedImage, check_images
from backbones.core.warning_counter import WarningCounter
from detection.config import get_defaults
from detection.data.check_arguments import add_arguments
from detection.data.checks import Options, check_config_data, check_detection
from detection.data.coco.reader import load_coco

SIDE = 64


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("validate_data").main


@pytest.fixture
def judge(tool, capsys):
    """Run the tool; (exit code, its last line, all it printed)."""

    def run(*arguments):
        code = tool([str(argument) for argument in arguments])
        out = capsys.readouterr().out
        return code, out.splitlines()[-1], out

    return run


def test_the_retired_name_of_an_option_is_read_but_not_shown(tool, capsys):
    """--no-pictures of earlier versions."""
    parser = add_arguments(ArgumentParser())
    assert not parser.parse_args([]).no_images
    assert all(parser.parse_args([name]).no_images for name in ("--no-images", "--no-pictures"))
    with pytest.raises(SystemExit):
        tool(["--help"])
    said = capsys.readouterr().out
    assert "--no-images" in said
    assert "--no-pictures" not in said


def make_tree():
    """Three images, two of two boxes and one of a crowd and a box."""
    boxes = [(1, 1, [0, 0, 64, 64]), (1, 2, [8, 8, 20, 30.5]), (2, 1, [3, 4, 5, 6]), (2, 2, [50, 50, 14, 14]),
             (3, 1, [10, 0, 40, 10]), (3, 2, [0, 0, 32, 32])]  # fmt: skip
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": SIDE, "height": SIDE} for n in (1, 2, 3)],
        "annotations": [
            {"id": 10 + n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": int(n == 4)}
            for n, (i, c, b) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def write_coco(folder, change=None):
    """Images and json after `change(tree, folder)`; the name for --data."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{n}.jpg")
    tree = copy.deepcopy(make_tree())
    if change:
        change(tree, folder)
    path = folder / "truth.json"
    if not path.exists():
        path.write_text(json.dumps(tree))
    return f"coco:{path}:{folder}"


def box(n, value):
    return lambda tree, folder: tree["annotations"][n].update(bbox=value)


def field(part, n, **values):
    return lambda tree, folder: tree[part][n].update(values)


def cut(tree, folder):
    path = folder / "2.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def save(name, image, **options):
    return lambda tree, folder: image.save(folder / name, **options)


EXIF = Image.Exif()
EXIF[0x0112] = 6
# name -> (change, what the verdict says, where the details say it is)
ERRORS = {
    "duplicate annotation id": (field("annotations", 2, id=10), "1 x repeated annotation ids", "id 10"),
    "duplicate image id": (field("images", 1, id=1), "1 x repeated image ids", "id 1"),
    "duplicate category id": (field("categories", 1, id=1), "1 x repeated category ids", "id 1"),
    "duplicate name": (field("categories", 1, name="cat"), "1 x repeated category names", "'cat'"),
    "id in words": (field("annotations", 2, id="x"), "1 x entries without an integer id", r"annotations\[2\]"),
    "unknown category": (field("annotations", 1, category_id=7), "1 x annotations of an unknown category", "id 11.*7"),
    "unknown image": (field("annotations", 1, image_id=9), "1 x annotations of an unknown image", "id 11: image_id 9"),
    "box outside": (box(3, [50, 50, 20, 14]), "1 x boxes that extend beyond the image", "annotation id 13"),
    "box far outside": (box(3, [70, 50, 20, 14]), "1 x boxes completely outside the image", "annotation id 13"),
    "empty box": (box(2, [3, 4, 0, 6]), "1 x boxes of zero width or height", r"annotation id 12 .*bbox \[3, 4, 0, 6\]"),
    "two corners": (box(2, [30, 40, -5, 6]), "1 x boxes of negative width or height", "annotation id 12"),
    "three numbers": (box(2, [3, 4, 5]), "1 x boxes that are not 4 numbers", "annotation id 12"),
    "no box": (box(2, None), "1 x boxes that are not 4 numbers", "annotation id 12"),
    "infinite box": (box(2, [3, 4, float("inf"), 6]), "1 x boxes that are not finite", "annotation id 12"),
    "NaN box": (box(2, [3, 4, float("nan"), 6]), "1 x boxes that are not finite", "annotation id 12"),
    "NaN area": (field("annotations", 0, area=float("nan")), "1 x areas that are not a number", "id 10: area is nan"),
    "negative area": (field("annotations", 0, area=-1), "1 x areas that are not a number", "id 10: area is -1"),
    "missing image": (lambda t, f: (f / "2.jpg").unlink(), "1 x missing images", r"2\.jpg \(image id 2\)"),
    "truncated JPEG": (cut, "1 x unreadable or truncated images", r"2\.jpg .*truncated"),
    "no image": (lambda t, f: (f / "2.jpg").write_text("x"), "1 x unreadable", r"2\.jpg .*not an image"),
    "empty file": (lambda t, f: (f / "2.jpg").write_bytes(b""), "1 x unreadable", r"2\.jpg"),
    "wrong size": (field("images", 2, width=65), "1 x images of another size than stated", "stated 65x64, is 64x64"),
    "no width": (lambda t, f: t["images"][0].pop("width"), "1 x images without file_name, width or height", "id 1"),
    "width of no image": (field("images", 0, width=10**30), "1 x wrong values of file_name, width", "id 1: width"),
    "box beyond floats": (box(2, [3, 4, 10**400, 6]), "1 x boxes that are not 4 numbers", "annotation id 12"),
    "area beyond floats": (field("annotations", 0, area=10**400), "1 x areas that are not a number", "id 10"),
    "no name": (lambda t, f: t["images"][0].pop("file_name"), "1 x images without file_name", "id 1"),
    "broken json": (lambda t, f: (f / "truth.json").write_text('{"images": ['), "1 x broken annotation file", "truth"),
    "detections": (lambda t, f: (f / "truth.json").write_text("[]"), "1 x broken annotation file", "no list 'images'"),
    "no images": (lambda t, f: t.update(images=[], annotations=[]), "1 x empty list of images", "0 images"),
    "no objects": (lambda t, f: t.update(annotations=[]), "1 x data set without any usable object", "0 of 0"),
}  # fmt: skip
WARNINGS = {
    "no area": (lambda t, f: t["annotations"][0].pop("area"), "1 x annotations without area", "id 10"),
    "area of 0": (field("annotations", 0, area=0), "1 x areas of 0", "id 10"),
    "grey": (save("2.jpg", Image.new("L", (SIDE, SIDE))), "1 x grey images", r"2\.jpg"),
    "CMYK": (save("2.jpg", Image.new("CMYK", (SIDE, SIDE))), "1 x CMYK images", r"2\.jpg"),
    "turned": (save("2.jpg", Image.new("RGB", (SIDE, SIDE)), exif=EXIF), "1 x images that EXIF turns", r"2\.jpg"),
    "bare image": (lambda t, f: t["annotations"].__delitem__(slice(2)), "1 x images without annotation", "id 1"),
    "bare category": (lambda t, f: t["categories"].append({"id": 3, "name": "cow"}), "1 x categories without", "cow"),
    "file twice": (field("images", 2, file_name="1.jpg"), "1 x files listed under several image ids", r"1\.jpg"),
}  # fmt: skip


def test_a_sound_set(judge, tmp_path):
    code, verdict, out = judge("--data", write_coco(tmp_path))
    assert (code, verdict) == (0, "verdict truth: sound")
    assert "3 images (0 without an object to train on), 6 annotations (1 crowd or difficult), 2 of 2 categories" in out
    assert re.search(r"objects by area: +3 small, 2 medium, 0 large", out)  # 32 x 32 is medium
    assert re.search(r"objects per class: +min 2, median 2.5, max 3 \(rarest: cat, commonest: dog\)", out)


@pytest.mark.parametrize("case", ERRORS)
def test_a_broken_copy_is_not_sound(judge, tmp_path, case):
    change, what, where = ERRORS[case]
    code, verdict, out = judge("--data", write_coco(tmp_path, change))
    assert code == 1
    assert verdict.startswith(f"verdict truth: NOT SOUND: {what}")
    errors = [line for line in out.splitlines() if line.strip().startswith("error ")]
    assert len(errors) == 1 or case in ("duplicate image id", "duplicate category id", "no objects"), errors
    assert re.search(rf"{what}.*{where}", "\n".join(errors))


@pytest.mark.parametrize("case", WARNINGS)
def test_what_the_readers_fix_is_a_warning(judge, tmp_path, case):
    change, what, where = WARNINGS[case]
    name = write_coco(tmp_path, change)
    code, verdict, out = judge("--data", name)
    assert code == 0
    assert verdict.startswith(f"verdict truth: sound; warnings: {what}")
    assert re.search(rf"warning +{what}.*{where}", out)
    load_coco(tmp_path / "truth.json", tmp_path, "x", WarningCounter())  # the reader that trains agrees


@pytest.mark.parametrize("case", ["box beyond floats", "area beyond floats"])
def test_the_reader_refuses_numbers_beyond_floats_too(tmp_path, case):
    write_coco(tmp_path, ERRORS[case][0])
    with pytest.raises(InputError, match=r"1 x (boxes that are not 4 numbers|areas that are not a number).*id 1[02]"):
        load_coco(tmp_path / "truth.json", tmp_path, "x", WarningCounter())


def test_all_problems_are_found_in_one_pass(judge, tmp_path):
    def change(tree, folder):
        for case in ("duplicate annotation id", "unknown category", "box far outside", "missing image", "wrong size"):
            ERRORS[case][0](tree, folder)
        tree["annotations"] += [dict(tree["annotations"][5], id=100 + n, bbox=[1, 1, 0, 9]) for n in range(9)]

    code, _, out = judge("--data", write_coco(tmp_path, change), "--num-classes", 80, "--json")
    assert code == 1
    (report,) = json.loads(re.search(r"\[\n.*\]", out, re.DOTALL)[0])
    found = {f["what"]: f["count"] for f in report["findings"] if f["severity"] == ERROR}
    assert found == {
        "repeated annotation ids": 1, "annotations of an unknown category": 1, "missing images": 1,
        "images of another size than stated": 1, "boxes of zero width or height": 9,
        "boxes completely outside the image": 1, "NUM_CLASSES that differs": 1,
    }  # fmt: skip
    empty = next(f for f in report["findings"] if f["what"] == "boxes of zero width or height")
    assert len(empty["examples"]) == EXAMPLES
    assert report["sound"] is False


def test_the_number_of_classes_0_is_that_of_the_data(judge, tmp_path):
    """As in a config; any other number is compared."""
    name = write_coco(tmp_path)
    assert judge("--data", name, "--num-classes", 0)[:2] == (0, "verdict truth: sound")
    assert judge("--data", name, "--num-classes", 2)[:2] == (0, "verdict truth: sound")
    assert judge("--data", name, "--num-classes", 3)[0] == 1


def test_a_truncated_file_escapes_the_fast_look_and_nothing_else_does(judge, tmp_path):
    (tmp_path / "cut").mkdir()
    cut_set = write_coco(tmp_path / "cut", cut)
    assert judge("--data", cut_set, "--fast")[0] == 0
    assert judge("--data", cut_set)[0] == 1
    (tmp_path / "size").mkdir()
    assert judge("--data", write_coco(tmp_path / "size", ERRORS["wrong size"][0]), "--fast")[0] == 1


def test_annotations_can_be_checked_without_images(judge, tmp_path):
    write_coco(tmp_path)
    name = f"coco:{tmp_path / 'truth.json'}:"
    code, verdict, _ = judge("--data", name, "--no-images")
    assert (code, verdict) == (0, "verdict truth: sound; warnings: 3 x images not checked")
    (tmp_path / "truth.json").unlink()
    write_coco(tmp_path, ERRORS["box outside"][0])  # against the stated size
    assert judge("--data", name, "--no-images")[0] == 1


def test_a_few_boxes_among_many_that_training_drops_are_a_warning(tmp_path):
    def change(tree, folder):
        many = [dict(tree["annotations"][0], id=n) for n in range(100, 30_100)]
        tree["annotations"] += many
        many[5]["bbox"] = [1, 1, 0, 5]
        many[6].update(bbox=[60, 1, 9, 5], area=45)

    findings = check_detection(write_coco(tmp_path, change), "", Options())[0].findings
    assert {kind.what for kind in findings.of(WARNING)} == {
        "boxes of zero width or height", "boxes that extend beyond the image"
    }  # fmt: skip
    assert not findings.of(ERROR)


def test_half_a_pixel_beyond_the_border_is_not_a_problem(tmp_path):
    report, _ = check_detection(write_coco(tmp_path, box(3, [50.5, 50, 14, 14.5])), "", Options())
    assert not report.findings.as_list()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "coco_2017_trian", "--root", "."], "unknown data set 'coco_2017_trian'; did you mean"),
        (["--data", "coco_2017_train", "--root", "absent"], "no folder absent"),
        (["--data", "coco:absent.json:."], "no such file: absent.json"),
        (["--data", "voc:absent:train"], "no split file absent/ImageSets/Main/train.txt"),
        (["--data", "tiny_imagenet"], "give its folder as --root"),
        ([], "nothing to check"),
        (["--data", "coco128", "--workers", "-1"], "--workers is -1; it must be at least 0"),
        (
            ["--config-file", "configs/detection/quick.yaml", "--num-classes", "3"],
            "--num-classes 3: the config sets it",
        ),
        (
            ["--config-file", "configs/detection/quick.yaml", "--split", "val"],
            "--split val: the config sets it; leave it out, or check with --data",
        ),
        (["--data", "coco128", "--num-classes", "-1"], "--num-classes is -1; it must be at least 0"),
        (
            ["--data", "tiny_imagenet", "--root", ".", "--num-classes", "3"],
            "--num-classes 3: 'tiny_imagenet' is classification data, whose classes are not compared; leave it out",
        ),
        (
            ["--data", "coco128", "--split", "val"],
            "--split val: 'coco128' is detection data, whose name states the split; leave it out",
        ),
        (
            ["--data", "tiny_imagenet", "--data", "cifar10h", "--root", ".", "--split", "test"],
            "--split test: 'cifar10h' has no splits; leave it out",
        ),
    ],
)
def test_bad_use_is_neither_sound_nor_broken_data(tool, arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        tool(arguments)


def test_bad_use_ends_with_one_line_and_code_2(run_tool):
    done = run_tool("validate_data")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_config_is_checked_as_a_whole(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    train = write_coco(tmp_path / "train")
    other = write_coco(tmp_path / "test", field("categories", 1, name="wolf"))

    def check(train, test, classes):
        keys = ["DATASETS.TRAIN", f"['{train}']", "DATASETS.TEST", f"['{test}']"]
        cfg = load_config(get_defaults(), None, [*keys, "MODEL.ROI_HEADS.NUM_CLASSES", str(classes)])
        reports = check_config_data(cfg, None, Options())
        return [{kind.what for kind in (*r.findings.of(ERROR), *r.findings.of(WARNING))} for r in reports]

    assert check(train, other, 2) == [set(), {"category list that differs within the config"}]
    assert check(train, train, 2) == [{"test images that are also training images"}]
    wrong = {"NUM_CLASSES that differs"}
    assert check(train, other, 3) == [wrong, wrong | {"category list that differs within the config"}]


def test_the_quick_config_over_generated_scenes(judge, small_scenes, tmp_path):
    config = "configs/detection/quick.yaml"
    code, verdict, out = judge("--config-file", config, "--root", small_scenes.parent)
    assert code == 0, out
    assert "verdict scenes_train: sound" in out
    assert verdict.startswith("verdict scenes_val: sound")


def test_progress_and_order_do_not_depend_on_the_threads(tmp_path):
    for n in range(70):
        Image.new("RGB", (n + 1, 2)).save(tmp_path / f"{n}.png")
    images = [StatedImage(str(tmp_path / f"{n}.png"), n + 1, 2, "") for n in range(70)]
    found = [check_images(images, Findings(), decode=True, workers=n) for n in (1, 7)]
    np.testing.assert_array_equal(found[0], [(n + 1, 2) for n in range(70)])
    np.testing.assert_array_equal(*found)


def test_findings_count_all_and_keep_the_first():
    findings, kind = Findings(), Kind(ERROR, "apples", "eat them")
    findings.add(kind, [])
    assert not findings.as_list()
    findings.add(kind, (str(n) for n in range(10**9)), 10**9)  # consumes three
    findings.add(kind, "late")
    assert findings.lines() == ["error    1000000001 x apples: 0, 1, 2 ...; eat them"]
    assert findings.count("apples") == 10**9 + 1
