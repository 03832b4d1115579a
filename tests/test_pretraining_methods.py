"""Every method trained as its users do: two epochs, interrupted and resumed, and on two processes; one in bfloat16.

Six methods always; all of them with `make test-all` (marker `exhaustive`).
"""

import itertools
import json
import sys

import pytest
import torch
from helpers.killing import ROOT, assert_equal_trees, reported
from helpers.own_methods import OWN
from helpers.pretraining import arguments, run

from backbones.config import needs_teacher
from backbones.contract.toys import treats_samples_alone
from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.run_log import MetricsWriter
from backbones.methods.base import METHODS
from backbones.pretraining.task import MethodHook

# One that differs in its labels, one that knows objects, one that mixes images, one that learns online, one with a
# teacher and one with losses of its own.
ALWAYS = ["ClassSimilarityLS", "ALSContext", "RICAP", "OLS", "ILS", "BYOT"]
ADDED = [name for name in METHODS.names() if name not in OWN]  # by a reader of README
OTHERS = [name for name in METHODS.names() if name not in (*ALWAYS, *ADDED)]
IN_BFLOAT16 = "OLS"  # a table that accumulates beside autocast; on CPUs that emulate bfloat16, all would take minutes
EACH = [*ALWAYS, *ADDED, *(pytest.param(name, marks=pytest.mark.exhaustive) for name in OTHERS)]


