"""Rows of the suites that are generated for the papers' tables, and which tables stand beside a comparison."""

from collections.abc import Sequence

from comparison.papers.rows import Table, Training


def suite_rows(table: Table, tables: Sequence[Table], column: str) -> dict[str, tuple[str, Training]]:
    """Return label in the suite -> (published row, training) of a column.

    A row of another suite in the same folder keeps its label there, so that both share it.
    """
    owner = {(t.paper, t.name): (other, t) for other in tables for t in other.trainings}
    found = {}
    for (row, of), name in table.cells.items():
        if of == column:
            other, training = owner[table.paper, name]
            shared = "suite" in other.spec and suite_folder(other) == suite_folder(table)
            label = training.row + other.spec["suite"].get("suffix", "") if shared else row
            found[label] = (row, training)
    return found


def is_shown_beside(table: Table) -> bool:
    """Whether `tools/compare.py --paper` can show the numbers of a table: it has a suite whose measures are columns.

    Suites by row have their columns as labels, and attacks are not in the table of a comparison.
    """
    suite = table.spec.get("suite")
    return bool(suite is not None and table.files and not suite.get("by") and not suite.get("attack"))


def suite_folder(table: Table) -> str:
    """Return the name of the output folder of a table's suites."""
    return table.spec["suite"].get("folder", table.key)
