"""Every yaml under configs/ loads, is valid for its tool and its engine, and opens with the command that uses it."""

import re
from pathlib import Path

import pytest
import yaml

from backbones.config import get_defaults as pretraining_defaults
from backbones.config import validate as validate_pretraining
from backbones.core.config import expand_path, load_config
from backbones.data.samples import DATASETS
from backbones.models import MODELS
from detection.config import get_defaults as detection_defaults
from detection.config import protocol_hash
from detection.data.catalog import COCO_SETS, VOC_SETS
from detection.finetune import load_checked

ROOT = Path(__file__).resolve().parent.parent
DETECTION = sorted((ROOT / "configs" / "detection").rglob("*.yaml"))
PRETRAINING = sorted((ROOT / "configs" / "pretrain").rglob("*.yaml"))
VARIABLES = ("SMOOTH2DET_DATA", "IMAGENET")


def named(path):
    return str(path.relative_to(ROOT))


def header(path):
    """The comment that the file opens with."""
    return re.match(r"(?:#.*\n)*", path.read_text())[0]


def users_of(path):
    """Files that the header of a mere base names as built on it."""
    found = re.search(r"Base of (.*)", header(path))
    names = re.findall(r"\w+\.yaml", found[1]) if found else []
    return [other for other in [*DETECTION, *PRETRAINING] if other.name in names]


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "/data")


def test_there_are_configs():
    assert len(DETECTION) >= 5
    assert len(PRETRAINING) >= 4


@pytest.mark.parametrize("path", [*DETECTION, *PRETRAINING], ids=named)
def test_a_config_opens_with_its_command(path):
    """A file that serves only as a base names, instead, files that are built on it."""
    tool = "finetune_coco" if path in DETECTION else "pretrain"
    if users := users_of(path):
        for user in users:
            base = yaml.safe_load(user.read_text()).get("_BASE_", "")
            assert (user.parent / base).resolve() == path, user
        return
    text = header(path)
    assert f"tools/{tool}.py --config-file {named(path)}" in text
    assert "--output-dir" in text
    assert "Cost:" in text


@pytest.mark.parametrize("path", DETECTION, ids=named)
def test_a_detection_config_is_valid_for_its_engine(path):
    cfg = load_config(detection_defaults(), path)
    if users_of(path):
        return  # it is valid in its users
    if cfg.MODEL.RESNETS.NORM == "FrozenBN":  # wants statistics, which random initialisation lacks
        cfg.MODEL.RESNETS.NORM = "BN"
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
    assert load_checked(cfg, "random") is None
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} <= {*COCO_SETS, *VOC_SETS}
    expand_path(cfg.DATASETS.ROOT)


@pytest.mark.parametrize("path", PRETRAINING, ids=named)
def test_a_pretraining_config_is_valid(path):
    cfg = load_config(pretraining_defaults(), path)
    cfg.DATA.ROOT = cfg.DATA.ROOT or "/data"  # a base leaves it open
    validate_pretraining(cfg)
    expand_path(cfg.DATA.ROOT)
    assert cfg.MODEL.ARCH in MODELS.names()
    assert cfg.DATA.NAME in DATASETS.names()


def test_the_detector_takes_the_pixels_of_the_backbone_it_is_made_for():
    """quick_scenes.yaml pretrains what quick.yaml fine-tunes; one is in 0..1, the other in 0..255."""
    made = load_config(pretraining_defaults(), ROOT / "configs" / "pretrain" / "quick_scenes.yaml").DATA
    taken = load_config(detection_defaults(), ROOT / "configs" / "detection" / "quick.yaml").MODEL
    for mine, theirs in ((made.MEAN, taken.PIXEL_MEAN), (made.STD, taken.PIXEL_STD)):
        assert [255 * value for value in mine] == pytest.approx(list(theirs), abs=0.05)


def test_protocols_with_a_name_of_their_own_differ():
    """Two configs under one name would be one protocol to a reader, and two to the comparison."""
    protocols = {}
    for path in DETECTION:
        cfg = load_config(detection_defaults(), path)
        if cfg.PROTOCOL:
            assert protocols.setdefault(cfg.PROTOCOL, protocol_hash(cfg)) == protocol_hash(cfg), path
    assert len(set(protocols.values())) == len(protocols)


def test_a_protocol_is_what_numbers_depend_on():
    def digest(*overrides, data="a"):
        return protocol_hash(load_config(detection_defaults(), None, list(map(str, overrides))), data)

    assert digest("SEED", 1, "LABEL", "x", "DATASETS.ROOT", "/elsewhere") == digest()
    changed = [["SOLVER.BASE_LR", 0.5], ["TEST.AP_SCORE_THRESH", 0.0], ["MODEL.BACKBONE.FREEZE_AT", 0], ["ENGINE", "x"]]
    assert len({digest(), digest(data="b"), *(digest(*one) for one in changed)}) == 6
