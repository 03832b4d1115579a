"""Verdicts on methods over seeds: in comparison.json, on the terminal, in Markdown and on the page."""

import json
import re
import shutil
from html import unescape

import numpy as np
import pytest
from helpers.coco_scenes import scene
from helpers.result_folders import add, backbone, compare_runs
from scipy import stats

from backbones.core.errors import InputError
from backbones.core.matches import load_matches
from backbones.core.results import BackboneIdentity
from comparison.bootstrap import resample_rows
from comparison.page.variances import SEEDS, variances_section
from comparison.tables.formats import format_difference
from comparison.tables.verdicts import describe_variances, verdict_lines, verdict_text
from comparison.verdicts.nested import Components, Sample, components_of_pair, difference
from comparison.verdicts.planner import what_settles
from detection.evaluation.coco import evaluate_coco

TRUTH, _ = scene(5, images=40)
# Share of objects found, by seed: ALS finds more with every seed, LS has the detections of CE, OLS lies around CE.
FOUND = {"CE": (0.5, 0.6, 0.5), "ALS": (0.9, 1.0, 0.9), "LS": (0.5, 0.6, 0.5), "OLS": (0.6, 0.5, 0.7)}


def add_methods(root, seeds=3):
    """Add detectors without errors in their boxes, which miss some of the objects."""
    objects = [item for item in TRUTH["annotations"] if not item.get("iscrowd")]
    for label, shares in FOUND.items():
        for seed, share in enumerate(shares[:seeds]):
            who = backbone(label, seed=seed)
            add(root, "backbone", who, {"top1": 0.8 + 0.01 * seed})
            detections = [
                {"image_id": item["image_id"], "category_id": item["category_id"], "bbox": item["bbox"], "score": 0.9}
                for number, item in enumerate(objects)
                if 7 * number % 10 < 10 * share
            ]
            folder = add(root, "detection", who, {}, protocol="det@1")
            result = evaluate_coco(TRUTH, detections, score_threshold=0.05, matches_path=folder / "matches.npz")
            add(root, "detection", who, result["metrics"], protocol="det@1")
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return add_methods(tmp_path_factory.mktemp("verdicts") / "runs")


def methods_of(data):
    return {method["label"]: method for method in data["methods"]}


def test_differences_are_those_of_the_nested_interval(runs, tmp_path):
    data = compare_runs(runs, tmp_path)
    rows = [
        load_matches(runs / f"{label}-{seed}-detection-det@1" / "matches.npz") for label in FOUND for seed in range(3)
    ]
    resampled = resample_rows(rows, resamples=40, seed=0)
    own = {label: resampled[3 * n : 3 * n + 3] for n, label in enumerate(FOUND)}
    for name in ("AP", "AP50", "AR100"):
        samples = {
            label: Sample(np.array([r.value[name] for r in group]), np.array([r.draws[name] for r in group]))
            for label, group in own.items()
        }
        for label in ("ALS", "OLS"):
            expected = difference(samples[label], samples["CE"])
            found = methods_of(data)[label]["differences"][name]
            assert (found["value"], found["low"], found["high"]) == pytest.approx(
                (expected.value, *expected.interval())
            )
            assert (found["over_seeds"], found["over_images"]) == (True, True)
            assert found["df"] == pytest.approx(expected.df)
    # top-1 has no per-image data here: over seeds only.
    assert methods_of(data)["ALS"]["differences"]["top1"]["over_images"] is False


