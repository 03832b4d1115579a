"""TEST.EVAL_PERIOD: the metrics of the test set during the training, which is the same with and without them."""

import random

import numpy as np
import pytest
import torch
from helpers.killing import CLOCK, assert_equal_trees
from helpers.stopping import stop_in_process
from helpers.tiny_runs import PRECISE, tiny_run

from backbones.core.checkpoint import load_checkpoint
from backbones.core.results import load_results
from backbones.core.run_log import MetricsWriter, read_metrics
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import load_data
from detection.engines import build_engine, load_engine_config
from detection.training.checkpoint import read_detector, restore_detector
from detection.training.evaluating import EvaluationHook, unchanged

PERIOD = ("TEST.EVAL_PERIOD", 4)  # of nine iterations, with a line for each: after 4, 8 and the end


# Enough boxes for some to be right by chance.
MANY = ("MODEL.RPN.POST_NMS_TOPK_TEST", 400, "MODEL.RPN.NMS_THRESH", 0.95, "TEST.DETECTIONS_PER_IMAGE", 400)
ENGINES = [
    "torchvision",
    pytest.param("yolo", marks=pytest.mark.exhaustive),
    pytest.param("detectron2", marks=pytest.mark.detectron2),
]


@pytest.fixture(scope="module", params=ENGINES)
def pair(request, small_scenes, tmp_path_factory, load_tool):
    """(argv(out, *overrides, flags), main, folder of a run without evaluations, folder of one with them)."""
    folder = tmp_path_factory.mktemp(request.param)
    # YOLO has labels that are learned online, the others statistics that an evaluation measures again.
    options = ("CLASS_LABELS.NAME", "OLS") if request.param == "yolo" else (*PRECISE, *MANY)
    main, argv = tiny_run(request.param, small_scenes, folder, load_tool, *options)
    main(argv(folder / "without"))
    main(argv(folder / "with", *PERIOD))
    return argv, main, folder / "without", folder / "with"


def lines(folder):
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(folder / "metrics.jsonl")]


def test_the_training_and_its_results_are_unchanged(pair):
    *_, without, evaluated = pair
    assert_equal_trees(load_checkpoint(without / "checkpoint.pth"), load_checkpoint(evaluated / "checkpoint.pth"))
    assert (without / "predictions.json").read_bytes() == (evaluated / "predictions.json").read_bytes()
    one, other = load_results(without), load_results(evaluated)
    assert one["metrics"] == other["metrics"]
    assert one["protocol"] == other["protocol"]
    assert [line for line in lines(evaluated) if "loss" in line] == lines(without)


def test_metrics_are_written_with_the_period_and_at_the_end(pair):
    *_, evaluated = pair
    found = [line for line in lines(evaluated) if "loss" not in line]
    assert [line["iteration"] for line in found] == [3, 7, 8]
    metrics = {name: value for name, value in load_results(evaluated)["metrics"].items() if value is not None}
    assert found[-1] == {"iteration": 8} | metrics
    assert found[0].keys() == found[-1].keys()
    if not evaluated.parent.name.startswith("detectron2"):  # after so few iterations, its detections match nothing
        assert metrics["AR100"] > 0
        assert found[0] != found[1] | {"iteration": 3}


def test_a_number_during_the_training_is_that_of_a_run_that_ends_there(pair, tmp_path):
    """The same iterations with the same learning rates: the checkpoint after four, evaluated as the last one."""
    argv, main, _, evaluated = pair
    assert stop_in_process(main, argv(tmp_path, *PERIOD), *moment(evaluated)) == 143
    (tmp_path / "again").mkdir()
    cfg, engine, test, train = load_run(tmp_path)
    detector = engine.build(cfg, None, torch.device("cpu"))
    state = read_detector(tmp_path / "checkpoint.pth")
    assert state["iteration"] == 4
    restore_detector(tmp_path / "checkpoint.pth", detector, state)
    with MetricsWriter(tmp_path / "again") as writer:
        found = EvaluationHook(detector, train, test, writer).evaluate()
    wanted = next(line for line in lines(evaluated) if line["iteration"] == 3 and "AP" in line)
    assert {name: found[name] for name in wanted if name != "iteration"} == {
        name: value for name, value in wanted.items() if name != "iteration"
    }


def test_an_evaluation_that_a_signal_cuts_off_is_repeated(pair, tmp_path):
    argv, main, _, evaluated = pair
    assert stop_in_process(main, argv(tmp_path, *PERIOD), *moment(evaluated)) == 143
    assert load_checkpoint(tmp_path / "checkpoint.pth")["iteration"] == 4
    assert [line for line in lines(tmp_path) if "AP" in line] == []
    main(argv(tmp_path, *PERIOD, flags=["--resume"]))
    assert lines(tmp_path) == lines(evaluated)
    assert_equal_trees(load_checkpoint(tmp_path / "checkpoint.pth"), load_checkpoint(evaluated / "checkpoint.pth"))


def moment(run):
    """Return a function that is called in the first evaluation."""
    return {
        "torchvision": ("detection.engines.torchvision.engine.scale_to_original", 1),
        "yolo": ("detection.engines.yolo.inference.suppress", 1),
        "detectron2": ("detection.engines.detectron2.inference.to_results", 1),
    }[run.parent.name[:-1]]  # pytest has added a digit


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
