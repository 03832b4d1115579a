"""The strict configuration: what a mistyped, doubled or wrongly typed key leads to."""

import pytest

from backbones.config import get_defaults, validate
from backbones.core.config import CfgNode, config_hash, expand_path, flatten, load_config
from backbones.core.errors import InputError


def write(path, text):
    path.write_text(text)
    return path


def test_later_sources_win(tmp_path):
    write(tmp_path / "base.yaml", "SEED: 1\nSOLVER:\n  BASE_LR: 0.5\n  GAMMA: 0.2\n")
    child = write(tmp_path / "child.yaml", "_BASE_: base.yaml\nSOLVER:\n  BASE_LR: 0.25\n")
    cfg = load_config(get_defaults(), child, ["SEED", "3"])
    assert (cfg.SEED, cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (3, 0.25, 0.2)


def test_several_bases_merge_in_order(tmp_path):
    write(tmp_path / "a.yaml", "SEED: 1\nLABEL: a\n")
    write(tmp_path / "b.yaml", "SEED: 2\n")
    child = write(tmp_path / "c.yaml", "_BASE_: [a.yaml, b.yaml]\n")
    cfg = load_config(get_defaults(), child)
    assert (cfg.SEED, cfg.LABEL) == (2, "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  BASE_LRR: 1.0\n", r"unknown key 'SOLVER.BASE_LRR'; did you mean 'SOLVER.BASE_LR'"),
        ("BASE_LR: 1.0\n", r"unknown key 'BASE_LR'"),
        ("SEED: 1\nSEED: 2\n", r"key 'SEED' is duplicated, in lines 1 and 2"),
        ("SOLVER:\n  GAMMA: 0.1\n  GAMMA: 0.2\n", r"key 'GAMMA' is duplicated, in lines 2 and 3"),
        ("SEED: one\n", r"SEED must be of type int"),
        ("SEED: 1.5\n", r"SEED must be of type int"),
        ("SEED: true\n", r"SEED must be of type int"),
        ("CHANNELS_LAST: 1\n", r"CHANNELS_LAST must be of type bool"),
        ("SOLVER: 3\n", r"unknown key 'SOLVER'"),
        ("SEED: [1\n", r"not valid yaml"),
        ("- 1\n", r"must hold KEY: value lines"),
        ("_BASE_: absent.yaml\n", r"cannot read the config file .*absent.yaml"),
        ("_BASE_: bad.yaml\n", r"leads back to the file itself"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(InputError, match=message):
        load_config(get_defaults(), path)


def test_command_line_is_as_strict():
    with pytest.raises(InputError, match=r"unknown key 'SOLVER.BASE_RL'.*SOLVER.BASE_LR"):
        load_config(get_defaults(), None, ["SOLVER.BASE_RL", "1"])
    with pytest.raises(InputError, match="has no value"):
        load_config(get_defaults(), None, ["SEED"])


def test_numbers_are_converted_without_loss():
    cfg = load_config(get_defaults(), None, ["SOLVER.BASE_LR", "1e-3", "SOLVER.GAMMA", "1", "SOLVER.STEPS", "[3]"])
    assert cfg.SOLVER.BASE_LR == 1e-3
    assert isinstance(cfg.SOLVER.GAMMA, float)
    assert cfg.SOLVER.STEPS == [3]


def test_a_block_of_the_wrong_shape_is_named():
    with pytest.raises(InputError, match="SEED"):
        load_config(get_defaults(), None, ["SEED.X", "1"])


def test_hash_depends_on_content_alone():
    one = CfgNode({"A": {"B": 1, "C": (1, 2)}})
    same = CfgNode({"A": {"C": [1, 2], "B": 1}})
    assert config_hash(one) == config_hash(same)
    assert config_hash(one) != config_hash(CfgNode({"A": {"B": 2, "C": (1, 2)}}))


def test_unset_variable_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("S2D_ROOT", str(tmp_path))
    assert expand_path("${S2D_ROOT}/x") == tmp_path / "x"
    with pytest.raises(InputError, match="S2D_ABSENT"):
        expand_path("$S2D_ABSENT/x")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.STEPS", "[75, 300]"], "at or beyond SOLVER.MAX_EPOCH 300"),
        (["METHOD.NAME", "OSL"], "unknown METHOD.NAME 'OSL'.*OLS"),
        (["DATA.CROP_AREA", "[0.5, 1.5]"], "CROP_AREA"),
        (["DATA.CROP_AREA", "[0.5]"], "CROP_AREA"),
        (["DATA.FLIP", "1.5"], "DATA.FLIP is 1.5"),
        (["SOLVER.BASE_LR", "0"], "above 0"),
        (["DATA.ROOT", "''"], "DATA.ROOT is not set"),
    ],
)
def test_values_that_cannot_work(overrides, message):
    cfg = load_config(get_defaults(), None, ["DATA.ROOT", "x", *overrides])
    with pytest.raises(InputError, match=message):
        validate(cfg)


