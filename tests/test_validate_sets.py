"""tools/validate_data.py on VOC folders, on classification data, and on the real sets."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING
from backbones.core.warning_counter import WarningCounter
from detection import doctor
from detection.data import catalog
from detection.data.catalog import load_data
from detection.data.checks import Options, check_detection

WIDTH, HEIGHT = 40, 30
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"


def thing(name, *corners, difficult="<difficult>0</difficult>"):
    inside = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{difficult}<bndbox>{inside}</bndbox></object>"


def annotation(*objects, size=SIZE):
    return f"<annotation>{size}{''.join(objects)}</annotation>"


SOUND = annotation(thing("cat", 1, 1, WIDTH, HEIGHT), thing("dog", 3, 4, 9, 9))


def check_voc(folder, text=SOUND, listed="a\nb\n", classes=("cat", "dog"), monkeypatch=None):
    """Two images; `text` is the XML of the first.  The findings as {what: count} of errors, of warnings."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for stem, xml in (("a", text), ("b", SOUND)):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "JPEGImages" / f"{stem}.jpg")
        if xml is not None:
            (folder / "Annotations" / f"{stem}.xml").write_text(xml)
    (folder / "ImageSets" / "Main" / "train.txt").write_text(listed)
    name = f"voc:{folder}:train"
    if classes:
        monkeypatch.setitem(catalog.VOC_SETS, "mine", (str(folder), "train", classes))
        name = "mine"
    report, scan = check_detection(name, str(folder), Options())
    kinds = [{k.what: n for k, n in report.findings.of(severity).items()} for severity in (ERROR, WARNING)]
    return *kinds, report, scan


@pytest.fixture
def check(tmp_path, monkeypatch):
    return lambda *arguments, **options: check_voc(tmp_path, *arguments, monkeypatch=monkeypatch, **options)


def test_a_sound_folder(check, tmp_path):
    errors, warnings, report, scan = check()
    assert (errors, warnings) == ({}, {})
    assert report.verdict() == "verdict mine: sound"
    # Pixels count from 1: exactly what the reader that trains makes of it.
    trained = load_data(["mine"], str(tmp_path), WarningCounter())
    np.testing.assert_array_equal(scan.bbox, np.concatenate([record.bbox for record in trained.records]))
    np.testing.assert_array_equal(scan.area, np.concatenate([record.area for record in trained.records]))


