"""The last stage of a suite: the comparison of what the others have measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backbones.core.files import load_json, save_json
from suites.stages.base import Stage

# What the report was made of; its hash says whether it is up to date.
REPORT_RECORD = "inputs.json"
# What the comparison printed.
TABLE = "table.txt"
PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class Compare(Stage):
    """The report of a suite; its table gets a file of its own, to be shown by every later call.

    suite: name of the suite; root: its output folder.
    """

    kind = "compare"
    default_tool = "compare"

    suite: str
    root: Path

    def finished(self) -> bool:
        """Whether table and page are there."""
        return all((self.output / name).is_file() for name in (TABLE, PAGE))

    def recorded(self) -> bool:
        """Whether the report was made of exactly these results."""
        record = load_json(self.output / REPORT_RECORD)
        return isinstance(record, Mapping) and record.get("hash") == self.hash

    def record(self) -> None:
        """Record what the report was made of."""
        runs = [run.output.relative_to(self.root).as_posix() for run in self.inputs]
        save_json(self.output / REPORT_RECORD, {"hash": self.hash, "suite": self.suite, "runs": runs})

    def forget(self) -> None:
        """Files of two reports must not pass for one."""
        (self.output / REPORT_RECORD).unlink(missing_ok=True)

    def foreign(self) -> str:
        """Nothing: a report is made again in its place."""
        return ""

    @property
    def standard_output(self) -> Path:
        """The file of the table."""
        return self.output / TABLE

    def table(self) -> str:
        """The table, without the line that the runner says itself."""
        lines = self.standard_output.read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if not line.startswith("report: ")).strip()
