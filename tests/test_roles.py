"""The roles of config keys: every key has one, and what may change, hashes, docs and readers of files follow."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

import backbones.config
import detection.config
import detection.engines.yolo.config
from backbones.core.config import IMPORTS, CfgNode, flatten, load_config
from backbones.core.errors import InputError
from backbones.core.files import save_text
from backbones.core.roles import (
    COMPARED,
    CONTENT,
    FREE,
    MACHINE,
    NAMING,
    NUMBER,
    PROTOCOL,
    SEED,
    TEST,
    WEIGHTS,
    Block,
    Role,
    Roles,
)
from backbones.core.runs import check_resume
from backbones.pretraining.description import describe_protocol
from comparison import families
from suites.stages import record

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    "pretraining": backbones.config,
    "Faster R-CNN": detection.config,
    "YOLO": detection.engines.yolo.config,
}
DETECTORS = ("Faster R-CNN", "YOLO")
KEYS = [(name, key) for name, module in MODULES.items() for key, _ in flatten(module.get_defaults())]


def other(value):
    """Another value of the same type; nothing here asks whether it is valid."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, (list, tuple)):
        return type(value)([*value, value[0] if value else 1])
    return value + 1


def change(cfg, *keys):
    """Give each key of `cfg` another value."""
    for key in keys:
        *path, leaf = key.split(".")
        node = cfg
        for name in path:
            node = node[name]
        node[leaf] = other(node[leaf])
    return cfg


# ---- what has a role ----------------------------------------------------------------------------------------------


def small_block():
    block = Block()
    block.SEED = SEED(0)
    block.DATA = Block(NUMBER)
    block.DATA.SIZE = 3
    block.DATA.ROOT = MACHINE("")
    block.DATA.CROP = CfgNode()
    block.DATA.CROP.AREA = [0.5]
    block.DATA.EVAL = Block(TEST)
    block.DATA.EVAL.SIZE = 4
    block.METHOD = COMPARED(CfgNode({"NAME": "CE", "CE": {"share": 1.0}}))
    return block


def test_a_key_has_its_own_role_or_that_of_its_innermost_block():
    block = small_block()
    roles = Roles(block)
    assert {key: roles.of(key) for key, _ in flatten(block)} == {
        "SEED": SEED, "DATA.SIZE": NUMBER, "DATA.ROOT": MACHINE, "DATA.CROP.AREA": NUMBER, "DATA.EVAL.SIZE": TEST,
        "METHOD.NAME": COMPARED, "METHOD.CE.share": COMPARED,
    }  # fmt: skip
    assert roles.keys(MACHINE, SEED) == ["SEED", "DATA.ROOT"]
    assert roles.of("METHOD.Own.share") is COMPARED  # a method that was registered later
    assert roles.of("GONE.KEY") is roles.of("DATA.GONE") is NUMBER  # of another version


def test_values_are_plain_and_roles_survive_copies_and_changes():
    block = small_block().clone()
    block.SEED = 7
    block.DATA.ROOT = "/data"
    cfg = load_config(block, None, ["DATA.SIZE", "5"])
    assert dict(flatten(cfg)) | {"SEED": 7, "DATA.ROOT": "/data", "DATA.SIZE": 5} == dict(flatten(cfg))
    assert Roles(block).select(cfg, SEED, MACHINE) == {"SEED": 7, "DATA.ROOT": "/data"}
    assert CfgNode.load_cfg(cfg.dump()) == cfg  # config.yaml holds values alone


@pytest.mark.parametrize("name", MODULES)
def test_a_planted_key_without_a_role_is_refused(name):
    defaults = MODULES[name].get_defaults()
    assert Roles(defaults).keys(*Role) == [key for key, _ in flatten(defaults)]
    defaults.PLANTED = 1
    defaults.FURTHER = Block()
    defaults.FURTHER.PLANTED = 1
    with pytest.raises(TypeError, match=r"keys without a role: PLANTED, FURTHER\.PLANTED; write KEY = NUMBER"):
        Roles(defaults)