def test_defaults_are_valid_once_a_root_is_given():
    cfg = load_config(get_defaults(), None, ["DATA.ROOT", "x"])
    validate(cfg)
    assert all(key.replace(".", "").replace("_", "").isalnum() for key, _ in flatten(cfg))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["LABEL", "[a"], "the value '\\[a' of LABEL is not valid yaml"),
        (["SOLVER.STEPS", "[a, 3]"], "SOLVER.STEPS must be of type int"),
        (["DATA.MEAN", "[0.1, x, 0.2]"], "DATA.MEAN must be of type float"),
        (["DATA.MEAN", "[0.1, .nan, 0.2]"], "DATA.MEAN must be a finite number"),
        (["DATA.FLIP", "nan"], "DATA.FLIP must be a finite number"),  # no comparison with a bound refuses it
        (["SOLVER.WARMUP_EPOCHS", ".inf"], "SOLVER.WARMUP_EPOCHS must be a finite number"),
    ],
)
def test_text_that_is_not_a_value(overrides, message):
    with pytest.raises(InputError, match=message):
        load_config(get_defaults(), None, overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATA.EVAL_RESIZE", "64"], "DATA.EVAL_CROP 224 exceeds DATA.EVAL_RESIZE 64"),
        (["DATA.MEAN", "[0.5]"], "DATA.MEAN is .*must be 3 numbers"),
        (["DATA.STD", "[0.5, 0.5, 0]"], "DATA.STD is .*must be 3 numbers"),
        (["SOLVER.MOMENTUM", "0"], "NESTEROV"),
        (["SOLVER.MOMENTUM", "-0.5", "SOLVER.NESTEROV", "False"], "SOLVER.MOMENTUM is -0.5"),
        (["SOLVER.GAMMA", "-1"], "SOLVER.GAMMA is -1"),
        (["SOLVER.WARMUP_FACTOR", "-3"], "SOLVER.WARMUP_FACTOR is -3"),
        (["SOLVER.WARMUP_EPOCHS", "300"], "SOLVER.WARMUP_EPOCHS 300 must be below SOLVER.MAX_EPOCH 300"),
    ],
)
def test_what_would_fail_after_the_training_is_refused_before(overrides, message):
    with pytest.raises(InputError, match=message):
        validate(load_config(get_defaults(), None, ["DATA.ROOT", "x", *overrides]))


def test_files_that_are_no_config(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"LABEL: \xe9\n")
    with pytest.raises(InputError, match="not UTF-8"):
        load_config(get_defaults(), tmp_path / "latin.yaml")
    with pytest.raises(InputError, match="_BASE_ must be a path"):
        load_config(get_defaults(), write(tmp_path / "base.yaml", "_BASE_: 3\n"))


def test_elements_have_the_type_of_the_defaults_not_of_the_file(tmp_path):
    """A list that is empty by default takes anything, also after a file has filled it."""
    defaults = CfgNode({"ANY": [], "NUMBERS": [1.0]})
    path = write(tmp_path / "a.yaml", "ANY: [text]\nNUMBERS: [2]\n")
    cfg = load_config(defaults, path, ["ANY", "[text, 1]"])
    assert cfg.ANY == ["text", 1]
    assert cfg.NUMBERS == [2.0]


@pytest.mark.parametrize("key", ["A.NUMBER", "A.RATE"])
def test_a_number_beyond_every_range_is_refused_in_a_line(key):
    defaults = CfgNode({"A": {"NUMBER": 1, "RATE": 0.5}})
    with pytest.raises(InputError, match=rf"{key} holds an integer of 401 digits"):
        load_config(defaults, None, [key, "1" + "0" * 400])


def test_a_key_that_is_a_mapping_is_named_with_its_line(tmp_path):
    (tmp_path / "a.yaml").write_text("A: 1\n{data:y}: 2\n")
    with pytest.raises(InputError, match=r"a\.yaml: line 2 has \{'data:y': None\} as a key"):
        load_config(CfgNode({"A": 1}), tmp_path / "a.yaml")


def test_a_method_that_was_registered_too_late_is_said_to_be_so():
    cfg = get_defaults()
    cfg.DATA.ROOT, cfg.METHOD.NAME = "data", "LS"
    validate(cfg)
    del cfg.METHOD["LS"]
    with pytest.raises(
        InputError, match=r"METHOD.NAME LS is registered, .* no block METHOD.LS; name its file in IMPORTS"
    ):
        validate(cfg)