@pytest.fixture(scope="module")
def teacher(small_scenes, tmp_path_factory, load_tool):
    """A finished run on hard labels."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    load_tool("pretrain").main(arguments(small_scenes, folder, "SOLVER.MAX_EPOCH", 1))
    return folder


@pytest.fixture
def argv(small_scenes, teacher):
    """The command line of a method."""

    def build(name, folder, *overrides, resume=False):
        options = ["METHOD.NAME", name, "SOLVER.MAX_EPOCH", 2, "SOLVER.CHECKPOINT_PERIOD", 0.4]
        if needs_teacher(name):
            options += ["TEACHER.RUN", teacher]
        if "is_context" in METHODS.get(name).needs:
            options += ["DATA.CONTEXT_SHARE", 0.3]
        return arguments(small_scenes, folder, *options, *overrides, resume=resume)

    return build


@pytest.mark.parametrize("name", EACH)
def test_interrupted_and_resumed_is_bit_equal(name, argv, tmp_path, load_tool, monkeypatch):
    main = load_tool("pretrain").main
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    precision = ["PRECISION", "bfloat16" if name == IN_BFLOAT16 else "float32"]
    main(argv(name, whole, *precision))
    lines, write = itertools.count(1), MetricsWriter.write

    def interrupted(*args, **kwargs):
        if next(lines) == 2:  # iteration 6 of 10: inside the second epoch, beyond the last checkpoint
            raise KeyboardInterrupt
        write(*args, **kwargs)

    monkeypatch.setattr(MetricsWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(argv(name, parts, *precision))
    monkeypatch.undo()
    assert 0 < load_checkpoint(parts / "checkpoint.pth")["iteration"] < 10
    main(argv(name, parts, *precision, resume=True))
    assert_equal_trees(load_checkpoint(whole / "checkpoint.pth"), load_checkpoint(parts / "checkpoint.pth"))
    assert reported(whole) == reported(parts)
    assert load_results(whole)["backbone"]["method"] == name


def test_epochs_begin_as_the_contract_says(argv, tmp_path, load_tool, monkeypatch):
    """0 .. MAX_EPOCH - 1, once each, also where the run is interrupted; the weight stays that of the last epoch."""
    main, method, begun = load_tool("pretrain").main, METHODS.get("PSKD"), []
    begin_epoch, after_step = method.begin_epoch, MethodHook.after_step

    def interrupted(hook: MethodHook, finished: int) -> None:
        after_step(hook, finished)
        if finished == 7:  # of 10; the last checkpoint is that of 6
            raise KeyboardInterrupt

    monkeypatch.setattr(method, "begin_epoch", lambda self, epoch: (begun.append(epoch), begin_epoch(self, epoch)))
    monkeypatch.setattr(MethodHook, "after_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(argv("PSKD", tmp_path))
    assert begun == [0, 1]
    monkeypatch.setattr(MethodHook, "after_step", after_step)
    main(argv("PSKD", tmp_path, resume=True))
    assert begun == [0, 1]
    state = load_checkpoint(tmp_path / "checkpoint.pth")
    assert (state["iteration"], state["method"]["weight"].item()) == (10, pytest.approx(0.8))


EXACT = ["MODEL.NORM", "GN", "PRECISION", "float64", "SOLVER.BASE_LR", "1e-4"]


def check_two_processes(names, argv, folder, load_tool):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    commands = [argv(name, folder / "two" / name, *EXACT) for name in names]
    done = run([*launcher, str(ROOT / "tests" / "helpers" / "pretrain_all.py"), json.dumps(commands)])
    assert done.returncode == 0, done.stderr[-1500:]
    for name in names:
        two = load_checkpoint(folder / "two" / name / "checkpoint.pth")
        assert two["iteration"] == 10
        if not treats_samples_alone(name):  # each process draws for its own half of the batch, or looks at it alone
            assert all(t.isfinite().all() for t in two["method"].values()), name
            continue
        load_tool("pretrain").main(argv(name, folder / "one" / name, *EXACT))
        one = load_checkpoint(folder / "one" / name / "checkpoint.pth")
        for key, tensor in one["method"].items():
            message = f"{name}: {key}"
            torch.testing.assert_close(
                two["method"][key], tensor, rtol=0, atol=1e-5, msg=lambda m, w=message: f"{w} {m}"
            )


def test_two_processes_equal_one(argv, tmp_path, load_tool):
    """Parameters, tables and memories to 1e-5; float64, group normalisation, two epochs."""
    check_two_processes(ALWAYS, argv, tmp_path, load_tool)


@pytest.mark.exhaustive
def test_two_processes_equal_one_with_every_other_method(argv, tmp_path, load_tool):
    check_two_processes(OTHERS, argv, tmp_path, load_tool)


def test_what_a_method_cannot_do_without_is_refused(argv, small_scenes, teacher, tmp_path, load_tool):
    main = load_tool("pretrain").main
    with pytest.raises(InputError, match=r"METHOD\.NAME ILS needs a teacher: set TEACHER\.RUN"):
        main(arguments(small_scenes, tmp_path / "a", "METHOD.NAME", "ILS"))
    with pytest.raises(InputError, match="are both set"):
        main(argv("ILS", tmp_path / "b", "TEACHER.CACHE", tmp_path))
    with pytest.raises(InputError, match="no backbone at"):
        main(argv("ILS", tmp_path / "c", "TEACHER.RUN", tmp_path))
    with pytest.raises(InputError, match=r"DATA\.CONTEXT_SHARE"):
        main(arguments(small_scenes, tmp_path / "d", "METHOD.NAME", "ALSContext"))


def test_a_cached_teacher_is_another_method(argv, teacher, small_scenes, tmp_path, load_tool):
    cache = tmp_path / "cache"
    data = ["DATA.HOLDOUT", "8", "DATA.NOISE_RATE", "0.2", "SEED", "3"]
    main = load_tool("pretrain").main
    main(argv("CE", tmp_path / "teacher", *data))
    load_tool("cache_teacher").main([str(tmp_path / "teacher"), "--output-dir", str(cache)])
    main(argv("ILS", tmp_path / "cached", "TEACHER.RUN", "''", "TEACHER.CACHE", cache, *data))
    with pytest.raises(InputError, match="was made for data of fingerprint"):
        main(argv("ILS", tmp_path / "other", "TEACHER.RUN", "''", "TEACHER.CACHE", cache))
    main(argv("ILS", tmp_path / "online"))
    backbones = [load_results(tmp_path / name)["backbone"] for name in ("cached", "online")]
    assert [b["method"] for b in backbones] == ["ILS-cached", "ILS"]
    assert [b["label"] for b in backbones] == ["ILS-cached", "ILS"]
    assert backbones[0]["hash"] != backbones[1]["hash"]
