"""Findings of a data set check: all problems counted by kind, with the first examples, and one verdict.

An error stops training or makes its numbers wrong; a warning is something that the readers fix, or merely worth
knowing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

ERROR, WARNING = "error", "warning"
EXAMPLES = 3


@dataclass(frozen=True)
class Kind:
    """One kind of problem.

    Attributes:
        severity: ERROR or WARNING.
        what: what is wrong, in a few words that follow a count.
        fix: what to do, or how the readers handle it.
    """

    severity: str
    what: str
    fix: str


class Findings:
    """Counts problems by kind and keeps the first examples of each."""

    def __init__(self) -> None:
        self._counts: dict[Kind, int] = {}
        self._examples: dict[Kind, list[str]] = {}

    def add(self, kind: Kind, examples: Iterable[str] | str, count: int | None = None) -> None:
        """Count cases of `kind`.

        Args:
            examples: where (a file, an id); with `count`, only the first few are consumed.
            count: number of cases; None: the number of examples.
        """
        found = [examples] if isinstance(examples, str) else examples
        if count is None:
            found = list(found)
            count = len(found)
        if count:
            known = self._examples.setdefault(kind, [])
            known.extend(islice(found, EXAMPLES - len(known)))
            self._counts[kind] = self._counts.get(kind, 0) + count

    def count(self, what: str) -> int:
        """Return how often `what` was found."""
        return sum(n for kind, n in self._counts.items() if kind.what == what)

    def example(self, kind: Kind) -> str:
        """Return the first example of a kind that was found."""
        return self._examples[kind][0]

    def of(self, severity: str) -> dict[Kind, int]:
        """Return the kinds of this severity that were found, with their counts."""
        return {kind: n for kind, n in self._counts.items() if kind.severity == severity}

    def lines(self) -> list[str]:
        """Return one line per kind, errors first."""
        return [
            f"{kind.severity:<8} {n} x {kind.what}: {_enumerate(self._examples[kind], n)}; {kind.fix}"
            for severity in (ERROR, WARNING)
            for kind, n in self.of(severity).items()
        ]

    def as_list(self) -> list[dict[str, Any]]:
        """Return `[{"severity", "what", "count", "examples", "fix"}]`, errors first."""
        return [
            {**vars(kind), "count": n, "examples": list(self._examples[kind])}
            for severity in (ERROR, WARNING)
            for kind, n in self.of(severity).items()
        ]


@dataclass
class Report:
    """The check of one data set.

    Attributes:
        name: name of the data set.
        summary: its content as plain values by name.
        lines: the summary as text.
    """

    name: str
    findings: Findings
    summary: Mapping[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether no error was found; warnings are allowed."""
        return not self.findings.of(ERROR)

    def verdict(self) -> str:
        """Return the verdict in one line."""
        errors = [f"{n} x {k.what} ({self.findings.example(k)})" for k, n in self.findings.of(ERROR).items()]
        warnings = [f"{n} x {k.what}" for k, n in self.findings.of(WARNING).items()]
        verdict = "sound" if self.sound else f"NOT SOUND: {', '.join(errors)}"
        mild = f"; warnings: {', '.join(warnings)}" if warnings else ""
        return f"verdict {self.name}: {verdict}{mild}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "sound": self.sound,
            "verdict": self.verdict(),
            "findings": self.findings.as_list(),
            "summary": dict(self.summary),
        }


def describe(reports: Sequence[Report]) -> str:
    """Return the lines of every report, then the verdicts."""
    lines = [[report.name, *("  " + line for line in [*report.lines, *report.findings.lines()])] for report in reports]
    return "\n".join([*chain.from_iterable(lines), *(report.verdict() for report in reports)])


def milder(kind: Kind) -> Kind:
    """Return the kind with the severity of a warning."""
    return replace(kind, severity=WARNING)


def _enumerate(examples: list[str], count: int) -> str:
    return ", ".join(examples) + (" ..." if count > len(examples) else "")