# ---- what follows from it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
@pytest.mark.parametrize("name", MODULES)
def test_what_a_resumed_run_may_change(tmp_path, name, role):
    module = MODULES[name]
    keys = module.ROLES.keys(role)
    save_text(tmp_path / "config.yaml", module.get_defaults().dump())
    # Files by their content: tests/test_own_code.py; whether there is a validation set: below.
    keys = [key for key in keys if key not in (IMPORTS, "DATASETS.VAL")]
    changed = change(module.get_defaults(), *keys)
    allowed = [FREE, (*FREE, TEST)]
    for may_change in allowed:
        if not keys or role in may_change:
            check_resume(tmp_path, changed, module.ROLES, may_change)
            continue
        if role is CONTENT and name in DETECTORS:  # the data sets: another name, and the fingerprint is compared later
            check_resume(tmp_path, changed, module.ROLES, may_change)
            continue
        with pytest.raises(InputError, match=f"cannot resume .*: {re.escape(min(keys))} was .*set it back"):
            check_resume(tmp_path, changed, module.ROLES, may_change)
        check_resume(tmp_path, changed, module.ROLES, may_change, keys=keys)


def test_whether_there_is_a_teacher_must_stay_but_not_where_it_lies(tmp_path):
    def configured(teacher):
        return load_config(backbones.config.get_defaults(), None, ["TEACHER.RUN", teacher])

    save_text(tmp_path / "config.yaml", configured("/runs/ce").dump())
    check_resume(tmp_path, configured("/moved/ce"), backbones.config.ROLES)
    with pytest.raises(InputError, match=r"TEACHER\.RUN was '/runs/ce' and is now ''"):
        check_resume(tmp_path, configured(""), backbones.config.ROLES)


@pytest.mark.parametrize("name", DETECTORS)
def test_whether_there_is_a_validation_set_must_stay_but_not_its_name(tmp_path, name):
    def configured(val):
        return load_config(MODULES[name].get_defaults(), None, ["DATASETS.VAL", val])

    save_text(tmp_path / "config.yaml", configured("a").dump())
    check_resume(tmp_path, configured("b"), MODULES[name].ROLES)
    with pytest.raises(InputError, match=r"DATASETS\.VAL was 'a' and is now ''"):
        check_resume(tmp_path, configured(""), MODULES[name].ROLES)
    # A run of a version without the keys.
    before = configured("").dump().replace("  VAL: ''\n", "").replace("  BEST: ''\n", "")
    save_text(tmp_path / "config.yaml", before)
    assert "VAL:" not in before
    check_resume(tmp_path, configured(""), MODULES[name].ROLES)
    changed = load_config(configured(""), None, ["TEST.BEST", "AP"])
    with pytest.raises(InputError, match=r"TEST\.BEST was '' and is now 'AP'"):
        check_resume(tmp_path, changed, MODULES[name].ROLES)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in KEYS if name in DETECTORS])
def test_hash_and_checkpoint_of_a_detector_change_with_the_keys_that_they_cover(name, key):
    module = MODULES[name]
    cfg, before = change(module.get_defaults(), key), module.get_defaults()
    role = module.ROLES.of(key)
    assert (module.protocol_hash(cfg, "a") != module.protocol_hash(before, "a")) == (role in PROTOCOL)
    assert (module.describe_protocol(cfg)["settings"] != module.describe_protocol(before)["settings"]) == (
        role in PROTOCOL
    )
    idle = key == "TEST.PRECISE_BN.NUM_ITER" or re.match(r"CLASS_LABELS\.(LS|OLS)\.", key)
    if key == "CLASS_LABELS.NAME":
        cfg.CLASS_LABELS.NAME = "OLS"
    assert (module.weight_settings(cfg) != module.weight_settings(before)) == (role in WEIGHTS and not idle)


