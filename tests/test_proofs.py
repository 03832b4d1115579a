"""The proof that a detector holds its backbone: what it takes to be proven, and the note where it is not."""

import re

import pytest
from helpers.result_folders import LOADING, add, add_detection, backbone, compare_runs

from backbones.core.results import random_identity
from comparison.proofs import loading_proof
from comparison.row import Row


def changed(**changes):
    return {**LOADING, **changes}


CASES = {
    "whole": (LOADING, "proven", ""),
    "absent": (None, "not proven", "no account"),
    "not compared": (changed(proof={}), "not proven", "were not compared"),
    "nothing loaded": (changed(loaded=[], counts={"loaded": 0}), "failed", "no tensor was loaded"),
    "miscounted": (changed(counts={"loaded": 3}), "failed", "3 tensors are counted as loaded, 2 are named"),
    "differs": (
        changed(proof={"tolerance": 1e-4, "largest_difference": {"res2": 0.0, "res3": 2e-4}}), "failed", "res3 differ",
    ),
    "undefined": (
        changed(proof={"tolerance": 1e-4, "largest_difference": {"res2": None}}), "failed", "res2 differ by None",
    ),
    "at the limit": (changed(proof={"tolerance": 1e-4, "largest_difference": {"res2": 1e-4}}), "proven", ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A comparison with a row per case, and its page."""
    root = tmp_path_factory.mktemp("proofs")
    add_detection(root / "runs", random_identity(0), 0.3)
    add(root / "runs", "backbone", backbone("classifier only"), {"top1": 0.9})
    for label, (account, *_) in CASES.items():
        details = {"backbone_loading": account}
        add_detection(root / "runs", backbone(label, "CE" if label == "whole" else label), 0.8, details=details)
    comparison = compare_runs(root / "runs", root / "out")
    return comparison, (root / "out" / "index.html").read_text()


@pytest.mark.parametrize("case", CASES)
def test_the_page_says_whether_the_loading_is_proven(case, found):
    _, state, reason = CASES[case]
    comparison, page = found
    (proof,) = [row["loading"] for row in comparison["rows"] if row["label"] == case]
    assert proof["state"] == state
    assert reason in proof["reason"]
    notes = [n for n in comparison["notes"] if case in n.partition("No ")[0] and ("FAILS" in n or "not proven" in n)]
    assert len(notes) == (state != "proven")
    assert all(reason in note and ("FAILS" in note) == (state == "failed") for note in notes)
    line = re.search(rf'<tr><th scope="row">{case}<br>.*?</tr>', page[page.index("Proof that") :], re.DOTALL)
    assert line
    assert f">{state}: {proof['reason']}</td>" in line[0] or (state == "proven" and ">proven</td>" in line[0])
    assert f"{proof['equal']} of {proof['compared']}" in line[0]


def test_a_proof_names_weights_and_what_was_not_loaded(found):
    proofs = {row["label"]: row["loading"] for row in found[0]["rows"]}
    assert proofs["whole"] == {
        **{"state": "proven", "reason": "", "compared": 2, "equal": 2, "new": 1, "weights": "hash-whole-0"},
        **{"not_loaded": {"*.num_batches_tracked": 1, "fc.*": 2}, "largest_difference": 3e-7, "tolerance": 1e-4},
    }
    assert (proofs["random"], proofs["classifier only"]) == (None, None)
    assert f"Proof that {len(CASES)} detectors hold the backbone" in found[1]


def test_a_strangers_detector_needs_no_proof():
    results = {"detection": {"details": {"results_file": {}}}}
    assert loading_proof(Row("A", "A", 0, "hash", "p@1", results, {})) is None
