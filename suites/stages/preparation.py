"""The kind of stage that writes a data set."""

from dataclasses import dataclass
from pathlib import Path

from backbones.core.errors import InputError
from suites.stages import record as records
from suites.stages.base import Stage


@dataclass(frozen=True, kw_only=True)
class Prepare(Stage):
    """A stage that writes a data set; its log and record are beside its folder, which holds only data.

    marker: the file in the folder that the tool writes last.
    """

    kind = "prepare"
    default_tool = "prepare_data"
    spreads = True

    marker: str

    @property
    def own_folder(self) -> Path:
        """Parent folder of the data set."""
        return self.output.parent

    def finished(self) -> bool:
        """Whether the marker exists."""
        return (self.output / self.marker).is_file()

    def recorded(self) -> bool:
        """Whether its files are the recorded ones."""
        return records.has_record(self.own_folder) and not records.data_difference(self.output)

    def record(self) -> None:
        """Record the content of the data set."""
        records.write_data_record(self.output)

    def foreign(self) -> str:
        """Return how its files have changed; "" for an unfinished one, which is written again."""
        try:
            return records.data_difference(self.output) if self.finished() else ""
        except InputError:
            return ""