def test_the_settings_of_a_checkpoint_have_the_names_of_before():
    """Else runs of an earlier version could not be resumed."""
    cfg = load_config(detection.config.get_defaults(), None, ["TEST.PRECISE_BN.ENABLED", "True"])
    settings = detection.config.weight_settings(cfg)
    assert settings["TEST.PRECISE_BN"] == 200
    assert {"SEED", "ENGINE", "SOLVER.STEPS"} < settings.keys()
    assert not {"TEST.PRECISE_BN.ENABLED", "TEST.IMS_PER_BATCH", "INPUT.MIN_SIZE_TEST", "LABEL"} & settings.keys()
    cfg = load_config(detection.engines.yolo.config.get_defaults(), None, ["CLASS_LABELS.NAME", "OLS"])
    settings = detection.engines.yolo.config.weight_settings(cfg)
    labels = {key: value for key, value in settings.items() if key.startswith("CLASS_LABELS")}
    assert labels == {
        "CLASS_LABELS.NAME": "OLS", "CLASS_LABELS.hard_weight": 0.5, "CLASS_LABELS.form": "softmax",
        "CLASS_LABELS.empty": "uniform",
    }  # fmt: skip


@pytest.mark.parametrize("key", [key for name, key in KEYS if name == "pretraining" and not key.startswith("METHOD.")])
def test_the_hash_of_a_pretraining_changes_with_the_keys_that_it_covers(key):
    def described(cfg, data="data", start=""):
        return describe_protocol(cfg, data, start)

    before, cfg = backbones.config.get_defaults(), change(backbones.config.get_defaults(), key)
    role = backbones.config.ROLES.of(key)
    covered = role is NUMBER or (role is TEST and key.startswith("DATA."))
    assert (described(cfg)["hash"] != described(before)["hash"]) == covered
    assert (key in described(cfg)["settings"]) == (covered or key == "MODEL.WEIGHTS")
    hashes = {described(before)["hash"], described(before, start="w")["hash"], described(before, "other")["hash"]}
    assert len(hashes) == 3


# ---- who reads files and may not import the configs ---------------------------------------------------------------


def test_what_separates_seeds_of_a_method_are_its_number_and_compared_keys():
    for key in backbones.config.ROLES.keys(*Role):
        free = key not in families._KEPT and any(fnmatch(key, pattern) for pattern in families._FREE)
        assert free == (backbones.config.ROLES.of(key) not in (NUMBER, COMPARED)), key


def test_what_a_suite_does_not_compare_changes_no_number_or_goes_by_its_content():
    for name, key in KEYS:
        role = MODULES[name].ROLES.of(key)
        free = any(fnmatch(key, pattern) for pattern in record.MACHINE)
        assert free <= (role in (MACHINE, CONTENT)), key
        assert free >= (role is MACHINE and key != "ENGINE"), key  # YOLO's has one value


# ---- docs/protocols.md --------------------------------------------------------------------------------------------


def collapsed(module, role):
    """The keys of a role, a block that has no others as BLOCK.*, in the order of the defaults."""
    keys = [key for key, _ in flatten(module.get_defaults())]
    found = {}
    for key in module.ROLES.keys(role):
        blocks = [key.rsplit(".", n)[0] for n in range(key.count("."), 0, -1)]
        whole = (
            block
            for block in blocks
            if all(module.ROLES.of(inner) is role for inner in keys if inner.startswith(f"{block}."))
        )
        found[next((f"{block}.*" for block in whole), key)] = None
    return list(found)


def cell(module, role):
    if role is NUMBER:
        return "all others"
    return ", ".join(f"`{key}`" for key in collapsed(module, role)) or "-"


def test_the_docs_list_the_keys_of_every_role():
    lines = (ROOT / "docs" / "protocols.md").read_text().splitlines()
    for role in Role:
        wanted = f"| {role.value} | " + " | ".join(cell(module, role) for module in MODULES.values()) + " |"
        assert wanted in lines


@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
def test_the_docs_say_what_follows_from_a_role(role):
    text = (ROOT / "docs" / "protocols.md").read_text()
    row = re.search(rf"^\| \*\*{role.value}\*\* \|.*\|$", text, flags=re.MULTILINE)
    assert row
    cells = [part.strip() for part in row[0].strip("|").split("|")][2:]
    if role is CONTENT:
        assert cells == ["content", "content", "same content", "same content"]
    else:
        groups = (WEIGHTS, PROTOCOL, FREE, (*FREE, TEST))
        assert cells == ["yes" if role in group else "no" for group in groups]


def test_naming_is_not_part_of_anything():
    assert NAMING in FREE
    assert not {*FREE, CONTENT} & {*WEIGHTS, *PROTOCOL}
