"""Data of the figures that `figures` draws, read from run folders as plain lists and saved beside each figure."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from backbones.core.checkpoint import load_checkpoint
from backbones.core.checks import check_range
from backbones.core.config import load_yaml
from backbones.core.distributed import setup_distributed
from backbones.core.errors import InputError, suggestion
from backbones.core.results import FILE_NAME, load_results
from backbones.core.run_log import METRICS_FILE, read_metrics
from backbones.core.runs import CONFIG_FILE
from backbones.core.warning_counter import WarningCounter
from backbones.data.evaluation_set import Cover, EvaluationSet
from backbones.data.images import normalize
from backbones.data.loader import evaluation_batches
from backbones.data.samples import Samples
from backbones.measuring.calibration import accuracy, ece, log_softmax, reliability
from backbones.measuring.cam import ClassMaps, localize
from backbones.measuring.context import build_cover
from backbones.measuring.finite import refuse_not_finite
from backbones.measuring.gallery import Tile, make_tiles
from backbones.measuring.localization import evenly_spaced
from backbones.measuring.predictions import Inputs, predict_samples
from backbones.measuring.pycalib import ece_pycalib, pycalib_bins
from backbones.measuring.run import build_inputs, build_samples, load_run, read_split
from backbones.measuring.run_folders import find_backbones, find_evaluation
from backbones.models.weights import identity

MAP_SIZE = 224  # pixels
CHECKPOINT, SOFT_LABELS = "checkpoint.pth", "table.soft"  # of OLS, in the state of its method


def check_request(args: Namespace) -> None:
    """Raise `InputError` for options of tools/plot_backbone.py that are out of range or would be ignored."""
    if args.output.suffix != ".png":
        raise InputError(f"--output: {args.output} must end in .png; the data go to the .json of the same name")
    for name, low in (("bins", 0), ("images", 1), ("classes", 1), ("per_class", 1), ("seed", 0)):
        check_range(f"--{name.replace('_', '-')}", getattr(args, name), low)
    check_range("--covered", args.covered, 0, args.images)
    if args.kind == "classes" and len(args.runs) > 1:
        raise InputError("classes shows the data of one run; give one")
    if args.kind == "ablation" and not args.key:
        raise InputError("ablation needs the option that differs, such as --key METHOD.OLS.hard_weight")


# ---- from result files -------------------------------------------------------------------------


def reliability_panels(runs: Sequence[Path], variant: str, bins: int, split: str = "val") -> list[dict[str, Any]]:
    """Return the data of `figures.draw_reliability`, from the logits that tools/evaluate_backbone.py has saved."""
    return [_reliability_panel(found.evaluation(), variant, bins, split) for found in find_backbones(runs)]


def _reliability_panel(run: Path, variant: str, bins: int, split: str) -> dict[str, Any]:
    log_p, labels = load_predictions(run, split)
    p, results = np.exp(log_p), load_results(run)
    panel: dict[str, Any] = {"label": results["backbone"]["label"], "accuracy_of_all": accuracy(p, labels)}
    table = pycalib_bins(p, labels, bins) if variant == "pycalib" else None
    if table is not None:
        classes = len(np.union1d(labels, p.argmax(axis=1)))
        panel |= {"low": 1 / classes, "ece": ece_pycalib(p, labels, bins), "confidence": table.centre.tolist()}
    elif variant == "pycalib":
        raise InputError(f"{run}: only one class occurs; pycalib's bins need two")
    else:
        table = reliability(p.max(axis=1), p.argmax(axis=1) == labels, bins)
        panel |= {"low": 0.0, "ece": ece(p, labels, bins), "confidence": _plain(table.confidence)}
    return panel | {"count": table.count.tolist(), "accuracy": _plain(table.accuracy)}


def load_predictions(run: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Load log-probabilities (n, K) float64 and labels (n,) that tools/evaluate_backbone.py has saved.

    Args:
        run: folder of a backbone or of its evaluation.
    """
    folder = find_evaluation(run)
    path = folder / load_results(folder)["files"].get("predictions", "predictions.npz")
    try:
        with np.load(path, allow_pickle=False) as saved:
            if f"{split}_logits" not in saved:
                raise InputError(f"{folder} has no predictions for '{split}'; evaluate the backbone with it")
            logits = saved[f"{split}_logits"]
            if not np.isfinite(logits).all():
                raise InputError(f"{path}: the logits for '{split}' hold NaN or infinity; evaluate another backbone")
            return log_softmax(logits), saved[f"{split}_labels"]
    except (OSError, EOFError, BadZipFile) as error:
        raise InputError(f"cannot read {path}: {error}; evaluate the backbone again") from None


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def curves(runs: Sequence[Path], name: str) -> list[dict[str, Any]]:
    """Return the data of `figures.draw_curves`; `name` is a key of metrics.jsonl without "train_": top1, loss, AP."""
    found = []
    for run, measured in _trainings(runs):
        if not (run / METRICS_FILE).is_file():
            raise InputError(f"no {METRICS_FILE} in {run}; give the folder of a training")
        lines, results = read_metrics(run / METRICS_FILE), load_results(measured)
        own, tested = _curve(lines, name), results["stage"] == "detection" and name in results["metrics"]
        train = None if tested else _curve(lines, f"train_{name}") or own
        val = (tested and own) or _curve(lines, f"val_{name}") or None  # of a detector, of the test set or DATASETS.VAL
        if not (train or (tested and val)):
            known = {key for line in lines for key in line} - {"iteration"}
            raise InputError(f"{run / METRICS_FILE} has no '{name}'{suggestion(name, sorted(known))}")
        chosen = "best" in (results["details"].get("reported_epoch"), *results["details"])
        last = None if chosen or (tested and not own) else results["metrics"].get(name)  # else not that of the end
        found.append({"label": results["backbone"]["label"], "train": train, "val": val, "last": last})
    return found