BROKEN = {
    "no size": (annotation(thing("cat", 1, 1, 2, 2), size=""), "a\nb\n", "XML without size", "a.xml"),
    "class": (annotation(thing("dgo", 1, 1, 2, 2)), "a\nb\n", "objects of a class that is not in the list", "'dog'"),
    "no class": (SOUND.replace("<name>cat", "<name>"), "a\nb\n", "objects without a name", "a.xml"),
    "no corner": (SOUND.replace("<xmax>9</xmax>", ""), "a\nb\n", "boxes that are not 4 numbers", "a.xml: dog"),
    "infinite": (SOUND.replace("<xmax>9</xmax>", "<xmax>inf</xmax>"), "a\nb\n", "boxes that are not finite", "a.xml"),
    "outside": (annotation(thing("cat", 1, 1, 42, 9)), "a\nb\n", "boxes that extend beyond the image", "a.xml: cat"),
    "empty": (annotation(thing("cat", 9, 1, 8, 9)), "a\nb\n", "boxes of zero width or height", "a.xml: cat"),
    "size in words": (SOUND.replace("h>40<", "h>x<"), "a\nb\n", "XML whose size is not a pair of integers", "a.xml"),
    "size of no image": (
        SOUND.replace("h>40<", f"h>{10**20}<"),
        "a\nb\n",
        "XML whose size is not a pair of integers",
        "a.xml",
    ),
    "other size": (SOUND.replace("h>40<", "h>41<"), "a\nb\n", "images of another size than stated", "41x30, is 40x"),
    "cut": (SOUND[:-9], "a\nb\n", "broken XML files", "a.xml"),
    "absent": (None, "a\nb\n", "listed images without XML", "a.xml"),
    "twice": (SOUND, "a\nb\na\n", "names listed twice in the split", "'a'"),
    "no image": (SOUND, "a\nb\nc\n", "missing images", "c.jpg"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_not_sound(check, case):
    text, listed, what, where = BROKEN[case]
    errors, _, report, _ = check(text, listed)
    assert errors.pop(what) == 1
    assert not errors or case == "no image"
    assert not report.sound
    assert re.search(rf"error +1 x {re.escape(what)}: .*{re.escape(where)}", "\n".join(report.findings.lines()))


def test_a_split_that_is_not_text_is_one_finding_and_one_line(check, tmp_path):
    check()
    split = tmp_path / "ImageSets" / "Main" / "train.txt"
    split.write_bytes(b"\xff\xfea\x00")
    report, scan = check_detection("mine", str(tmp_path), Options())
    assert scan is None
    assert [kind.what for kind in report.findings.of(ERROR)] == ["broken split file"]
    with pytest.raises(InputError, match=f"cannot read the split file {split} as text"):
        load_data(["mine"], str(tmp_path), WarningCounter())
    looked = doctor.look("mine", tmp_path)
    assert looked is not None
    assert looked[0] is False


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (SOUND.replace("h>40<", "h>0<"), "XML whose size is 0"),
        (annotation(thing("cat", 1, 1, 5, 5, difficult="")), "objects without `difficult`"),
        (annotation(), "images without annotation"),
    ],
)
def test_what_the_reader_fixes_is_a_warning(check, tmp_path, text, what):
    errors, warnings, report, _ = check(text)
    assert (errors, warnings) == ({}, {what: 1})
    assert report.sound
    load_data(["mine"], str(tmp_path), WarningCounter())


def test_boxes_are_checked_against_the_image_where_the_size_is_not_stated(check):
    text = annotation(thing("cat", 1, 1, WIDTH + 2, 9)).replace("<width>40<", "<width>0<")
    errors, _, _, _ = check(text)
    assert errors == {"boxes that extend beyond the image": 1}


def test_difficult_objects_are_counted_apart(check):
    hard = "<difficult>1</difficult>"
    _, _, report, _ = check(annotation(thing("cat", 1, 1, 9, 9, difficult=hard)))
    assert report.summary["crowd_or_difficult"] == 1
    assert report.summary["crowd_by_box_area"] == {"small": 1, "medium": 0, "large": 0}
    assert report.summary["objects"] == 2


def test_classes_that_are_not_given_are_those_of_the_folder(check, tmp_path):
    _, warnings, _, scan = check(listed="b\n", text=annotation(thing("zebra", 1, 1, 2, 2)), classes=None)
    assert scan.categories == ["cat", "dog", "zebra"]
    assert warnings == {"categories without annotation": 1}
    trained = load_data([f"voc:{tmp_path}:train"], "", WarningCounter())
    assert [c["name"] for c in trained.categories] == scan.categories


# --------------------------------------------------------------------------------- the real sets


@pytest.fixture(scope="module")
def report_of(load_tool):
    """Run the tool with --json; (exit code, its one report)."""

    def run(capsys, *arguments):
        code = load_tool("validate_data").main([*map(str, arguments), "--json"])
        (report,) = json.loads(capsys.readouterr().out)
        return code, report

    return run


