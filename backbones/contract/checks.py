"""The contract of methods: one function per property, for the name of any registered method.

Each raises `Violation`, or the error of the method itself, where the method does not keep the contract
(backbones/methods/base.py states it).
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch

from backbones.config import get_defaults
from backbones.contract.toys import SIZE, B, K, Tiny, batch, build
from backbones.core.errors import InputError
from backbones.methods.base import METHODS, Method
from backbones.methods.manual import read_arguments
from backbones.models import build_model

OPTIONAL = frozenset({"index", "objectness", "boxes", "is_context", "second_view", "teacher_logits"})
# A loss of B terms in float32 or float64.
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-7}


class Violation(AssertionError):
    """A method breaks the contract; the message says how."""


def require(condition: object, message: str) -> None:
    """Raise `Violation` unless `condition` is true."""
    if not condition:
        raise Violation(message)


def train(method: Method, seeds: Iterable[int], optimizer: torch.optim.Optimizer | None = None) -> list[float]:
    """Return the losses of a few steps, one seed and one batch each, with the end of a period after every second."""
    optimizer = optimizer or torch.optim.SGD(method.parameters(), lr=0.1)
    losses = []
    for seed in seeds:
        torch.manual_seed(seed)
        step = method(batch(seed=seed))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.after_step()
        if seed % 2:
            method.end_period()
            method.begin_epoch((seed + 1) // 2)
        losses.append(step.loss.item())
    return losses


def arguments_are_config_keys(name: str) -> None:
    """Every argument has a default that is accepted and a meaning under `Args:`."""
    arguments = read_arguments(METHODS.get(name))
    block = {argument.name: argument.default for argument in arguments}
    require(get_defaults().METHOD[name] == block, f"METHOD.{name} is not {block}")
    for argument in arguments:
        require(argument.meaning.endswith("."), f"argument {argument.name}: explain it under `Args:`; end with a dot")
    METHODS.get(name)(Tiny(K), K)


def forward_is_kept(name: str) -> None:
    """`forward` is not overridden."""
    require("forward" not in vars(METHODS.get(name)), "`forward` is final: override targets, mix, loss or observe")


def loss_is_cross_entropy(name: str) -> None:
    """Without a loss of its own, the loss is the mean soft cross-entropy and its gradient (p - y) / B."""
    if METHODS.get(name).loss is not Method.loss:
        return
    for num_classes, dtype in ((K, torch.float32), (K, torch.float64), (2, torch.float32), (2, torch.float64)):
        method = build(name, num_classes).to(dtype)
        for _ in range(2):  # the second time with what was learnt from the first
            step = method(batch(num_classes, dtype=dtype))
            step.logits.retain_grad()
            step.loss.backward()
            _check_step(step.loss, step.logits, step.targets, dtype)
            gradient = next(method.model.parameters()).grad
            require(gradient is not None and gradient.any(), "no gradient reaches the first layer")
            method.end_period()


def _check_step(loss: torch.Tensor, logits: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> None:
    near, p = partial(torch.allclose, rtol=_TOLERANCE[dtype], atol=_TOLERANCE[dtype]), logits.softmax(dim=1)
    require(y.dtype == loss.dtype == dtype, f"targets are {y.dtype} and the loss {loss.dtype}, not {dtype}")
    require(not y.requires_grad, "a gradient flows through the targets")
    require(y.min() >= 0, f"a target is negative: {y.min():g}")
    require(near(y.sum(dim=1), torch.ones_like(y[:, 0])), "the targets of a sample do not sum to 1")
    require(near(loss, -(y * p.log()).sum() / B), "the loss is not the mean soft cross-entropy")
    assert logits.grad is not None
    require(near(logits.grad, (p - y) / B), "the gradient of the logits is not (p - y) / B")


def autocast_keeps_float32(name: str) -> None:
    """Under autocast targets and loss stay float32 and near the exact ones."""
    method, sample = build(name), batch()
    torch.manual_seed(2)
    exact = method(sample)
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16):
        step = method(sample)
    require(step.logits.dtype == torch.bfloat16, f"the logits are {step.logits.dtype} under autocast")
    require(step.targets.dtype == step.loss.dtype == torch.float32, "targets and loss must be float32 under autocast")
    require(torch.allclose(step.targets, exact.targets, rtol=0.02, atol=0.02), "autocast changes the targets")
    require(torch.allclose(step.loss, exact.loss, rtol=0.02, atol=0.02), "autocast changes the loss")
    step.loss.backward()
    method.end_period()


def no_step_waits_for_the_device(name: str) -> None:
    """A step reads no value of a tensor, which would wait for the device; every parameter has a gradient."""
    method = build(name).to("meta")  # a tensor without values: reading one is an error
    try:
        method(batch().to("meta")).loss.backward()
        method.after_step()
    except (RuntimeError, NotImplementedError) as error:
        raise Violation(f"a step reads the value of a tensor (.item(), bool, int, a loop): {error}") from error
    idle = [key for key, value in method.named_parameters() if value.requires_grad and value.grad is None]
    require(not idle, f"parameters without gradient: {', '.join(idle)}")


def resumes_from_its_state(name: str) -> None:
    """A training continues from the state dict bit by bit: all that was learnt is a buffer or a parameter."""
    method = build(name)
    train(method, range(3))  # ends inside a period
    method.gather()
    state = copy.deepcopy(method.state_dict())
    expected = train(method, range(3, 8))
    resumed = build(name)
    resumed.load_state_dict(state)
    require(train(resumed, range(3, 8)) == expected, "losses differ after resuming; keep all state in buffers")
    changed = [key for key, value in method.state_dict().items() if not torch.equal(value, resumed.state_dict()[key])]
    require(not changed, f"{', '.join(changed)} differ after resuming")


def gathering_changes_nothing_alone(name: str) -> None:
    """On one process, `gather` changes no loss."""
    plain, gathered = build(name), build(name)
    optimizer = torch.optim.SGD(gathered.parameters(), lr=0.1)
    expected, losses = torch.tensor(train(plain, range(6))), []
    for seed in range(6):
        losses += train(gathered, [seed], optimizer)
        gathered.gather()
    require(torch.allclose(torch.tensor(losses), expected), "`gather` changes the losses on a single process")


def needs_are_checked(name: str) -> None:
    """A batch without a needed field is refused by name; all other optional fields can be missing."""
    method = build(name)
    for field in sorted(method.needs):
        try:
            method(dataclasses.replace(batch(), **{field: None}))
        except InputError as error:
            require(f"{name} needs `{field}`" in str(error), f"the refusal does not name {field}: {error}")
        else:
            raise Violation(f"`needs` names {field}, but a batch without it is accepted")
    method(dataclasses.replace(batch(), **dict.fromkeys(OPTIONAL - method.needs)))


def refuses_one_class(name: str) -> None:
    """A problem with one class is refused by name."""
    try:
        build(name, 1)
    except InputError as error:
        require(f"{name}: num_classes is 1" in str(error), f"the refusal does not name the method: {error}")
    else:
        raise Violation("one class is accepted; call super().__init__(model, num_classes) first")


def learns(name: str, arguments: Mapping[str, Any] | None = None) -> None:
    """Sixty steps on one small batch of coloured images reach 90 % of right predictions.

    arguments: of the method, where it cannot learn so small a batch with its defaults.
    """
    method, sample = build(name, **(arguments or {})), _learnable()
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        method(sample).loss.backward()
        optimizer.step()
        method.after_step()
    right = (method.model(sample.images).logits.argmax(dim=1) == sample.labels).float().mean().item()
    require(right >= 0.9, f"after 60 steps on one batch, {right:.0%} of its predictions are right, not 90 %")


def _learnable() -> Any:
    sample = batch()
    colours = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 3, 0], [-3, -3, -3]])
    sample.images += colours[sample.labels][:, :, None, None]
    sample.second_view = sample.images.flip(3)
    sample.objectness = torch.full((B,), 0.75)
    sample.boxes = torch.tensor([0.0, 0.0, SIZE, 0.75 * SIZE]).repeat(B, 1, 1)
    sample.is_context = torch.zeros(B, dtype=torch.bool)
    sample.teacher_logits = 4 * torch.eye(K)[sample.labels]
    return sample


def leaves_the_batch_alone(name: str) -> None:
    """A step of a ResNet changes no tensor of the batch and trains every layer."""
    method, sample = build(name, model=build_model("resnet18", K)), batch()
    before = copy.deepcopy(sample)
    method(sample).loss.backward()
    idle = [key for key, value in method.model.named_parameters() if value.grad is None]
    require(not idle, f"parameters of the network without gradient: {', '.join(idle)}")
    for field in dataclasses.fields(sample):
        value = getattr(before, field.name)
        require(value is None or torch.equal(getattr(sample, field.name), value), f"a step changes {field.name}")


CHECKS: tuple[Callable[[str], None], ...] = (
    arguments_are_config_keys,
    forward_is_kept,
    loss_is_cross_entropy,
    autocast_keeps_float32,
    no_step_waits_for_the_device,
    resumes_from_its_state,
    gathering_changes_nothing_alone,
    needs_are_checked,
    refuses_one_class,
    learns,
    leaves_the_batch_alone,
)
