"""Losses and rates of a training, collected on the device and averaged once per line of metrics.jsonl.

What was collected since the last line is part of a checkpoint, so that a run that is stopped between two lines writes
the same ones when it is resumed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from backbones.core.distributed import all_reduce_sum, is_main, world_size
from backbones.core.errors import Diverged


@dataclass
class Step:
    """What a task returns for a batch.

    Attributes:
        loss: () the total to minimise.
        losses: its named parts, () each.
        counts: name -> (sum (), number of cases), logged as sum / number; for rates such as accuracy.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    counts: dict[str, tuple[Tensor, int]] = field(default_factory=dict)


class Meters:
    """Collects losses and counts on the device, and averages them over the processes once per log period.

    Attributes:
        scalars: name -> numbers of this process, averaged too.
        before: losses from a checkpoint, name -> (n,) float64.
    """

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.losses: dict[str, list[Tensor]] = {}
        self.counts: dict[str, list[tuple[Tensor, int]]] = {}
        self.scalars: dict[str, list[float]] = {}
        self.before: dict[str, Tensor] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing was added since the last line."""
        return not (self.losses or self.before)

    def begin(self, start: int) -> None:
        """Continue with iteration `start`."""
        self.first = start - len(next(iter(self.before.values()), ()))

    def add(self, step: Step) -> None:
        """Keep the losses and counts of a step, on the device."""
        for name, value in {"loss": step.loss, **step.losses}.items():
            self.losses.setdefault(name, []).append(value.detach())
        for name, pair in step.counts.items():
            self.counts.setdefault(name, []).append(pair)

    def add_scalar(self, name: str, value: float) -> None:
        """Keep a number of this process."""
        self.scalars.setdefault(name, []).append(value)

    def flush(self, device: torch.device | None = None) -> dict[str, float]:
        """Return the means over all processes since the last call; raise `Diverged` for a loss that is not finite.

        Args:
            device: of this process; default: that of the losses.
        """
        columns = self._columns(device)
        table = torch.stack(list(columns.values()))
        all_reduce_sum(table)  # for the mean over processes; also, a loss that is not finite stops all of them
        table = table.cpu() / world_size()
        self._check_finite(list(columns), table)
        numbers = dict(zip(columns, table.mean(dim=1).tolist(), strict=True))
        for name, total in self._totals(device).items():
            all_reduce_sum(total)
            numbers[name] = (total[0] / total[1]).item()
        numbers |= {name: sum(values) / len(values) for name, values in self.scalars.items()}
        self.first += table.shape[1]
        self._clear()
        return numbers

    def gather(self, device: torch.device) -> None:
        """Collect the sums of all processes on the main process, before a save."""
        if self.empty or world_size() == 1:
            return
        columns, totals = self._columns(device), self._totals(device)
        all_reduce_sum(*columns.values(), *totals.values())
        share = 1.0 if is_main() else 0.0
        scalars = self.scalars
        self._clear()
        self.before = {name: column * share for name, column in columns.items()}
        self.counts = {name: [(total[0] * share, int(total[1] * share))] for name, total in totals.items()}
        self.scalars = scalars

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain types; empty just after a line was written."""
        if self.empty:
            return {}
        totals = {name: total.tolist() for name, total in self._totals(None).items()}
        losses = {name: column.cpu() for name, column in self._columns(None).items()}
        scalars = {name: list(values) for name, values in self.scalars.items()}
        return {"losses": losses, "counts": totals, "scalars": scalars, "processes": world_size()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, which the main process keeps: the others count nothing."""
        self._clear()
        if not state:
            return
        share = 1.0 if is_main() else 0.0
        scale = share * world_size() / state.get("processes", world_size())  # losses are sums over the processes
        self.before = {name: column * scale for name, column in state["losses"].items()}
        for name, (right, cases) in state["counts"].items():
            self.counts[name] = [(torch.tensor(right * share, dtype=torch.float64), int(cases * share))]
        self.scalars = {name: list(values) for name, values in state["scalars"].items()}

    def _clear(self) -> None:
        self.losses, self.counts, self.scalars, self.before = {}, {}, {}, {}

    def _columns(self, device: torch.device | None) -> dict[str, Tensor]:
        """Return name -> (n,) float64 of every iteration of this process."""
        columns = {name: torch.stack(values).double() for name, values in self.losses.items()}
        for name, before in self.before.items():
            new = columns.get(name, before[:0])
            columns[name] = torch.cat([before.to(new.device), new])
        return columns if device is None else {name: column.to(device) for name, column in columns.items()}

    def _totals(self, device: torch.device | None) -> dict[str, Tensor]:
        """Return name -> (sum, number of cases) float64 of this process."""
        totals = {}
        for name, pairs in self.counts.items():
            place = device or pairs[-1][0].device
            right = torch.stack([s.double().to(place) for s, _ in pairs]).sum()
            totals[name] = torch.stack([right, torch.full_like(right, sum(n for _, n in pairs))])
        return totals

    def _check_finite(self, names: Sequence[str], table: Tensor) -> None:
        if math.isfinite(table.sum().item()):
            return
        bad = int((~torch.isfinite(table)).any(dim=0).nonzero()[0])
        parts = {name: round(value, 4) for name, value in zip(names, table[:, bad].tolist(), strict=True)}
        raise Diverged(
            f"the loss is not finite at iteration {self.first + bad}: {parts}; lower SOLVER.BASE_LR or check the data"
        )