REAL = {
    "coco128": ({"small": 324, "medium": 214, "large": 160}, {"images": 90, "crowd_or_difficult": 8}),
    "voc2012_100": ({"small": 9, "medium": 60, "large": 136}, {"images": 70, "crowd_or_difficult": 27}),
    "bccd_trainval": (None, {"images": 196, "categories": 3}),
    "bccd_test": (None, {"images": 59, "categories": 3}),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_detection_sets_are_sound(shared_data, report_of, capsys, name):
    """Counts as their documentation has them."""
    sizes, counts = REAL[name]
    code, report = report_of(capsys, "--data", name, "--root", shared_data)
    assert (code, report["sound"]) == (0, True)
    assert counts.items() <= report["summary"].items()
    found = report["summary"]["by_area"]
    if name.startswith("voc"):
        found = {size: n + report["summary"]["crowd_by_box_area"][size] for size, n in found.items()}
    assert sizes is None or found == sizes


def test_all_cells_of_bccd(shared_data):
    look = Options(decode=False)
    parts = [check_detection(name, str(shared_data), look)[0] for name in ("bccd_trainval", "bccd_test")]
    total = {size: sum(p.summary["by_area"][size] for p in parts) for size in ("small", "medium", "large")}
    assert total == {"small": 21, "medium": 946, "large": 2384}
    assert sum(p.summary["per_class"]["RBC"] for p in parts) == 2845


def test_annotations_without_images(shared_data, report_of, capsys):
    folder = shared_data / "coco-eval-parity"
    for path in (
        folder / "official_val2014_100" / "annotations" / "instances_val2014_100.json",
        folder / "sampled_bbox_area" / "sampled_gts_bbox_area.json",
        folder / "lvis_val_100" / "lvis_val_100.json",
    ):
        code, report = report_of(capsys, "--data", f"coco:{path}:", "--no-images")
        assert (code, report["summary"]["images"]) == (0, 100)
    results = folder / "official_val2014_100" / "results" / "instances_val2014_fakebbox100_results.json"
    code, report = report_of(capsys, "--data", f"coco:{results}:", "--no-images")
    assert code == 1
    assert "NOT SOUND: 1 x broken annotation file" in report["verdict"]


def test_classification_sets_are_checked_by_their_readers(shared_data, report_of, capsys):
    tiny = shared_data / "tiny-imagenet" / "tiny-imagenet-200"
    code, report = report_of(capsys, "--data", "tiny_imagenet", "--root", tiny, "--split", "val", "--fast")
    found = {f["what"]: f["count"] for f in report["findings"]}
    assert code == 0
    shares, sides = report["summary"].pop("object_share"), report["summary"].pop("box_side")
    assert 0 < shares["min"] < shares["median"] < shares["max"] == 1
    assert sides["max"] == 64  # the whole image
    assert shares["min"] == pytest.approx((sides["min"] / 64) ** 2)  # one box per image
    assert report["summary"] == {
        "samples": 700, "classes": 20, "boxes": 700, "per_class": {"min": 35, "median": 35, "max": 35},
    }  # fmt: skip
    assert found == {"boxes one pixel wide or high kept": 4, "grey images": 11}
    code, report = report_of(capsys, "--data", "cifar10h", "--root", shared_data / "cifar10h")
    assert (code, report["summary"]) == (0, {"images": 10000, "classes": 10})
    code, report = report_of(capsys, "--data", "open_images", "--root", shared_data / "openimages")
    assert code == 1  # its images are absent
    assert re.search(r"NOT SOUND: 1 x refusal by the reader \(no folder .*train", report["verdict"])


def test_a_truncated_image_of_a_classification_set_is_found(report_of, capsys, tmp_path):
    folder = tmp_path / "train" / "n01" / "images"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(noise).save(folder / f"{name}.JPEG")
    (folder.parent / "n01_boxes.txt").write_text("a.JPEG\t0\t0\t63\t63\nb.JPEG\t1\t1\t9\t9\n")
    assert report_of(capsys, "--data", "tiny_imagenet", "--root", tmp_path)[0] == 0
    (folder / "b.JPEG").write_bytes((folder / "b.JPEG").read_bytes()[:-300])
    code, report = report_of(capsys, "--data", "tiny_imagenet", "--root", tmp_path)
    assert code == 1
    assert "1 x unreadable or truncated images" in report["verdict"]
    (folder.parent / "n01_boxes.txt").write_text("a.JPEG\t0\t0\t63\n")
    code, report = report_of(capsys, "--data", "tiny_imagenet", "--root", tmp_path)
    assert code == 1
    assert "n01_boxes.txt, line 1: cannot read" in report["verdict"]
