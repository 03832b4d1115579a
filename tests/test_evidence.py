"""The evidence of a comparison: what it holds, that it is verified, and that every change is found."""

import json
import re
import shutil
import zipfile

import pytest
from helpers.coco_scenes import scene
from helpers.evidence import changed
from helpers.many_runs import add_many
from helpers.result_folders import add, add_gallery, backbone, compare_runs

from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.matches import VOC_MATCHES_FILE
from comparison.evidence.bundle import MANIFEST
from comparison.evidence.verify import verify
from detection.evaluation.voc import evaluate_voc

METHODS = {"CE": (0.6, 0.02), "ALS (all)": (0.75, 0.02), "LS": (0.6, 0.02)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    runs = add_many(folder / "runs", methods=METHODS, seeds=3, images=20)
    add_gallery(runs, backbone("CE"), ["a.jpg"])
    (folder / "failures.json").write_text(
        json.dumps([{"label": "OLS", "seed": 0, "protocol": "", "what": "pretrain", "reason": "error: x", "log": ""}])
    )
    arguments = ["--allow-mixed-protocols", "--margin", "0.01", "--seed-hours", "2", "--note", "a note"]
    path = folder / "evidence.zip"
    compare_runs(runs, folder / "page", *arguments, "--failures", str(folder / "failures.json"), "--bundle", str(path))
    shutil.rmtree(runs)  # nothing but the file is needed
    return path


def replace(old, new):
    def change(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def test_it_is_verified_without_the_runs(bundle, run_tool):
    found = verify(bundle)
    assert found.problems == ()
    assert found.numbers > 2000
    with zipfile.ZipFile(bundle) as file:
        names = set(file.namelist())
    assert {"page/index.html", "page/comparison.tex", MANIFEST} <= names
    assert sum(name.endswith("matches.npz") for name in names) == 18
    assert not any("draws" in name or "predictions" in name for name in names)
    finished = run_tool("verify", bundle)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"{bundle}: verified, ")


def test_a_changed_byte_is_found_and_named(bundle, tmp_path, run_tool):
    path = changed(bundle, tmp_path, replace("<h1>", "<h1> "), "page/index.html", consistent=False)
    assert verify(path).problems == ("page/index.html was changed: its SHA-256 is not that of the manifest",)
    finished = run_tool("verify", path)
    assert finished.returncode == 1
    assert "page/index.html was changed" in finished.stdout


def set_number(*keys):
    def change(path):
        content = tree = json.loads(path.read_text())
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = 0.123456 if isinstance(tree[keys[-1]], float) else "better"
        path.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("rows", 3, "metrics", "AP50"), "comparison.json: rows .*: metrics: AP50 is 0.123456, recomputed 0."),
        (("rows", 8, "intervals", "AP", "low"), "intervals: AP: low is 0.123456"),
        (("methods", 1, "differences", "AP", "high"), "comparison.json: methods .*: differences: AP: high is 0.123456"),
        (("methods", 1, "verdict", "word"), "verdict: word is 'better', recomputed 'not distinguishable'"),
        (("variances", 0, "seeds"), "variances 0: seeds is 0.123456"),
    ],
)
def test_a_number_that_does_not_follow_is_named(bundle, tmp_path, keys, said):
    """Even if the manifest was changed with it."""
    problems = verify(changed(bundle, tmp_path, set_number(*keys), "page/comparison.json")).problems
    assert len(problems) == 1
    assert re.search(said, problems[0]), problems


def test_a_sentence_of_the_page_that_does_not_follow_is_named(bundle, tmp_path):
    path = changed(bundle, tmp_path, replace("not distinguishable from CE", "better than CE"), "page/index.html")
    [problem] = verify(path).problems
    assert problem.startswith("index.html differs from the recomputed one in line ")
    assert "better than CE" in problem
    path = changed(bundle, tmp_path / "2", replace("not distinguishable", "better"), "page/comparison.md")
    assert verify(path).problems == ("comparison.md differs from the recomputed one",)
    path = changed(bundle, tmp_path / "3", replace("not distinguishable", "better"), "page/comparison.tex")
    assert verify(path).problems == ("comparison.tex differs from the recomputed one",)
    path = changed(bundle, tmp_path / "4", replace(",0.", ",1."), "page/comparison.csv")
    assert verify(path).problems == ("comparison.csv differs from the recomputed one",)


