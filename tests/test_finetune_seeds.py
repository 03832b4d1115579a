"""FINETUNE_SEEDS: every backbone is fine-tuned with each of these seeds, and a failure names the seed."""

import json

import pytest

from backbones.core.errors import InputError
from suites.loading import load_suite

pytest_plugins = ["helpers.suite_fixtures"]


def finetunings(plan):
    return [stage for stage in plan.stages if stage.kind == "finetune"]


def seed_of(stage):
    return dict(zip(stage.overrides[::2], stage.overrides[1::2], strict=True))["SEED"]


def test_every_backbone_is_fine_tuned_with_each_seed(lab):
    once = finetunings(lab.plan("SEEDS", "[0, 1]"))
    several = finetunings(lab.plan("SEEDS", "[0, 1]", "FINETUNE_SEEDS", "[0, 1, 5]"))
    found = [(stage.run.label, stage.run.seed, seed_of(stage)) for stage in several]
    expected = [(label, seed, text) for label in ("CE", "ALS") for seed in (0, 1) for text in ("0", "1", "5")]
    assert found == [("random", 0, "0"), ("random", 1, "1"), *expected]  # a random row has nothing but its seed
    assert len({stage.title for stage in several}) == len({stage.output for stage in several}) == len(several)
    assert "CE seed 1: finetune (quick) detector seed 5" in {stage.title for stage in several}
    backbones = {(stage.run.label, stage.run.seed, stage.backbone.output) for stage in several if stage.backbone}
    assert len(backbones) == 4
    # Fine-tunings with the seed of their pretraining stay where they are: adding seeds reruns nothing.
    assert {stage.output for stage in once} < {stage.output for stage in several}


def test_duplicate_seeds_are_refused(lab):
    with pytest.raises(InputError, match=r"^FINETUNE_SEEDS: \[0, 0\]: must be"):
        load_suite(lab.write(), ["FINETUNE_SEEDS", "[0, 0]"])
    with pytest.raises(InputError, match=r"^FINETUNE_SEEDS: \[-1\]: must be"):
        load_suite(lab.write(), ["FINETUNE_SEEDS", "[-1]"])


def test_a_failure_names_the_seed_of_the_fine_tuning(lab):
    failing = next(s for s in finetunings(lab.plan("FINETUNE_SEEDS", "[0, 3]")) if seed_of(s) == "3")
    lab.tell("fail", failing.output.name)
    code, _ = lab.run("FINETUNE_SEEDS", "[0, 3]")
    assert code == 1
    entry = json.loads((lab.output / "failures.json").read_text())[0]
    assert (entry["label"], entry["what"]) == (failing.run.label, "finetune with seed 3")
    (lab.tools / "fail").unlink()
    lab.calls()
    assert lab.run("FINETUNE_SEEDS", "[0, 3]")[0] == 0
    assert len(lab.called()) == 2  # the fine-tuning and the comparison
