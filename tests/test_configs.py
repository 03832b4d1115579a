"""Every yaml under configs/ loads, is valid for its tool and its engine, and opens with the command that uses it."""

import re

import pytest
import yaml
from helpers.config_files import DETECTION, PRETRAINING, ROOT, YOLO, header, is_mere_base
from helpers.own_methods import OWN

from backbones.config import get_defaults as pretraining_defaults
from backbones.config import idle_settings, needs_teacher
from backbones.config import validate as validate_pretraining
from backbones.core.config import expand_path, load_config
from backbones.data.samples import DATASETS
from backbones.methods.base import METHODS
from backbones.models import MODELS
from detection.config import get_defaults as detection_defaults
from detection.config import protocol_hash
from detection.data.catalog import COCO_SETS, VOC_SETS
from detection.engines.yolo import config as yolo_config
from detection.exchange.compatibility import check_spec
from detection.training.run import check_config, load_checked

VARIABLES = ("SMOOTH2DET_DATA", "IMAGENET", "OPEN_IMAGES")


def named(path):
    return str(path.relative_to(ROOT))


def bases_of(path):
    """The files that `_BASE_` of the file names."""
    bases = yaml.safe_load(path.read_text()).get("_BASE_", [])
    return [(path.parent / base).resolve() for base in ([bases] if isinstance(bases, str) else bases)]


BASES = {base for path in [*DETECTION, *YOLO, *PRETRAINING] for base in bases_of(path)}


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "/data")


def test_there_are_configs():
    assert len(DETECTION) >= 5
    assert len(PRETRAINING) >= 4


@pytest.mark.parametrize("path", [*DETECTION, *YOLO, *PRETRAINING], ids=named)
def test_a_config_opens_with_its_command(path):
    """A file that serves only as a base says so, instead, and there are files that are built on it."""
    if is_mere_base(path):
        users = re.findall(r"\w+\.yaml", header(path).partition("Base of ")[2])
        group = next(paths for paths in (DETECTION, YOLO, PRETRAINING) if path in paths)
        built = [other for other in group if other.name in users and other != path]
        assert path in BASES
        assert all(path in bases_of(other) for other in built)
        return
    tool = "finetune_coco" if path in DETECTION else "finetune_voc" if path in YOLO else "pretrain"
    text = header(path)
    assert f"tools/{tool}.py --config-file {named(path)}" in text
    assert "--output-dir" in text
    assert "Cost:" in text


@pytest.mark.parametrize("path", DETECTION, ids=named)
def test_a_detection_config_is_valid_for_its_engine(path):
    cfg = load_config(detection_defaults(), path)
    if is_mere_base(path):
        return  # it is valid in its users
    if cfg.MODEL.RESNETS.NORM == "FrozenBN":  # wants statistics, which random initialisation lacks
        cfg.MODEL.RESNETS.NORM = "BN"
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
    check_config(cfg)
    check_spec(None, cfg)
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} <= {*COCO_SETS, *VOC_SETS}
    expand_path(cfg.DATASETS.ROOT)


@pytest.mark.parametrize("path", YOLO, ids=named)
def test_a_yolo_config_is_valid(path):
    cfg = load_config(yolo_config.get_defaults(), path)
    assert load_checked(cfg, "random") is None
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} <= {*COCO_SETS, *VOC_SETS}
    same = [other for other in YOLO if load_config(yolo_config.get_defaults(), other).PROTOCOL == cfg.PROTOCOL]
    hashes = {yolo_config.protocol_hash(load_config(yolo_config.get_defaults(), other)) for other in same}
    assert len(hashes) == 1  # they differ in their labels alone


