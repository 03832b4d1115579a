"""Mutation check: plant faults in the mathematics, one at a time, and see that a test fails for each.

python tests/plant_faults.py            all of them, a minute and a half on one core
python tests/plant_faults.py functional those whose file or change contains the word

Each fault is a replacement of text in a temporary copy of the packages; the repository is not touched.  The tests of a
fault first run on the copy as it is.  Exit code: 0 where every fault makes a test fail, 1 where one survives.
"""

import contextlib
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("backbones", "detection", "comparison", "suites", "tools", "tests", "pyproject.toml", "README.md")
# Imported once, before the processes that run the tests fork: the faults are in our own packages alone.
PRELOADED = ("cv2", "numpy", "scipy.optimize", "scipy.stats", "timm", "torch", "torchvision")


class Fault(NamedTuple):
    """In `file`, `right` is replaced by `wrong`; the tests in `tests` (below tests/) must notice."""

    file: str
    right: str
    wrong: str
    tests: str


FUNCTIONAL, MIXING, REGIONS = (f"backbones/methods/{name}.py" for name in ("functional", "mixing", "regions"))
ONLINE, MEMORY, DISTILLATION = (f"backbones/methods/{name}.py" for name in ("online", "memory", "distillation"))
ADAPTIVE, TABLES, LEARNT = (f"backbones/methods/{name}.py" for name in ("adaptive", "tables", "learnt"))
GEOMETRY, CALIBRATION, SAMPLING = (
    "backbones/data/geometry.py",
    "backbones/measuring/calibration.py",
    "backbones/core/sampling.py",
)

FAULTS = [
    # Targets
    Fault(
        FUNCTIONAL, 'num_classes if convention == "all" else', 'num_classes if convention != "all" else', "test_methods"
    ),
    Fault(FUNCTIONAL, "beta * (1 - objectness.to(dtype))", "beta * objectness.to(dtype)", "test_methods"),
    Fault(FUNCTIONAL, "mul_(1 - hard_weight)", "mul_(hard_weight)", "test_methods_mixing_online"),
    Fault(FUNCTIONAL, "** 2).clamp(max=largest)", "** 2).clamp(max=1)", "test_methods_instance"),
    Fault(FUNCTIONAL, 'scaled.scatter(1, labels[:, None], float("-inf"))', "scaled", "test_methods_instance"),
    Fault(FUNCTIONAL, "(-relative).masked_fill", "relative.masked_fill", "test_methods_similarity"),
    Fault(FUNCTIONAL, "others = num_classes - 2 +", "others = num_classes - 1 +", "test_methods_regions"),
    Fault(FUNCTIONAL, "(1 - shares[0] - shares[1]).clamp(min=0)", "1 - shares[0] - shares[1]", "test_methods_regions"),
    Fault(FUNCTIONAL, "means = means - means.mean(dim=0)", "means = 1 * means", "test_methods_similarity"),
    Fault(FUNCTIONAL, "torch.where(mean > 0, distance / mean, 0)", "(distance / mean)", "test_methods_similarity"),
    Fault(
        ADAPTIVE, "masked_fill(batch.is_context[:, None]", "masked_fill(batch.mixed[:, None]", "test_methods_regions"
    ),
    Fault(ADAPTIVE, "batch.objectness, ~batch.is_context)", "batch.objectness, ~batch.mixed)", "test_methods_regions"),
    # Losses
    Fault(FUNCTIONAL, "log_p.detach().exp() if detach", "log_p.detach().exp() if not detach", "test_methods_noise"),
    Fault(FUNCTIONAL, "-(1 - p_true) * math.log(floor)", "-p_true * math.log(floor)", "test_methods_noise"),
    Fault(FUNCTIONAL, "max(2 * half, 1)", "max(half, 1)", "test_methods_noise"),
    Fault(FUNCTIONAL, "log_q.exp() * (log_q - log_p)", "log_p.exp() * (log_p - log_q)", "test_methods_distillation"),
    Fault(FUNCTIONAL, "lerp_(theirs, 1 - decay)", "lerp_(theirs, decay)", "test_methods_distillation"),
    Fault(DISTILLATION, "self.student_temperature**2 * distance", "distance", "test_methods_distillation"),
    Fault(DISTILLATION, ".argsort()", ".argsort(descending=True)", "test_methods_distillation"),
    Fault("backbones/methods/byot.py", "if epoch else [1.0", "if epoch > 1 else [1.0", "test_methods_distillation"),
    Fault(DISTILLATION, "(1 - amount - hard_weight) / amount", "(1 - amount) / amount", "test_methods_distillation"),
    Fault(DISTILLATION, "+ divergence(b, a, t, t)", "+ divergence(a, b, t, t)", "test_methods_distillation"),
    Fault("backbones/methods/bootstrapping.py", "< self.rate", "< self.rate / 2", "test_methods_noise"),
    # Pixels
    Fault(REGIONS, "side = (1 - kept) ** 0.5", "side = 1 - kept", "test_methods_mixing_online"),
    Fault(REGIONS, "rows < size", "rows <= size", "test_methods_regions"),
    Fault(REGIONS, "spans_x.to(boxes)) > 0", "spans_x.to(boxes))", "test_methods_regions"),
    Fault(
        MIXING,
        "(1 - self.pasted) * targets + self.pasted *",
        "self.pasted * targets + (1 - self.pasted) *",
        "test_methods_regions",
    ),
    Fault(
        MIXING, "in zip(parts, orders, strict=True)", "in zip(parts[::-1], orders, strict=True)", "test_methods_regions"
    ),
    Fault(
        ADAPTIVE,
        "(union_areas(boxes) / area - inside)",
        "(union_areas(boxes) / area)",
        "test_methods_regions",
    ),
    # What is remembered
    Fault(TABLES, "right &= counted", "right &= True", "test_methods_mixing_online"),
    Fault(ONLINE, "step = 1 + (drawn", "step = (drawn", "test_methods_memory"),
    Fault(MEMORY, "self.clear()", "self.seen.clone()", "test_methods_memory"),
    Fault(LEARNT, "part.zero_()", "part.clone()", "test_methods_memory"),
    Fault(DISTILLATION, "self.final_weight * (epoch + 1)", "self.final_weight * epoch", "test_methods_memory"),
    Fault("backbones/methods/instance.py", ".to(dtype) / self.temperature)", ".to(dtype))", "test_methods_instance"),
    Fault(
        "backbones/pretraining/teacher.py",
        "self.logits[batch.index.numpy()]",
        "self.logits[: len(batch)]",
        "test_teacher -k rows",
    ),
    Fault(TABLES, "keepdim=True) >= self.freeze_at", "keepdim=True) <= self.freeze_at", "test_methods_memory"),
    Fault(
        "backbones/pretraining/task.py",
        "finished % self.period == 0",
        "finished % self.epoch == 0",
        "test_methods_memory",
    ),
    Fault("backbones/pretraining/task.py", " and finished < self.stop", "", "test_methods_memory"),
    # Geometry, calibration, sampling
    Fault(GEOMETRY, "length += y1 - max(y0, end)", "length += y1 - y0", "test_geometry"),
    Fault(GEOMETRY, "width - mapped[:, 2], mapped[:, 1]", "width - mapped[:, 0], mapped[:, 1]", "test_geometry"),
    Fault(
        CALIBRATION,
        'np.ceil(scaled) - 1 if closed == "right"',
        'np.ceil(scaled) - 1 if closed == "left"',
        "test_calibration",
    ),
    Fault(CALIBRATION, "z / np.exp(log_t)", "z * np.exp(log_t)", "test_calibration"),
    Fault(CALIBRATION, "z[held_out] / temperatures[-1]", "z[held_out] / temperatures[0]", "test_calibration"),
    Fault(SAMPLING, "np.random.PCG64([self.seed, epoch])", "np.random.PCG64([self.seed])", "test_core"),
    Fault(SAMPLING, "order[within, self.rank * share :", "order[within, 0 * share :", "test_core"),
]


