"""Notes for the reader on what limits the comparison of two numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comparison.failures import MARK, Failure, detector_failure, is_marked
from comparison.families import Family, family_notes
from comparison.methods import baselines_of, parts_of
from comparison.proofs import ABSENT, FAILED
from comparison.protocols import notes_on_protocols
from comparison.row import Row
from comparison.rows import BASELINE_METHOD
from comparison.tables.formats import CHOSEN


@dataclass(frozen=True)
class Compared:
    """A row, the row that it is compared with, and its entry in comparison.json."""

    row: Row
    baseline: Row | None
    entry: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the row's name in tables."""
        return self.entry["name"]


def write_notes(compared: Sequence[Compared], families: Sequence[Family], baseline: str | None = None) -> list[str]:
    """Write all notes, starting with failures, then those on numbers that are not comparable.

    Args:
        baseline: label of the baseline; default: a row of method CE.
    """
    rows = [one.row for one in compared]
    return [
        *_failure_notes(compared),
        *_incomplete_means(families),
        *notes_on_protocols(rows),
        *_loading_notes(compared),
        *_foreign_notes(compared),
        *_area_notes(rows),
        *_baseline_notes(compared, baseline),
        *_choice_notes(compared),
        *_detection_notes(compared),
        *family_notes(families),
        *_several_baselines(compared, families),
        *_seed_notes(families),
        *_commit_notes(compared),
    ]


def mark_commits(compared: Sequence[Compared]) -> None:
    """Set "other_commit" of every entry: whether the commit of a stage differs from that of its baseline.

    If the commit of the baseline is unknown, that of the first row with a known commit is used.
    """
    first: dict[str, str] = {}
    for one in compared:
        first = {**one.row.commits, **first}
    for one in compared:
        known = {**first, **(one.baseline.commits if one.baseline else {})}
        own = one.row.commits
        one.entry["other_commit"] = any(known[stage] != commit for stage, commit in own.items())


def _failure_notes(compared: Sequence[Compared]) -> Iterator[str]:
    """Note every failure with its complete reason; one note for all rows that failed in the same way."""
    ways: dict[tuple[str, str], list[tuple[Failure, Compared]]] = {}
    for one in compared:
        for failure in one.row.failures:
            step = f"{failure.what} ({failure.protocol})" if failure.protocol else failure.what
            ways.setdefault((step, failure.reason), []).append((failure, one))
    for (step, reason), found in ways.items():
        names = ", ".join(dict.fromkeys(one.entry["backbone_name"] for _, one in found))
        logs = list(dict.fromkeys(failure.log for failure, _ in found if failure.log))
        log = f" ({'log' if len(logs) == 1 else 'first log'}: {logs[0]})" if logs else ""
        mark = f" ({MARK})" if any(is_marked(one.entry, failure.protocol) for failure, one in found) else ""
        yield f"Failed{mark}: {step} of {names}{reason and f': {reason}'}{log}"
    entries = {id(one.row): one.entry for one in compared}
    alone = [
        one.name
        for one in compared
        if one.row is not one.baseline and one.entry["metrics"]["AP"] is not None
        and one.baseline and detector_failure(entries[id(one.baseline)])
    ]  # fmt: skip
    if alone:
        yield f"No differences in AP for {', '.join(alone)}: the detector of the baseline failed."


def _incomplete_means(families: Sequence[Family]) -> Iterator[str]:
    """Note the methods whose means over seeds are without a failed run."""
    incomplete = []
    for family in families:
        backbones = family.backbones.values()
        planned = len(backbones) + len(family.failed)
        if planned > 1 and family.failed:
            incomplete.append(f"{family.label} ({family.size()})")
        tuned = sum(any("detection" in row.results for row in rows) for rows in backbones)
        unfinished = [row for row in family.rows if "detection" not in row.results]
        if planned > 1 and any(failure.protocol for row in unfinished for failure in row.failures):
            incomplete.append(f"{family.label} ({family.protocol}: {tuned} of {planned} seeds)")
    if incomplete:
        yield f"Means over seeds are without the failed runs: {', '.join(dict.fromkeys(incomplete))}."


def _several_baselines(compared: Sequence[Compared], families: Sequence[Family]) -> Iterator[str]:
    """Note the protocols whose rows are compared with several methods, so that no method has a verdict."""
    baselines = {id(one.row): one.baseline for one in compared}
    protocols = list(dict.fromkeys(family.protocol for family in families))
    for protocol in protocols:
        group = [family for family in families if family.protocol == protocol]
        for methods in (baselines_of(part, baselines) for part in parts_of(group, baselines)):
            if len(methods) > 1 and any(len(family.rows) > 1 for family in methods):
                under = f" under {protocol}" if protocol and len(protocols) > 1 else ""
                names = ", ".join(f"{family.label} ({family.size()})" for family in methods)
                said = f"the rows are compared with several methods ({names})"
                yield f"No verdict{under}: {said}; choose one by --baseline."


def _loading_notes(compared: Sequence[Compared]) -> Iterator[str]:
    """Note the detectors that are not proven to hold their backbone; those whose proof fails first, with the reason."""
    for state, said in ((FAILED, "The proof that the backbone was loaded FAILS"), (ABSENT, "Loading not proven")):
        reasons: dict[str, list[str]] = {}
        for one in compared:
            proof = one.entry["loading"]
            if proof and proof["state"] == state:
                reasons.setdefault(proof["reason"], []).append(one.name)
        for reason, names in reasons.items():
            yield f"{said}: {', '.join(dict.fromkeys(names))}: {reason}."