def test_yolo_is_tested_at_the_scales_of_the_paper_and_one_size_is_a_key():
    """OLS Sec. IV-D: several scales; those and the threshold are of the code base (range(320, 640, 96), 0.45)."""
    for name in ("voc0712", "voc0712_ls001", "voc0712_ls01", "voc0712_ols"):
        test = load_config(yolo_config.get_defaults(), ROOT / "configs" / "yolo" / f"{name}.yaml").TEST
        assert list(test.SIZES) == [*range(320, 640, 96)]
        assert (test.NMS_THRESH, test.FLIP) == (0.45, False)
    one = ["TEST.SIZES", "[544]", "TEST.NMS_THRESH", "0.5"]
    cfg = load_config(yolo_config.get_defaults(), ROOT / "configs" / "yolo" / "voc0712.yaml", one)
    assert cfg.TEST == yolo_config.get_defaults().TEST


def test_no_label_of_the_quick_yolo_is_tuned():
    """Its only other split is the one that is reported."""
    cfg = load_config(yolo_config.get_defaults(), ROOT / "configs" / "yolo" / "quick.yaml")
    base = load_config(yolo_config.get_defaults(), ROOT / "configs" / "yolo" / "base_small.yaml")
    assert cfg.CLASS_LABELS == yolo_config.get_defaults().CLASS_LABELS
    assert cfg.SOLVER.BASE_LR == base.SOLVER.BASE_LR


def test_the_labels_of_yolo_are_rows_of_one_protocol():
    folder = ROOT / "configs" / "yolo"
    names = ("voc0712", "voc0712_ls001", "voc0712_ls01", "voc0712_ols")
    cfgs = [load_config(yolo_config.get_defaults(), folder / f"{name}.yaml") for name in names]
    labels = [yolo_config.label_name(cfg.CLASS_LABELS) for cfg in cfgs]
    assert labels == ["hard labels", "LS 0.01 labels", "LS 0.1 labels", "OLS labels"]
    assert cfgs[0].SOLVER.MAX_ITER == 120 * (16551 // 8)
    assert cfgs[0].SOLVER.WARMUP_ITERS == 2 * (16551 // 8)
    longer = load_config(yolo_config.get_defaults(), None, ["SOLVER.MAX_ITER", "300000"])
    assert yolo_config.protocol_hash(longer) != yolo_config.protocol_hash(yolo_config.get_defaults())


@pytest.mark.parametrize("path", PRETRAINING, ids=named)
def test_a_pretraining_config_is_valid(path):
    cfg = load_config(pretraining_defaults(), path)
    cfg.DATA.ROOT = cfg.DATA.ROOT or "/data"  # a base leaves it open
    if needs_teacher(cfg.METHOD.NAME):
        cfg.TEACHER.RUN = "/runs/ce"  # the command names it
    validate_pretraining(cfg)
    expand_path(cfg.DATA.ROOT)
    assert cfg.MODEL.ARCH in MODELS.names()
    assert cfg.DATA.NAME in DATASETS.names()
    assert not [key for key in idle_settings(cfg) if key.startswith("METHOD")]


def test_every_method_of_readmes_table_has_a_file_that_chooses_it():
    folder = ROOT / "configs" / "pretrain" / "method"
    chosen = {path: load_config(pretraining_defaults(), path) for path in folder.glob("*.yaml")}
    assert set(OWN) <= {cfg.METHOD.NAME for cfg in chosen.values()} <= set(METHODS.names())
    for path, cfg in chosen.items():
        assert ("TEACHER.RUN" in header(path)) == needs_teacher(cfg.METHOD.NAME), path
        assert (cfg.DATA.CONTEXT_SHARE > 0) == ("is_context" in METHODS.get(cfg.METHOD.NAME).needs), path


def test_the_detector_takes_the_pixels_of_the_backbone_it_is_made_for():
    """quick_scenes.yaml pretrains what quick.yaml fine-tunes; one is in 0..1, the other in 0..255."""
    made = load_config(pretraining_defaults(), ROOT / "configs" / "pretrain" / "quick_scenes.yaml").DATA
    for defaults, name in ((detection_defaults(), "detection"), (yolo_config.get_defaults(), "yolo")):
        taken = load_config(defaults, ROOT / "configs" / name / "quick.yaml").MODEL
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
