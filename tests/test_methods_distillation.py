"""Distillation: limits of the gradient, the authors' forms, the toy with two stages, and the averaged weights."""

import copy
import math

import pytest
import torch
from helpers.method_toys import B, K, build, entropy_to, gradient, random_batch
from torch import nn

from backbones.config import get_defaults
from backbones.core.errors import InputError
from backbones.data.batch import Batch
from backbones.methods import distillation
from backbones.methods import functional as F
from backbones.models import Outputs
from backbones.pretraining.building import build_solver

DOUBLE = torch.float64


def kl(q, p):
    """KL(q || p) per sample, from the definition."""
    return (q * (q / p).log()).sum(dim=1)


# Self-distillation


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_student_that_equals_its_teacher_is_left_alone(temperature):
    batch = random_batch()
    batch.images = batch.teacher_logits / temperature + 5  # whatever constant is added
    method = build("SelfDistillation", temperature=temperature)
    assert gradient(method, batch).abs().max() < 1e-15
    torch.testing.assert_close(method(batch).loss, entropy_to(batch.images.softmax(dim=1), batch.images).mean())


def test_self_distillation_has_the_gradient_of_the_divergence():
    batch = random_batch()
    logits = batch.images.clone().requires_grad_()
    kl(batch.teacher_logits.softmax(dim=1), logits.softmax(dim=1)).mean().backward()
    torch.testing.assert_close(gradient(build("SelfDistillation"), batch), logits.grad)


# Knowledge distillation


@pytest.mark.parametrize(("weight", "teacher", "student"), [(0.9, 20.0, 20.0), (0.9, 20.0, 1.0), (0.3, 2.0, 5.0)])
def test_distillation_from_its_definition(weight, teacher, student):
    batch = random_batch()
    method = build("KD", weight=weight, teacher_temperature=teacher, student_temperature=student)
    distance = kl((batch.teacher_logits / teacher).softmax(dim=1), (batch.images / student).softmax(dim=1)).mean()
    hard = nn.functional.cross_entropy(batch.images, batch.labels)
    torch.testing.assert_close(method(batch).loss, (1 - weight) * hard + weight * student**2 * distance)


def test_gradient_of_distillation_tends_to_the_difference_of_the_logits():
    # Hinton et al. 2015, Eq. 4, with the factor T^2: (z_s - z_t) / K once both have mean 0.
    batch = random_batch()
    student, teacher = (z - z.mean(dim=1, keepdim=True) for z in (batch.images, batch.teacher_logits))
    limit = (student - teacher) / K / B
    distance = []
    for t in (1e1, 1e2, 1e3):
        found = gradient(build("KD", weight=1.0, teacher_temperature=t, student_temperature=t), batch)
        distance.append((found - limit).abs().max() / limit.abs().max())
    assert distance[0] > 5 * distance[1] > 25 * distance[2]  # as 1 / T
    assert distance[2] < 5e-3


def test_the_square_keeps_the_size_of_the_gradient():
    batch = random_batch()
    norms = [
        gradient(build("KD", weight=1.0, teacher_temperature=t, student_temperature=t), batch).norm()
        for t in (10.0, 1000.0)
    ]
    assert 0.8 < norms[0] / norms[1] < 1.25


# Without a teacher


@pytest.mark.parametrize(("confidence", "temperature"), [(0.99, 6.0), (0.99, 40.0), (0.9, 0.05)])
def test_hand_made_teacher_has_the_gradient_of_the_authors_divergence(confidence, temperature):
    batch, weight = random_batch(), 0.95
    soft = torch.full((B, K), (1 - confidence) / (K - 1), dtype=DOUBLE)
    for row, label in zip(soft, batch.labels, strict=True):
        row[label] = confidence
    teacher = (soft / temperature).softmax(dim=1)
    logits = batch.images.clone().requires_grad_()
    divergence = nn.functional.kl_div(logits.log_softmax(dim=1), teacher, reduction="batchmean")
    loss = (1 - weight) * nn.functional.cross_entropy(logits, batch.labels) + weight * divergence
    loss.backward()
    method = build("TFKD", weight=weight, confidence=confidence, temperature=temperature)
    torch.testing.assert_close(gradient(method, batch), logits.grad)
    entropy = entropy_to(teacher, teacher.log()).mean()
    torch.testing.assert_close(method(batch).loss, loss.detach() + weight * entropy)  # the constant they leave out


# Two views


