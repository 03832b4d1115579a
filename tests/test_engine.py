"""The training loop: what it computes, what it refuses, and that a resumed run repeats the numbers."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from backbones.core.engine import Step, check_precision, train
from backbones.core.errors import InputError
from backbones.core.optimizer import build_optimizer
from backbones.core.run_log import MetricsWriter, read_metrics
from backbones.core.schedule import build_schedule

CPU = torch.device("cpu")


@dataclass
class Numbers:
    x: Tensor

    def to(self, device, non_blocking=False):
        return Numbers(self.x.to(device))


class Line(nn.Module):
    """Mean of w * x, with dropout so that a step is random."""

    def __init__(self, dropout=0.5):
        super().__init__()
        self.dropout = dropout
        self.w = nn.Parameter(torch.ones(4))

    def forward(self, batch):
        kept = nn.functional.dropout(batch.x, self.dropout, training=self.training)
        loss = (self.w * kept).mean()
        return Step(loss, {"part": loss / 2}, {"rate": ((batch.x > 0).sum(), batch.x.numel())})


def batches(start, stop):
    for i in range(start, stop):
        yield Numbers(torch.randn(4, generator=torch.Generator().manual_seed(i)))


def run(task, start, stop, *, end=None, optimizer=None, writer=None, clip_norm=0.0, data=None, save=None, log_period=3):
    optimizer = optimizer or build_optimizer(task.parameters(), "SGD", lr=1.0, weight_decay=0.0)
    train(
        task,
        batches(start, stop) if data is None else data,
        optimizer,
        build_schedule("cosine", base_lr=0.1, max_iter=end or stop),
        start=start,
        stop=stop,
        seed=3,
        precision="float32",
        clip_norm=clip_norm,
        log_period=log_period,
        checkpoint_period=5,
        save=save or (lambda finished: None),
        writer=writer,
        device=CPU,
    )
    return optimizer


def test_one_step_is_gradient_descent():
    task = Line(dropout=0.0)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    run(task, 0, 1, data=[Numbers(x)])
    torch.testing.assert_close(task.w.detach(), 1 - 0.1 * x / 4)


def test_clipping_bounds_the_step():
    task = Line(dropout=0.0)
    run(task, 0, 1, data=[Numbers(torch.full((4,), 1e6))], clip_norm=2.0)
    assert torch.linalg.norm(1 - task.w).item() == pytest.approx(0.1 * 2.0, rel=1e-4)


def test_resumed_run_equals_the_uninterrupted_one(tmp_path):
    whole, halves = Line(), Line()
    with MetricsWriter(tmp_path / "whole") as writer:
        run(whole, 0, 10, writer=writer)

    with MetricsWriter(tmp_path / "halves") as writer:
        optimizer = run(halves, 0, 5, end=10, writer=writer)
    torch.manual_seed(999)  # whatever happened in between
    with MetricsWriter(tmp_path / "halves", start=5) as writer:
        run(halves, 5, 10, optimizer=optimizer, writer=writer)

    assert torch.equal(whole.w, halves.w)
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "halves")]
    for a, b in zip(*lines, strict=True):
        for key in ("iteration", "loss", "part", "lr", "rate"):
            assert a[key] == b[key]


def test_logged_loss_is_the_mean_since_the_last_line(tmp_path):
    task = Line(dropout=0.0)
    optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], "SGD", lr=1.0, weight_decay=0.0)  # nothing learns
    with MetricsWriter(tmp_path) as writer:
        run(task, 0, 7, optimizer=optimizer, writer=writer)
    losses = [batch.x.mean().item() for batch in batches(0, 7)]
    lines = read_metrics(writer.path)
    assert [line["iteration"] for line in lines] == [2, 4, 5, 6]  # every 3, every checkpoint, and the end
    for line, window in zip(lines, [losses[:3], losses[3:5], losses[5:6], losses[6:]], strict=True):
        assert line["loss"] == pytest.approx(sum(window) / len(window), rel=1e-5, abs=1e-7)
        assert line["part"] == pytest.approx(line["loss"] / 2)


def test_saves_at_the_period_and_the_end():
    saved = []
    run(Line(), 0, 12, save=saved.append)
    assert saved == [5, 10, 12]


def test_loss_that_is_not_finite_is_named_and_never_saved():
    data = list(batches(0, 12))
    data[7].x[:] = float("nan")
    saved = []
    with pytest.raises(InputError, match=r"not finite at iteration 7: \{'loss': nan, 'part': nan\}"):
        run(Line(), 0, 12, data=data, save=saved.append, log_period=100)
    assert saved == [5]


def test_precision_is_checked():
    with pytest.raises(InputError, match=r"unknown .*'bf16'"):
        check_precision("bf16", CPU)


@pytest.mark.parametrize(("instructions", "warned"), [("AVX2", True), ("AVX512", False)])
def test_a_precision_that_the_cpu_emulates_is_warned_of(monkeypatch, capsys, instructions, warned):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    check_precision("float32", CPU)
    assert capsys.readouterr().err == ""
    check_precision("bfloat16", CPU)
    assert ("emulates bfloat16" in capsys.readouterr().err) == warned


def test_weights_that_are_not_finite_are_never_saved():
    """A finite loss whose gradient is not: sqrt at 0."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return Step(self.w.sqrt().sum(), {})

    saved = []
    with pytest.raises(InputError, match="the weights are not finite after iteration 0"):
        run(Root(), 0, 1, save=saved.append)
    assert saved == []


@pytest.mark.parametrize(("name", "expected"), [("SGD", 1 - 0.1 * 0.5), ("ADAM", 1 - 0.1), ("ADAMW", 1 - 0.1 * 0.5)])
def test_weight_decay_of_an_optimizer(name, expected):
    """A parameter of 1 whose gradient is 0: SGD and AdamW shrink it by lr * decay, Adam by its whole first step."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = build_optimizer([parameter], name, lr=0.1, weight_decay=0.5)
    parameter.grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((3,), expected))


def test_an_unknown_optimizer_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'ADAM'"):
        build_optimizer([nn.Parameter(torch.ones(1))], "ADAMM", lr=0.1, weight_decay=0)