def _trainings(runs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the folders of metrics.jsonl and of the results of every pretraining, and of detectors given by folder."""
    for path in runs:
        if (path / FILE_NAME).is_file() and load_results(path)["stage"] == "detection":
            yield path, path
            continue
        for folders in find_backbones([path]):
            yield folders.run(METRICS_FILE), folders.run()


def _curve(lines: Sequence[dict], key: str) -> dict[str, list]:
    chosen = [line for line in lines if line.get(key) is not None]
    return {k: [line[n] for line in chosen] for k, n in (("iteration", "iteration"), ("value", key))} if chosen else {}


def ablation_points(runs: Sequence[Path], key: str, metric: str) -> list[dict[str, Any]]:
    """Return the data of `figures.draw_ablation`: mean and standard deviation over runs with equal `key`.

    A metric of an evaluation takes precedence over that of the run.
    """
    by_value: dict[Any, list[float]] = {}
    for folders in find_backbones(runs):
        run = folders.run()
        value: Any = load_yaml(run / CONFIG_FILE)
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise InputError(f"{run / CONFIG_FILE} has no key {key}; write it as METHOD.OLS.hard_weight")
            value = value[part]
        evaluated = [folders.evaluation()] if folders.evaluations else []
        measured = [load_results(folder)["metrics"] for folder in (run, *evaluated)]
        numbers = [metrics[metric] for metrics in measured if metrics.get(metric) is not None]
        if not numbers:
            names = {name for metrics in measured for name in metrics}
            raise InputError(f"{run} has no number called '{metric}'{suggestion(metric, names)}")
        by_value.setdefault(value if isinstance(value, (int, float)) else str(value), []).append(numbers[-1])
    return [
        {
            "value": value,
            "mean": float(np.mean(found)),
            "deviation": float(np.std(found, ddof=1)) if len(found) > 1 else None,
            "runs": len(found),
        }
        for value, found in sorted(by_value.items(), key=lambda item: (isinstance(item[0], str), item[0]))
    ]


def soft_label_panels(runs: Sequence[Path], classes: int) -> list[dict[str, Any]]:
    """Return the soft labels that runs of OLS learned (Fig. 1c): {"label", "rows": [row of a class]} for each run.

    A row is {"class", "own": its share in its soft label, "others": [[class, share], ...] by descending share}; there
    are `classes` of them, evenly spaced, or all if there are fewer.
    """
    return [_soft_label_panel(load_results(b.run()), b.run(CHECKPOINT), classes) for b in find_backbones(runs)]


def _soft_label_panel(results: dict[str, Any], run: Path, classes: int) -> dict[str, Any]:
    path = run / CHECKPOINT
    if not path.is_file():
        raise InputError(f"no {path}, which holds the soft labels; give the folder of the training itself")
    state, names = load_checkpoint(path)["method"], results["details"]["classes"]
    if SOFT_LABELS not in state:
        raise InputError(f"{path}: its method learns no soft labels; give a run of OLS")
    table, rows = state[SOFT_LABELS].double().numpy(), []
    for own in evenly_spaced(np.arange(len(names)), classes).tolist():
        others = [k for k in np.argsort(-table[own], kind="stable").tolist() if k != own][:5]
        shares = [[names[k], float(table[own, k])] for k in others]
        rows.append({"class": names[own], "own": float(table[own, own]), "others": shares})
    return {"label": results["backbone"]["label"], "rows": rows}


# ---- from data and networks --------------------------------------------------------------------


def class_counts(run: Path, overrides: Sequence[str]) -> dict[str, list[int]]:
    """Count the samples per class of the training and the validation split of a run."""
    found = find_backbones([run])
    if len(found) > 1:
        raise InputError(f"classes shows the data of one run, {run} holds {len(found)}; give one")
    cfg, _ = load_run(found[0].run(), overrides)
    splits = [read_split(cfg, split, WarningCounter()) for split in (cfg.DATA.TRAIN_SPLIT, cfg.DATA.VAL_SPLIT)]
    return {s.split: np.bincount(s.labels, minlength=len(s.classes)).tolist() for s in splits}


def map_rows(
    runs: Sequence[Path], overrides: Sequence[str], method: str, images: int, covered: int = 0
) -> tuple[list[list[Tile]], list[str]]:
    """Return one row per evenly spaced image with one tile per backbone, and the labels of the backbones.

    covered: number of the last images that follow once more, with their objects painted over.
    """
    columns, labels, fingerprints = [], [], set()
    for found in find_backbones(runs):
        label, model, samples, inputs = _open(found.run(), overrides)
        boxed = np.flatnonzero(samples.box_counts() > 0)
        chosen = evenly_spaced(boxed if len(boxed) else np.arange(len(samples)), images)
        if covered and not len(boxed):
            raise InputError(f"{found.run()}: no image of the validation split has a box; leave out --covered")
        columns.append(_map_tiles(model, method, samples, chosen, inputs))
        if covered:
            cover = build_cover("mean", inputs.mean)
            columns[-1] += _map_tiles(model, method, samples, chosen[-covered:], inputs, cover)
        labels.append(label)
        fingerprints.add(samples.fingerprint)
    if len(fingerprints) > 1:
        raise InputError("the runs do not share a validation split; compare maps of the same images")
    return [list(row) for row in zip(*columns, strict=True)], labels


def _map_tiles(
    model: nn.Module, method: str, samples: Samples, chosen: np.ndarray, inputs: Inputs, cover: Cover | None = None
) -> list[Tile]:
    said = predict_samples(model, samples, inputs, chosen=chosen, cover=cover)
    maps = localize(ClassMaps(model, method), samples, chosen, replace(inputs, batch_size=25), MAP_SIZE, cover)
    return [tile._replace(covered=cover is not None) for tile in make_tiles(maps, samples, said)]


def embedding_panels(
    runs: Sequence[Path], overrides: Sequence[str], *, classes: int, per_class: int, seed: int
) -> list[dict[str, Any]]:
    """Return the data of `figures.draw_embedding`: t-SNE of the last layer's input, for evenly spaced classes.

    "spread": mean distance of the features to the centre of their class, over the mean distance between centres.
    """
    from sklearn.manifold import TSNE  # a slow import, needed only here

    panels = []
    for found in find_backbones(runs):
        run = found.run()
        label, model, samples, inputs = _open(run, overrides)
        kept = evenly_spaced(np.arange(len(samples.classes)), min(classes, len(samples.classes)))
        own = [np.flatnonzero(samples.labels == k) for k in kept]
        chosen = np.sort(np.concatenate([evenly_spaced(o, min(per_class, len(o))) for o in own]))
        features, number = penultimate_features(model, samples, chosen, inputs), np.searchsorted(kept, samples.labels)
        if len(np.unique(number[chosen])) < 2 or len(chosen) < 3:
            raise InputError(f"{run}: {len(chosen)} images of {len(kept)} classes; t-SNE needs 3 of 2 or more")
        perplexity = min(30.0, (len(chosen) - 1) / 3)
        plane = TSNE(init="pca", random_state=seed, perplexity=perplexity).fit_transform(features)
        panels.append(
            {
                "label": label,
                "points": plane.round(3).tolist(),
                "classes": number[chosen].tolist(),
                "names": [samples.display_names[k] for k in kept],
                "spread": class_spread(features, number[chosen]),
            }
        )
    return panels


@torch.inference_mode()
def penultimate_features(model: nn.Module, samples: Samples, chosen: np.ndarray, inputs: Inputs) -> np.ndarray:
    """Return the inputs (n, C) of the classifier's last layer for the samples numbered `chosen`."""
    seen: list[np.ndarray] = []
    hook = model.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1).float().cpu().numpy()))
    channels = [torch.tensor(v, dtype=inputs.dtype, device=inputs.device) for v in (inputs.mean, inputs.std)]
    images = Subset(EvaluationSet(samples, **inputs.size()), chosen.tolist())
    for batch in evaluation_batches(images, batch_size=inputs.batch_size, num_workers=inputs.num_workers):
        model(normalize(batch.images.to(inputs.device), *channels))
    hook.remove()
    refuse_not_finite(features := np.concatenate(seen), [samples.paths[i] for i in chosen], model, "features")
    return features


def class_spread(features: np.ndarray, classes: np.ndarray) -> float:
    """Return the mean distance to the centre of the own class over that between centres; small: tight clusters."""
    names, own = np.unique(classes, return_inverse=True)
    centres = np.stack([features[classes == k].mean(axis=0) for k in names])
    within = np.linalg.norm(features - centres[own], axis=1).mean()
    between = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(len(names), 1)]
    return float(within / between.mean()) if len(between) else float("nan")


def _open(run: Path, overrides: Sequence[str]) -> tuple[str, nn.Module, Samples, Inputs]:
    cfg, backbone = load_run(run, overrides)
    inputs = build_inputs(cfg, setup_distributed())
    samples = build_samples(cfg, cfg.DATA.VAL_SPLIT, backbone, WarningCounter())
    return identity(backbone).label, backbone.build().to(inputs.device, inputs.dtype).eval(), samples, inputs
