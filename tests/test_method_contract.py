"""Every registered method keeps the contract; a new method is tested here without being named."""

import pytest
import torch

from backbones.contract.checks import CHECKS, Violation, learns
from backbones.core.errors import InputError
from backbones.methods.base import METHODS, Method

NAMES = METHODS.names()
# Arguments with which the small batch of `learns` can be learnt.
LEARNABLE = {"PairwiseConfusion": {"weight": 0.1}}  # ten times the distance of the predictions would be too much


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_method_keeps_the_contract(check, name):
    if check is learns:
        learns(name, LEARNABLE.get(name))
    else:
        check(name)


class Wrong(Method):
    """Plain cross-entropy, which a subclass breaks."""


class Unexplained(Wrong):
    def __init__(self, model, num_classes, *, amount: float = 0.1):
        super().__init__(model, num_classes)


class Overrides(Wrong):
    forward = Method.forward


class Unnormalised(Wrong):
    def targets(self, batch):
        return 2 * super().targets(batch)


class Waits(Wrong):
    def targets(self, batch):
        assert batch.images.sum().item() != 0.5
        return super().targets(batch)


class Forgets(Wrong):
    def setup(self, context):
        self.steps = 0

    def targets(self, batch):
        self.steps += 1
        return torch.roll(super().targets(batch), self.steps // 3, dims=1)


class Halves(Wrong):
    def targets(self, batch):
        return super().targets(batch).half()


class Gathers(Wrong):
    def gather(self):
        torch.nn.init.zeros_(self.model.fc.weight)


class Demands(Wrong):
    def targets(self, batch):
        return super().targets(batch) + 0 * batch.objectness[:, None]


class Lone(Wrong):
    def __init__(self, model, num_classes):
        torch.nn.Module.__init__(self)
        self.model, self.num_classes = model, num_classes


class Shuffled(Wrong):
    def targets(self, batch):
        return super().targets(batch).roll(1, dims=0)


class Writes(Wrong):
    def targets(self, batch):
        batch.images.zero_()
        return super().targets(batch)


BROKEN = (
    Unexplained, Overrides, Unnormalised, Halves, Waits, Forgets, Gathers, Demands, Lone, Shuffled, Writes,
)  # fmt: skip


@pytest.mark.parametrize(("check", "broken"), list(zip(CHECKS, BROKEN, strict=True)), ids=lambda one: one.__name__)
def test_every_check_finds_a_method_that_breaks_it(check, broken, monkeypatch):
    monkeypatch.setitem(METHODS._obj_map, broken.__name__, broken)
    with pytest.raises((Violation, InputError, RuntimeError, TypeError)):
        check(broken.__name__)
