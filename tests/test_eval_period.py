"""TEST.EVAL_PERIOD, DATASETS.VAL, TEST.BEST: evaluations during a training, which is the same with and without them."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.killing import CLOCK, assert_equal_trees
from helpers.stopping import stop_in_process
from helpers.tiny_runs import PRECISE, tiny_run

from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.results import load_results
from backbones.core.run_log import MetricsWriter, read_metrics
from backbones.core.warning_counter import WarningCounter
from detection import load_detector
from detection.data.catalog import load_data
from detection.engines import build_engine, load_engine_config
from detection.training.checkpoint import read_detector, restore_detector
from detection.training.evaluating import EvaluationHook, unchanged

PERIOD = ("TEST.EVAL_PERIOD", 4)  # of nine iterations, with a line for each: after 4, 8 and the end
METRIC = "AR100"  # of those that differ between so few iterations

# Enough boxes for some to be right by chance.
MANY = ("MODEL.RPN.POST_NMS_TOPK_TEST", 400, "MODEL.RPN.NMS_THRESH", 0.95, "TEST.DETECTIONS_PER_IMAGE", 400)
ENGINES = [
    "torchvision",
    pytest.param("yolo", marks=pytest.mark.exhaustive),
    pytest.param("detectron2", marks=pytest.mark.detectron2),
]


@pytest.fixture(scope="module", params=ENGINES)
def runs(request, small_scenes, tmp_path_factory, load_tool):
    """Runs of one engine, which evaluate nothing during their training until a test asks for another."""
    folder = tmp_path_factory.mktemp(request.param)
    # YOLO has labels that are learned online, the others statistics that an evaluation measures again.
    options = ("CLASS_LABELS.NAME", "OLS") if request.param == "yolo" else (*PRECISE, *MANY)
    main, argv = tiny_run(request.param, small_scenes, folder, load_tool, *options)
    main(argv(folder / "without"))
    return Runs(request.param, folder, main, argv, "scenes_voc_train" if request.param == "yolo" else "scenes_train")


@dataclass
class Runs:
    """argv(out, *overrides, flags=...) are the arguments of `main`; val: name of the training data."""

    engine: str
    folder: Path
    main: Callable
    argv: Callable
    val: str

    @cached_property
    def plain(self):
        """A run with evaluations on the test set that was stopped in the first one and resumed."""
        out = self.folder / "plain"
        assert stop_in_process(self.main, self.argv(out, *PERIOD), *self.moment(1)) == 143
        shutil.copytree(out, self.folder / "stopped")
        self.main(self.argv(out, *PERIOD, flags=["--resume"]))
        return out

    @cached_property
    def best(self):
        """A run whose weights were chosen on other data."""
        out = self.folder / "best"
        self.main(self.argv(out, *PERIOD, "DATASETS.VAL", self.val, "TEST.BEST", METRIC))
        return out

    @cached_property
    def on_test(self):
        """A run whose weights were chosen on the test set, stopped in the last evaluation and resumed."""
        out, options = self.folder / "on_test", (*PERIOD, "TEST.BEST", METRIC)
        assert stop_in_process(self.main, self.argv(out, *options), *self.moment(3)) == 143
        with pytest.raises(InputError, match=r"checkpoint\.pth: its last iteration is not evaluated yet; finish it"):
            self.main(self.argv(out, *options, flags=["--eval-only"]))
        with pytest.raises(InputError, match="its last iteration is not evaluated yet"):
            load_detector(out)
        shutil.copytree(out, self.folder / "stopped_last")
        with pytest.raises(InputError, match=r"made with other settings: TEST\.EVAL_PERIOD \(4 -> 3\)"):
            self.main(self.argv(out, *options, "TEST.EVAL_PERIOD", 3, flags=["--resume"]))
        with pytest.raises(InputError, match=r"TEST\.BEST was 'AR100' and is now 'AP'; set it back"):
            self.main(self.argv(out, *options, "TEST.BEST", "AP", flags=["--resume"]))
        self.main(self.argv(out, *options, flags=["--resume"]))
        return out

    def moment(self, evaluation):
        """The function, and the number of its call, that the n-th evaluation of six images begins with."""
        target, calls = {
            "torchvision": ("detection.engines.torchvision.engine.scale_to_original", 6),
            "yolo": ("detection.engines.yolo.inference.suppress", 2),
            "detectron2": ("detection.engines.detectron2.inference.to_results", 6),
        }[self.engine]
        return target, (evaluation - 1) * calls + 1


def lines(folder):
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(folder / "metrics.jsonl")]


def trained(folder):
    """The checkpoint without what TEST.BEST adds to it."""
    state = load_checkpoint(folder / "checkpoint.pth")
    state["resume_key"] = {k: v for k, v in state["resume_key"].items() if "TEST.BEST" not in k and "PERIOD" not in k}
    return {name: value for name, value in state.items() if name != "best"}


def test_a_training_and_its_results_are_unchanged_by_evaluations_and_a_stop(runs):
    without = runs.folder / "without"
    assert_equal_trees(load_checkpoint(without / "checkpoint.pth"), load_checkpoint(runs.plain / "checkpoint.pth"))
    assert (without / "predictions.json").read_bytes() == (runs.plain / "predictions.json").read_bytes()
    one, other = load_results(without), load_results(runs.plain)
    assert one["metrics"] == other["metrics"]
    assert one["protocol"] == other["protocol"]
    assert "best" not in other["details"]
    assert not {"val", "chosen_on_test_images"} & other["data"].keys()
    assert [line for line in lines(runs.plain) if "loss" in line] == lines(without)


def test_metrics_are_written_with_the_period_and_at_the_end(runs):
    found = [line for line in lines(runs.plain) if "loss" not in line]
    assert [line["iteration"] for line in found] == [3, 7, 8]
    metrics = {name: value for name, value in load_results(runs.plain)["metrics"].items() if value is not None}
    assert found[-1] == {"iteration": 8} | metrics
    assert found[0].keys() == found[-1].keys()
    if runs.engine != "detectron2":  # after so few iterations, its detections match nothing
        assert metrics["AR100"] > 0
        assert found[0] != found[1] | {"iteration": 3}


def test_a_number_during_the_training_is_that_of_a_run_that_ends_there(runs, tmp_path):
    """The same iterations with the same learning rates: the checkpoint after four, evaluated as the last one."""
    evaluated, stopped = runs.plain, runs.folder / "stopped"
    cfg, engine, test, train = load_run(stopped)
    detector = engine.build(cfg, None, torch.device("cpu"))
    state = read_detector(stopped / "checkpoint.pth")
    assert state["iteration"] == 4
    assert [line for line in lines(stopped) if "AP" in line] == []
    restore_detector(stopped / "checkpoint.pth", detector, state)
    with MetricsWriter(tmp_path) as writer:
        found = EvaluationHook(detector, train, test, writer).evaluate()
    wanted = next(line for line in lines(evaluated) if line["iteration"] == 3 and "AP" in line)
    assert {name: found[name] for name in wanted if name != "iteration"} == {
        name: value for name, value in wanted.items() if name != "iteration"
    }


# ---- TEST.BEST and DATASETS.VAL ----------------------------------------------------------------------------------


def test_a_training_is_unchanged_by_a_choice(runs):
    without = runs.folder / "without"
    for run in (runs.best, runs.on_test):
        assert_equal_trees(trained(without), trained(run))
        assert [line for line in lines(run) if "loss" in line] == lines(without)


def test_validation_metrics_and_losses_are_named_as_such(runs):
    found = [line for line in lines(runs.best) if "loss" not in line]
    assert [line["iteration"] for line in found] == [3, 7, 8]
    [losses] = [{name.removeprefix("val_") for name in line if "loss" in name} for line in found[:1]]
    assert losses == {name for name in lines(runs.folder / "without")[0] if name.startswith("loss")}
    for line in found:
        assert all(name.startswith("val_") for name in line if name != "iteration")
        parts = [value for name, value in line.items() if name.startswith("val_loss_")]
        assert line["val_loss"] == pytest.approx(sum(parts))
        assert all(value > 0 for value in parts)
    assert found[0]["val_loss"] > found[1]["val_loss"] > 0  # the training set itself
    [shared] = [one for one in load_results(runs.best)["warnings"] if "validation image" in one["what"]]
    assert (shared["what"], shared["count"]) == ("validation image that is trained on", 12)


def test_the_first_highest_value_is_chosen_also_by_a_resumed_run(runs):
    for run, key in ((runs.best, f"val_{METRIC}"), (runs.on_test, METRIC)):
        evaluated = [line for line in lines(run) if key in line]
        highest = max(line[key] for line in evaluated)
        first = next(line["iteration"] for line in evaluated if line[key] == highest)
        choice = load_results(run)["details"]["best"]
        assert (choice["iteration"], choice["value"], choice["metric"]) == (first, highest, METRIC)
        assert load_checkpoint(run / "checkpoint.pth")["best"]["choice"] == choice
    assert load_checkpoint(runs.folder / "stopped_last" / "checkpoint.pth")["best"]["evaluated"] == 7
    # A kill after the line of the last evaluation, and before the checkpoint that would hold its weights.
    killed = runs.folder / "killed"
    shutil.copytree(runs.folder / "stopped_last", killed)
    shutil.copy(runs.on_test / "metrics.jsonl", killed / "metrics.jsonl")
    runs.main(runs.argv(killed, *PERIOD, "TEST.BEST", METRIC, flags=["--resume"]))
    assert load_checkpoint(killed / "checkpoint.pth")["best"]["evaluated"] == 8
    assert load_results(killed)["details"]["best"] == load_results(runs.on_test)["details"]["best"]
    assert [line for line in lines(killed) if METRIC in line] == [
        line for line in lines(runs.on_test) if METRIC in line
    ]
    numbers = [[line for line in lines(run) if METRIC in line] for run in (runs.on_test, runs.plain)]
    assert numbers[0] == numbers[1]  # at the end those of the last iteration, not those of the results


def test_results_are_those_of_the_chosen_weights(runs, tmp_path):
    choice = load_results(runs.on_test)["details"]["best"]
    line = next(line for line in lines(runs.on_test) if line["iteration"] == choice["iteration"] and METRIC in line)
    metrics = {name: value for name, value in load_results(runs.on_test)["metrics"].items() if value is not None}
    assert line == {"iteration": choice["iteration"]} | metrics
    for run in (runs.best, runs.on_test):
        again = shutil.copytree(run, tmp_path / run.name)
        for name in ("predictions.json", "matches.npz", "results.json"):
            (again / name).unlink()
        runs.main([*map(str, saved_argv(runs, again)), "--eval-only"])
        assert (again / "predictions.json").read_bytes() == (run / "predictions.json").read_bytes()
        one, other = load_results(run), load_results(again)
        assert [one[part] for part in ("metrics", "protocol", "data")] == [
            other[part] for part in ("metrics", "protocol", "data")
        ]
        assert one["details"]["best"] == other["details"]["best"]
        test = load_run(run)[2]
        found = load_detector(run).detect([record.path for record in test.records])["annotations"]
        keys = ("category_id", "bbox", "score")
        assert [[one[key] for key in keys] for one in found] == [
            [one[key] for key in keys] for one in load_json(run / "predictions.json")
        ]


def test_a_choice_on_test_images_is_marked(runs, tmp_path, capsys):
    results = {name: load_results(getattr(runs, name)) for name in ("plain", "best", "on_test")}
    marks = {name: one["data"].get("chosen_on_test_images") for name, one in results.items()}
    assert marks == {"plain": None, "best": False, "on_test": True}
    assert results["on_test"]["data"]["test_images_chosen_on"] == 6
    assert len({one["protocol"]["hash"] for one in results.values()}) == 3
    settings = results["best"]["protocol"]["settings"]
    assert (settings["TEST.BEST"], settings["TEST.EVAL_PERIOD"]) == (METRIC, 4)
    # An evaluation on the data of the choice, whose own results stay.
    run = shutil.copytree(runs.best, tmp_path / "run")
    runs.main([*saved_argv(runs, run), "DATASETS.TEST", f"('{runs.val}',)", "--eval-only"])
    assert f"chosen by {METRIC} on {runs.val}, on test images: too good" in capsys.readouterr().out
    [other] = [load_results(path.parent) for path in run.glob("evaluation-*/results.json")]
    assert other["data"]["test_images_chosen_on"] == 12
    assert other["details"]["best"] == results["best"]["details"]["best"]


def saved_argv(runs, run):
    """The arguments of a run in a folder, by its name."""
    name = "best" if run.name == "run" else run.name
    val = ("DATASETS.VAL", runs.val) if name == "best" else ()
    return runs.argv(run, *PERIOD, *val, "TEST.BEST", METRIC)


def load_run(run):
    """Return config, engine, test and training data of a run."""
    cfg, warnings = load_engine_config(run / "config.yaml", otherwise="torchvision"), WarningCounter()
    test, train = (load_data(names, cfg.DATASETS.ROOT, warnings) for names in (cfg.DATASETS.TEST, cfg.DATASETS.TRAIN))
    return cfg, build_engine(cfg.ENGINE), test, train


class Spoiler(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.frozen = torch.nn.BatchNorm2d(2), torch.nn.Dropout()


def test_everything_is_restored_after_an_evaluation():
    """Even by one that fails, and where statistics are replaced by new tensors."""

    class Detector:
        device, task = torch.device("cpu"), Spoiler()
        model = task.norm

    task = Detector.task
    task.train()
    task.frozen.eval()
    tensor = task.norm.running_mean
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    with pytest.raises(ValueError, match="fails"), unchanged(Detector()):
        spoil(task)
    assert task.norm.running_mean is tensor
    assert tensor.tolist() == [0, 0]
    assert (task.training, task.norm.training, task.frozen.training) == (True, True, False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def spoil(task):
    task.eval()
    task.norm.running_mean.add_(1)
    task.norm.running_mean = torch.ones(2)
    torch.rand(3), np.random.rand(3), random.random()
    raise ValueError("fails")
