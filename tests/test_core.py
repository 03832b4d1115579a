"""Files, results, sampling and schedules."""

import math

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from backbones.core import distributed
from backbones.core.checkpoint import load_checkpoint, load_state, save_checkpoint
from backbones.core.errors import InputError, suggestion
from backbones.core.files import fingerprint, load_json, save_atomic, save_json
from backbones.core.results import BackboneIdentity, find_results, load_results, make_results, save_results
from backbones.core.run_log import MetricsWriter, read_metrics
from backbones.core.runs import check_writable
from backbones.core.sampling import StatelessBatchSampler, position_rng
from backbones.core.schedule import build_schedule
from backbones.core.warning_counter import WarningCounter

ME = BackboneIdentity("CE", "CE", 0, "abc")


def test_nearest_name():
    assert suggestion("OSL", ["OLS", "CE"]) == "; did you mean 'OLS'?"
    assert suggestion("xyz", ["OLS", "CE"]) == "; choices: CE, OLS"


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    save_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        save_atomic(path, fail)
    assert load_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprint_sees_types_shapes_and_borders():
    zeros = np.zeros((2, 3))
    prints = [
        fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint(b"ab", "c"), fingerprint(zeros),
        fingerprint(zeros.T), fingerprint(zeros.astype(np.float32)),
    ]  # fmt: skip
    assert len(set(prints)) == len(prints)
    assert fingerprint(zeros) == fingerprint(np.zeros((2, 3)))


def test_results_round_trip_with_null_for_what_is_not_finite(tmp_path):
    metrics = {"AP": math.nan, "top1": 0.5, "nll": np.float32(2.0)}
    save_results(tmp_path, make_results("detection", ME, {"name": "p", "hash": "h"}, metrics))
    read = load_results(tmp_path)
    assert read["metrics"] == {"AP": None, "top1": 0.5, "nll": 2.0}
    assert find_results([tmp_path]) == [tmp_path / "results.json"]


def test_results_of_another_kind_are_refused(tmp_path):
    save_json(tmp_path / "results.json", {"schema_version": 99})
    with pytest.raises(InputError, match="schema_version is 99"):
        load_results(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        load_results(tmp_path)
    with pytest.raises(InputError, match="at or below"):
        find_results([tmp_path / "none"])


def test_truncated_checkpoint_is_named(tmp_path):
    path = tmp_path / "c.pth"
    save_checkpoint(path, model={"w": torch.arange(1000.0)})
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"c\.pth is truncated"):
        load_checkpoint(path)


def test_every_key_of_a_state_is_accounted_for():
    module = nn.Linear(2, 3)
    good = module.state_dict()
    with pytest.raises(InputError, match="1 tensors missing"):
        load_state(module, {"weight": good["weight"]}, where="f")
    with pytest.raises(InputError, match="1 unexpected"):
        load_state(module, {**good, "x": good["bias"]}, where="f")
    with pytest.raises(InputError, match="of another shape"):
        load_state(module, {**good, "bias": torch.zeros(4)}, where="f")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        check_writable(tmp_path / "file" / "run")


def flat(sampler):
    return [position for batch in sampler for position in batch]


def test_an_epoch_visits_every_sample_once():
    sampler = StatelessBatchSampler(12, 4, seed=1, start=0, stop=6)
    first, second = flat(sampler)[:12], flat(sampler)[12:]
    assert sorted(p.index for p in first) == sorted(p.index for p in second) == list(range(12))
    assert {p.epoch for p in first} == {0}
    assert [p.index for p in first] != [p.index for p in second]


def test_order_is_a_pure_function_of_seed_and_position():
    whole = list(StatelessBatchSampler(13, 4, seed=1, start=0, stop=9))
    assert list(StatelessBatchSampler(13, 4, seed=1, start=5, stop=9)) == whole[5:]
    assert list(StatelessBatchSampler(13, 4, seed=2, start=0, stop=9)) != whole


def test_processes_share_a_batch():
    whole = list(StatelessBatchSampler(16, 4, seed=1, start=0, stop=8))
    parts = [list(StatelessBatchSampler(16, 4, seed=1, start=0, stop=8, rank=r, world_size=2)) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    with pytest.raises(InputError, match="cannot be shared by 3"):
        StatelessBatchSampler(16, 4, seed=1, start=0, stop=8, world_size=3)


def test_batches_never_mix_groups():
    groups = np.array([0, 1] * 9)
    batches = list(StatelessBatchSampler(18, 4, seed=0, start=0, stop=8, groups=groups))
    assert all(len({groups[p.index] for p in batch}) == 1 for batch in batches)
    assert {groups[batch[0].index] for batch in batches[:4]} == {0, 1}


def test_augmentation_differs_by_epoch_and_sample():
    draws = {position_rng(*key).random() for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]}
    assert len(draws) == 4
    assert position_rng(0, 3, 5).random() == position_rng(0, 3, 5).random()


def test_step_schedule():
    lr = build_schedule("steps", base_lr=1.0, max_iter=10, steps=[4, 8], gamma=0.1, warmup_iters=2, warmup_factor=0.5)
    expected = [0.5, 0.75, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]
    assert [lr(i) for i in range(10)] == pytest.approx(expected)


def test_cosine_schedule_is_symmetric():
    lr = build_schedule("cosine", base_lr=2.0, max_iter=100, final_lr=0.0)
    assert lr(0) == 2.0
    assert lr(50) == pytest.approx(1.0)
    assert all(lr(i) + lr(100 - i) == pytest.approx(2.0) for i in range(101))


@pytest.mark.parametrize("steps", [[10], [4, 4], [8, 4], [0]])
def test_steps_that_never_come_are_refused(steps):
    with pytest.raises(InputError, match="must increase"):
        build_schedule("steps", base_lr=1.0, max_iter=10, steps=steps)


def test_warnings_are_counted():
    counter = WarningCounter()
    for i in range(9):
        counter.add("boxes clipped", f"{i}.JPEG")
    counter.add("images dropped", "x", count=3)
    clipped, dropped = counter.as_list()
    assert (clipped["count"], dropped["count"]) == (9, 3)
    assert clipped["examples"] == [f"{i}.JPEG" for i in range(5)]


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for i in range(4):
            writer.write(i, loss=float(i))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "lo')  # cut short by a kill
    with MetricsWriter(tmp_path, start=2) as writer:
        writer.write(2, loss=20.0)
    assert [(line["iteration"], line["loss"]) for line in read_metrics(writer.path)] == [(0, 0.0), (1, 1.0), (2, 20.0)]


def test_an_exception_loses_no_number(tmp_path):
    """Neither a line of metrics.jsonl nor an event of TensorBoard, which a thread writes."""

    def write_then_fail() -> None:
        with MetricsWriter(tmp_path) as writer:
            for i in range(3):
                writer.write(i, loss=i + 0.5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_then_fail()
    assert [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0.5, 1.5, 2.5]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 0.5), (1, 1.5), (2, 2.5)]


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*a\.json: Not a directory|File exists"):
        save_json(tmp_path / "file" / "a.json", {})


# ------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize("local_rank", [0, 1, 2])
def test_every_process_has_a_gpu_of_its_own(monkeypatch, local_rank):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    if local_rank < 2:
        assert distributed.setup_distributed() == torch.device("cuda", local_rank)
        assert chosen == [torch.device("cuda", local_rank)]
    else:
        with pytest.raises(InputError, match=r"^process 3 of this machine has no GPU .* there are only 2; start"):
            distributed.setup_distributed()