def test_words_in_every_output(runs, tmp_path, capsys):
    data = compare_runs(runs, tmp_path)
    said = capsys.readouterr().out
    verdicts = {label: method["verdict"] for label, method in methods_of(data).items()}
    assert data["primary"] == "AP"
    assert verdicts["CE"] is None
    assert {label: one["word"] for label, one in verdicts.items() if one} == {
        "ALS": "better", "LS": "identical", "OLS": "not distinguishable",
    }  # fmt: skip
    assert verdicts["LS"]["p"] is None
    for name in ("AP", "AR100"):  # no test and no interval
        same = methods_of(data)["LS"]["differences"][name]
        assert (same["value"], same["low"], same["high"], same["p"]) == (0.0, None, None, None)
    assert methods_of(data)["LS"]["differences"]["top1"]["low"] < 0
    assert verdicts["OLS"]["needs"]["seeds"] > 3
    texts = {
        "ALS": "better than CE",
        "LS": "identical: the detections are those of CE",
        "OLS": f"not distinguishable from CE; about {verdicts['OLS']['needs']['seeds']} seeds each",
    }
    page, markdown = unescape((tmp_path / "index.html").read_text()), (tmp_path / "comparison.md").read_text()
    for label, text in texts.items():
        assert re.search(rf"^{label} \(3 seeds\) .* {re.escape(text)}", said, re.M), said
        assert re.search(rf"^\| {label} \(3 seeds\) \| .* \| {re.escape(text)}", markdown, re.M)
        word = {"ALS": "better", "LS": "identical", "OLS": "not distinguishable"}[label]
        assert re.search(rf'<span>{label}</span></span></th>\s*<td class="word {word}">', page)
        answer = re.search(rf"<strong>{label}</strong>: (.*?)</p>", page)
        assert answer
        assert text.partition("; ")[0] in answer[1]
    assert re.search(r"^CE \(3 seeds\) .* baseline$", said, re.M)
    assert "corrected for the number of methods (Holm)" in " ".join(said.split())


def test_a_wide_margin_makes_equivalent_and_another_number_can_decide(runs, tmp_path):
    data = compare_runs(runs, tmp_path, "--margin", "0.5")
    assert methods_of(data)["OLS"]["verdict"]["word"] == "equivalent"
    assert verdict_text(methods_of(data)["OLS"]) == "equivalent to CE within 0.5"
    data = compare_runs(runs, tmp_path, "--primary", "AR100")
    assert {method["verdict"]["metric"] for method in data["methods"] if method["verdict"]} == {"AR100"}
    with pytest.raises(InputError, match=r"--primary 'AP5'; did you mean 'AP50'|unknown --primary 'AP5'"):
        compare_runs(runs, tmp_path, "--primary", "AP5")
    with pytest.raises(InputError, match=r"--margin is -1.0; it must be at least 0"):
        compare_runs(runs, tmp_path, "--margin", "-1")


def test_two_seeds_have_an_interval_and_no_verdict(tmp_path, capsys):
    data = compare_runs(add_methods(tmp_path / "runs", seeds=2), tmp_path / "out")
    als = methods_of(data)["ALS"]
    assert als["verdict"]["word"] == ""
    assert als["differences"]["AP"]["over_seeds"]
    assert "no verdict with fewer than 3 seeds" in capsys.readouterr().out


def test_an_interval_over_images_only_is_marked_beside_those_over_seeds(tmp_path, capsys):
    root = add_methods(tmp_path / "runs")
    for seed in (1, 2):
        for folder in root.glob(f"ALS-{seed}-*"):
            shutil.rmtree(folder)
    found = methods_of(compare_runs(root, tmp_path / "out"))
    assert [found[label]["differences"]["AP"]["over_seeds"] for label in ("ALS", "OLS")] == [False, True]
    outputs = [capsys.readouterr().out, (tmp_path / "out" / "comparison.md").read_text()]
    outputs += [re.sub("<[^>]*>", "", unescape((tmp_path / "out" / "index.html").read_text()))]
    marked = format_difference(found["ALS"]["differences"]["AP"])
    assert marked.endswith("] (images only)")
    assert all(marked in " ".join(output.split()) for output in outputs)
    assert not any(f"{format_difference(found['OLS']['differences']['AP'])} (images" in output for output in outputs)


def test_a_verdict_counts_the_seeds_that_have_the_number(tmp_path):
    """Of three backbones, one without a detector, or without an evaluation: two seeds."""
    root = add_methods(tmp_path / "runs")
    [folder] = root.glob("ALS-2-backbone-*")
    shutil.rmtree(folder)
    found = compare_runs(root, tmp_path / "out", "--primary", "top1")["methods"]
    assert [(one["label"], one["verdict"]["word"]) for one in found if one["label"] == "ALS"] == [("ALS", "")]
    shutil.rmtree(root / "ALS-2-detection-det@1")
    data = compare_runs(root, tmp_path / "out")
    judged = {one["label"]: one for one in data["methods"] if one["verdict"]}
    parts = {name: data["variances"][0][name] for name in ("seeds", "interaction", "images", "method_images")}
    assert (judged["ALS"]["metrics"]["AP"]["count"], judged["ALS"]["verdict"]["word"]) == (2, "")
    assert judged["LS"]["verdict"]["word"] == "identical"
    ols = judged["OLS"]  # the only one that is tested
    assert ols["verdict"]["p"] == ols["differences"]["AP"]["p"]
    need = what_settles(Components(**parts), ols["differences"]["AP"]["value"], 0.005, 3, tests=1)
    assert ols["verdict"]["needs"]["seeds"] == need.seeds


