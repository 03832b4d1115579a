"""Where the names of detection data lie: environment variables, their order, and the layouts that detectron2 takes."""

from pathlib import Path

import pytest

from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection.config import get_defaults
from detection.data import roots
from detection.data.catalog import COCO_SETS, CocoFiles, VocFolder, load_data, locate

DEFAULT = get_defaults().DATASETS.ROOT
OURS, THEIRS = roots.VARIABLES


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in roots.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    roots._log_root.cache_clear()


@pytest.fixture
def folders(tmp_path):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_our_variable_comes_before_detectron2s_and_a_folder_before_both(folders, monkeypatch, capsys):
    monkeypatch.setenv(THEIRS, str(folders / "theirs"))
    for text in (DEFAULT, "${SMOOTH2DET_DATA}"):
        assert roots.data_root(text, "x") == folders / "theirs"
    said = f"data root: {folders / 'theirs'}, from DETECTRON2_DATASETS (SMOOTH2DET_DATA is not set)"
    assert capsys.readouterr().err.count(said) == 1  # not for every set
    monkeypatch.setenv(OURS, "")  # as good as not set
    assert roots.expand_root(DEFAULT) == (folders / "theirs", THEIRS)
    monkeypatch.setenv(OURS, str(folders / "ours"))
    assert roots.expand_root(DEFAULT) == (folders / "ours", OURS)
    assert roots.expand_root("$SMOOTH2DET_DATA/deeper") == (folders / "ours" / "deeper", OURS)
    assert roots.expand_root(str(folders)) == (folders, "")


def test_errors_name_the_variable_to_set(folders, monkeypatch):
    with pytest.raises(InputError, match=r"SMOOTH2DET_DATA of DATASETS.ROOT is not set, nor is DETECTRON2_DATASETS"):
        locate("coco128", DEFAULT)
    monkeypatch.setenv(THEIRS, str(folders / "absent"))
    with pytest.raises(InputError, match=r"no folder .*absent \(needed by 'coco128'\); set DETECTRON2_DATASETS or"):
        locate("coco128", DEFAULT)
    monkeypatch.setenv(THEIRS, str(folders))
    with pytest.raises(InputError, match=r"coco_2014_minival: no such file: .*instances_minival2014\.json; put it .*"):
        load_data(["coco_2014_minival"], DEFAULT, WarningCounter())


def test_another_variable_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv(THEIRS, "/wrong")
    monkeypatch.setenv("SMOOTH2DET_DATA_2", str(tmp_path))
    assert roots.expand_root("$SMOOTH2DET_DATA_2") == (tmp_path, "")


def test_coco_lies_where_detectron2_has_it(tmp_path):
    for name, listed, images in (
        ("coco_2017_train", "instances_train2017", "train2017"),
        ("coco_2017_val", "instances_val2017", "val2017"),
        ("coco_2014_minival", "instances_minival2014", "val2014"),
        ("coco_2014_valminusminival", "instances_valminusminival2014", "val2014"),
    ):
        coco = tmp_path / "coco"
        assert locate(name, str(tmp_path)) == CocoFiles(name, coco / "annotations" / f"{listed}.json", coco / images)


def test_the_names_are_detectron2s():
    builtin = pytest.importorskip("detectron2.data.datasets.builtin", reason="detectron2 is not installed")
    theirs = builtin._PREDEFINED_SPLITS_COCO["coco"]
    ours = {name: files for name, files in COCO_SETS.items() if name.startswith("coco_")}
    assert ours == {name: theirs[name][::-1] for name in ours}
    assert {name for name in theirs if "test" not in name} == set(ours)  # test sets have no annotations


def test_voc_may_lie_as_its_archives_unpack(tmp_path):
    def folder():
        found = locate("voc_2007_trainval", str(tmp_path))
        assert isinstance(found, VocFolder)
        return found.folder

    assert folder() == tmp_path / "VOC2007"  # the error will name it
    for place in ("VOCdevkit/VOC2007", "VOC2007"):
        lists = tmp_path / place / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "test.txt").write_text("a\n")  # another split of the same folder does not count
        assert folder() != tmp_path / place or place == "VOC2007"
        (lists / "trainval.txt").write_text("a\n")
        assert folder() == tmp_path / place


def test_the_genuine_voc_set_has_a_name(shared_data):
    data = load_data(["voc2012_100"], str(shared_data), WarningCounter())
    assert data.counts() == {
        "images": 70, "annotations": 205, "crowd": 27, "categories": 20, "categories_annotated": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "listing"),
    [
        ("coco_2017_val", "coco/annotations/instances_val2017.json"),
        ("coco128", "coco128/annotations/instances_train2017.json"),
        ("scenes_train", "scenes/detection/annotations/instances_train.json"),
        ("bccd_test", "bccd/BCCD/ImageSets/Main/test.txt"),
        ("voc_2007_test", "VOC2007/ImageSets/Main/test.txt"),
    ],
)
def test_the_root_may_be_the_folder_of_the_data_set(tmp_path, name, listing):
    (tmp_path / listing).parent.mkdir(parents=True)
    (tmp_path / listing).touch()
    above = locate(name, str(tmp_path))
    assert above.listing == tmp_path / listing
    assert locate(name, str(tmp_path / listing.split("/")[0])) == above


def test_a_folder_of_another_name_is_not_taken_for_the_data_set(tmp_path):
    """VOC 2012 would be read from the folder of VOC 2007, which has the same files."""
    listing = tmp_path / "VOC2007" / "ImageSets" / "Main" / "trainval.txt"
    listing.parent.mkdir(parents=True)
    listing.touch()
    assert locate("voc_2007_trainval", str(tmp_path / "VOC2007")).listing == listing
    assert not locate("voc_2012_trainval", str(tmp_path / "VOC2007")).listing.exists()


def test_prepared_data_may_have_any_folder_name(tmp_path):
    listing = tmp_path / "mine" / "detection" / "annotations" / "instances_val.json"
    listing.parent.mkdir(parents=True)
    listing.touch()
    assert locate("scenes_val", str(tmp_path / "mine")).listing != listing
    (tmp_path / "mine" / "scenes.json").touch()  # written by tools/prepare_data.py
    assert locate("scenes_val", str(tmp_path / "mine")).listing == listing


def test_explicit_files_lie_below_the_root_or_here(tmp_path, monkeypatch):
    for folder in ("root", "here"):
        (tmp_path / folder / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "root" / "a.json").touch()
    found = locate("coco:a.json:images", str(tmp_path / "root"))
    assert (found.annotations, found.images) == (tmp_path / "root" / "a.json", tmp_path / "root" / "images")
    assert locate("coco:b.json:images", str(tmp_path / "root")).annotations == Path("b.json")
    assert locate("coco:a.json:images", DEFAULT).images == Path("images")  # without a root
    assert locate(f"coco:{tmp_path}/a.json:images", str(tmp_path / "root")).annotations == tmp_path / "a.json"


def test_the_classes_of_a_voc_folder_can_be_listed(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog \n\n")
    found = locate("voc:mine:train:names.txt", str(tmp_path))
    assert found == VocFolder("mine_train", Path("mine"), "train", ("cat", "dog"))
    assert locate(f"voc:{tmp_path}/mine:train", "").classes is None
    for text, message in (("cat\n\ndog\n", "line 2: is empty"), ("a\na\n", "line 1: 'a' is duplicated")):
        (tmp_path / "names.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            locate("voc:mine:train:names.txt", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot read the class names in absent\.txt"):
        locate("voc:mine:train:absent.txt", str(tmp_path))
