"""The part that DATA.HOLDOUT draws with the run's seed."""

import numpy as np
import pytest
from helpers.noise_runs import PER_CLASS, read, write_split

from backbones.config import get_defaults
from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from backbones.data.samples import Samples
from backbones.pretraining.building import read_split

HELD = 10


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
