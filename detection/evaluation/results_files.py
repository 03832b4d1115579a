"""Evaluate the results of any detector into run folders, which the comparison reads like those of our own runs.

    OUTPUT/NAME-SEED/results.json   stage "detection"; its details say that it comes from a results file
    OUTPUT/NAME-SEED/matches.npz

The label and the method are the given name.  How such a detector was trained is not known, so its protocol is that of
the evaluation alone: test set, form and score threshold.  Beside runs of our own on the same test set, the results take
their protocol, form, score threshold and reading of the ground truth (boxes clipped to their images, empty ones
dropped), and so join their table.  A folder whose inputs, by their hashes, are unchanged is not evaluated again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbones import __version__
from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.matches import MATCHES_FILE, Matches, load_matches
from backbones.core.results import FILE_NAME, BackboneIdentity, load_results, make_results, save_results
from backbones.core.warning_counter import WarningCounter
from detection.evaluation.declared import FORMS, Declared, ResultsFile
from detection.evaluation.evaluators import measure_boxes
from detection.evaluation.foreign import DECLARED, TestSet, adapt, read_results
from detection.evaluation.matching import Boxes, counted

RESULTS = "results"  # folder below the output folder of a comparison
PROTOCOL = "results-files"
VOC_METRIC = "VOC_mAP50"  # results that have it are of the form "voc"

Source = Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Path


@dataclass(frozen=True)
class Evaluated:
    """The run folder of a detector's results, and its metrics: name -> fraction, None if undefined."""

    folder: Path
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class _Rules:
    """What the rows of a table have in common: protocol, form of the test set, score threshold of AP, ground truth."""

    protocol: Mapping[str, Any]
    form: str
    score_threshold: float
    test: TestSet


def evaluate_files(
    truth: Mapping[str, Any] | str | Path,
    files: Sequence[ResultsFile],
    output_dir: str | Path,
    *,
    declared: Declared = DECLARED,
    form: str | None = None,
    beside: Sequence[str | Path] = (),
) -> list[Evaluated]:
    """Evaluate the results of several methods and seeds on one test set; return their run folders in order.

    Args:
        truth: COCO instances json, its path, or voc:<folder>:<split>.
        form: "coco", or "voc" for VOC's numbers in addition; default: "voc" for comp4 files, a truth that states it,
            and beside runs on VOC.
        beside: folders of detection results of our own runs.
    Raises:
        InputError: results that do not fit the truth; a truth that differs from that of the runs; two results of one
            name and seed, or equal ones of one name and several seeds; a name that a run has.
    """
    _check_names(files, beside)
    test = TestSet(truth, box_areas=bool(beside))
    stated = form or ("voc" if any(one.path and one.path.is_dir() for one in files) else test.form)
    rules = _join(test, files, beside, stated) or _own_rules(test, stated)
    seen: dict[tuple[str, str], ResultsFile] = {}
    evaluated = []
    for one in files:
        assert one.path is not None
        detections = read_results(one.path, test, declared)
        digest = _digest(detections)
        other = seen.setdefault((one.name, digest), one)
        if other is not one:
            raise InputError(
                f"--results {other} and {one} hold the same detections, which are not two seeds; give each its own"
            )
        folder = Path(output_dir) / _folder_name(one.name, one.seed)
        evaluated.append(_evaluate(one, digest, detections, test, rules, folder))
    return evaluated


def evaluate_one(
    truth: Mapping[str, Any] | str | Path,
    detections: Source,
    name: str,
    seed: int,
    output_dir: str | Path,
    *,
    declared: Declared = DECLARED,
    form: str | None = None,
) -> Evaluated:
    """Evaluate one detector's results, also in memory; the body of `detection.evaluation.evaluate`."""
    if isinstance(detections, str | Path):
        one = ResultsFile(name, seed, Path(detections))
        return evaluate_files(truth, [one], output_dir, declared=declared, form=form)[0]
    test = TestSet(truth)
    found, folder = read_results(detections, test, declared), Path(output_dir) / _folder_name(name, seed)
    one = ResultsFile(name, seed, None)
    return _evaluate(one, _digest(found), found, test, _own_rules(test, form or test.form), folder)


