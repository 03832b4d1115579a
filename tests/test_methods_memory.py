"""Methods that remember predictions: PS-KD and OLS-Single against loops over samples, the options of OLS, processes."""

import copy

import pytest
import torch
from helpers.method_toys import K, build, context, entropy_to, random_batch
from scipy.stats import chisquare

from backbones.contract.toys import build as build_with_network
from backbones.core.errors import InputError
from backbones.data.batch import Batch
from backbones.methods import functional as F
from backbones.methods import learnt, memory, smoothing
from backbones.pretraining.task import MethodHook

DOUBLE = torch.float64
N, SIZE = 11, 4  # three samples of every epoch are left out


def epoch_batches(epoch, labels):
    """Two batches of other samples in other order each epoch; a prediction for a sample differs from epoch to epoch."""
    random = torch.Generator().manual_seed(epoch)
    order = torch.randperm(N, generator=random)[: 2 * SIZE]
    logits = 2 * torch.randn(2 * SIZE, K, generator=random, dtype=DOUBLE)
    return [Batch(z, labels[i], index=i) for z, i in zip(logits.split(SIZE), order.split(SIZE), strict=True)]


# PS-KD


def test_last_epochs_prediction_is_the_loop_over_samples():
    labels, epochs = torch.arange(N) % K, 4
    method = build("PSKD", final_weight=0.8)
    method.setup(context(labels, epochs=epochs))
    method.begin_epoch(0)
    hook = MethodHook(method, 2, 2 * epochs)
    last = {i: F.one_hot(labels[i : i + 1], K, DOUBLE)[0] for i in range(N)}
    finished, left_out = 0, set(range(N))
    for epoch in range(epochs):
        fresh = dict(last)
        weight = 0.8 * (epoch + 1) / epochs
        for batch in epoch_batches(epoch, labels):
            step = method(batch)
            for row, (i, z, y) in enumerate(zip(batch.index.tolist(), batch.images, step.targets, strict=True)):
                hard = F.one_hot(labels[i : i + 1], K, DOUBLE)[0]
                expected = (1 - weight) * hard + weight * last[i]
                torch.testing.assert_close(y, expected, msg=f"epoch {epoch}, row {row}")
                fresh[i] = z.softmax(dim=0)
                left_out.discard(i)
            torch.testing.assert_close(step.loss, entropy_to(step.targets, batch.images).mean())
            finished += 1
            hook.after_step(finished)
        last = fresh
    assert not left_out, "the epochs together see all"


def test_first_epoch_of_pskd_is_cross_entropy():
    labels = torch.arange(N) % K
    method, batch = build("PSKD", final_weight=1.0), epoch_batches(0, labels)[0]
    method.setup(context(labels, epochs=1))
    method.begin_epoch(0)
    torch.testing.assert_close(method(batch).loss, build("CE")(batch).loss)


# OLS-Single


def sources(method, batch, last):
    """Which sample's prediction each row of the targets holds."""
    soft = (method.targets(batch) - 0.5 * F.one_hot(batch.labels, K, DOUBLE)) / 0.5
    distance = (soft[:, None] - last[None]).abs().amax(dim=2)
    assert distance.amin(dim=1).max() < 1e-12, "a row that is nobody's prediction"
    return distance.argmin(dim=1)


def test_one_other_sample_of_the_class_over_epochs_that_leave_samples_out():
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4])
    method = build("OLSSingle", hard_weight=0.5)
    method.setup(context(labels))
    hook = MethodHook(method, 2, 8)
    last = torch.full((N, K), 1 / K, dtype=DOUBLE)
    finished = 0
    for epoch in range(4):
        fresh = last.clone()
        for batch in epoch_batches(epoch, labels):
            if epoch == 0:
                expected = F.smooth_labels(batch.labels, K, 0.5, "all", DOUBLE)
                torch.testing.assert_close(method.targets(batch), expected)
            for i, z in zip(batch.index.tolist(), batch.images, strict=True):
                fresh[i] = z.softmax(dim=0)
            step = method(batch)
            torch.testing.assert_close(step.loss, entropy_to(step.targets, batch.images).mean())
            finished += 1
            hook.after_step(finished)
        last = fresh
        torch.testing.assert_close(method.memory.last, last)


