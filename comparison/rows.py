"""Read result files of all stages into rows, joined by the hash of their backbone; group rows, find their baseline."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from backbones.core.errors import InputError, suggestion
from backbones.core.results import find_results, load_results
from comparison.protocols import DETECTION, check_one_protocol, protocol_name
from comparison.row import STAGE_ORDER, Row, is_foreign

BASELINE_METHOD = "CE"
_FIRST_METHODS = ("random", "CE", "LS")


def collect_rows(roots: Iterable[str | Path], *, allow_mixed_protocols: bool = False) -> list[Row]:
    """Read every results.json at or below `roots` and join them to rows, random initialisation and CE first.

    Raises:
        InputError: two results of one backbone, stage, protocol and detector seed; rows under several protocols, unless
            allowed; only evaluations on other data sets or of results files, which are read only if their own folders
            are given.
    """
    rows = join_rows(read_compared(roots))
    if not allow_mixed_protocols:
        check_one_protocol(rows)
    return rows


def read_compared(roots: Iterable[str | Path]) -> list[tuple[Path, dict]]:
    """Return (file, content) of every result that `collect_rows` joins; raise `InputError` if there is none."""
    roots = list(roots)
    found, passed_over = _read(roots)
    if not found:
        what = "evaluations on other data sets" if find_other_evaluations(roots) else "evaluations of results files"
        raise InputError(f"only {what} found, such as {passed_over[0]}; give their own folders")
    return found


def join_rows(found: Iterable[tuple[Path, dict]]) -> list[Row]:
    """Join results to rows, in the order of the table; raise `InputError` for two of one backbone and stage."""
    by_backbone: dict[str, dict[str, list[tuple[Path, dict]]]] = {}
    for path, results in found:
        stages = by_backbone.setdefault(results["backbone"]["hash"], {})
        stages.setdefault(results["stage"], []).append((path, results))
    return sorted((row for stages in by_backbone.values() for row in _rows_of_backbone(stages)), key=row_order)


def find_other_evaluations(roots: Iterable[str | Path]) -> list[Path]:
    """Return the folders of evaluations of runs on other data sets below `roots`, which `collect_rows` skips.

    It also skips results files (`is_foreign`): those of an earlier report may lie below the runs.
    """
    return [folder for folder in _read(list(roots))[1] if not is_foreign(load_results(folder))]


def _read(roots: Sequence[str | Path]) -> tuple[list[tuple[Path, dict]], list[Path]]:
    """Return (file, content) of the compared results, each once, with paths as given; and the skipped folders."""
    named = {Path(root).resolve() for root in roots}
    files = {path.resolve(): path for path in find_results(roots)}
    taken, passed_over = [], []
    for resolved, path in files.items():
        results = load_results(path)
        own = {resolved, resolved.parent}
        if is_foreign(results):
            own.add(resolved.parent.parent)  # the folder of all results files of a report
        if not ("evaluation_of" in results["details"] or is_foreign(results)) or named & own:
            taken.append((path, results))
        else:
            passed_over.append(path.parent)
    return taken, passed_over


def _rows_of_backbone(stages: Mapping[str, Sequence[tuple[Path, dict]]]) -> list[Row]:
    """Build one row per detection protocol and detector seed; they share the other stages."""
    for stage, found in stages.items():
        seen: dict[tuple, Path] = {}
        for path, results in found:
            seed = results["details"].get("seed")
            key = (protocol_name(results), seed) if stage == "detection" else (stage,)
            if key in seen:
                same = "" if seed is None or stage != "detection" else f" with the detector's seed {seed}"
                raise InputError(
                    f"two {stage} results of backbone {results['backbone']['label']} "
                    f"({results['backbone']['hash']}){same}: {seen[key]} and {path}; give only one of them"
                )
            seen[key] = path
    shared = {stage: found[0] for stage, found in stages.items() if stage != "detection"}
    detections = [{"detection": one} for one in stages.get("detection", [])] or [{}]
    return [_row(shared | detection) for detection in detections]


def _row(stages: Mapping[str, tuple[Path, dict]]) -> Row:
    results = {stage: stages[stage][1] for stage in STAGE_ORDER if stage in stages}
    # The last stage names the row, as a fine-tuning can rename it.
    identity = list(results.values())[-1]["backbone"]
    return Row(
        label=str(identity["label"]),
        method=str(identity["method"]),
        seed=int(identity["seed"]),
        hash=str(identity["hash"]),
        protocol=protocol_name(results["detection"]) if "detection" in results else None,
        results=results,
        folders={stage: path.parent for stage, (path, _) in stages.items()},
    )


def row_order(row: Row) -> tuple:
    """Return the sort key of the table: by protocol, then random initialisation, CE and LS, then by label and seed."""
    method = row.method or row.label  # of a row without results, only the label may be known
    first = _FIRST_METHODS.index(method) if method in _FIRST_METHODS else len(_FIRST_METHODS)
    return (row.protocol or "~", first, row.label, row.seed, row.hash, _detector(row))


def group_rows(rows: Sequence[Row]) -> list[list[Row]]:
    """Group comparable rows: all rows under one protocol (or none), else those of each protocol."""
    protocols = list(dict.fromkeys(row.protocol for row in rows))
    if len([p for p in protocols if p is not None]) <= 1:
        return [list(rows)] if rows else []
    return [[row for row in rows if row.protocol == protocol] for protocol in protocols]


def baseline_of(row: Row, group: Sequence[Row], label: str | None) -> Row | None:
    """Return the row that `row` is compared with: labelled `label`, else of method CE.

    Preferred are the same pretraining seed and, among these, the same detector seed; else the lowest seed.  A row
    without results is not a baseline and has none.
    """
    known = [one for one in group if one.results]
    choices = _usual_baselines(row, known) if label is None else [one for one in known if one.label == label]
    if not row.results:
        return None
    if row in choices or not choices:
        return row if choices else None  # a baseline is compared with itself
    first = min(r.seed for r in choices)
    same_seed = [r for r in choices if r.seed == row.seed] or [r for r in choices if r.seed == first]
    lowest = min(map(_detector, same_seed))
    nearest = [r for r in same_seed if _detector(r) == _detector(row)]
    nearest = nearest or [r for r in same_seed if _detector(r) == lowest]
    if len({(r.weights, r.label) for r in same_seed}) > 1 or len(nearest) > 1:
        names = ", ".join(f"{r.label} in {next(iter(r.folders.values()))}" for r in same_seed)
        raise InputError(
            f"several rows could be the baseline of {row.label}: {names}; "
            "choose with --baseline LABEL, or give fewer folders"
        )
    return nearest[0]


def _usual_baselines(row: Row, group: Sequence[Row]) -> list[Row]:
    """Return the rows of method CE; for a detector, those of a label that has detectors, if there is one.

    A detector by itself, without the measures of its backbone, has nothing in common with the others.  If all detectors
    learned the same soft class labels, its baseline is a detector from a backbone of method CE.
    """
    found = [one for one in group if one.method == BASELINE_METHOD]
    tuned = [one for one in group if DETECTION in one.results]
    labels = {one.label for one in tuned if one.method == BASELINE_METHOD}
    if DETECTION not in row.results or (not labels and len(row.results) > 1):
        return found
    if labels:
        return [one for one in found if one.label in labels]
    learned = [one.results[DETECTION]["details"].get("class_labels") or {} for one in tuned]
    if any(one != learned[0] for one in learned):
        return []
    return [one for one in tuned if one.method == f"{BASELINE_METHOD}+{learned[0].get('name')}"]


def _detector(row: Row) -> int:
    return -1 if row.detector_seed is None else row.detector_seed


def check_baseline_label(rows: Sequence[Row], label: str | None) -> None:
    """Raise `InputError` if `--baseline` does not name a row."""
    labels = {row.label for row in rows}
    if label is not None and label not in labels:
        raise InputError(f"--baseline {label}: unknown row{suggestion(label, labels)}")
