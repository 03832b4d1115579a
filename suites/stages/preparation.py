"""The kind of stage that writes a data set."""

from dataclasses import dataclass
from pathlib import Path

from backbones.core.errors import InputError
from suites.stages import record as records
from suites.stages.base import Stage


@dataclass(frozen=True, kw_only=True)
class Prepare(Stage):
    """A data set that is written; its log and its record lie beside its folder, which holds data only.

    marker: the file of the folder that the tool writes last.
    """

    kind = "prepare"
    default_tool = "prepare_data"

    marker: str

    @property
    def own_folder(self) -> Path:
        """The folder that the data set lies in."""
        return self.output.parent

    def finished(self) -> bool:
        """Whether the marker is there."""
        return (self.output / self.marker).is_file()

    def recorded(self) -> bool:
        """Whether its files are those that were recorded."""
        return records.has_record(self.own_folder) and not records.data_difference(self.output)

    def record(self) -> None:
        """Record what the data set holds."""
        records.write_data_record(self.output)

    def foreign(self) -> str:
        """Its files have changed; one that was not finished is written anew."""
        try:
            return records.data_difference(self.output) if self.finished() else ""
        except InputError:
            return ""