def test_a_negative_seed_of_the_resamples_is_refused(runs, tmp_path):
    with pytest.raises(InputError, match=r"--seed is -1; it must be at least 0"):
        compare_runs(runs, tmp_path, "--seed", "-1")


def test_a_single_seed_changes_nothing(tmp_path, capsys):
    data = compare_runs(add_methods(tmp_path / "runs", seeds=1), tmp_path / "out")
    assert data["methods"] == []
    assert "over seeds" not in capsys.readouterr().out


def test_a_lower_number_can_be_better(tmp_path):
    root = tmp_path / "runs"
    for label, values in {"CE": (0.50, 0.51, 0.52), "LS": (0.30, 0.31, 0.30)}.items():
        for seed, value in enumerate(values):
            add(root, "backbone", backbone(label, seed=seed), {"nll": value})
    data = compare_runs(root, tmp_path / "out", "--primary", "nll")
    assert methods_of(data)["LS"]["verdict"]["word"] == "better"


def test_more_seeds_have_a_price(runs, tmp_path, capsys):
    data = compare_runs(runs, tmp_path, "--seed-hours", "2.5")
    needs = methods_of(data)["OLS"]["verdict"]["needs"]
    assert needs["images"] == 1
    assert needs["hours"] == pytest.approx(2 * (needs["seeds"] - 3) * 2.5)  # of both methods
    assert f"(another {needs['hours']:.0f} h of runs) would settle it" in " ".join(capsys.readouterr().out.split())
    assert methods_of(compare_runs(runs, tmp_path))["OLS"]["verdict"]["needs"]["hours"] is None
    with pytest.raises(InputError, match=r"--seed-hours is -1.0; it must be at least 0"):
        compare_runs(runs, tmp_path, "--seed-hours", "-1")
    with pytest.raises(InputError, match="--tuning-hours is a part of --seed-hours; give that, too"):
        compare_runs(runs, tmp_path, "--tuning-hours", "1")


def test_components_of_variance_in_every_output(runs, tmp_path, capsys):
    [entry] = compare_runs(runs, tmp_path)["variances"]
    assert (entry["protocol"], entry["metric"], entry["fine_tuning"]) == ("det@1", "AP", None)
    assert entry["images"] > 0
    found = {"between seeds": entry["seeds"] ** 0.5, "seed x image": entry["interaction"] ** 0.5}
    text = ", ".join(f"{name} {deviation:.4f}" for name, deviation in found.items())
    for output in (capsys.readouterr().out, (tmp_path / "comparison.md").read_text()):
        assert text in " ".join(output.split())
    page = unescape((tmp_path / "index.html").read_text())
    assert all(f">{name}</th><td>{deviation:.4f}</td>" in page for name, deviation in found.items())


def test_the_page_says_how_far_intervals_reach_with_more_seeds_and_images():
    entry = {"protocol": None, "metric": "AP", "fine_tuning": 0.0001}
    entry |= {"seeds": 0.0004, "interaction": 0.0001, "images": 0.0, "method_images": 0.0002}
    entry["shared_backbones"] = False
    methods = [{"protocol": None, "metrics": {"AP": {"count": count}}} for count in (3, 4, 1)]
    rows = [{"label": "CE", "hash": name, "protocol": None, "metrics": {"AP": 0.5}} for name in "aaabbbcc"]
    comparison = {"variances": [entry], "level": 0.95, "methods": methods, "rows": rows}
    [part] = variances_section(comparison)
    assert [line[1] for line in part["sources"]] == ["0.0200", "0.0100", "0.0100", "too small to measure", "0.0141"]
    low, high = ((5 / stats.chi2.ppf(share, 5)) ** 0.5 for share in (0.975, 0.025))  # 2 + 3, and 2 + 2 + 1
    assert [line[2] for line in part["sources"]] == [f"{low:.2f} to {high:.2f}"] * 2 + [""] * 3
    (_, here), (_, more) = part["widths"]

    def reach(seeds, images):
        over_seeds = 2 * (0.0004 + 0.0001 / images) / seeds
        variance = over_seeds + 2 * 0.0002 / images
        return f"±{stats.t.ppf(0.975, variance**2 * 2 * (seeds - 1) / over_seeds**2) * variance**0.5:.3f}"

    assert here == [reach(seeds, 1) for seeds in SEEDS]
    assert more == [reach(seeds, 4) for seeds in SEEDS]
    assert here != more
    assert variances_section(comparison | {"variances": [entry | {"shared_backbones": True}]})[0]["widths"] == ()