def test_every_other_sample_of_the_class_is_drawn_alike_and_never_itself():
    labels = torch.tensor([3, 1, 2, 3, 0, 2, 3, 1, 2, 3, 4])
    method, every = build("OLSSingle"), torch.arange(N)
    method.setup(context(labels))
    predictions = torch.randn(N, K, dtype=DOUBLE).softmax(dim=1)
    method.memory.observe(every, predictions)
    method.end_period()
    torch.manual_seed(0)
    copies = 1500
    batch = Batch(torch.zeros(copies * N, K), labels.repeat(copies), index=every.repeat(copies))
    drawn = sources(method, batch, predictions).reshape(copies, N)
    for i, label in enumerate(labels.tolist()):
        others = [j for j in range(N) if labels[j] == label and j != i]
        count = torch.bincount(drawn[:, i], minlength=N)
        if not others:
            assert count[i] == copies, "of a class with one sample it is its own"
            continue
        assert count[others].sum() == copies, "another sample of its class"
        if len(others) > 1:
            assert chisquare(count[others].numpy()).pvalue > 1e-3


# The options of OLS


def test_zero_start_halves_the_first_loss():
    batch = random_batch()
    torch.testing.assert_close(
        build("OLS", init="zeros", hard_weight=0.5)(batch).loss, build("CE")(batch).loss / 2
    )  # the authors log 0.5 log K at first
    method = build("OLS", init="zeros")
    method(batch)
    method.end_period()
    torch.testing.assert_close(method.table.soft.sum(dim=1), torch.ones(K, dtype=DOUBLE))


def test_sum_of_both_losses_is_twice_their_mean():
    plain, summed = build("OLS"), build("OLS", sum_weights=True)
    for seed in range(3):
        batch = random_batch(seed=seed)
        step = summed(batch)
        torch.testing.assert_close(step.loss, 2 * plain(batch).loss)
        hard, soft = F.one_hot(batch.labels, K, DOUBLE), summed.table.soft[batch.labels]
        expected = entropy_to(hard, batch.images) + entropy_to(soft, batch.images)
        torch.testing.assert_close(step.loss, expected.mean())
        summed.end_period()
        plain.end_period()
    with pytest.raises(InputError, match="sum_weights"):
        build("OLS", sum_weights=True, hard_weight=0.3)


def test_sure_row_stays_as_it_is():
    method, free = build("OLS", freeze_at=0.88), build("OLS")
    sure, unsure = 0.9, 0.87
    for probability in ((sure, unsure, unsure, unsure, unsure), (0.5,) * K):  # of the label, class by class
        p = F.smooth_labels(torch.arange(K), K, 1 - torch.tensor(probability, dtype=DOUBLE), "k-1", DOUBLE)
        for m in (method, free):
            m(Batch(p.log(), torch.arange(K)))
            m.end_period()
    torch.testing.assert_close(method.table.soft.diagonal(), torch.tensor([sure, 0.5, 0.5, 0.5, 0.5], dtype=DOUBLE))
    torch.testing.assert_close(free.table.soft.diagonal(), torch.full((K,), 0.5, dtype=DOUBLE))


@pytest.mark.parametrize("period", [0, 3, 5])
def test_period_is_counted_in_iterations(period):
    method, epoch = build("OLS", period=period), 4
    hook, ends = MethodHook(method, epoch, 12), []
    method.end_period = lambda: ends.append(finished)
    for finished in range(1, 13):
        hook.after_step(finished)
    assert ends == [i for i in range(1, 13) if i % (period or epoch) == 0]


