"""The options of DATA in a whole pretraining: what the run folder holds, and that a resumed run is of the same data."""

import numpy as np
import pytest

from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.data.noise import NOISE_FILE

TINY = [
    "DATA.IMAGE_SIZE", 32, "DATA.EVAL_CROP", 32, "DATA.EVAL_RESIZE", 32, "MODEL.ARCH", "lenet",
    "SOLVER.BATCH_SIZE", 8, "SOLVER.LR_SCHEDULE", "constant", "SOLVER.BASE_LR", 1e-3, "SOLVER.MAX_EPOCH", 1,
]  # fmt: skip
DATA = [
    "DATA.HOLDOUT", 10, "DATA.VAL_SPLIT", "holdout", "DATA.NOISE_RATE", 0.4, "DATA.VERSION", "box",
    "DATA.AUGMENTATION", "resize_crop", "DATA.RESIZE", 40, "DATA.COLOR_JITTER", "[0.4, 0.4, 0.4]", "DATA.LIGHTING", 0.1,
]  # fmt: skip


@pytest.fixture(scope="module")
def run(small_scenes, tmp_path_factory, load_tool):
    """A run of one epoch, its arguments, and the function that starts such a run."""
    out, main = tmp_path_factory.mktemp("run"), load_tool("pretrain").main

    def start(folder, *more):
        main(["--output-dir", str(folder), *map(str, ["DATA.ROOT", small_scenes, *TINY, *DATA, *more])])

    start(out)
    return out, start


def test_a_run_leaves_its_noise_and_the_sizes_of_its_parts(run):
    stored = np.load(run[0] / NOISE_FILE)
    assert len(stored["index"]) == 12  # 40 % of 30
    assert (stored["labels"] != stored["clean_labels"]).all()
    data = load_results(run[0])["data"]
    assert {name: part["images"] for name, part in data.items()} == {"train": 30, "holdout": 10}


def test_seeds_share_a_protocol_and_not_a_fingerprint(run, tmp_path):
    run[1](tmp_path / "other", "SEED", 1)
    one, other = load_results(run[0]), load_results(tmp_path / "other")
    assert one["protocol"] == other["protocol"]
    assert all(one["data"][split]["fingerprint"] != other["data"][split]["fingerprint"] for split in one["data"])
    assert load_checkpoint(run[0] / "checkpoint.pth")["data"] == one["data"]["train"]["fingerprint"]


def test_a_run_does_not_resume_with_other_noise(run):
    with pytest.raises(InputError, match=r"DATA\.NOISE_RATE was 0\.4 and is now 0\.6"):
        run[1](run[0], "--resume", "DATA.NOISE_RATE", 0.6, "SOLVER.MAX_EPOCH", 2)


def test_a_run_validated_on_its_training_images_measures_with_their_own_labels(run, tmp_path):
    """The noise is in what is trained on, not in the split of that name."""
    run[1](tmp_path, "DATA.VAL_SPLIT", "train", "DATA.HOLDOUT", 0, "DATA.NOISE_RATE", 1.0)
    run[1](tmp_path / "clean", "DATA.VAL_SPLIT", "train", "DATA.HOLDOUT", 0, "DATA.NOISE_RATE", 0)
    noisy, clean = (load_results(folder)["data"]["train"]["fingerprint"] for folder in (tmp_path, tmp_path / "clean"))
    assert noisy == clean
