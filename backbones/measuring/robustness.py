"""Attacks on a classifier: small pixel changes that increase its loss (Zhang et al. 2021, Tables VI and VII).

    fgsm        x + bound sign(g), g the gradient of the cross-entropy (Goodfellow et al. 2015, arXiv:1412.6572)
    pgd         STEPS steps of bound / 4 along the sign, each projected to the ball, from the image (Kurakin et al.
                2017, arXiv:1607.02533)
    pgd_random  the same from uniformly random points of the ball (Madry et al. 2018, arXiv:1706.06083)
    margin      pgd_random on max_{j != t} z_j - z_t (Carlini & Wagner 2017, arXiv:1608.04644)

A network with probabilities near 0 and 1 has vanishing cross-entropy gradients, and label smoothing also shrinks them:
such a network resists the first three attacks without being robust.  The gradient of the margin does not vanish; do not
claim robustness without it.  Pixels stay in [0, 1], normalisation is a part of the attacked function, every image is
attacked, including those that are misclassified without an attack, and an image counts as wrong if any start succeeds.

Letters: B images, K classes, t the label, z the logits, x (B, 3, H, W) in [0, 1].
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.core.bars import progress_bar
from backbones.core.checks import check_choice, check_range
from backbones.core.errors import InputError
from backbones.data.batch import Batch
from backbones.measuring.finite import refuse_image

Scores = Callable[[Tensor], Tensor]  # x -> logits (B, K)
Loss = Callable[[Tensor, Tensor], Tensor]  # logits, labels -> a sum over the images
WHITE = 255


class Method(NamedTuple):
    """Definition of an attack; steps: None: those of the `Attack`; random: whether it starts at random points."""

    loss: Loss
    steps: int | None
    random: bool


class Attack(NamedTuple):
    """An attack to run; bound: largest change in 1/255; the step is a quarter of it (for fgsm, all of it)."""

    method: str
    bound: float
    steps: int = 20
    restarts: int = 1

    @property
    def name(self) -> str:
        """Name in metrics, such as "pgd_8"."""
        return f"{self.method}_{self.bound:g}"


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over the images of -log p_t."""
    return F.cross_entropy(logits, labels, reduction="sum")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over the images of max_{j != t} z_j - z_t, which is positive for a misclassified image."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (others.amax(dim=1) - own[:, 0]).sum()


METHODS: dict[str, Method] = {
    "fgsm": Method(cross_entropy, 1, False),
    "pgd": Method(cross_entropy, None, False),
    "pgd_random": Method(cross_entropy, None, True),
    "margin": Method(margin, None, True),
}


def build_attacks(methods: Sequence[str], bounds: Sequence[float], steps: int, restarts: int) -> list[Attack]:
    """Build an attack for every method and bound (in 1/255).

    Raises:
        InputError: a method is unknown, a bound is outside [0, 255], or one of them is duplicated (attacks are counted
            by name).
    """
    for method in methods:
        check_choice("ATTACK.METHODS", method, METHODS)
    for bound in bounds:
        check_range("ATTACK.BOUNDS (in 1/255)", bound, 0, WHITE)
    if not methods or not bounds:
        raise InputError("ATTACK.METHODS and ATTACK.BOUNDS must name at least one attack and one bound")
    attacks = [Attack(m, float(b), steps, restarts if METHODS[m].random else 1) for m in methods for b in bounds]
    for name, times in Counter(attack.name for attack in attacks).items():
        if times > 1:
            raise InputError(f"ATTACK.METHODS and ATTACK.BOUNDS ask for {name} {times} times; list each one once")
    return attacks


def perturb(scores: Scores, x: Tensor, labels: Tensor, attack: Attack, generator: torch.Generator | None) -> Tensor:
    """Return the images after one run of the attack, in [0, 1] and at most the bound from x everywhere.

    generator: for the random start; unused by a method without one.
    """
    method, bound = METHODS[attack.method], attack.bound / WHITE
    steps = method.steps or attack.steps
    step = bound if method.steps == 1 else bound / 4
    low, high = (x - bound).clamp(min=0), (x + bound).clamp(max=1)
    found = x
    if method.random:
        noise = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        found = torch.clamp(x + bound * (2 * noise - 1), low, high)
    for _ in range(steps):  # no synchronisation with the device
        found = found.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(method.loss(scores(found), labels), found)
        # Projects to the ball and to the range of pixels at once, as both are boxes.
        found = torch.clamp(found.detach() + step * gradient.sign(), low, high)
    return found.detach()