def test_methods_on_the_same_backbones_are_compared_backbone_by_backbone(tmp_path):
    """YOLOs with other class labels: the backbones differ by 0.1, which the labels of each share."""
    root = tmp_path / "runs"
    for seed, number in enumerate((0.5, 0.6, 0.7)):
        for label, gain in (("hard", 0.0), ("LS", 0.02 + 0.001 * seed)):
            who = BackboneIdentity(f"CE, {label} labels", "CE" if label == "hard" else "CE+LS", seed, f"{label} {seed}")
            details = {"seed": seed, "backbone_hash": f"weights {seed}"}
            add(root, "detection", who, {"AP": number + gain}, protocol="yolo@1", details=details)
    data = compare_runs(root, tmp_path / "out", "--seed-hours", "1", "--tuning-hours", "0.5")
    found = methods_of(data)["CE, LS labels"]
    one = found["differences"]["AP"]
    assert (one["low"], one["high"]) == pytest.approx(
        tuple(stats.ttest_rel([0.52, 0.621, 0.722], [0.5, 0.6, 0.7]).confidence_interval())
    )
    assert found["verdict"]["word"] == "better"
    assert found["baseline"] == "CE, hard labels"


def test_every_protocol_names_its_own_baseline(tmp_path, capsys):
    root, rng = tmp_path / "runs", np.random.default_rng(0)
    for seed in range(3):
        for name in ("CE", "ALS"):
            add(root, "detection", backbone(name, seed=seed), {"AP": rng.normal(0.5, 0.01)}, protocol="frcnn@1")
            who = BackboneIdentity(f"{name}, hard labels", name, seed, f"{name} hard {seed}")
            add(root, "detection", who, {"AP": rng.normal(0.5, 0.01)}, protocol="yolo@1")
    data = compare_runs(root, tmp_path / "out", "--allow-mixed-protocols")
    pairs = {(method["label"], method["baseline"]) for method in data["methods"]}
    hard = "CE, hard labels"
    assert pairs == {("CE", "CE"), ("ALS", "CE"), (hard, hard), ("ALS, hard labels", hard)}
    said = dict(line[::3] for line in verdict_lines(data))
    assert said["CE (3 seeds, frcnn@1)"] == said[f"{hard} (3 seeds, yolo@1)"] == "baseline"
    assert "from CE, hard labels" in said["ALS, hard labels (3 seeds, yolo@1)"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<li>against the baseline CE and CE, hard labels</li>" in page
    assert "<h2>Differences to CE under frcnn@1</h2>" in page
    assert "<h2>Differences to CE, hard labels under yolo@1</h2>" in page


def test_repeated_fine_tunings_have_a_component(tmp_path):
    """Two fine-tunings of each backbone, at +-0.01 around its number: a variance of 0.0002."""
    root = tmp_path / "runs"
    for label, numbers in {"CE": (0.5, 0.6, 0.5), "ALS": (0.9, 1.0, 0.9)}.items():
        for seed, number in enumerate(numbers):
            who = backbone(label, seed=seed)
            for tuning, shift in enumerate((-0.01, 0.01)):
                place = {"protocol": "det@1", "details": {"seed": tuning}, "folder": f"{label}-{seed}-{tuning}"}
                folder = add(root, "detection", who, {"AP": number + shift}, **place)
                evaluate_coco(TRUTH, [], score_threshold=0.05, matches_path=folder / "matches.npz")
    data = compare_runs(root, tmp_path / "out")
    [entry] = data["variances"]
    assert entry["fine_tuning"] == pytest.approx(0.0002)
    assert [method["made_of"] for method in data["methods"]] == ["3 seeds x 2 fine-tunings"] * 2


def test_the_spread_of_fine_tunings_of_one_backbone_is_told_without_a_second_method(tmp_path, capsys):
    root = tmp_path / "runs"
    for tuning, number in enumerate((0.49, 0.50, 0.51)):
        place = {"protocol": "det@1", "details": {"seed": tuning}, "folder": f"CE-{tuning}"}
        add(root, "detection", backbone("CE"), {"AP": number}, **place)
    data = compare_runs(root, tmp_path / "out")
    [entry] = data["variances"]
    assert entry["fine_tuning"] == pytest.approx(0.0001)
    assert [entry[name] for name in ("seeds", "interaction", "images", "method_images")] == [None] * 4
    said = "Standard deviations of AP of one run: between fine-tunings of one backbone 0.0100."
    assert describe_variances(data) == [said]


def test_without_values_per_image_a_difference_is_planned_from_its_seeds(tmp_path):
    """More seeds than 3 would settle it, which is not the same as a difference that is too small."""
    root = tmp_path / "runs"
    for label, numbers in {"CE": (0.40, 0.45, 0.50), "LS": (0.48, 0.55, 0.53)}.items():
        for seed, number in enumerate(numbers):
            add(root, "detection", backbone(label, seed=seed), {"AP": number}, protocol="det@1")
    data = compare_runs(root, tmp_path / "out")
    assert data["variances"] == []
    verdict = methods_of(data)["LS"]["verdict"]
    parts = components_of_pair(Sample(np.array([0.40, 0.45, 0.50])), Sample(np.array([0.48, 0.55, 0.53])))
    need = what_settles(parts, 0.07, 0.005, 3)
    assert verdict["needs"] == {"seeds": need.seeds, "images": 1, "hours": None}
    assert 3 < need.seeds < 10


def test_several_baselines_are_noted(tmp_path):
    """Two labels of method CE with other seeds, each the baseline of its own: no method has a verdict."""
    root = add_methods(tmp_path / "runs")
    note = "No verdict: the rows are compared with several methods (CE (3 seeds), CE long (2 seeds)); choose one by"
    assert not any(note in text for text in compare_runs(root, tmp_path / "out")["notes"])
    for seed in (7, 8):
        who = backbone("CE long", "CE", seed=seed)
        shutil.copy(
            root / "CE-0-detection-det@1" / "matches.npz", add(root, "detection", who, {"AP": 0.5}, protocol="det@1")
        )
    data = compare_runs(root, tmp_path / "out")
    assert any(note in text for text in data["notes"])
    assert not any(method["verdict"] for method in data["methods"])
    assert any(method["verdict"] for method in compare_runs(root, tmp_path / "out", "--baseline", "CE")["methods"])


def test_methods_without_a_detector_stand_beside_the_others_of_the_one_protocol(tmp_path, capsys):
    """A folder that is half finished: CE and LS have three classifiers each, and CE alone two detectors."""
    root = tmp_path / "runs"
    for label, values in {"CE": (0.80, 0.85, 0.90), "LS": (0.50, 0.51, 0.52)}.items():
        for seed, value in enumerate(values):
            add(root, "backbone", backbone(label, seed=seed), {"top1": value})
    for seed in (0, 1):
        add(root, "detection", backbone("CE", seed=seed), {"AP": 0.5}, protocol="det@1")
    data = compare_runs(root, tmp_path / "out", "--primary", "top1")
    found = methods_of(data)
    assert [(one["label"], one["protocol"], one["runs"]) for one in data["methods"]] == [
        ("CE", "det@1", 3),
        ("LS", "det@1", 3),
    ]
    assert found["CE"]["metrics"]["top1"]["mean"] == pytest.approx(0.85)
    assert (found["CE"]["metrics"]["AP"]["count"], found["LS"]["metrics"]["AP"]["count"]) == (2, 0)
    assert found["LS"]["verdict"]["word"] == "worse"
    assert not any("One seed" in note for note in data["notes"])
    assert "LS" in (tmp_path / "out" / "comparison.tex").read_text()


def test_the_baseline_is_marked_also_if_its_first_seed_failed(tmp_path):
    root = add_methods(tmp_path / "runs")
    for folder in root.glob("CE-0-*"):
        shutil.rmtree(folder)
    failure = {"label": "CE", "seed": 0, "protocol": "", "what": "pretrain", "reason": "error: x", "log": ""}
    (tmp_path / "failures.json").write_text(json.dumps([failure]))
    compare_runs(root, tmp_path / "out", "--failures", str(tmp_path / "failures.json"))
    page = " ".join(re.sub("<[^>]*>", " ", (tmp_path / "out" / "index.html").read_text()).split())
    assert re.search(r"\bCE baseline\b", page)
