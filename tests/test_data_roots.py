"""Where the names of detection data lie: environment variables, their order, and the layouts that detectron2 takes."""

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