def test_results_that_contradict_their_images_are_named(bundle, tmp_path):
    """A number of results.json, and everything that follows from it, was changed; the per-image data was not."""

    def change(path):
        content = json.loads(path.read_text())
        content["metrics"]["AP"] += 0.01
        path.write_text(json.dumps(content))

    problems = verify(changed(bundle, tmp_path, change, "runs/*-detection/results.json")).problems
    assert any("AP is 0." in text and re.search(r"by runs/00\d-detection/matches.npz", text) for text in problems)


def test_voc_numbers_that_contradict_their_images_are_named(tmp_path):
    truth, detections = scene(3, images=20)
    for label in ("CE", "LS"):
        who = backbone(label)
        folder = add(tmp_path / "runs", "detection", who, {}, protocol="voc@1")
        files = {"matches_voc": VOC_MATCHES_FILE}
        found = evaluate_voc(truth, detections, matches_path=folder / VOC_MATCHES_FILE)
        add(tmp_path / "runs", "detection", who, found["metrics"], protocol="voc@1", files=files)
    path = tmp_path / "evidence.zip"
    compare_runs(tmp_path / "runs", tmp_path / "page", "--primary", "VOC_mAP50", "--bundle", str(path))
    assert verify(path).problems == ()

    def change(path):
        content = json.loads(path.read_text())
        content["metrics"]["VOC_mAP50"] += 0.01
        path.write_text(json.dumps(content))

    problems = verify(changed(path, tmp_path, change, "runs/*-detection/results.json")).problems
    assert any("VOC_mAP50 is 0." in text and "detection/matches_voc.npz" in text for text in problems)


def test_missing_and_added_files_are_named(bundle, tmp_path):
    path = changed(bundle, tmp_path, lambda path: path.unlink(), "page/comparison.csv", consistent=False)
    assert verify(path).problems == ("page/comparison.csv is missing",)
    path = changed(
        bundle, tmp_path / "2", lambda path: (path.parent / "more.txt").write_text("x"), MANIFEST, consistent=False
    )
    assert verify(path).problems == ("more.txt is not in the manifest",)


def test_a_damaged_entry_is_refused_in_one_line(bundle, tmp_path, run_tool):
    content = bytearray(bundle.read_bytes())
    with zipfile.ZipFile(bundle) as file:
        entry = max(file.infolist(), key=lambda one: one.compress_size)
    begin = entry.header_offset + 30 + len(entry.filename)
    content[begin : begin + 200] = bytes(200)
    path = tmp_path / "damaged.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is not a valid zip file: .*; ask for it again"):
        verify(path)
    assert run_tool("verify", path).returncode == 2


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip"])
def test_other_files_are_refused_in_one_line(tmp_path, content, run_tool):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a valid zip file"):
        verify(path)
    assert run_tool("verify", path).returncode == 2
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        verify(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(MANIFEST, json.dumps({"format_version": 99}))
    with pytest.raises(InputError, match="format 99, this version reads 2; use that which wrote it"):
        verify(path)


def test_an_incomplete_bundle_is_refused_in_one_line(bundle, tmp_path):
    def without_options(path):
        path.write_text(json.dumps({**load_json(path), "options": {"seed": 0}}))

    with pytest.raises(InputError, match=r"its manifest\.json does not list files and options"):
        verify(changed(bundle, tmp_path, without_options, MANIFEST, consistent=False))
    path = tmp_path / "empty.zip"
    with zipfile.ZipFile(bundle) as whole, zipfile.ZipFile(path, "w") as file:
        manifest = json.loads(whole.read(MANIFEST))
        file.writestr(MANIFEST, json.dumps({**manifest, "files": {}}))
    with pytest.raises(InputError, match="holds no page or no runs"):
        verify(path)


def test_equal_comparisons_have_equal_bytes(tmp_path):
    runs = add_many(tmp_path / "runs", methods={"CE": (0.6, 0.02)}, seeds=1, protocols=("det@1",), images=5)
    for name in ("a", "b"):
        compare_runs(runs, tmp_path / "page", "--bundle", str(tmp_path / f"{name}.zip"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert verify(tmp_path / "a.zip").problems == ()
