"""Assign failures to rows, and add rows for what is missing because of one.

A failed fine-tuning concerns its protocol only: there, the row of its backbone keeps the results of the other stages.
Every other failure concerns all rows of its label and seed; if there are none, a row without results is added under
every protocol.

A fine-tuning can rename its row ("CE, hard labels").  A failure can have the label of the pretraining or of the row; an
added row is named as the other rows of this pretraining are under its protocol.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from comparison.failures import Failure
from comparison.row import Row
from comparison.rows import row_order

Names = Mapping[str, Sequence[str]]  # name of a protocol -> "name@hash" of each protocol of this name


def place_failures(rows: Sequence[Row], failures: Sequence[Failure]) -> list[Row]:
    """Return the rows with their failures and the added rows, in table order."""
    if not failures:
        return list(rows)
    names = _protocol_names(rows, failures)
    first_labels = {row.label: _first_label(row) for row in rows}
    labels = {(_first_label(row), row.protocol): row.label for row in rows}
    runs: dict[tuple[str, int], list[Failure]] = {}
    for failure in failures:
        run = first_labels.get(failure.label, failure.label), failure.seed
        runs.setdefault(run, []).append(failure)
    result = [row for row in rows if (_first_label(row), row.seed) not in runs]
    for (label, seed), its in runs.items():
        own = [row for row in rows if (_first_label(row), row.seed) == (label, seed)]
        for row in _rows_of_run(own or [_missing_row(label, seed, rows)], its, names):
            added = row.protocol is not None and "detection" not in row.results
            result.append(replace(row, label=labels.get((label, row.protocol), its[0].label)) if added else row)
    return sorted(result, key=row_order)


def _first_label(row: Row) -> str:
    return next((str(results["backbone"]["label"]) for results in row.results.values()), row.label)


def _protocol_names(rows: Sequence[Row], failures: Sequence[Failure]) -> Names:
    """Return the protocols by name; one without any results, as all its fine-tunings failed, has no hash."""
    names: dict[str, list[str]] = {}
    for protocol in dict.fromkeys(row.protocol for row in rows if row.protocol is not None):
        names.setdefault(protocol.rpartition("@")[0], []).append(protocol)
    for failure in failures:
        if failure.protocol:
            names.setdefault(failure.protocol, [failure.protocol])
    return names


def _missing_row(label: str, seed: int, rows: Sequence[Row]) -> Row:
    """Return a row without results; its method is that of the label's other seeds, else unknown ("")."""
    method = next((row.method for row in rows if _first_label(row) == label), "")
    return Row(label, method, seed, "", None, {}, {})


def _rows_of_run(own: Sequence[Row], failures: Sequence[Failure], names: Names) -> Iterator[Row]:
    """Yield the rows of one label and seed; `own`: those with results, or one without."""
    shared = tuple(failure for failure in failures if not failure.protocol)
    tunings: dict[str | None, tuple[Failure, ...]] = {}  # by "name@hash"
    there = {row.protocol for row in own}
    for failure in failures:
        protocols = names.get(failure.protocol, ())
        # Of several protocols of one name, those without results.
        for protocol in [p for p in protocols if p not in there] or protocols:
            tunings[protocol] = (*tunings.get(protocol, ()), failure)
    added = [protocol for protocol in tunings if protocol not in there]
    if shared and not any(row.results for row in own):
        added = [protocol for same in names.values() for protocol in same]
    for row in own:
        if row.protocol is not None or not added:
            yield replace(row, failures=(*shared, *tunings.get(row.protocol, ())))
    for backbone in {row.weights: _without_detection(row) for row in own}.values():
        for protocol in added:
            yield replace(backbone, protocol=protocol, failures=(*shared, *tunings.get(protocol, ())))


def _without_detection(row: Row) -> Row:
    results, folders = (
        {stage: value for stage, value in of.items() if stage != "detection"} for of in (row.results, row.folders)
    )
    return replace(row, hash=row.weights, results=results, folders=folders)
