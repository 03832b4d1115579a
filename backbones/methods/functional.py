"""The mathematics of the methods, as pure functions.

A target is a distribution over the classes; soft cross-entropy is linear in it, so every way of softening or mixing
labels is a function that returns (B, K) targets.  Letters: B batch, K classes, H x W pixels, p prediction.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

CONVENTIONS = ("all", "k-1")


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the hard targets (B, K) of labels (B,) int64."""
    return torch.zeros(len(labels), num_classes, dtype=dtype, device=labels.device).scatter_(1, labels[:, None], 1)


def smooth_labels(
    labels: Tensor,
    num_classes: int,
    amount: float | Tensor,
    convention: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return uniformly smoothed targets (B, K) of labels (B,) int64.

    "all": y = (1 - a) onehot + a / K, a share `a` spread over all classes (Szegedy et al. 2016; OLS Eq. 2).
    "k-1": y_t = 1 - a, y_j = a / (K - 1), over the wrong classes only (ALS Eq. 4, 5).
    The two are equal for a_(k-1) = a_all (K - 1) / K.

    amount: a in [0, 1], one number or one per sample (B,); 0 is the hard label.
    """
    if not isinstance(amount, Tensor):
        amount = torch.full(labels.shape, amount, dtype=dtype, device=labels.device)
    amount = amount.to(dtype)
    wrong = amount / (num_classes if convention == "all" else num_classes - 1)
    right = 1 - amount + wrong if convention == "all" else 1 - amount
    return wrong[:, None].repeat(1, num_classes).scatter_(1, labels[:, None], right[:, None])


def equivalent_amount(amount: float, num_classes: int, *, convention: str) -> float:
    """Return the amount in the other convention that gives the same targets as `amount` in `convention`."""
    ratio = (num_classes - 1) / num_classes
    return amount * ratio if convention == "all" else amount / ratio


def adaptive_targets(
    labels: Tensor,
    objectness: Tensor,
    num_classes: int,
    beta: float,
    convention: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return targets (B, K) smoothed by the share of the crop that the object does not cover (ALS Eq. 5).

    y = beta s(1 - o) + (1 - beta) onehot = s(beta (1 - o)), where s is the smoothing of `convention`; with "k-1"
    y_t = 1 - beta (1 - o), y_j = beta (1 - o) / (K - 1).  o = 1 or beta = 0 gives the hard label.
    NOTE: "k-1" is the formula of the paper; its text says that o = 0 gives the uniform label, which only "all" does.

    objectness: o (B,) in [0, 1], area of the object inside the crop divided by the area of the crop.
    """
    amount = beta * (1 - objectness.to(dtype))
    return smooth_labels(labels, num_classes, amount, convention, dtype)


def table_targets(labels: Tensor, table: Tensor, hard_weight: float) -> Tensor:
    """Return targets (B, K): w onehot + (1 - w) table[label], w = `hard_weight` (both losses of OLS, Sec. III-B).

    table: (K, K), row k the soft label of class k.
    """
    targets = table.index_select(0, labels).mul_(1 - hard_weight)
    hard = targets.new_full((len(labels), 1), hard_weight)
    return targets.scatter_add_(1, labels[:, None], hard)


def mean_predictions(total: Tensor, count: Tensor, unseen: Tensor) -> Tensor:
    """Return the next table of soft labels, (K, K): row k is the mean prediction for class k (OLS Eq. 5).

    Each row of `total` sums to `count` up to rounding; it is divided by its own sum, so that the label sums to 1.

    total: (K, K) sums of the correct predictions of each class. count: (K,) their numbers.
    unseen: (K, K) or a scalar, the soft label of a class without correct predictions.
    """
    return torch.where(count[:, None] > 0, total / total.sum(dim=1, keepdim=True), unseen)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute H(y, p) = -sum_k y_k log p_k per sample, (B,), in float32 or better.

    logits, targets: (B, K).
    """
    return -(targets * full_precision(logits).log_softmax(dim=1)).sum(dim=1)


def full_precision(x: Tensor) -> Tensor:
    """Return `x` in float32, or unchanged if it is float64."""
    return x if x.dtype == torch.float64 else x.float()


def right_predictions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions p (B, K), and which samples are classified correctly, (B,) bool.

    On a tie the lowest class counts as predicted; a sample whose p is not finite is never right.
    """
    p = full_precision(logits).softmax(dim=1)
    own = p.gather(1, labels[:, None])[:, 0]
    # Right: no class has a larger p, and no earlier class an equal one.  On a CPU, three passes without an index take
    # half the time of one argmax.  The weight of class k is 1 before the label, else 0; NaN is never equal.
    earlier = (labels.to(p)[:, None] - torch.arange(p.shape[1], dtype=p.dtype, device=p.device)).clamp_(0, 1)
    return p, (own == p.amax(dim=1)) & (earlier.mul_(p).amax(dim=1) < own)


def instance_amount(p_true: Tensor, shift: float, coefficient: float, largest: float = 0.2) -> Tensor:
    """Return ILS1's amounts, (B,) in [0, largest]: min(largest, P2 (p_t - P1)^2) (Maher & Kull 2021, Eq. 3).

    Not monotone: 0 where the teacher's p_t equals the shift P1, and rising on both sides of it.

    p_true: (B,) the teacher's calibrated probability of the label. shift: P1. coefficient: P2.
    """
    return (coefficient * (p_true - shift) ** 2).clamp(max=largest)


def instance_amount_sine(p_true: Tensor, shift: float, coefficient: float) -> Tensor:
    """Return sinusoidal amounts, (B,) in [0, 0.2]: 0.1 (sin(P2 (p_t - P1)) + 1) (Maher & Kull 2021, Sec. IV-A)."""
    return 0.1 * (torch.sin(coefficient * (p_true - shift)) + 1)


def wrong_class_softmax(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return softmax(z / T) over the classes other than the label, (B, K) with 0 at the label.

    Equals p_j / (1 - p_t), but without the division, which fails for p_t = 1.
    """
    scaled = logits / temperature
    return scaled.scatter(1, labels[:, None], float("-inf")).softmax(dim=1)


def instance_targets(labels: Tensor, teacher_logits: Tensor, amount: float | Tensor, temperature: float) -> Tensor:
    """Return targets (B, K): y_t = 1 - a, y_j = a p_j / (1 - p_t), p = softmax(z / T) (Maher & Kull 2021, Eq. 4).

    For T to infinity this is uniform label smoothing over the wrong classes ("k-1").

    teacher_logits: z (B, K), floating. amount: a in [0, 1], one number or (B,).
    """
    wrong = wrong_class_softmax(teacher_logits, labels, temperature)
    if not isinstance(amount, Tensor):
        amount = torch.full(labels.shape, amount, dtype=wrong.dtype, device=wrong.device)
    amount = amount.to(wrong)
    return (amount[:, None] * wrong).scatter(1, labels[:, None], 1 - amount[:, None])


def similarity_table(means: Tensor, temperature: float) -> Tensor:
    """Return the shares w_tj of class j in the smoothed mass of class t, (K, K).

    w_tj is proportional to exp(-d_tj / (temperature * mean d)), d the Euclidean distance of the class means; rows sum
    to 1, the diagonal is 0.  An infinite temperature shares equally, and so do means that are all equal.
    NOTE: the exponential is our choice, as the formula of Liu & JaJa (2021) is not confirmed; the distance between raw
    inputs is from the text of Maher & Kull (2021).

    means: (K, D).
    """
    # Centred, because cdist subtracts squares: the large common mean of all images would cost precision.
    means = means - means.mean(dim=0)
    distance = torch.cdist(means, means)
    own = torch.eye(len(means), dtype=torch.bool, device=means.device)
    distance = distance.masked_fill(own, 0)
    mean = distance.sum() / (len(means) * (len(means) - 1))
    relative = torch.where(mean > 0, distance / mean, 0) / temperature
    return (-relative).masked_fill(own, float("-inf")).softmax(dim=1)


def visible_area_targets(
    labels: tuple[Tensor, Tensor], shares: tuple[Tensor, Tensor], num_classes: int, convention: str
) -> Tensor:
    """Return targets (B, K) of an image that shows two objects: a class weighs its object's share of the pixels.

    The rest, the background, is spread evenly over the other classes ("k-1"; over all if there are no others) or over
    all classes ("all").  A single object of share o gives the adaptive label of ALS.

    labels: two of (B,), equal where both objects have the same class. shares: two of (B,) in [0, 1], sum at most 1.
    """
    first, second = labels
    rest = (1 - shares[0] - shares[1]).clamp(min=0)  # rounding can make it negative
    others = num_classes - 2 + (first == second).to(rest)
    if convention == "all":
        others = torch.zeros_like(others)
    background = torch.where(others > 0, rest / others.clamp(min=1), rest / num_classes)[:, None]
    targets = background.repeat(1, num_classes)
    if convention != "all":
        nothing = torch.where(others > 0, 0, background[:, 0])[:, None]
        targets = targets.scatter(1, first[:, None], nothing).scatter(1, second[:, None], nothing)
    for own, share in zip(labels, shares, strict=True):
        targets = targets.scatter_add(1, own[:, None], share[:, None])
    return targets


def bootstrapped_loss(logits: Tensor, labels: Tensor, hard_weight: float, *, soft: bool, detach: bool) -> Tensor:
    """Compute H(y, p) per sample, (B,), with y = w onehot + (1 - w) q (Reed et al. 2015).

    soft: q is the prediction p, with gradient unless `detach`; otherwise q is the one-hot argmax of p.
    """
    log_p = full_precision(logits).log_softmax(dim=1)
    hard = -log_p.gather(1, labels[:, None])[:, 0]
    if soft:
        p = log_p.detach().exp() if detach else log_p.exp()
        own = -(p * log_p).sum(dim=1)
    else:
        own = -log_p.max(dim=1)[0]
    return hard_weight * hard + (1 - hard_weight) * own


def reverse_cross_entropy(logits: Tensor, labels: Tensor, floor: float) -> Tensor:
    """Compute -sum_k p_k log q_k per sample, (B,), q the one-hot label, at least `floor` (Wang et al. 2019).

    Equals -(1 - p_t) log floor.
    """
    p_true = full_precision(logits).softmax(dim=1).gather(1, labels[:, None])[:, 0]
    return -(1 - p_true) * math.log(floor)


def generalized_cross_entropy(logits: Tensor, labels: Tensor, exponent: float) -> Tensor:
    """Compute (1 - p_t^q) / q per sample, (B,) (Zhang & Sabuncu 2018); cross-entropy for q to 0, 1 - p_t for q = 1."""
    log_p = full_precision(logits).log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
    return -torch.expm1(exponent * log_p) / exponent


def pairwise_distance(x: Tensor, axis: int) -> Tensor:
    """Compute the Euclidean distances between the two halves of a batch, summed and divided by the batch size, ().

    x: (B, K); the last sample of an odd batch is left out, and not counted.
    axis: 1, the norm over the classes of each pair (Dubey et al. 2018); 0, the norm over the pairs of each class (the
        code of Zhang et al. 2021).
    """
    half = len(x) // 2
    difference = full_precision(x[:half] - x[half : 2 * half])
    # The gradient of the norm at 0 is 0 in torch, so equal pairs are safe.
    return difference.norm(dim=axis).sum() / max(2 * half, 1)


def divergence(teacher: Tensor, student: Tensor, teacher_temperature: float, student_temperature: float) -> Tensor:
    """Compute KL(softmax(z_t / T_t) || softmax(z_s / T_s)) per sample, (B,) (Hinton et al. 2015, without factor T^2).

    teacher, student: logits (B, K).
    """
    log_q = (full_precision(teacher) / teacher_temperature).log_softmax(dim=1)
    log_p = (full_precision(student) / student_temperature).log_softmax(dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(dim=1)


def virtual_teacher(
    labels: Tensor, num_classes: int, confidence: float, temperature: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the virtual teacher's output (B, K) of Yuan et al. 2020: softmax of (p / temperature), p_t = confidence.

    NOTE: as in the authors' code, the softmax is of probabilities, not of logits; near uniform for high temperatures.
    """
    p = smooth_labels(labels, num_classes, 1 - confidence, "k-1", dtype)
    return (p / temperature).softmax(dim=1)


@torch.no_grad()
def move_towards(averaged: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """Set averaged to decay averaged + (1 - decay) current, in place; integers (counters of a norm) are copied."""
    for mine, theirs in zip(averaged, current, strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)
