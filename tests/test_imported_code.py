"""Rows of other imported code are not seeds of one method, wherever their results lie."""

import json
import shutil

import pytest
import yaml
from helpers.evidence import changed
from helpers.result_folders import add, backbone, compare_runs

from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.imports import describe_imports, digest, import_all
from comparison.evidence.bundle import MANIFEST
from comparison.evidence.verify import verify
from comparison.families import find_families
from comparison.rows import collect_rows
from comparison.summary import build_comparison


def pretrained(root, seed, code, *, stated=False, copied=True, label="own"):
    """A pretraining with a method of its own; stated: whether its results name the code; copied: the folder imports."""
    folder = add(root, "pretraining", backbone(label, seed=seed), {"top1": 0.5 + seed / 10})
    (folder / "imports").mkdir()
    (folder / "imports" / "mine.py").write_text(code)
    (folder / "config.yaml").write_text(yaml.safe_dump({"SEED": seed, "IMPORTS": ["imports/mine.py"]}))
    if stated:
        results = load_json(folder / "results.json")
        results["details"]["imports"] = {"mine.py": digest(folder / "imports" / "mine.py")}
        (folder / "results.json").write_text(json.dumps(results))
    if not copied:
        shutil.rmtree(folder / "imports")
    return folder


def seeds_of(root):
    return [family.seeds for family in find_families(collect_rows([root]))]


@pytest.mark.parametrize(("stated", "copied"), [(True, True), (True, False), (False, True)])
def test_code_counts_by_its_content(tmp_path, stated, copied):
    for seed, code in enumerate(("a = 1", "a = 1", "a = 2")):
        pretrained(tmp_path, seed, code, stated=stated, copied=copied)
    assert seeds_of(tmp_path) == [[0, 1], [2]]


def test_a_run_that_says_nothing_of_its_code_is_averaged_with_no_other(tmp_path):
    pretrained(tmp_path, 0, "a = 1", stated=True)
    pretrained(tmp_path, 1, "a = 1", stated=True, copied=False)
    pretrained(tmp_path, 2, "a = 1", copied=False)
    pretrained(tmp_path, 3, "a = 2", copied=False)
    assert seeds_of(tmp_path) == [[0, 1], [2], [3]]
    [note] = [one for one in build_comparison(collect_rows([tmp_path]), resamples=2)["notes"] if "not seeds" in one]
    assert "differ in mine.py (" in note
    assert "unknown code of hash-own-2" in note


def test_results_are_those_of_the_code_although_its_file_is_gone(tmp_path):
    """An edited or deleted file does not end a training, nor change what its results state."""
    mine = tmp_path / "stated_once.py"
    mine.write_text("a = 1")
    import_all([mine])
    stated = {"imports": {"stated_once.py": digest(mine)}}
    mine.write_text("a = 2")
    assert describe_imports({"IMPORTS": [str(mine)]}) == stated
    mine.unlink()
    assert describe_imports({"IMPORTS": [str(mine)]}) == stated
    assert describe_imports({}) == {}
    with pytest.raises(InputError, match=r"IMPORTS: .*stated_once\.py does not exist; restore it"):
        digest(mine)


@pytest.fixture
def bundle(tmp_path):
    """The evidence of two rows that differ in their imported code, and of a third that states it."""
    for seed, code in enumerate(("a = 1", "a = 2", "a = 1")):
        pretrained(tmp_path / "runs", seed, code, stated=seed == 2)
    path = tmp_path / "evidence.zip"
    found = compare_runs(tmp_path / "runs", tmp_path / "page", "--bundle", str(path))
    assert [method["seeds"] for method in found["methods"]] == [[0, 2], [1]]
    shutil.rmtree(tmp_path / "runs")
    return path


def test_evidence_tells_rows_of_other_code_apart(bundle, tmp_path):
    assert verify(bundle).problems == ()
    imports = []
    changed(bundle, tmp_path, lambda path: imports.append(load_json(path)["imports"]), MANIFEST, consistent=False)
    assert sorted(imports[0]) == ["runs/000-pretraining", "runs/001-pretraining"]
    assert not list((tmp_path / "unpacked").rglob("mine.py"))


def test_another_hash_of_the_code_does_not_verify(bundle, tmp_path):
    def same(path):
        content = load_json(path)
        content["imports"]["runs/001-pretraining"] = content["imports"]["runs/000-pretraining"]
        path.write_text(json.dumps(content))

    assert verify(changed(bundle, tmp_path, same, MANIFEST, consistent=False)).problems


@pytest.mark.parametrize("content", [[], {"runs/000-pretraining": "text"}])
def test_damaged_hashes_are_refused(bundle, tmp_path, content):
    def damage(path):
        path.write_text(json.dumps({**load_json(path), "imports": content}))

    with pytest.raises(InputError, match=r"'imports' of its manifest\.json does not map folders to hashes"):
        verify(changed(bundle, tmp_path, damage, MANIFEST, consistent=False))
