"""Measures of one backbone in one process: each split is read once, and nothing else differs from two processes."""

import os
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from helpers.noise_runs import PER_CLASS, write_run, write_split
from helpers.tools import tool

from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.run_log import get_logger
from backbones.core.warning_counter import EXAMPLES, WarningCounter
from backbones.measuring import run as shared
from backbones.measuring.run import SPLITS_KEPT, build_samples, load_run, read_once
from backbones.pretraining import building

TOOLS = {
    "evaluate_backbone": ["DATA.SHIFTED_SPLIT", "shifted", "EVAL.CONTEXT_FILLS", "['mean', 'blur']"],
    "localize": ["LOCALIZE.GALLERY", "2", "LOCALIZE.METHOD", "GradCAMPlusPlus"],
    "attack_backbone": ["ATTACK.MAX_IMAGES", "4", "ATTACK.METHODS", "['fgsm', 'pgd']", "ATTACK.STEPS", "2"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Noise images, some of them grey, and hidden files: each split has warnings, more than are shown as examples."""
    root = tmp_path_factory.mktemp("data")
    for split, grey in (("val", EXAMPLES + 2), ("shifted", 2)):
        write_split(root, split, boxes=True)
        for path in sorted((root / split).rglob("*.JPEG"))[:grey]:
            path.write_bytes(cv2.imencode(".jpg", cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))[1].tobytes())
        (root / split / "class0" / ".hidden").touch()
    for split in ("train", "more"):
        shutil.copytree(root / "shifted", root / split)
        shutil.copytree(root / "annotations/shifted", root / "annotations" / split)
    return root


@pytest.fixture(scope="module")
def run_dir(root, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a", root, 0)


@pytest.fixture
def reads(monkeypatch):
    """Count what is read: the splits, and "backbone"."""
    found = Counter()
    load_samples, load_backbone = building.load_samples, shared.load_backbone

    def read(name, root, split, **options):
        found[split] += 1
        return load_samples(name, root, split, **options)

    def load(path):
        found["backbone"] += 1
        return load_backbone(path)

    monkeypatch.setattr(building, "load_samples", read)
    monkeypatch.setattr(shared, "load_backbone", load)
    return found


def files(folder):
    """The files of a measure that its numbers decide, by their names."""
    own = {"config.yaml", "environment.json", "log.txt", "results.json", "predictions.npz"}
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in own]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# ---- the tools ---------------------------------------------------------------------------------


def test_measures_in_one_process_equal_those_of_several_processes(run_dir, run_tool, tmp_path, reads):
    for name, overrides in TOOLS.items():
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        alone = run_tool(name, run_dir, "--output-dir", tmp_path / "alone" / name, *overrides, env=environment)
        assert alone.returncode == 0, alone.stderr
    with read_once():
        for name, overrides in TOOLS.items():
            assert tool(name)([str(run_dir), "--output-dir", str(tmp_path / "shared" / name), *overrides]) == 0
    assert reads == {"val": 1, "shifted": 1, "backbone": 1}

    for name in TOOLS:
        alone, together = (tmp_path / kind / name for kind in ("alone", "shared"))
        results = load_results(together)
        assert results == load_results(alone)
        grey = next(w for w in results["warnings"] if w["what"].startswith("grey"))
        assert grey["count"] == EXAMPLES + 2 + 2 * (name == "evaluate_backbone")
        assert len(grey["examples"]) == EXAMPLES
        assert files(together) == files(alone)
    assert sum(name.endswith(".png") for name in files(tmp_path / "shared" / "localize")) == 3
    saved = [np.load(tmp_path / kind / "evaluate_backbone" / "predictions.npz") for kind in ("alone", "shared")]
    assert set(saved[0].files) == set(saved[1].files) > {"val_logits", "shifted_logits", "context_blur_logits"}
    for name in saved[0].files:
        assert saved[0][name].tobytes() == saved[1][name].tobytes()


def test_each_measure_has_its_own_log(run_dir, tmp_path):
    with read_once():
        for name, overrides in TOOLS.items():
            tool(name)([str(run_dir), "--output-dir", str(tmp_path / name), *overrides])
            get_logger().info("between the tools")
    evaluation, *others = ((tmp_path / name / "log.txt").read_text() for name in TOOLS)
    assert [evaluation.count(f"'{split}': 24 images") for split in ("val", "shifted")] == [1, 1]
    for log in others:
        assert [log.count(f"'{split}': 24 images") for split in ("val", "shifted")] == [1, 0]
    for log in (evaluation, *others):
        assert log.count("grey") == 1
        assert "between" not in log


# ---- the readings ------------------------------------------------------------------------------

# Pairs of settings and splits that must not share a reading: all keys of DATA that evaluations read, and the seed.
CASES = [
    ("val", []),
    ("shifted", []),
    ("val", ["DATA.EVAL_VERSION", "mask"]),
    ("val", ["DATA.EVAL_VERSION", "mask", "DATA.MEAN", "[0.1, 0.1, 0.1]"]),
    ("train", []),
    ("train", ["DATA.VERSION", "mask"]),
    ("train", ["DATA.CLASS_CAP", "2"]),
    ("train", ["DATA.TRAIN_SPLIT", "val", "DATA.CLASS_CAP", "2"]),
    ("holdout", ["DATA.HOLDOUT", "6"]),
    ("holdout", ["DATA.HOLDOUT", "6", "SEED", "1"]),
    ("holdout", ["DATA.HOLDOUT", "6", "DATA.HOLDOUT_SEED", "2"]),
    ("holdout", ["DATA.HOLDOUT", "7"]),
    ("holdout", ["DATA.HOLDOUT", "6", "DATA.TRAIN_SPLIT", "val"]),
    ("train", ["DATA.HOLDOUT", "6"]),
]


def test_other_settings_are_read_again(run_dir, monkeypatch):
    """Each is compared with a reading of its own, with all others kept before it."""
    monkeypatch.setattr(shared, "SPLITS_KEPT", len(CASES))

    def read(split, overrides):
        cfg, backbone = load_run(run_dir, overrides)
        warnings = WarningCounter()
        samples = build_samples(cfg, split, backbone, warnings)
        return samples.fingerprint, samples.source, samples.split, samples.painted, warnings.as_list()

    expected = [read(*case) for case in CASES]
    with read_once():
        for _ in range(2):
            for case, (*texts, painted, warnings) in zip(CASES, expected, strict=True):
                *found, drawn, counted = read(*case)
                assert (found, counted) == (texts, warnings), case
                assert (drawn and drawn.colour) == (painted and painted.colour), case
    assert len({fingerprint for fingerprint, *_ in expected}) == len(CASES) - 1  # one DATA.CLASS_CAP has no effect


def test_readings_are_kept_within_the_context_only_and_up_to_a_limit(run_dir, reads):
    cfg, backbone = load_run(run_dir, [])

    def read(*splits):
        reads.clear()
        for split in splits:
            build_samples(cfg, split, backbone, WarningCounter())
        return dict(reads)

    assert read("val", "val") == {"val": 2}
    with read_once():
        assert read("val", "val", "shifted", "train", "more", "val") == {"val": 1, "shifted": 1, "train": 1, "more": 1}
        assert SPLITS_KEPT == 4
        with pytest.raises(InputError, match="no split 'absent'"):
            read("absent")
        cfg = load_run(run_dir, ["DATA.EVAL_VERSION", "box"])[0]
        assert read("more", "val") == {"more": 1, "val": 1}
        cfg = load_run(run_dir, ["DATA.VAL_SPLIT", "more", "DATA.SHIFTED_SPLIT", "val"])[0]
        assert read("more", "train", "shifted") == {"shifted": 1}  # the oldest were let go
    assert read("val") == {"val": 1}


def test_a_backbone_that_was_replaced_is_read_again(run_dir, root, tmp_path, reads):
    runs = [write_run(tmp_path / str(seed), root, seed) for seed in (1, 2)]
    with read_once():
        first, again = (load_run(runs[0], [])[1] for _ in range(2))
        assert again is first
        shutil.copy(runs[1] / "backbone.pth", runs[0] / "backbone.pth")
        assert load_run(runs[0], [])[1].hash == load_run(runs[1], [])[1].hash != first.hash
    assert reads["backbone"] == 3


@pytest.mark.parametrize("overrides", [[], ["DATA.EVAL_VERSION", "mask"]])
def test_samples_cannot_be_changed(run_dir, overrides):
    cfg, backbone = load_run(run_dir, overrides)
    samples = build_samples(cfg, "val", backbone, WarningCounter())
    arrays = [samples.labels, samples.boxes, samples.offsets, samples.sizes, samples.boxes_of(3)]
    arrays += [samples.painted.boxes, samples.painted.ranges] if samples.painted else []
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert len(samples) == 6 * PER_CLASS


def test_merged_warnings_equal_those_added_one_by_one():
    def fill(counter, kinds, numbers):
        for kind in kinds:
            for number in numbers:
                counter.add(kind, f"{kind} {number}", number)

    parts = [("ab", range(3)), ("bc", range(10, 14)), ("a", range(20, 30)), ("d", [])]
    single, merged = WarningCounter(), WarningCounter()
    for part in parts:
        fill(single, *part)
        own = WarningCounter()
        fill(own, *part)
        merged.merge(own)
        merged.merge(WarningCounter())
    assert merged.as_list() == single.as_list()
    assert len(merged.as_list()) == 3