def test_two_views_from_the_definition():
    batch, other = random_batch(), random_batch(seed=1)
    batch.second_view = other.images
    p, q = ((z / 2).softmax(dim=1) for z in (batch.images, other.images))
    hard = [nn.functional.cross_entropy(z, batch.labels) for z in (batch.images, other.images)]
    expected = sum(hard) / 2 + 3 * (kl(p, q) + kl(q, p)).mean() / 2
    torch.testing.assert_close(build("TwoView", weight=3.0, temperature=2.0)(batch).loss, expected)


def test_equal_views_do_not_diverge_and_none_comes_first():
    batch, method = random_batch(), build("TwoView", weight=7.0)
    batch.second_view = batch.images.clone()
    torch.testing.assert_close(method(batch).loss, build("CE")(batch).loss)
    torch.testing.assert_close(gradient(method, batch), gradient(build("CE"), batch) / 2)  # the other half: second view
    batch.second_view = random_batch(seed=1).images
    turned = copy.copy(batch)
    turned.images, turned.second_view = batch.second_view, batch.images
    torch.testing.assert_close(method(turned).loss, method(batch).loss)


# Shallow classifiers


class TwoStages(nn.Module):
    """Features (B, 3, 2, 2), then the logits (B, K)."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1).double(), nn.Linear(4, K).double()

    def forward(self, x):
        early = self.first(x)
        late = early.tanh()
        return Outputs(self.last(late.mean(dim=(2, 3))), {"res2": early, "res3": late})

    def feature_channels(self):
        return {"res2": 4, "res3": 4}


def staged(name, **arguments):
    """A method on the toy, a batch, and the logits of the final and of the shallow classifier for it."""
    torch.manual_seed(0)
    method = build(name, model=TwoStages(), **arguments)
    batch = Batch(torch.randn(B, 3, 2, 2, dtype=DOUBLE), torch.arange(B) % K)
    outputs = method.model(batch.images)
    head = method.shallow["res2"]
    pooled = outputs.features["res2"].flatten(2).mean(dim=2)
    return method, batch, outputs.logits, pooled @ head.weight.T + head.bias


@pytest.mark.parametrize("distillation", [0.0, 0.3, 1.0])
def test_own_teacher_from_the_definition(distillation):
    method, batch, final, shallow = staged("BYOT", distillation=distillation)
    assert list(method.shallow) == ["res2"]  # the last stage has the final classifier
    hard = F.one_hot(batch.labels, K, DOUBLE)
    soft = entropy_to((final / 3).softmax(dim=1), shallow / 3)
    expected = 1.5 * entropy_to(hard, final) + 0.5 * (
        (1 - distillation) * entropy_to(hard, shallow) + distillation * soft
    )
    torch.testing.assert_close(method(batch).loss, expected.mean())


def test_final_classifier_does_not_learn_from_the_shallow_one():
    method, batch, *_ = staged("BYOT", final_weight=0.0, distillation=1.0)
    method(batch).loss.backward()
    assert method.model.last.weight.grad.abs().max() == 0
    assert method.model.first.weight.grad.abs().max() > 0


def test_own_teacher_with_online_labels_epoch_by_epoch():
    method, batch, final, shallow = staged("BYOTOLS")
    hard = F.one_hot(batch.labels, K, DOUBLE)
    method.begin_epoch(0)
    step = method(batch)
    torch.testing.assert_close(step.loss, entropy_to(hard, final).mean())  # of the final classifier alone
    step.loss.backward()
    assert all(p.grad is not None for p in method.parameters()), "several processes wait for every gradient"
    assert all(p.grad.abs().max() == 0 for p in method.shallow.parameters())
    method.end_period()
    soft = torch.full((K, K), 1 / K, dtype=DOUBLE)  # made here by hand, of what the final classifier got right
    p = final.softmax(dim=1)
    for k in range(K):
        right = [row for row, t in zip(p, batch.labels.tolist(), strict=True) if t == k and row.argmax() == k]
        soft[k] = sum(right) / len(right) if right else soft[k]
    torch.testing.assert_close(method.table.soft, soft)
    method.begin_epoch(1)
    y = soft[batch.labels]
    expected = (1.5 * entropy_to(hard, final) + 0.5 * entropy_to(hard, shallow)) / 2
    expected += (1.5 * entropy_to(y, final) + 0.25 * entropy_to(y, shallow)) / 2
    torch.testing.assert_close(method(batch).loss, expected.mean())


# Beta smoothing


class Scaled(nn.Module):
    """Logits are the input times a weight, normalised over the batch, with dropout."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(K)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return Outputs(self.drop(self.norm(x)), {})