def main(words: list[str]) -> int:
    """Plant the faults that contain one of the words (all without any) and print a table."""
    chosen = [f for f in FAULTS if not words or any(word in " ".join(f) for word in words)]
    # No bytecode: a fault of the same length within one second would be taken for what it replaces.
    sys.dont_write_bytecode = True
    os.environ.setdefault("SMOOTH2DET_SHARED", str(ROOT.parent / "shared"))
    for module in PRELOADED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for name in COPIED:
            _copy(ROOT / name, copy / name)
        for tests in sorted({fault.tests for fault in chosen}):
            if (failed := first_failure(copy, tests)) is not None:
                print(f"{failed} fails without any fault")
                return 1
        survivors = sum(not report(copy, fault) for fault in chosen)
    print(f"{len(chosen) - survivors} of {len(chosen)} faults make a test fail")
    return int(survivors > 0)


def report(copy: Path, fault: Fault) -> bool:
    """Plant one fault, print the outcome, remove it; whether a test failed."""
    path = copy / fault.file
    text = path.read_text()
    if text.count(fault.right) != 1:
        print(f"CANNOT BE PLANTED  {fault.file}: {fault.right!r} occurs {text.count(fault.right)} times", flush=True)
        return False
    path.write_text(text.replace(fault.right, fault.wrong))
    failed = first_failure(copy, fault.tests)
    path.write_text(text)
    print(f"{fault.file}: {fault.right}  ->  {fault.wrong}\n    {failed or 'SURVIVES'}", flush=True)
    return failed is not None


def first_failure(copy: Path, tests: str) -> str | None:
    """The first test that fails in `copy`, or None; `tests` is a file below tests/ and options of pytest."""
    fork = multiprocessing.get_context("fork")
    mine, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_run_pytest, args=(copy, tests, theirs))
    process.start()
    theirs.close()
    try:
        code, failed = mine.recv()
    except EOFError:
        raise RuntimeError(f"the process that ran {tests} ended without an answer") from None
    process.join()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and failed is None:
        raise RuntimeError(f"pytest did not run {tests}: exit code {code}")
    return failed


class FirstFailure:
    """A plugin that keeps the name of the first test that fails, or of a file that cannot be imported."""

    name: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.name = self.name or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.name = self.name or report.nodeid


def _run_pytest(copy: Path, tests: str, answer: Connection) -> None:
    os.chdir(copy)
    sys.path[:] = [str(copy), *(entry for entry in sys.path if Path(entry) not in (ROOT, ROOT / "tests"))]
    import backbones

    assert Path(backbones.__file__).is_relative_to(copy), "the tests would import the repository"
    name, *options = tests.split()
    seen = FirstFailure()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"tests/{name}.py", *options], plugins=[seen])
    answer.send((int(code), seen.name))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
