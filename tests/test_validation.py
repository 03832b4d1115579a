"""Validation during the training: the best epoch, what is reported, and that a kill changes nothing."""

import math
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killing import assert_equal_trees, kill_after, reported
from helpers.pretraining import TOOL, arguments
from scipy.special import log_softmax

from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.run_log import MetricsWriter, read_metrics
from backbones.measuring.predictions import Predictions
from backbones.models.weights import load_backbone
from backbones.pretraining.best_epoch import Validation, ValidationHook, fitted_metrics

# A network and a rate with which the validation does not fall all the time.
UNSTEADY = [
    "MODEL.ARCH", "resnet18", "SOLVER.MAX_EPOCH", 5, "SOLVER.BASE_LR", "5e-4", "SOLVER.LR_SCHEDULE", "constant",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(small_scenes, tmp_path_factory, load_tool):
    """The same training without validations, with one an epoch, and with the best epoch reported."""
    folder = tmp_path_factory.mktemp("validated")
    main = load_tool("pretrain").main
    main(arguments(small_scenes, folder / "without", *UNSTEADY))
    main(arguments(small_scenes, folder / "last", *UNSTEADY, "EVAL.PERIOD", 1))
    main(arguments(small_scenes, folder / "best", *UNSTEADY, "EVAL.PERIOD", 1, "EVAL.REPORT", "best"))
    return folder


def validations(folder):
    return [line for line in read_metrics(folder / "metrics.jsonl") if "val_nll" in line]


def test_the_best_epoch_is_the_one_with_the_lowest_nll(runs):
    lines, results = validations(runs / "last"), load_results(runs / "last")
    assert [line["iteration"] for line in lines] == [4, 9, 14, 19, 24]
    values = [line["val_nll"] for line in lines]
    assert results["metrics"]["best_nll"] == min(values)
    best = values.index(min(values))
    assert 0 < best < 4, "neither the first nor the last, or the tests below show little"
    assert results["details"]["best_epoch"] == best + 1
    assert results["metrics"]["best_top1"] == lines[best]["val_top1"]
    assert results["metrics"]["nll"] == pytest.approx(values[-1], abs=1e-9)


def test_what_is_reported_is_what_the_backbone_holds(runs):
    last, best = load_results(runs / "last"), load_results(runs / "best")
    assert (last["details"]["reported_epoch"], best["details"]["reported_epoch"]) == ("last", "best")
    assert best["metrics"]["nll"] == pytest.approx(last["metrics"]["best_nll"], abs=1e-9)
    assert best["backbone"]["hash"] == load_backbone(runs / "last" / "best.pth").hash
    assert load_backbone(runs / "best").hash == load_backbone(runs / "best" / "best.pth").hash
    assert last["backbone"]["hash"] != best["backbone"]["hash"]
    assert last["protocol"]["hash"] != best["protocol"]["hash"]


def test_the_reported_epoch_names_and_periods_may_change_after_the_training(runs, small_scenes, tmp_path, load_tool):
    """Resumed with another EVAL.REPORT, a finished run is the one that reported it from the start."""
    run, best = tmp_path / "run", load_results(runs / "best")
    shutil.copytree(runs / "last", run)
    free = ["EVAL.REPORT", "best", "LABEL", "renamed", "LOG_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2.0]
    load_tool("pretrain").main(arguments(small_scenes, run, *UNSTEADY, "EVAL.PERIOD", 1, *free, resume=True))
    results = load_results(run)
    assert results["backbone"] == {**best["backbone"], "label": "renamed"}
    assert results["metrics"] == best["metrics"]
    assert results["protocol"] == best["protocol"]
    assert best["protocol"]["settings"]["EVAL.REPORT"] == "best"


def test_looking_does_not_change_the_training(runs):
    assert load_backbone(runs / "without").hash == load_backbone(runs / "last").hash
    assert not (runs / "without" / "best.pth").exists()
    assert "best_nll" not in load_results(runs / "without")["metrics"]


def test_killed_and_resumed_has_the_same_best_epoch(runs, small_scenes, tmp_path, load_tool):
    """The checkpoint is of the third epoch; the best one, the fourth, had been found, and is found again."""
    options = [*UNSTEADY, "EVAL.PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 3.0]
    kill_after([*TOOL, *arguments(small_scenes, tmp_path, *options)], tmp_path, lines=11)
    assert not (tmp_path / "results.json").exists()
    load_tool("pretrain").main(arguments(small_scenes, tmp_path, *options, resume=True))
    assert load_results(tmp_path)["metrics"] == load_results(runs / "last")["metrics"]
    assert validations(tmp_path) == validations(runs / "last")
    for name in ("best.pth", "backbone.pth"):
        assert load_backbone(tmp_path / name).hash == load_backbone(runs / "last" / name).hash
    states = [load_checkpoint(folder / "checkpoint.pth")["validation"] for folder in (tmp_path, runs / "last")]
    assert_equal_trees(*states)


def test_another_period_is_refused(runs, small_scenes, load_tool):
    main = load_tool("pretrain").main
    before = reported(runs / "last")
    with pytest.raises(InputError, match=r"EVAL\.PERIOD was 1 and is now 0"):
        main(arguments(small_scenes, runs / "last", *UNSTEADY, resume=True))
    with pytest.raises(InputError, match=r"EVAL\.PERIOD was 0 and is now 2"):
        main(arguments(small_scenes, runs / "without", *UNSTEADY, "EVAL.PERIOD", 2, resume=True))
    assert reported(runs / "last") == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["EVAL.REPORT", "first"], "unknown EVAL.REPORT 'first'; choices: best, last"),
        (["EVAL.REPORT", "best"], "EVAL.REPORT best needs validations during the training"),
        (["EVAL.PERIOD", -1], "EVAL.PERIOD is -1"),
    ],
)
def test_what_is_refused(small_scenes, tmp_path, load_tool, overrides, message):
    with pytest.raises(InputError, match=message):
        load_tool("pretrain").main(arguments(small_scenes, tmp_path / "r", *overrides))


