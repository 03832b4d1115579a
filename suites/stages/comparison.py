"""The last stage of a suite: the comparison of the results of the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backbones.core.files import load_json, save_json
from suites.stages.base import Stage

# Inputs of the report; the hash in it tells whether the report is up to date.
REPORT_RECORD = "inputs.json"
# Output of the comparison.
TABLE = "table.txt"
PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class Compare(Stage):
    """The report of a suite; its table is kept in a file, so that every later call can show it.

    suite: name of the suite; root: its output folder.
    """

    kind = "compare"
    default_tool = "compare"

    suite: str
    root: Path

    def finished(self) -> bool:
        """Whether table and page exist."""
        return all((self.output / name).is_file() for name in (TABLE, PAGE))

    def recorded(self) -> bool:
        """Whether the report was made from exactly these results."""
        record = load_json(self.output / REPORT_RECORD)
        return isinstance(record, Mapping) and record.get("hash") == self.hash

    def record(self) -> None:
        """Record the inputs of the report."""
        runs = [run.output.relative_to(self.root).as_posix() for run in self.inputs]
        save_json(self.output / REPORT_RECORD, {"hash": self.hash, "suite": self.suite, "runs": runs})

    def forget(self) -> None:
        """Remove the record, so that files of two reports never count as one."""
        (self.output / REPORT_RECORD).unlink(missing_ok=True)

    def foreign(self) -> str:
        """Return "": a report is overwritten in place."""
        return ""

    @property
    def standard_output(self) -> Path:
        """File of the table."""
        return self.output / TABLE

    def table(self) -> str:
        """Return the table, without the line that the runner prints itself."""
        lines = self.standard_output.read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if not line.startswith("report: ")).strip()
