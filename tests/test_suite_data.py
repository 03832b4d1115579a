"""The name of a data folder: labels by content, images by name and size; no time and no place."""

import os
import re
import shutil

import pytest
from helpers.suite_lab import FINETUNE

from backbones.core.errors import InputError
from suites.cleaning import find_leftovers
from suites.fingerprints import data as suite_data
from suites.fingerprints.data import tree_fingerprint

pytest_plugins = ["helpers.suite_fixtures"]
FILES = {
    "annotations/instances.json": '{"category_id": 1}',
    "Annotations/a.xml": "<name>cat</name>",
    "labels.csv": "a,1",
    "train.txt": "a 1",
    "batches/data_batch_1": "labels 1",  # CIFAR has no suffix
    "train_32x32.mat": "labels 1",
    "set.npz": "labels 1",
    "images/a.jpg": "pixels",
    "images/B.PNG": "pixels",
    "all.tar.gz": "packed",
}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "set")


def write(folder):
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_labels_of_equal_size_count_and_pixels_do_not(folder, name):
    before = tree_fingerprint(folder)
    text = FILES[name]
    (folder / name).write_text(text[:-1] + "x")
    by_size = name in ("images/a.jpg", "images/B.PNG", "all.tar.gz")
    assert (tree_fingerprint(folder) == before) == by_size
    (folder / name).write_text(text + "x")
    assert tree_fingerprint(folder) != before
    (folder / name).write_text(text)
    assert tree_fingerprint(folder) == before
    (folder / name).rename(folder / f"{name}.old")
    assert tree_fingerprint(folder) != before


def test_neither_time_nor_place_counts(folder, tmp_path):
    before = tree_fingerprint(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    assert tree_fingerprint(folder) == before
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "link").symlink_to(folder)
    assert tree_fingerprint(tmp_path / "copy") == tree_fingerprint(tmp_path / "link") == before
    for name in (".DS_Store", "._a.xml", "Annotations/._a.xml"):
        (folder / name).write_text("left by a look")
    assert tree_fingerprint(folder) == before


def test_a_label_that_moves_to_another_folder_counts(folder):
    before = tree_fingerprint(folder)
    (folder / "empty").mkdir()  # a class without an image is a class
    with_empty = tree_fingerprint(folder)
    assert with_empty != before
    (folder / "labels.csv").rename(folder / "empty" / "labels.csv")
    assert tree_fingerprint(folder) not in (before, with_empty)


def test_links_are_followed_and_circles_end(folder, tmp_path):
    (tmp_path / "elsewhere.json").write_text("[1]")
    (folder / "linked.json").symlink_to(tmp_path / "elsewhere.json")
    (folder / "images" / "up").symlink_to(folder)
    before = tree_fingerprint(folder)
    (tmp_path / "elsewhere.json").write_text("[2]")
    changed = tree_fingerprint(folder)
    (tmp_path / "elsewhere.json").unlink()
    assert len({before, changed, tree_fingerprint(folder)}) == 3
    os.mkfifo(folder / "pipe")  # never opened: that would wait for ever
    (folder / os.fsdecode(b"n\xe4me.json")).write_text("a name of another encoding")
    assert len(tree_fingerprint(folder)) == 12


def test_a_file_that_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(suite_data, "digest_of_file", refuse)
    with pytest.raises(InputError, match=r"cannot read .*/set/.*: Permission denied"):
        tree_fingerprint(folder)


def test_content_is_read_once(folder, monkeypatch):
    read = []
    real = suite_data.digest_of_file
    monkeypatch.setattr(suite_data, "digest_of_file", lambda path: (read.append(path), real(path))[1])
    known = {}
    before = tree_fingerprint(folder, known)
    assert len(read) == 7
    assert known == {}  # just written: a second write might leave the same time
    monkeypatch.setattr(suite_data, "_SETTLED", -60.0)
    tree_fingerprint(folder, known)
    read.clear()
    assert tree_fingerprint(folder, known) == before
    assert read == []
    path = folder / "annotations" / "instances.json"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(FILES["annotations/instances.json"].replace("1", "2"))
    os.utime(path, ns=times)  # as `cp -p` and `tar` do
    assert tree_fingerprint(folder, known) != before
    assert read == [os.fsencode(path)]  # of the one folder