def check_gradients(scores: Scores, x: Tensor, labels: Tensor) -> None:
    """Raise `InputError` for a model whose gradient does not reach the pixels, so that no attack could change them.

    The margin is used, as its gradient does not vanish when the model is merely confident.
    """
    x = x.detach().requires_grad_()
    loss = margin(scores(x), labels)
    gradient = torch.autograd.grad(loss, x, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None or not gradient.any():
        raise InputError(
            "no gradient of the model's logits reaches the pixels, so gradient attacks cannot change them and would "
            "report it as robust; use a differentiable model (without detached, quantised or constant layers)"
        )


class Errors:
    """The misclassified images of every attack, kept on the device and read once.

    classes: number of classes of the model, once an image was attacked.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.wrong: dict[str, list[Tensor]] = {name: [] for name in names}
        self.classes = 0

    def add(self, name: str, wrong: Tensor) -> None:
        """Add the errors of the next images; wrong: (2, B) bool, for top-1 and top-5."""
        self.wrong[name].append(wrong)

    def per_image(self) -> dict[str, np.ndarray]:
        """Return `<attack>_top1_error` and, for more than 5 classes, `<attack>_top5_error`, (n,) bool each."""
        joined = {name: torch.cat(parts, dim=1).cpu().numpy() for name, parts in self.wrong.items() if parts}
        kinds = ("top1", "top5") if self.classes > 5 else ("top1",)
        return {f"{name}_{kind}_error": wrong[k] for k, kind in enumerate(kinds) for name, wrong in joined.items()}

    def metrics(self) -> dict[str, float]:
        """Return the shares of `per_image`, in [0, 1]; top-1 errors of NaN without any image."""
        shares = {name: float(wrong.mean()) for name, wrong in self.per_image().items()}
        return shares or {f"{name}_top1_error": float("nan") for name in self.wrong}


def wrong_predictions(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (2, B) bool: the label is not the first, not among the first five; ties go to the lower class."""
    own, numbers = logits.gather(1, labels[:, None]), torch.arange(logits.shape[1], device=logits.device)
    # NaN logits never count as right.
    before = (logits > own) | ((logits == own) & (numbers < labels[:, None])) | logits.isnan() | own.isnan()
    rank = before.sum(dim=1)
    return torch.stack([rank >= 1, rank >= 5])


def find_errors(
    model: nn.Module,
    batches: Iterable[Batch],
    attacks: Sequence[Attack],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    device: torch.device,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Errors:
    """Find the errors, top-1 and top-5, without an attack (`clean`), under each, and under any of one bound (`any_8`).

    Args:
        batches: uint8 images (B, 3, H, W) with labels.
        mean, std: channel statistics, RGB in [0, 1].
        dtype: type of the model.
        seed: seed of the random starts.
        names: names of the images by sample index, for messages.

    Raises:
        InputError: the logits are not finite; names the image and the network's file.
    """
    scores = _WatchedScores(model, *(torch.tensor(v, dtype=dtype, device=device)[:, None, None] for v in (mean, std)))
    bounds = list(dict.fromkeys(attack.bound for attack in attacks))
    strongest = {bound: f"any_{bound:g}" for bound in bounds}
    errors = Errors(["clean", *(attack.name for attack in attacks), *strongest.values()])
    generator = torch.Generator(device).manual_seed(seed)
    with _frozen(model):
        for number, batch in enumerate(batches):
            x, labels = batch.images.to(device).to(dtype) / WHITE, batch.labels.to(device)
            scores.begin(len(x), x.device)
            with torch.no_grad():
                clean = scores(x)
            scores.check(batch, names)
            if number == 0:
                check_gradients(scores, x, labels)
            errors.classes = clean.shape[1]
            errors.add("clean", wrong_predictions(clean, labels))
            broken = {bound: wrong_predictions(clean, labels) for bound in bounds}
            for attack in progress_bar(attacks, f"batch {number + 1}", leave=False, unit="attack"):
                wrong = _wrong_under(scores, x, labels, attack, generator)
                errors.add(attack.name, wrong)
                broken[attack.bound] = broken[attack.bound] | wrong
            for bound, wrong in broken.items():
                errors.add(strongest[bound], wrong)
            scores.check(batch, names)
    return errors


class _WatchedScores:
    """Computes the logits of a model for pixels in [0, 1], and records images with logits that are not finite."""

    def __init__(self, model: nn.Module, center: Tensor, scale: Tensor) -> None:
        self.model, self.center, self.scale = model, center, scale
        self.finite = torch.ones(0, dtype=torch.bool)

    def begin(self, count: int, device: torch.device) -> None:
        """Start a new batch of `count` images."""
        self.finite = torch.ones(count, dtype=torch.bool, device=device)

    def __call__(self, x: Tensor) -> Tensor:
        logits = self.model((x - self.center) / self.scale).logits
        self.finite = self.finite & logits.detach().isfinite().all(dim=1)  # on the device
        return logits

    def check(self, batch: Batch, names: Sequence[str] | None) -> None:
        """Raise `InputError` for the first image with logits that are not finite.

        Synchronises with the device, twice per batch of about 900 forward passes.
        """
        if not self.finite.all():
            row = int((~self.finite).nonzero()[0])
            index = row if batch.index is None else int(batch.index[row])
            refuse_image(names[index] if names else f"image {index}", self.model, "logits (clean or attacked)")


def _wrong_under(scores: Scores, x: Tensor, labels: Tensor, attack: Attack, generator: torch.Generator) -> Tensor:
    """Return (2, B) bool: wrong after any of the restarts."""
    wrong = torch.zeros(2, len(labels), dtype=torch.bool, device=x.device)
    for _ in range(attack.restarts):
        with torch.enable_grad():
            found = perturb(scores, x, labels, attack, generator)
        with torch.no_grad():
            wrong = wrong | wrong_predictions(scores(found), labels)
    return wrong


class _frozen:
    """Context of evaluation mode without gradients of parameters, which would cost memory; restores both."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.training = self.model.training
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.model.eval()
        for parameter in self.trained:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)
        for parameter in self.trained:
            parameter.requires_grad_(True)