@pytest.mark.parametrize(("amount", "weight"), [(0.1, 0.4), (0.3, 0.0), (0.55, 0.4)])
def test_mean_confidence_is_one_minus_the_amount(amount, weight):
    method, batch = build("BetaSmoothing", amount=amount, hard_weight=weight), random_batch(size=100)
    torch.manual_seed(0)
    targets = torch.stack([method.targets(batch) for _ in range(200)])
    right = targets.gather(2, batch.labels[None, :, None].expand(200, -1, -1))
    a = (1 - amount - weight) / amount  # b ~ Beta(a, 1): mean a / (a + 1), variance a / ((a + 1)^2 (a + 2))
    deviation = (1 - weight) * math.sqrt(a / (a + 1) ** 2 / (a + 2) / 20_000)
    assert abs(right.mean().item() - (1 - amount)) < 4 * deviation
    assert right.min() >= weight
    wrong = (1 - right) / (K - 1)
    hard = F.one_hot(batch.labels, K, DOUBLE).bool().expand(200, -1, -1)
    torch.testing.assert_close(targets, torch.where(hard, right, wrong))


def test_the_surer_the_averaged_model_the_surer_the_label():
    method, batch = build("BetaSmoothing"), random_batch(size=50)
    method.model.scale.data.fill_(-1)  # the trained model believes the opposite: it is not asked
    y = method.targets(batch).gather(1, batch.labels[:, None])[:, 0]
    p = batch.images.softmax(dim=1).gather(1, batch.labels[:, None])[:, 0]
    assert torch.equal(y.argsort(), p.argsort())
    assert len(y.unique()) == len(y)


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_average_follows_its_recursion_and_nothing_else(decay):
    torch.manual_seed(0)
    method = build("BetaSmoothing", model=Scaled().double(), decay=decay)
    cfg = get_defaults()
    cfg.SOLVER.WEIGHT_DECAY = 0.5
    solver = build_solver(cfg, method)
    trained = {id(p) for group in solver.param_groups for p in group["params"]}
    assert trained == {id(p) for p in method.model.parameters()}
    slow = method.model.norm.weight.detach().clone()
    for seed in range(5):
        before = [p.clone() for p in method.averaged.parameters()]
        method(random_batch(seed=seed)).loss.backward()
        solver.step()
        assert all(map(torch.equal, before, method.averaged.parameters())), "neither gradient nor weight decay"
        method.after_step()
        slow = decay * slow + (1 - decay) * method.model.norm.weight.detach()
        torch.testing.assert_close(method.averaged.norm.weight, slow)
        assert torch.equal(method.averaged.norm.running_mean, method.model.norm.running_mean)
        assert torch.equal(method.averaged.norm.num_batches_tracked, method.model.norm.num_batches_tracked)
    assert not torch.equal(slow, method.model.norm.weight) or decay == 0


def test_averaged_model_is_asked_in_evaluation_mode():
    torch.manual_seed(0)
    method = build("BetaSmoothing", model=Scaled().double())
    method.eval()
    method.train()
    assert method.model.training
    assert not any(module.training for module in method.averaged.modules())
    before = copy.deepcopy(method.averaged.state_dict())
    batch = random_batch()
    method.targets(batch)
    assert all(torch.equal(value, before[key]) for key, value in method.averaged.state_dict().items())


def test_amount_must_leave_room_for_the_hard_label():
    for amount in (0.0, 0.6, 0.9):
        with pytest.raises(InputError, match=r"METHOD\.BetaSmoothing\.amount"):
            build("BetaSmoothing", amount=amount, hard_weight=0.4)


def test_every_process_ranks_with_the_batch_statistics_of_the_main_process(monkeypatch):
    """A checkpoint holds only those, so that a resumed run would rank otherwise than the uninterrupted one."""
    processes = [build("BetaSmoothing", model=Scaled().double()) for _ in range(2)]
    batches = [random_batch(seed=seed, size=50) for seed in range(2)]
    batches[1].images *= torch.arange(1, K + 1)
    sent = []

    def send(*tensors):
        sent.append([tensor.clone() for tensor in tensors])

    def receive(*tensors):
        for tensor, theirs in zip(tensors, sent.pop(), strict=True):
            tensor.copy_(theirs)

    def step(process, own):
        """Return the targets of one process; the main process (0) must have made the same step before."""
        monkeypatch.setattr(distillation, "broadcast", receive if process else send, raising=False)
        torch.manual_seed(0)
        targets = own[process](batches[process]).targets
        own[process].after_step()
        return targets

    for _ in range(3):
        for process in range(2):
            step(process, processes)
    assert not torch.allclose(*(method.averaged.norm.running_var for method in processes), rtol=0.1)
    resumed = copy.deepcopy(processes)
    for method in resumed:
        method.load_state_dict(copy.deepcopy(processes[0].state_dict()))
    for process in range(2):
        assert torch.equal(step(process, processes), step(process, resumed)), process
