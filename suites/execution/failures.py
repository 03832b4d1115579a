"""The file of failures, which `tools/compare.py --failures` shows in the rows that they concern."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from backbones.core.config import load_yaml
from backbones.core.errors import InputError
from suites.stages import Stage
from suites.stages.base import Key
from suites.stages.measures import Finetune
from suites.stages.record import read_results


class Failed(NamedTuple):
    """A stage that did not finish.

    cause: the stage that failed: this one, or the first that it needs.
    """

    stage: Stage
    reason: str
    cause: Stage


def describe_failures(failures: Mapping[Key, Failed], stages: Iterable[Stage]) -> list[dict[str, Any]]:
    """Return the content of the file: one entry per row, seed and cause, with the reason of the cause.

    Args:
        stages: all stages; the name of a protocol is that in the results of another stage.
    """
    entries: dict[tuple, dict[str, Any]] = {}
    for stage, _, cause in failures.values():
        if stage.run is None:
            continue
        entry = {
            "label": stage.run.label,
            "seed": stage.run.seed,
            "protocol": _protocol_name(cause, stages) if isinstance(cause, Finetune) else "",
            "what": _step(cause),
            "reason": failures[cause.key].reason,
            "log": str(cause.log),
        }
        entries.setdefault((*entry.values(),), entry)
    return list(entries.values())


def _step(failed: Stage) -> str:
    """Return what a stage does, with the seed of a fine-tuning that has its own."""
    seed = failed.detector_seed if isinstance(failed, Finetune) else None
    return failed.kind if seed is None else f"{failed.kind} with seed {seed}"


def _protocol_name(failed: Finetune, stages: Iterable[Stage]) -> str:
    """Return the name that results state for the protocol of a fine-tuning; the suite's own name if there are none."""
    for stage in stages:
        if isinstance(stage, Finetune) and stage.protocol == failed.protocol:
            try:
                return str(read_results(stage.output)["protocol"]["name"])
            except (InputError, KeyError):
                continue
    named = dict(zip(failed.overrides[::2], failed.overrides[1::2], strict=True)).get("PROTOCOL")
    written = load_yaml(failed.config).get("PROTOCOL") if failed.config else None
    return str(named or written or failed.protocol)
