"""The schemas of results.json and comparison.json: what they describe, refuse and keep reading.

jsonschema, the reference implementation, judges the files beside the compiled check of the project.
"""

import importlib.util
import json
import math
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from helpers.result_folders import add, add_suite, backbone, compare_runs

import backbones
from backbones.core import results as results_module
from backbones.core.errors import InputError
from backbones.core.results import SCHEMA, SCHEMA_VERSION, load_results, make_results, save_results
from backbones.core.schema import find_violation
from comparison import summary
from comparison.metrics import METRICS
from comparison.row import STAGE_ORDER
from comparison.rows import collect_rows
from comparison.summary import build_comparison
from suites.stages import naming

pytest_plugins = ["helpers.suite_fixtures"]

# What the tools of commit 1fb45ab (version 0.3.0) wrote for one tiny backbone, and tools/compare.py for its folders.
OLD = Path(__file__).parent / "files" / "version_0.3.0"
WHO = backbone("CE")


@pytest.fixture(scope="module", params=[SCHEMA, summary.SCHEMA], ids=lambda path: path.stem)
def schema(request):
    return json.loads(request.param.read_text())


def violations(path, schema):
    """What the reference implementation says about a file."""
    checker = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    return [f"{path}: {one.json_path}: {one.message}" for one in checker.iter_errors(json.loads(path.read_text()))]


def valid_results(**changes):
    data = {"val": {"name": "x", "images": 3}}
    warnings = [{"what": "grey images", "count": 2, "examples": ["a.jpg"]}]
    files = {"predictions": "predictions.npz"}
    made = make_results(
        "backbone", WHO, {"name": "p", "hash": "1"}, {"top1": 0.5}, data=data, warnings=warnings, files=files
    )
    return made | changes


# ---- what the schemas describe --------------------------------------------------------------------------------------


def test_the_schemas_are_json_schemas(schema):
    jsonschema.Draft7Validator.check_schema(schema)


def described(schema):
    """Yield (path, entry) of every key that a schema lists."""
    for block in ("properties", "patternProperties", "definitions"):
        for name, entry in schema.get(block, {}).items():
            yield name, entry
            yield from ((f"{name}.{inner}", one) for inner, one in described(entry))
    if "items" in schema:
        yield from described(schema["items"])


def test_every_key_has_a_description(schema):
    found = list(described(schema))
    assert len(found) > 50
    assert [name for name, entry in found if len(entry.get("description", "")) < 10 and "$ref" not in entry] == []


def test_the_schema_lists_the_stages_the_metrics_and_the_versions():
    properties = json.loads(SCHEMA.read_text())["properties"]
    assert properties["stage"]["enum"] == list(STAGE_ORDER)
    patterns = jsonschema.Draft7Validator({"additionalProperties": False, **{
        key: properties["metrics"][key] for key in ("properties", "patternProperties")
    }})  # fmt: skip
    assert [metric.name for metric in METRICS if not patterns.is_valid({metric.name: 0.5})] == []
    assert not patterns.is_valid({"unknown": 0.5})
    assert properties["schema_version"]["enum"] == list(range(1, SCHEMA_VERSION + 1))
    versions = json.loads(summary.SCHEMA.read_text())["properties"]["schema_version"]["enum"]
    assert versions == list(range(1, summary.SCHEMA_VERSION + 1))


# ---- what is valid --------------------------------------------------------------------------------------------------


def test_results_and_their_comparison_are_valid(tmp_path):
    runs = add_suite(tmp_path / "runs")
    add(runs, "robustness", WHO, {"pgd_8_top1_error": 0.5}, warnings=[{"what": "x", "count": 1, "examples": []}])
    compare_runs(runs, tmp_path / "out")
    files = sorted(runs.rglob("results.json"))
    assert len(files) > 8
    assert [line for path in files for line in violations(path, SCHEMA)] == []
    assert violations(tmp_path / "out" / "comparison.json", summary.SCHEMA) == []


def test_the_results_of_the_fake_tools_are_valid(lab):
    assert lab.run()[0] == 0
    files = sorted(lab.output.rglob("results.json"))
    assert {json.loads(path.read_text())["stage"] for path in files} == {*STAGE_ORDER} - {"robustness"}
    assert [line for path in files for line in violations(path, SCHEMA)] == []


def test_additional_keys_are_allowed(tmp_path):
    entry = valid_results(remark="mine", details={"mine": {"deep": [1]}})
    entry["metrics"]["AP_of_mine"] = None
    assert load_results(save_results(tmp_path, entry)) == entry
    assert violations(tmp_path / "results.json", SCHEMA) == []


# ---- what is refused ------------------------------------------------------------------------------------------------