def _foreign_notes(compared: Sequence[Compared]) -> Iterator[str]:
    """Note the rows from results files of other detectors."""
    foreign = [one.row for one in compared if one.row.foreign]
    if foreign:
        names = ", ".join(dict.fromkeys(row.label for row in foreign))
        beside = ""
        if len(foreign) < len(compared):
            beside = " They are listed with the runs because their ground truth is the same"
            limit = foreign[0].results["detection"]["details"]["results_file"].get("score_threshold")
            beside += f", and AP counts their scores above {limit:g}, as those of the runs." if limit else "."
        yield f"From results files: {names}. How these detectors were trained is not known.{beside}"


def _area_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Note rows whose object sizes are by box area among rows by segmentation area (under mixed protocols)."""
    tests = [row.results.get("detection", {}).get("data", {}).get("test", {}) for row in rows]
    known = {str(test["area"]): str(test.get("name", "?")) for test in tests if "area" in test}
    if len(known) > 1:
        which = ", ".join(f"the {area} ({name})" for area, name in sorted(known.items()))
        yield f"Small, medium and large (APs to ARl) are defined by the area of {which}: not comparable."


def _baseline_notes(compared: Sequence[Compared], label: str | None) -> Iterator[str]:
    alone, seed, detector = [], [], []
    for one in compared:
        row, baseline = one.row, one.baseline
        if baseline is None:
            alone += [one.name] if row.results else []
        elif baseline.seed != row.seed:
            seed.append(one.name)
        elif row.detector_seed is not None and baseline.detector_seed not in (None, row.detector_seed):
            detector.append(one.name)
    if alone:
        which = f"a row of method {BASELINE_METHOD}" if label is None else f"a row labelled {label}"
        hint = "; name one with --baseline LABEL" if label is None else ""
        yield f"No baseline ({which}) for {', '.join(alone)}: no differences shown{hint}."
    if seed:
        yield f"Compared with a baseline of another seed: {', '.join(seed)}."
    if detector:
        yield f"Compared with a baseline of another detector seed: {', '.join(detector)}."


def _choice_notes(compared: Sequence[Compared]) -> Iterator[str]:
    """Note what was chosen on a split whose numbers are reported."""
    found: dict[str, list[str]] = {}
    for one in compared:
        # A pretraining's own validation is reported only if no tool measured the backbone.
        stages = [stage for stage in one.row.results if stage != "pretraining" or "backbone" not in one.row.results]
        for what in {w: 0 for stage in stages for w in one.row.results[stage]["details"].get("chosen_on_measured", [])}:
            found.setdefault(what, []).append(one.entry["backbone_name"])
    if found:
        which = "; ".join(f"{what} of {', '.join(dict.fromkeys(names))}" for what, names in found.items())
        yield f"Chosen on images whose numbers are reported, which are therefore too good: {which}."


def _detection_notes(compared: Sequence[Compared]) -> Iterator[str]:
    training = [one.name for one in compared if one.entry["on_training_images"]]
    if training:
        yield f"Detection evaluated on its own TRAINING images (†): {', '.join(training)}."
    chosen: dict[str, list[str]] = {}
    for one in compared:
        if one.entry["chosen_on_test_images"]:
            choice = one.row.results["detection"]["details"].get("best", {})
            chosen.setdefault(str(choice.get("metric", "?")), []).append(one.name)
    for metric, names in chosen.items():
        yield (
            f"Checkpoint chosen by {metric} on the TEST images ({CHOSEN}), whose numbers are therefore too good: "
            f"{', '.join(names)}."
        )
    entries = [one.entry for one in compared]
    unmatched = [e["name"] for e in entries if e["metrics"]["AP"] is not None and "AP" not in e["intervals"]]
    if unmatched:
        yield f"No matches.npz, hence no intervals of AP and AR: {', '.join(unmatched)}."


def _seed_notes(families: Sequence[Family]) -> Iterator[str]:
    measured = [family for family in families if family.rows]
    single = {family.label for family in measured if len(set(family.seeds)) < 2}
    if single:
        which = "per method" if single == {f.label for f in measured} else f"only: {', '.join(sorted(single))}"
        yield (
            f"One seed {which}. The intervals cover the sampling of test images, not the variation between training "
            "seeds: one seed cannot decide between methods."
        )
    several = [f for f in families if len(f.rows) > len(f.backbones)]
    if several:
        what = ", ".join(f"{family.label} ({family.size()})" for family in several)
        yield f"Fine-tunings of one backbone are averaged before the mean over seeds: {what}."


def _commit_notes(compared: Sequence[Compared]) -> Iterator[str]:
    """Note the commits of rows if they differ, and rows of unknown commit."""
    by_commit: dict[str, list[str]] = {}
    for one in compared:
        for commit in dict.fromkeys(one.row.commits.values()):
            by_commit.setdefault(commit, []).append(one.name)
    marked = [one.name for one in compared if one.entry["other_commit"]]
    if marked:
        which = "; ".join(f"{commit}: {', '.join(names)}" for commit, names in by_commit.items())
        yield f"Rows were made by different commits of the code ({which}); ‡: differs from that of the baseline."
    unnamed = [one.name for one in compared if one.row.results and not one.row.commits]
    if by_commit and unnamed:
        yield f"The commit of the code is unknown for {', '.join(unnamed)}."