class Scripted:
    """A validation of a network with one weight, which is the epoch, by nll values that are given."""

    def __init__(self, values, **options):
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.values = dict(enumerate(values, 1))
        self.validation = Validation(self.model, self.measure, epoch=3, stop=3 * len(values), **options)
        for finished in range(1, 3 * len(values) + 1):
            self.epoch = (finished + 2) // 3
            torch.nn.init.constant_(self.model.weight, self.epoch)
            if self.validation.is_due(finished):
                self.validation.validate(finished)

    def measure(self) -> Any:
        return SimpleNamespace(nll=lambda: self.values.pop(self.epoch), top1=lambda: 0.0)


@pytest.mark.parametrize(
    ("values", "period", "best", "left"),
    [
        ([3, 1, 2], 1, 2, []),
        ([3, 1, 1], 1, 2, []),  # of equal ones the first
        ([3, 1, 2], 2, 2, [1]),
        ([1, 3, 2], 2, 3, [1]),  # the last epoch counts, whatever the period
        ([math.nan, 2, math.nan], 1, 2, []),
        ([math.nan, math.nan], 1, 2, []),
        ([1, 2], 0, 0, [1, 2]),
    ],
)
def test_which_epochs_are_looked_at(values, period, best, left):
    scripted = Scripted(values, period=period)
    assert sorted(scripted.values) == left
    assert scripted.validation.epoch == best
    if period:
        scripted.validation.restore()
        assert scripted.model.weight.item() == best


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("saved", [3, 6])
def test_a_resumed_training_chooses_also_from_what_was_not_saved(tmp_path, saved, written):
    """A kill after the line of epoch 2, the best, and before its checkpoint, which holds epoch 1 or both."""
    whole = Scripted([3, 1, 2], period=1)
    before = Scripted([3, 1, 2][: saved // 3], period=1)
    resumed = Scripted([], period=1)
    resumed.values, resumed.epoch, resumed.validation.stop = {2: 1}, 2, 9
    resumed.validation.load_state_dict(before.validation.state_dict())
    torch.nn.init.constant_(resumed.model.weight, 2)
    with MetricsWriter(tmp_path, 0) as writer:
        if written:
            writer.write(5, val_nll=1.0)
    with MetricsWriter(tmp_path, 6) as writer:
        assert ValidationHook(resumed.validation, writer).catch_up(6) == (saved == 3 or not written)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    assert (resumed.validation.epoch, resumed.validation.finished) == (2, 6)
    assert torch.equal(resumed.validation.weights["weight"], whole.validation.weights["weight"])
    assert resumed.values == ({2: 1} if saved == 6 and written else {})  # measured only if necessary


def test_fitted_metrics_are_the_minimum_over_temperatures():
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    logits[np.arange(200), labels] += 2
    found = fitted_metrics(Predictions(logits, labels, np.arange(200)))
    scan = [-log_softmax(logits / t, axis=1)[np.arange(200), labels].mean() for t in np.geomspace(0.05, 20, 4000)]
    assert found["nll_fitted"] == pytest.approx(min(scan), abs=1e-6)
    assert found["nll_fitted"] <= min(scan)
    again = fitted_metrics(Predictions(logits * 2, labels, np.arange(200)))
    assert again["nll_fitted"] == pytest.approx(found["nll_fitted"], abs=1e-9)
    assert again["temperature_fitted"] == pytest.approx(2 * found["temperature_fitted"], rel=1e-4)


def test_epochs_validated_on_other_images_are_not_compared(small_scenes, tmp_path, load_tool):
    """DATA.EVAL_* may change before a resumption, but not where it decides which epoch is best."""
    main, short = load_tool("pretrain").main, ["MODEL.ARCH", "lenet", "SOLVER.MAX_EPOCH", 1, "SOLVER.STEPS", "[]"]
    for period in (0, 1):
        options = [*short, "EVAL.PERIOD", period]
        main(arguments(small_scenes, tmp_path / str(period), *options))
    other = ["DATA.EVAL_RESIZE", 40]
    main(arguments(small_scenes, tmp_path / "0", *short, *other, resume=True))
    with pytest.raises(InputError, match=r"validated on other images .*DATA\.EVAL_"):
        main(arguments(small_scenes, tmp_path / "1", *short, "EVAL.PERIOD", 1, *other, resume=True))
    main(arguments(small_scenes, tmp_path / "1", *short, "EVAL.PERIOD", 1, resume=True))