@pytest.mark.parametrize("killed", range(1, 13))
def test_an_epoch_begins_once_before_its_first_step(killed):
    """And none after the last one; a run that is killed and resumed begins the same epochs."""
    method, epoch, stop = build("PSKD", final_weight=0.8), 4, 12
    method.setup(context(torch.arange(N) % K, epochs=stop // epoch))
    begun, begin_epoch = [], method.begin_epoch
    method.begin_epoch = lambda number: (begun.append(number), begin_epoch(number))
    for start, end in ((0, killed), (killed, stop)):
        hook = MethodHook(method, epoch, stop)
        hook.begin(start)
        for iteration in range(start, end):
            assert begun == list(range(iteration // epoch + 1))
            hook.after_step(iteration + 1)
    assert begun == [0, 1, 2]
    assert method.weight.item() == pytest.approx(0.8)  # as in the last epoch


# Two processes


def on_both(monkeypatch, methods, tensors, hook):
    """Call `hook` of both with sums over the two; tensors: what of a method is summed, before either began."""
    for method, other in zip(methods, copy.deepcopy(methods)[::-1], strict=True):
        theirs = iter(tensors(other))
        for module in (memory, learnt):
            monkeypatch.setattr(module, "all_reduce_sum", lambda *mine, t=theirs: [m.add_(next(t)) for m in mine])
        getattr(method, hook)()
    monkeypatch.undo()


def observed(method):
    held = method.memory
    return held.fresh * held.local_seen[:, None], held.local_seen


@pytest.mark.parametrize("name", ["PSKD", "OLSSingle"])
def test_memory_of_two_processes_is_that_of_one(monkeypatch, name):
    labels = torch.arange(N) % K
    one, two = build(name), [build(name), build(name)]
    for method in (one, *two):
        method.setup(context(labels, epochs=3))
        method.begin_epoch(0)
    for epoch in range(3):
        for number, batch in enumerate(epoch_batches(epoch, labels)):
            torch.manual_seed(0)
            one(batch)
            for i, method in enumerate(two):
                method(Batch(batch.images[i::2], batch.labels[i::2], index=batch.index[i::2]))
            if number == 0:  # a checkpoint inside the epoch: process 0 writes, both read
                on_both(monkeypatch, two, observed, "gather")
                for method in two:
                    method.load_state_dict(copy.deepcopy(two[0].state_dict()))
        one.end_period()
        on_both(monkeypatch, two, observed, "end_period")
        for method in two:
            assert torch.equal(method.memory.last, one.memory.last)
            assert method.memory.seen.sum() == 0


def test_similarity_of_two_processes_is_that_of_one(monkeypatch):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 4, 4), generator=random, dtype=torch.uint8)
    labels = torch.arange(40) % K
    one = build("ClassSimilarityLS")
    one.setup(context(labels, unaugmented=lambda: [Batch(images, labels)]))
    # Half of the classes are seen by one process alone.
    halves = [Batch(images[chosen], labels[chosen]) for chosen in (labels < 3, labels >= 3)]
    sums = []
    for own in halves:
        monkeypatch.setattr(smoothing, "all_reduce_sum", lambda *mine: sums.append([m.clone() for m in mine]))
        with pytest.raises(InputError, match="no training image"):
            build("ClassSimilarityLS").setup(context(labels, unaugmented=lambda own=own: [own]))
    for own, theirs in zip(halves, sums[::-1], strict=True):
        monkeypatch.setattr(
            smoothing, "all_reduce_sum", lambda *mine, t=theirs: [m.add_(o) for m, o in zip(mine, t, strict=True)]
        )
        method = build("ClassSimilarityLS")
        method.setup(context(labels, unaugmented=lambda own=own: [own]))
        torch.testing.assert_close(method.table, one.table, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["CutOutOLS", "BYOTOLS"])
def test_methods_with_a_table_gather_it(monkeypatch, name):
    asked = []
    monkeypatch.setattr(learnt, "all_reduce_sum", lambda *mine: asked.append(len(mine)))
    method = build_with_network(name)
    method.gather()
    method.end_period()
    assert asked == [2, 2]
