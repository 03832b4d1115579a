"""What every registered method must do, whatever it is; a new method is tested here without being named."""

import copy
import dataclasses

import pytest
import torch
from helpers.method_images import SIZE, B, K, Tiny, batch, build

from backbones.config import get_defaults
from backbones.core.errors import InputError
from backbones.methods.base import METHODS, Method
from backbones.methods.manual import read_arguments
from backbones.models import build_model

NAMES = METHODS.names()
OPTIONAL = {"index", "objectness", "boxes", "is_context", "second_view", "teacher_logits"}
# A method with a loss of its own overrides it, and has tests that state what it is.
OF_TARGETS = [name for name in NAMES if METHODS.get(name).loss is Method.loss]
# Arguments with which the small batch of `test_learns` can be learnt.
LEARNABLE = {"PairwiseConfusion": {"weight": 0.1}}  # ten times the distance of the predictions would be too much


def train(method, seeds, optimizer=None):
    """Losses of a few steps, one seed and one batch each, with a period's end after every second one."""
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


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_has_a_default_that_is_taken_and_a_meaning(name):
    arguments = read_arguments(METHODS.get(name))
    assert get_defaults().METHOD[name] == {argument.name: argument.default for argument in arguments}
    assert all(argument.meaning.endswith(".") for argument in arguments), "every argument is explained under Args:"
    METHODS.get(name)(Tiny(K), K)


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_not_overridden(name):
    assert "forward" not in vars(METHODS.get(name))


@pytest.mark.parametrize("name", OF_TARGETS)
@pytest.mark.parametrize("num_classes", [2, K])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_is_the_mean_soft_cross_entropy_and_its_gradient_p_minus_y(name, num_classes, dtype):
    method = build(name, num_classes).to(dtype)
    sample = batch(num_classes, dtype=dtype)
    for _ in range(2):  # the second time with what was learnt from the first
        step = method(sample)
        step.logits.retain_grad()
        step.loss.backward()
        p, y = step.logits.softmax(dim=1), step.targets
        assert y.dtype == step.loss.dtype == dtype
        assert not y.requires_grad
        assert y.min() >= 0
        torch.testing.assert_close(y.sum(dim=1), torch.ones(B, dtype=dtype))
        torch.testing.assert_close(step.loss, -(y * p.log()).sum() / B)
        torch.testing.assert_close(step.logits.grad, (p - y) / B)
        assert method.model.conv.weight.grad.abs().sum() > 0
        method.end_period()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_keeps_targets_and_loss_in_float32(name):
    method, sample = build(name), batch()
    torch.manual_seed(2)
    exact = method(sample)
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16):
        step = method(sample)
    assert step.logits.dtype == torch.bfloat16
    assert step.targets.dtype == step.loss.dtype == torch.float32
    torch.testing.assert_close(step.targets, exact.targets)
    torch.testing.assert_close(step.loss, exact.loss, rtol=0.02, atol=0.02)
    step.loss.backward()
    method.end_period()


@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_for_the_device(name):
    # A meta tensor has no values: reading one, as a synchronisation would, is an error.
    method = build(name).to("meta")
    method(batch().to("meta")).loss.backward()
    method.after_step()
    assert all(parameter.grad is not None for parameter in method.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_training_resumes_exactly_from_the_state_dict(name):
    method = build(name)
    train(method, range(3))  # ends inside a period
    method.gather()
    state = copy.deepcopy(method.state_dict())
    expected = train(method, range(3, 8))
    resumed = build(name)
    resumed.load_state_dict(state)
    assert train(resumed, range(3, 8)) == expected
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_gathering_changes_nothing_on_one_process(name):
    plain, gathered = build(name), build(name)
    optimizer = torch.optim.SGD(gathered.parameters(), lr=0.1)
    expected, losses = train(plain, range(6)), []
    for seed in range(6):
        losses += train(gathered, [seed], optimizer)
        gathered.gather()
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected))


@pytest.mark.parametrize("name", NAMES)
def test_refuses_a_batch_without_what_it_needs(name):
    method = build(name)
    for field in method.needs:
        with pytest.raises(InputError, match=f"{name} needs `{field}`"):
            method(dataclasses.replace(batch(), **{field: None}))
    method(dataclasses.replace(batch(), **dict.fromkeys(OPTIONAL - method.needs)))


@pytest.mark.parametrize("name", NAMES)
def test_refuses_one_class(name):
    with pytest.raises(InputError, match=f"{name}: num_classes is 1"):
        build(name, 1)


@pytest.mark.parametrize("name", NAMES)
def test_learns(name):
    method = build(name, **LEARNABLE.get(name, {}))
    sample = batch()
    colours = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 3, 0], [-3, -3, -3]])
    sample.images += colours[sample.labels][:, :, None, None]
    sample.second_view = sample.images.flip(3)
    sample.objectness = torch.full((B,), 0.75)
    sample.boxes = torch.tensor([0.0, 0.0, SIZE, 0.75 * SIZE]).repeat(B, 1, 1)
    sample.is_context = torch.zeros(B, dtype=torch.bool)
    sample.teacher_logits = 4 * torch.eye(K)[sample.labels]
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        method(sample).loss.backward()
        optimizer.step()
        method.after_step()
    assert (method.model(sample.images).logits.argmax(dim=1) == sample.labels).float().mean() >= 0.9


@pytest.mark.parametrize("name", NAMES)
def test_trains_a_resnet_without_touching_the_batch(name):
    method, sample = build(name, model=build_model("resnet18", K)), batch()
    before = copy.deepcopy(sample)
    method(sample).loss.backward()
    assert all(parameter.grad is not None for parameter in method.model.parameters())
    for field in dataclasses.fields(sample):
        value = getattr(before, field.name)
        assert value is None or torch.equal(getattr(sample, field.name), value)