def _check_names(files: Sequence[ResultsFile], beside: Sequence[str | Path]) -> None:
    seen: dict[tuple[str, int], ResultsFile] = {}
    for one in files:
        other = seen.setdefault((one.name, one.seed), one)
        if other is not one:
            raise InputError(f"--results {other} and {one} have one name and seed; write NAME@SEED=FILE")
    for folder in beside:
        backbone = load_results(folder)["backbone"]
        for name in {one.name for one in files} & {backbone["label"], backbone["method"]}:
            raise InputError(f"--results {name}: the run {folder} has this name; give the results file another")


def _folder_name(name: str, seed: int) -> str:
    """Return a folder name that differs for different names and seeds."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", name)
    return f"{plain}-{seed}" if plain == name else f"{plain}-{fingerprint(name)[:6]}-{seed}"


# ---- what the rows of a table have in common ----------------------------------------------------------------------


def _own_rules(test: TestSet, form: str | None) -> _Rules:
    form = form or FORMS[0]
    digest = fingerprint(test.fingerprint, form)
    return _Rules({"name": PROTOCOL, "hash": digest}, form, 0.0, test)


def _join(test: TestSet, files: Sequence[ResultsFile], beside: Sequence[str | Path], form: str | None) -> _Rules | None:
    """Return the rules of the runs whose ground truth this is; None without runs."""
    fitting: dict[tuple[str, str], _Rules] = {}
    differing = ""
    loaded = [(Path(one), load_results(one)) for one in beside]
    for folder, results in sorted(loaded, key=lambda one: _is_foreign(one[1])):
        read = truth_of(test, results)
        matches = load_matches(folder / results["files"].get("matches", MATCHES_FILE))
        protocol = {key: str(results["protocol"].get(key)) for key in ("name", "hash")}
        if found := _difference(read, matches):
            differing = differing or f"{folder}: {found}"
        else:
            theirs = form or ("voc" if VOC_METRIC in results["metrics"] else "coco")
            key = protocol["name"], protocol["hash"]
            fitting.setdefault(key, _Rules(protocol, theirs, matches.score_threshold, read))
    names = ", ".join(f"{one.name}={one.path}" for one in files[:3]) + ", ..." * (len(files) > 3)
    if beside and not fitting:
        raise InputError(
            f"--results {names}: their ground truth {test.where} is not that of the run {differing}; give the truth "
            "of that test set, or leave the runs out"
        )
    if len(fitting) > 1:
        known = ", ".join("@".join(key) for key in fitting)
        raise InputError(f"--results {names}: the runs have several protocols, {known}; give runs of one of them")
    return next(iter(fitting.values()), None)


def truth_of(test: TestSet, results: Mapping[str, Any]) -> TestSet:
    """Return the test set as it was read for results: a run of ours clips boxes, a results file alone does not."""
    read = test.in_training
    origin = results["details"].get("results_file", {})
    return test if _is_foreign(results) and origin.get("truth_fingerprint") != read.fingerprint else read


def _is_foreign(results: Mapping[str, Any]) -> bool:
    return "results_file" in results["details"]


def _difference(test: TestSet, matches: Matches) -> str:
    """Describe how the ground truth of a test set differs from that of matches; "" if it does not."""
    truth = test.truth
    for what, own, other in (
        ("images", truth.image_ids, matches.image_ids),
        ("classes", truth.category_ids, matches.category_ids),
    ):
        differing = np.setxor1d(own, other)
        if len(differing):
            return f"{len(differing)} {what} are in only one of both, such as id {differing[0]}"
    own = _sorted_objects(truth.objects.category, truth.objects.image, counted(truth.objects))
    theirs = _sorted_objects(matches.object_category, matches.object_image, matches.object_counts)
    if len(own) != len(theirs):
        return f"{len(own)} objects, not {len(theirs)}"
    unequal = int((own != theirs).any(axis=1).sum())
    return f"{unequal} objects of another image, class or size" if unequal else ""


def _sorted_objects(*columns: np.ndarray) -> np.ndarray:
    table = np.column_stack(columns).astype(np.int64)
    return table[np.lexsort(table.T[::-1])]


# ---- one run folder -----------------------------------------------------------------------------------------------


def _digest(detections: Boxes) -> str:
    """Hash the detections, whatever their order in the file."""
    columns = [detections.image, detections.category, *detections.xywh.T, detections.score]
    order = np.lexsort(columns[::-1])
    return fingerprint(*(np.asarray(column)[order] for column in columns))


def _evaluate(
    one: ResultsFile, digest: str, detections: Boxes, test: TestSet, rules: _Rules, folder: Path
) -> Evaluated:
    """Write the run folder, unless it holds the results of the same inputs."""
    identity = BackboneIdentity(one.name, one.name, one.seed, fingerprint(one.name, str(one.seed), digest))
    origin = {
        "file": str(one.path or ""),
        "detections": digest,
        "truth": test.where,
        "truth_fingerprint": rules.test.fingerprint,
        "form": rules.form,
        "score_threshold": rules.score_threshold,
        "training": "not known",
    }
    known = _known_metrics(folder, identity, origin, rules)
    if known is None:
        (folder / FILE_NAME).unlink(missing_ok=True)  # else a kill could leave old metrics beside new matches
        fitting = adapt(detections, test, rules.test)
        warnings = _count_changes(test, rules.test, len(detections) - len(fitting))
        measured = measure_boxes(rules.test.truth, fitting, rules.form, rules.score_threshold, folder / MATCHES_FILE)
        data = {"test": _describe(rules.test) | measured.counts}
        details = {"results_file": origin, **measured.details}
        files = {"matches": MATCHES_FILE, **measured.files}
        results = make_results(
            "detection", identity, rules.protocol, measured.metrics, data=data, details=details, files=files,
            warnings=warnings.as_list(),
        )  # fmt: skip
        save_results(folder, results)
        known = results["metrics"]
    return Evaluated(folder, known)


def _count_changes(test: TestSet, read: TestSet, detections: int) -> WarningCounter:
    """Count how a test set as a run reads it differs; detections: number that it leaves out."""
    warnings, truth = WarningCounter(), read.truth
    for what, count in (
        ("annotation without area, that of its box is used, as in the runs", test.truth.without_area),
        ("box clipped to the image, as in the runs", truth.clipped),
        ("empty box dropped, as in the runs", truth.dropped),
        ("category ignored, as in the runs", len(test.truth.category_ids) - len(truth.category_ids)),
        ("detection of an ignored category dropped", detections),
    ):
        if count:
            warnings.add(what, test.where, count)
    return warnings


def _known_metrics(
    folder: Path, identity: BackboneIdentity, origin: Mapping[str, Any], rules: _Rules
) -> dict[str, float | None] | None:
    """Return the metrics in a folder that holds the complete results of the same inputs and version; else None."""
    try:
        results = load_results(folder)
        load_matches(folder / MATCHES_FILE)
    except InputError:
        return None
    same = (
        all((folder / str(name)).is_file() for name in results["files"].values())
        and results["backbone"] == vars(identity)
        and results["details"].get("results_file") == origin
        and all(results["protocol"].get(key) == rules.protocol[key] for key in ("name", "hash"))
        and results.get("code", {}).get("version") == __version__
    )
    return results["metrics"] if same else None


def _describe(test: TestSet) -> dict[str, Any]:
    """Describe the test set as results of a fine-tuning do."""
    objects = test.truth.objects
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = objects.area / (objects.xywh[:, 2] * objects.xywh[:, 3])
    return {
        "name": Path(test.where).stem,
        "fingerprint": test.fingerprint,
        "area": "segmentation" if len(shares) and np.nanmedian(shares) < 0.95 else "box",
        "annotations": len(objects),
        "categories": len(test.truth.category_ids),
        "categories_annotated": len(np.unique(objects.category)),
    }