WRONG = [
    ({"stage": "baking"}, r"stage is 'baking'; it must be pretraining, backbone, localization, .* or detection"),
    ({"backbone": {"label": "a", "method": "CE", "seed": 0}}, r"backbone\.hash is missing"),
    ({"backbone": {"label": "a", "method": "CE", "seed": 0.5, "hash": ""}}, r"backbone\.seed is 0.5; .* an integer"),
    ({"backbone": {"label": 1, "method": "CE", "seed": 0, "hash": ""}}, r"backbone\.label is 1; it must be a text"),
    ({"protocol": ["p", "1"]}, r"protocol is \['p', '1'\]; it must be an object with keys"),
    ({"protocol": {"name": "p", "hash": "1", "settings": 3}}, r"protocol\.settings is 3; .* an object with keys"),
    ({"metrics": {"AP": "0.5"}}, r"metrics\.AP is '0.5'; it must be a number or null"),
    ({"metrics": {"of.mine": True}}, r"metrics\.of\.mine is True; it must be a number or null"),
    ({"metrics": {"pgd_8_top1_error": []}}, r"metrics\.pgd_8_top1_error is \[\]; it must be a number or null"),
    ({"data": {"test": {"images": -1}}}, r"data\.test\.images is -1; it must be at least 0"),
    ({"data": {"evaluated_on_training_images": 1}}, r"data\.evaluated_on_training_images is 1; .* true or false"),
    ({"details": {"seed": "0"}}, r"details\.seed is '0'; it must be an integer or null"),
    ({"warnings": [{"what": "a", "count": "2", "examples": []}]}, r"warnings\[0\]\.count is '2'; .* an integer"),
    ({"warnings": {}}, r"warnings is {}; it must be a list"),
    ({"files": {"a\nb": None}}, r"files\.a b is None; it must be a text"),
    ({"code": {"commit": 3}}, r"code\.commit is 3; it must be a text or null"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[next(iter(changes)) for changes, _ in WRONG])
def test_what_is_wrong_is_named_by_its_path(tmp_path, changes, message):
    path = tmp_path / "results.json"
    with pytest.raises(ValueError, match=rf"results\.json is not written: {message}") as refused:
        save_results(tmp_path, valid_results(**changes))
    assert not isinstance(refused.value, InputError)  # whoever made the results is wrong, not the user
    assert not path.exists()
    path.write_text(json.dumps(valid_results(**changes)))
    assert violations(path, SCHEMA)
    with pytest.raises(InputError, match=rf"results\.json: {message}; run the stage again$") as refused:
        load_results(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, [], 3, "x", {}, {"schema_version": 0}, {"schema_version": [1]}])
def test_what_states_no_known_version_is_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"schema_version is .*; this version of smooth2det reads 1 only"):
        load_results(tmp_path)


@pytest.mark.parametrize("key", ["stage", "backbone", "protocol", "metrics", "data", "details", "warnings", "files"])
def test_a_missing_block_is_named(tmp_path, key):
    (tmp_path / "results.json").write_text(json.dumps({k: v for k, v in valid_results().items() if k != key}))
    with pytest.raises(InputError, match=rf"results\.json: {key} is missing"):
        load_results(tmp_path)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400, -(10**400)])
def test_a_number_that_json_or_a_float_lacks_is_refused(tmp_path, number):
    (tmp_path / "results.json").write_text(json.dumps(valid_results(metrics={"top1": number})))
    with pytest.raises(InputError, match=r"metrics\.top1 is .*; it must be a finite number or null"):
        load_results(tmp_path)


def test_a_comparison_is_checked(tmp_path, monkeypatch):
    rows = collect_rows([add(tmp_path, "backbone", WHO, {"top1": 0.5})])
    assert build_comparison(rows, resamples=2)["rows"][0]["metrics"]["top1"] == 0.5
    monkeypatch.setattr(summary, "write_notes", lambda *_: [np.float64(1)])
    with pytest.raises(ValueError, match=r"comparison\.json: notes\[0\] is .*; it must be a text"):
        build_comparison(rows, resamples=2)


# ---- files of earlier versions --------------------------------------------------------------------------------------


def test_results_of_version_0_3_0_are_read(tmp_path):
    files = sorted(OLD.rglob("results.json"))
    assert {load_results(path)["stage"] for path in files} == set(STAGE_ORDER)
    assert [line for path in files for line in violations(path, SCHEMA)] == []
    (row,) = compare_runs(OLD, tmp_path / "out")["rows"]
    assert (row["label"], row["method"], row["seed"], set(row["stages"])) == ("ALS", "ALS", 0, set(STAGE_ORDER))
    for stage, name in (("backbone", "ece15"), ("localization", "pointing"), ("robustness", "pgd_8_top1_error")):
        written = json.loads((OLD / stage / "results.json").read_text())["metrics"][name]
        assert 0 <= row["metrics"][name] == written <= 1
    assert row["on_training_images"] is False


def test_the_old_names_of_keys_are_read(tmp_path):
    shown = json.loads((OLD / "detection" / "results.json").read_text())
    assert {"evaluated_on_training_pictures", "train", "test"} <= shown["data"].keys()
    shown["data"]["evaluated_on_training_pictures"] = True
    (tmp_path / "results.json").write_text(json.dumps(shown))
    (row,) = collect_rows([tmp_path])
    assert row.on_training_images


def test_a_comparison_of_version_0_3_0_is_valid():
    assert violations(OLD / "comparison.json", summary.SCHEMA) == []
    assert find_violation(json.loads((OLD / "comparison.json").read_text()), summary.SCHEMA) == ""


# ---- a new version reruns nothing -----------------------------------------------------------------------------------


def test_a_new_schema_reruns_no_stage(lab, monkeypatch):
    assert lab.run()[0] == 0
    monkeypatch.setattr(results_module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    assert lab.to_run() == []


def test_the_hash_of_a_stage_does_not_cover_the_schema(monkeypatch):
    """The number is that of before the entry became a constant."""
    monkeypatch.setattr(backbones, "__version__", "0.4.0")
    monkeypatch.setattr(results_module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    spec = importlib.util.spec_from_file_location("naming_again", str(naming.__file__))
    module = importlib.util.module_from_spec(spec)  # a second copy, which reads the changed number if any
    monkeypatch.setitem(sys.modules, "naming_again", module)
    spec.loader.exec_module(module)
    assert module.stage_hash(Path("x/pretrain.py"), ["SEED", "1"], {"LR": 0.1}, ["a"], "s") == "2f20195feb79"
