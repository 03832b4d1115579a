"""Folders of a fine-tuning's checkpoint and results, and the checks before anything is written.

An evaluation that differs in any way from the run's own test (data set, keys of TEST, label) gets its own folder
inside that of the run:

    RUN/evaluation-<data set>/          another DATASETS.TEST
    RUN/evaluation-<data set>-<hash>/   other test settings; the hash covers them

The run's own files are not changed.  Data sets are identified by their fingerprints, not by name or path.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.core.config import CfgNode, config_hash, flatten, load_yaml
from backbones.core.distributed import barrier, is_main
from backbones.core.errors import InputError
from backbones.core.results import FILE_NAME, load_results
from backbones.core.roles import FREE, NAMING, TEST, Roles
from backbones.core.runs import CONFIG_FILE, check_resume, open_run
from detection.data.records import DetectionData
from detection.training.checkpoint import CHECKPOINT, read_detector
from detection.training.resuming import TEST_DATA, TRAINING_DATA

TEST_KEY = "DATASETS.TEST"


@dataclass(frozen=True)
class RunFolder:
    """The folders of one call.

    Attributes:
        run: holds the checkpoint.
        results: receives results.json and its files; `run`, or the folder of an evaluation.
        changed: key -> [the run's value, that of this evaluation], for an evaluation with its own folder.
    """

    run: Path
    results: Path
    cfg: CfgNode
    resumed: bool
    changed: Mapping[str, list[Any]]

    def open(self) -> Path:
        """Create `results` with its config and log; called on every process after all checks."""
        refuse_other_run(self.run, self.resumed)  # again: another run may have started since
        barrier()  # every process has checked the folder
        if self.changed and is_main():  # its results are replaced as a whole
            (self.results / FILE_NAME).unlink(missing_ok=True)
        barrier()
        return open_run(self.results, self.cfg)

    def details(self) -> dict[str, Any]:
        """Return the details in results.json of an evaluation with its own folder."""
        said = {"run": self.run.name, "folder": self.results.name, "changed": dict(self.changed)}
        return {"evaluation_of": said} if self.changed else {}


def results_file(run_dir: Path, results: Mapping[str, Any]) -> Path:
    """Return the path of the results that a call on the run in `run_dir` wrote."""
    return run_dir / results["details"].get("evaluation_of", {}).get("folder", "") / FILE_NAME


def check_folder(run_dir: Path, cfg: CfgNode, roles: Roles, *, resume: bool, eval_only: bool) -> None:
    """Check what can be checked before any data is read; `eval_only` can also change the keys of the test."""
    checkpoint = run_dir / CHECKPOINT
    if eval_only and not checkpoint.exists():
        raise InputError(f"no checkpoint at {checkpoint}; check --output-dir, or train first, without --eval-only")
    refuse_other_run(run_dir, resume or eval_only)
    if resume or eval_only:
        check_resume(run_dir, cfg, roles, (*FREE, TEST) if eval_only else FREE)


def refuse_other_run(run_dir: Path, resumed: bool) -> None:
    """Raise `InputError` if a new run would overwrite another one."""
    if not resumed and (run_dir / CHECKPOINT).exists():
        raise InputError(f"{run_dir} holds a run already; add --resume to resume it, or give another folder")


def choose_folder(
    run_dir: Path,
    cfg: CfgNode,
    train: DetectionData,
    test: DetectionData,
    roles: Roles,
    *,
    resume: bool,
    eval_only: bool,
) -> RunFolder:
    """Return the folders of this call; raise `InputError` if a data set is not the one the run was started with."""
    known: dict[str, str] = {}
    if (resume or eval_only) and (run_dir / CHECKPOINT).exists():
        known = _recorded(run_dir)
        _refuse_other_data(run_dir, known, TRAINING_DATA, "DATASETS.TRAIN", train)
    before = dict(flatten(load_yaml(run_dir / CONFIG_FILE))) if (run_dir / CONFIG_FILE).exists() else {}
    moved = _listed(before.get(TEST_KEY)) != list(cfg.DATASETS.TEST)  # by name; decides if no fingerprint is known
    if resume and not eval_only and known:
        if moved and TEST_DATA not in known:
            was, now = _listed(before.get(TEST_KEY)), list(cfg.DATASETS.TEST)
            raise InputError(f"cannot resume {run_dir}: {TEST_KEY} was {was!r} and is now {now!r}; set it back")
        _refuse_other_data(run_dir, known, TEST_DATA, TEST_KEY, test)
    changed = _changes(before, cfg, roles) if eval_only and before else {}
    if eval_only and before and (known[TEST_DATA] != test.fingerprint if TEST_DATA in known else moved):
        changed[TEST_KEY] = [_listed(before.get(TEST_KEY)), list(cfg.DATASETS.TEST)]
    results = _evaluation_folder(run_dir, cfg, test, changed) if changed else run_dir
    return RunFolder(run_dir, results, cfg, resume or eval_only, changed)


def _recorded(run_dir: Path) -> dict[str, str]:
    """Return the checkpoint's resume key; if an earlier version wrote it, the test set comes from the run's results."""
    known = dict(read_detector(run_dir / CHECKPOINT)["resume_key"])
    if TEST_DATA not in known and (run_dir / FILE_NAME).exists():
        tested = load_results(run_dir)["data"].get("test", {}).get("fingerprint")
        known |= {TEST_DATA: tested} if tested else {}
    return known


def _refuse_other_data(run_dir: Path, known: Mapping[str, str], what: str, key: str, now: DetectionData) -> None:
    if known.get(what, now.fingerprint) != now.fingerprint:
        raise InputError(
            f"cannot resume {run_dir}: the data set has changed: the fingerprint of {key} was {known[what]} and is "
            f"now {now.fingerprint} ({now.name}, {now.annotations_path}); restore the data, or start in another folder"
        )


def _changes(before: Mapping[str, Any], cfg: CfgNode, roles: Roles) -> dict[str, list[Any]]:
    """Return key -> [before, now] of the settings that an evaluation changes, except the data set."""
    changed = {}
    for key, value in roles.select(cfg, TEST, NAMING).items():
        old, new = (list(v) if isinstance(v, tuple) else v for v in (before.get(key), value))
        if old != new:
            changed[key] = [old, new]
    return changed


def _evaluation_folder(run_dir: Path, cfg: CfgNode, test: DetectionData, changed: Mapping[str, list[Any]]) -> Path:
    """Return the folder of this evaluation: equal for equal evaluations, never shared by different ones."""
    name = "evaluation-" + re.sub(r"[^A-Za-z0-9._+-]+", "_", test.name)
    settings = {key: new for key, (_, new) in changed.items() if key != TEST_KEY}
    name += f"-{config_hash(settings)}" if settings else ""
    path = run_dir / name / FILE_NAME
    if path.exists() and load_results(path)["data"].get("test", {}).get("fingerprint") != test.fingerprint:
        name += f"-{test.fingerprint}"  # another data set of that name
    return run_dir / name


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
