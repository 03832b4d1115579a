"""Measures on the part that DATA.HOLDOUT draws with the run's seed: one protocol for all seeds, and its versions."""

import numpy as np
import pytest
from helpers.noise_runs import PER_CLASS, read, write_run, write_split
from helpers.tools import tool

from backbones.config import get_defaults
from backbones.core.config import config_hash, load_config
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.warning_counter import WarningCounter
from backbones.data.samples import Samples
from backbones.measuring.run import describe_protocol
from backbones.pretraining.building import read_split

HELD = 10
FAST = ["EVAL.CONTEXT", "False", "ATTACK.METHODS", "['fgsm']", "ATTACK.BOUNDS", "[8.0]", "LOCALIZE.GALLERY", "0"]
SPLITS = {
    "evaluate_backbone": ("DATA.VAL_SPLIT", "evaluation"),
    "localize": ("LOCALIZE.SPLIT", "localization"),
    "attack_backbone": ("ATTACK.SPLIT", "robustness"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Noise images; of those of each class to train on, 0 has no box and k has k boxes."""
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        write_split(root, split, boxes=True)
    for path in sorted((root / "annotations/train").rglob("*.xml")):
        head, thing, end = path.read_text().partition("<object>")
        thing, close, end = f"{thing}{end}".partition("</annotation>")
        path.write_text(head + int(path.stem) * thing + close + end)
    return root


def held_out(root, *overrides: str, seeds: tuple[int, ...] = (0, 1)) -> list[Samples]:
    """Return the held-out part of each seed."""
    keys = ["DATA.ROOT", str(root), "DATA.HOLDOUT", str(HELD), *overrides]
    return [
        read_split(load_config(get_defaults(), None, [*keys, "SEED", str(seed)]), "holdout", WarningCounter())
        for seed in seeds
    ]


@pytest.mark.parametrize("version", ["full", "mask"])
@pytest.mark.parametrize("name", SPLITS)
def test_seeds_measured_on_the_held_out_part_share_a_protocol(root, tmp_path, name, version):
    """Their parts differ in the number of boxes and, with masks, of images; DATA.HOLDOUT counts."""
    run, (key, folder) = write_run(tmp_path / "run", root, 0), SPLITS[name]

    def measure(seed: int, held: int) -> dict:
        overrides = ["SEED", str(seed), "DATA.HOLDOUT", str(held), "DATA.EVAL_VERSION", version, key, "holdout"]
        assert tool(name)([str(run), *FAST, *overrides]) == 0
        return load_results(run / folder)

    first, second, larger = measure(0, HELD), measure(1, HELD), measure(0, HELD + 1)
    parts = held_out(root, "DATA.EVAL_VERSION", version)
    expected = [{"images": len(part), "boxes": len(part.boxes)} for part in parts]
    assert expected[0]["boxes"] != expected[1]["boxes"]
    for results, counts in zip((first, second), expected, strict=True):
        assert results["data"]["holdout"].items() >= counts.items()
    assert first["protocol"] == second["protocol"]
    assert first["protocol"]["hash"] != larger["protocol"]["hash"]


def test_a_temperature_fitted_on_the_held_out_part_keeps_one_protocol(root, tmp_path):
    run = write_run(tmp_path / "run", root, 0)

    def protocol(*overrides: str) -> dict:
        fitted = ["EVAL.TEMPERATURE_SPLIT", "holdout", *overrides]
        assert tool("evaluate_backbone")([str(run), *FAST, *fitted]) == 0
        return load_results(run / "evaluation")["protocol"]

    first, second = (protocol("SEED", seed, "DATA.HOLDOUT", "10") for seed in "01")
    assert first == second
    assert first["hash"] != protocol("DATA.HOLDOUT", "12")["hash"]


def test_the_protocol_of_a_split_that_is_not_drawn_counts_its_images_and_boxes(root):
    val = read(root, "val")
    entry = {"name": "imagenet_xml", "images": 24, "boxes": 24, "classes": 6, "fingerprint": val.fingerprint}
    assert describe_protocol("p", {"crop": 32}, [val])["hash"] == config_hash({"crop": 32, "val": entry})


def test_the_held_out_part_has_the_version_of_evaluation(root):
    """Images without a box are left out after the draw: what is trained on does not depend on EVAL_VERSION."""
    full, box, mask = (held_out(root, "DATA.EVAL_VERSION", v, seeds=(0,))[0] for v in ("full", "box", "mask"))
    unboxed = int((full.box_counts() == 0).sum())
    assert 0 < unboxed < len(full) == HELD
    boxed = np.flatnonzero(full.box_counts() > 0)
    assert box.relative == [full.relative[i] for i in boxed]
    assert box.source != full.source
    assert len(mask) == len(full.boxes)
    keys = ["DATA.ROOT", str(root), "DATA.HOLDOUT", str(HELD), "DATA.EVAL_VERSION", "box"]
    cfg, warnings = load_config(get_defaults(), None, keys), WarningCounter()
    read_split(cfg, "holdout", warnings)
    assert {w["what"]: w["count"] for w in warnings.as_list()}["images dropped"] == unboxed
    train = read_split(cfg, "train", WarningCounter())
    assert set(train.relative) | set(full.relative) == set(read(root, "train").relative)
    assert len(train) == 6 * PER_CLASS - HELD


def test_a_held_out_part_without_a_box_is_refused_by_name(root, tmp_path):
    write_split(tmp_path, "train", boxes=False)
    with pytest.raises(InputError, match=r"no image of imagenet_xml 'holdout' has a usable box.*EVAL_VERSION\) full"):
        held_out(tmp_path, "DATA.EVAL_VERSION", "box", seeds=(0,))
