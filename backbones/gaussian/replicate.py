"""One replicate of the study: draw points, train all candidates, choose one per row, measure on the test points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from backbones.gaussian import curve
from backbones.gaussian.candidates import (
    Candidate,
    Grids,
    Teacher,
    build_candidates,
    build_targets,
    curve_candidates,
)
from backbones.gaussian.measures import (
    MEASURES,
    PARITY_BOUNDS,
    cross_entropy,
    fit_temperatures,
    log_softmax,
    measure,
)
from backbones.gaussian.network import predict
from backbones.gaussian.rows import Row, build_rows, choose
from backbones.gaussian.task import CLASSES, SETUPS, Points, SetUp, log_posterior
from backbones.gaussian.training import Problem, Recipe, train_networks

DATA_STREAM, NETWORK_STREAM = 0, 1
SETUP_STREAMS = 2  # and further
# Replicates of the set-ups of Figs. 6 and 7 other than the normal one: the counts of the paper's Fig. 8 add up to the
# test points of 10 data sets.
SETUP_REPLICATES = 10
HARD = Candidate("hard")
COLUMNS = (*MEASURES, "val_ce", "temperature", "temperature_free", "eps", "p1", "p2", "t", "epoch")
BAYES = "bayes"
HISTOGRAM_ROWS = ("hard", "hard_scaled", "ls", "ls_scaled")


@dataclass(frozen=True)
class Settings:
    """Everything that determines a replicate's numbers, apart from its index."""

    recipe: Recipe = field(default_factory=Recipe)
    grids: Grids = field(default_factory=Grids)
    families: tuple[str, ...] = ()
    per_class: tuple[int, int, int] = (50, 50, 5000)  # training, validation, test points per class
    seed: int = 0


@dataclass(frozen=True)
class Data:
    """Points of a replicate."""

    train: Points
    val: Points
    test: Points


def draw_data(settings: Settings, number: int, setup: SetUp = SETUPS[0]) -> Data:
    """Draw three independent samples; the data of a replicate do not depend on the networks trained."""
    index = SETUPS.index(setup)
    stream = SETUP_STREAMS + index if index else DATA_STREAM
    streams = np.random.SeedSequence(settings.seed, spawn_key=(number, stream)).spawn(3)
    train, val, test = settings.per_class
    drawn = [
        setup.task.sample(np.random.default_rng(stream), count)
        for stream, count in zip(streams, (train * setup.more, val, test), strict=True)
    ]
    return Data(*drawn)


class Students:
    """A growing list of a replicate's trained candidates, with their scores on the validation points."""

    def __init__(self, settings: Settings, number: int, data: Data) -> None:
        self.settings, self.number, self.data = settings, number, data
        self.candidates: list[Candidate] = []
        self.parameters = torch.empty(0)
        self.scores: dict[str, np.ndarray] = {}

    def train(self, candidates: Sequence[Candidate], targets: np.ndarray) -> None:
        """Train candidates on targets (J, n, K), all at once, and score them."""
        data = self.data
        problem = Problem(_float(data.train.x), _float(targets), _float(data.val.x), torch.from_numpy(data.val.labels))
        entropy = self.settings.seed
        seeds = [
            np.random.SeedSequence(entropy, spawn_key=(self.number, NETWORK_STREAM, c.seed_key())) for c in candidates
        ]
        trained = train_networks(problem, seeds, self.settings.recipe)
        scores = self._score(trained.parameters) | {"epoch": trained.epoch.numpy().astype(float)}
        self.scores = {k: np.concatenate([self.scores[k], v]) if self.scores else v for k, v in scores.items()}
        self.parameters = torch.cat([self.parameters, trained.parameters])
        self.candidates += candidates

    def logits(self, indices: Sequence[int], x: np.ndarray) -> np.ndarray:
        """Return the logits (len(indices), n, K) of the candidates `indices` at points x (n, 2)."""
        chosen = self.parameters[list(indices)]
        return predict(chosen, _float(x), self.settings.recipe.sizes).numpy()

    def _score(self, parameters: Tensor) -> dict[str, np.ndarray]:
        """Return validation cross-entropies (J,), plain, scaled, dense and sparse, and the temperatures."""
        val = self.data.val
        logits = predict(parameters, _float(val.x), self.settings.recipe.sizes).numpy()
        free = fit_temperatures(logits, val.labels)
        temperature = free.clip(*PARITY_BOUNDS)
        log_p = log_softmax(logits)
        return {
            "val_ce": cross_entropy(log_p, val.labels),
            "val_ce_scaled": cross_entropy(log_softmax(logits, temperature), val.labels),
            "val_ce_dense": cross_entropy(log_p[:, val.dense], val.labels[val.dense]),
            "val_ce_sparse": cross_entropy(log_p[:, ~val.dense], val.labels[~val.dense]),
            "temperature": temperature,
            "temperature_free": free,
        }


def run_replicate(settings: Settings, number: int) -> dict[str, np.ndarray]:
    """Return all numbers of a replicate as arrays that can be stacked over replicates (see `_result`)."""
    data = draw_data(settings, number)
    students = Students(settings, number, data)
    students.train([HARD], np.eye(3)[data.train.labels][None])
    logits = students.logits([0], data.train.x)
    calibrated = np.exp(log_softmax(logits, students.scores["temperature"]))[0]
    teacher = Teacher(data.train.labels, logits[0].astype(float), calibrated, np.exp(log_posterior(data.train.x)))
    grid = build_candidates(settings.grids, settings.families)
    if grid:
        students.train(grid, build_targets(grid, teacher))
    if "distillation" in settings.families:
        distil_chosen(students)
    return _result(students) | _curves(students)