# ---- suites ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def reading(finished):
    """A lab whose suite has run, and reads a folder that was there."""
    write(finished.folder / "set")
    finished.tree["DATA"].append({"NAME": "set", "FOLDER": str(finished.folder / "set")})
    finished.tree["FINETUNE"][0]["OVERRIDES"] = ["A", "{data:set}"]
    assert finished.run()[0] == 0
    finished.called()
    return finished


def test_changed_labels_run_again_what_reads_them(reading):
    assert reading.to_run() == []
    (reading.folder / "set" / "train.txt").write_text("a 2")
    assert reading.to_run() == [*FINETUNE, "compare"]


def test_digests_are_kept_for_the_next_call(reading, monkeypatch):
    monkeypatch.setattr(suite_data, "_SETTLED", -60.0)
    assert reading.run()[0] == 0
    monkeypatch.setattr(suite_data, "digest_of_file", None)  # whoever reads fails
    assert reading.plan().data["{data:set}"].hash
    (reading.output / suite_data.KNOWN).write_text("[1]")
    with pytest.raises(InputError, match=r"fingerprints.json does not hold the digests of folders; delete it"):
        reading.plan()


def test_data_that_change_while_the_suite_runs_train_nothing_under_the_old_name(reading):
    (reading.folder / "set" / "train.txt").write_text("a 2")
    plan = reading.plan()
    (reading.folder / "set" / "train.txt").write_text("a 3")
    reading.plan = lambda: plan
    code, said = reading.run()
    assert code == 1
    assert f"not run: {reading.folder}/set has changed since the suite was started; start it again" in said
    assert not [name for name in reading.called() if "finetune" in name]


def test_data_that_vanish_while_the_suite_runs_stop_only_what_reads_them(reading):
    (reading.folder / "set" / "train.txt").write_text("a 2")
    reading.tree["PRETRAIN"]["OVERRIDES"] = [*reading.tree["PRETRAIN"].get("OVERRIDES", []), "A", "2"]
    plan = reading.plan()
    shutil.rmtree(reading.folder / "set")
    reading.plan = lambda: plan
    reading.called()
    code, said = reading.run()
    assert code == 1
    assert re.search(rf"finetune .* \.\.\. (error|not run): .*{reading.folder}/set", said)
    called = reading.called()
    assert "CE pretrain" in called
    assert "ALS pretrain" in called
    assert not [name for name in called if "finetune" in name]


def test_output_in_the_data_folder_is_refused(lab):
    lab.tree["DATA"].append({"NAME": "all", "FOLDER": str(lab.folder)})
    with pytest.raises(
        InputError, match=r"DATA all: FOLDER: the output folder .*/out is inside .*; choose another --output"
    ):
        lab.plan()


@pytest.mark.parametrize("change", ["edit", "delete", "add"])
def test_prepared_data_that_were_changed_are_prepared_again(finished, change):
    (file,) = finished.output.glob("data/*/scenes/scenes.json")
    whole, other = file.read_text(), file.parent / "annotations.json"
    if change == "delete":
        file.unlink()  # the mark that it is whole: a killed call
    elif change == "edit":
        file.write_text("[]")
    else:
        other.write_text("[]")
    assert finished.to_run() == ["data scenes prepare"]  # what was trained before is of the data as they were
    code, said = finished.run()
    assert (code, finished.called()) == (0, ["prepare_data"])
    assert finished.to_run() == []
    assert file.read_text() == whole
    aside = file.parents[1].with_name(f"{file.parents[1].name}.old1")
    assert find_leftovers(finished.plan()) == ([aside] if change != "delete" else [])
    assert [path.name for path in file.parents[1].iterdir() if path.is_dir()] == ["scenes"]
    why = f"data scenes: prepare: its files have changed since they were written; put aside as {aside.name}"
    assert (why in said) == (change != "delete")
