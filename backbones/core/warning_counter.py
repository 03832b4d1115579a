"""Counted warnings: the run continues, and the log and results.json state how often and where they occurred."""

import logging
from collections import defaultdict

EXAMPLES = 5


class WarningCounter:
    """Counts warnings by kind and keeps the first examples of each."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = defaultdict(int)
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, example: str, count: int = 1) -> None:
        """Add `count` cases of `what`; `example` names one of them (a file, an id)."""
        self._counts[what] += count
        if len(self._examples[what]) < EXAMPLES:
            self._examples[what].append(example)

    def merge(self, other: "WarningCounter") -> None:
        """Add the cases of another counter, with the result of adding each of them here."""
        for what, count in other._counts.items():
            self._counts[what] += count
            own = self._examples[what]
            own += other._examples[what][: EXAMPLES - len(own)]

    def as_list(self) -> list[dict]:
        """Return `[{"what", "count", "examples"}]`, as stored in results.json."""
        return [{"what": w, "count": n, "examples": list(self._examples[w])} for w, n in sorted(self._counts.items())]

    def log(self, logger: logging.Logger) -> None:
        """Log one line per kind."""
        for entry in self.as_list():
            logger.warning("%d x %s, such as %s", entry["count"], entry["what"], ", ".join(entry["examples"][:3]))