def distil_chosen(students: Students) -> None:
    """Train students of the networks chosen for the rows LS and ILS, on their probabilities at T = 1."""
    rows = {row.key: row for row in build_rows(students.settings.grids, students.candidates)}
    teachers = [key for key in ("ls", "ils") if key in rows]
    if not teachers:
        return
    chosen = [choose(rows[key], students.candidates, students.scores) for key in teachers]
    targets = np.exp(log_softmax(students.logits(chosen, students.data.train.x)))
    students.train([Candidate(f"distil_{key}") for key in teachers], targets)


def _result(students: Students) -> dict[str, np.ndarray]:
    """Return the arrays of a replicate.

    candidates (J,) names and their scores (J,); test_ce (J,), nan if not needed;
    rows (R,) keys, values (R, C) of `COLUMNS`, chosen (R,) names;
    histogram_rows (H,) keys, histograms (H, 3, HISTOGRAM_BINS).
    """
    data, candidates = students.data, students.candidates
    rows = build_rows(students.settings.grids, candidates)
    chosen = [choose(row, candidates, students.scores) for row in rows]
    shown = [c for c, candidate in enumerate(candidates) if candidate.method in ("ls", "ils1")]
    log_p = {c: log_softmax(students.logits([c], data.test.x)) for c in sorted({0, *chosen, *shown})}
    test_ce = np.full(len(candidates), np.nan)
    for c, value in log_p.items():
        test_ce[c] = cross_entropy(value, data.test.labels)[0]
    values = [_bayes_values(data)] + [
        _row_values(students, row, c, log_p[c]) for row, c in zip(rows, chosen, strict=True)
    ]
    result = {
        "candidates": np.array([c.name for c in candidates]),
        "test_ce": test_ce,
        "rows": np.array([BAYES, *(row.key for row in rows)]),
        "values": np.array(values),
        "chosen": np.array(["", *(candidates[c].name for c in chosen)]),
    }
    return result | students.scores | _histograms(students, rows, chosen, log_p)


def _row_values(students: Students, row: Row, index: int, log_p: np.ndarray) -> list[float]:
    """Return the values of `COLUMNS`; `log_p`: (1, n, K), of the row's network at T = 1."""
    scores = {key: float(value[index]) for key, value in students.scores.items()}
    if row.scaled:
        scores["val_ce"] = scores["val_ce_scaled"]
        log_p = log_softmax(log_p, scores["temperature"])  # equals the logits up to a constant per point
    else:
        scores["temperature"] = 1.0
    candidate = students.candidates[index]
    known = dict(zip(MEASURES, measure(log_p, students.data.test)[0], strict=True)) | scores | vars(candidate)
    return [float(known[column]) for column in COLUMNS]


def _bayes_values(data: Data) -> list[float]:
    log_p, val_log_p = log_posterior(data.test.x)[None], log_posterior(data.val.x)[None]
    known: dict[str, float] = dict(zip(MEASURES, measure(log_p, data.test)[0], strict=True))
    known |= {"val_ce": cross_entropy(val_log_p, data.val.labels)[0], "temperature": 1.0}
    return [float(known.get(column, np.nan)) for column in COLUMNS]


def _histograms(
    students: Students, rows: Sequence[Row], chosen: Sequence[int], log_p: Mapping[int, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the histograms of probabilities at the test points, of Bayes and of some rows."""
    test = students.data.test
    found = {BAYES: log_posterior(test.x)}
    for row, c in zip(rows, chosen, strict=True):
        if row.key in HISTOGRAM_ROWS:
            found[row.key] = log_softmax(log_p[c], students.scores["temperature"][c] if row.scaled else 1.0)[0]
    counts = np.array([curve.histograms(one, test.labels) for one in found.values()])
    return {"histogram_rows": np.array(list(found)), "histograms": counts}


def _curves(normal: Students) -> dict[str, np.ndarray]:
    """Return `curve.curve_sums` at the test points, stacked over `SETUPS`; zeros for a set-up that is not trained.

    curve_eps (E,); curve_count (V, 2, 2, BINS); curve_sums (V, 2, 2, 1 + E, BINS).
    """
    settings, number = normal.settings, normal.number
    grid = curve_candidates(settings.grids) if "curves" in settings.families else []
    count = np.zeros((len(SETUPS), len(curve.TEACHERS), len(curve.KINDS), curve.BINS), int)
    sums = np.zeros((*count.shape[:-1], 1 + len(grid), curve.BINS))
    trained = len(SETUPS) if number < SETUP_REPLICATES else 1
    for v, setup in enumerate(SETUPS[:trained] if grid else ()):
        students = _train_setup(settings, number, setup, grid) if v else normal
        test = students.data.test
        places = {c.name: j for j, c in enumerate(students.candidates)}
        log_p = [log_softmax(students.logits([places[c.name]], test.x))[0] for c in grid]
        hard = log_softmax(students.logits([0], test.x), students.scores["temperature"][:1])[0]
        count[v], sums[v] = curve.curve_sums([setup.task.log_posterior(test.x), hard], log_p, test.labels)
    return {"curve_eps": np.array([c.eps for c in grid]), "curve_count": count, "curve_sums": sums}


def _train_setup(settings: Settings, number: int, setup: SetUp, grid: Sequence[Candidate]) -> Students:
    """Train the hard-label network and the students of the curve in another set-up."""
    recipe = replace(settings.recipe, sizes=setup.sizes or settings.recipe.sizes)
    data = draw_data(settings, number, setup)
    students = Students(replace(settings, recipe=recipe), number, data)
    hard = np.eye(CLASSES)[data.train.labels]
    amounts = np.array([0.0, *(c.eps for c in grid)])[:, None, None]
    students.train([HARD, *grid], (1 - amounts) * hard + amounts / CLASSES)
    return students


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32))
