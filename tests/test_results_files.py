"""Results files of any detector: read, declared, evaluated, joined with runs, and refused by name."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.coco_scenes import pycocotools_numbers, scene
from helpers.result_folders import DETECTIONS, TRUTH, add, add_detection, backbone, load_tool
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.results import load_results, make_results, save_results
from comparison import compare
from comparison.evidence.verify import verify
from detection.evaluation import evaluate
from detection.evaluation import results_files as results_files_module
from detection.evaluation.evaluators import measure_boxes
from detection.evaluation.foreign import TestSet, read_results
from detection.evaluation.voc import evaluate_voc
from detection.evaluation.voc_results import find_split

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def perturbed(detections, seed, noise=0.2):
    rng = np.random.default_rng(seed)
    return [{**one, "score": one["score"] + float(rng.normal(0, noise))} for one in detections]


def sized(truth):
    """The same ground truth with the names and sizes of images, and names of classes."""
    images = [{**one, "file_name": f"val/im {one['id']}.jpg", "width": 600, "height": 640} for one in truth["images"]]
    categories = [{**one, "name": f"class_{one['id']}"} for one in truth["categories"]]
    return {**truth, "images": images, "categories": categories}


@pytest.fixture
def truth(tmp_path):
    return write(tmp_path / "truth.json", sized(TRUTH))


@pytest.fixture
def tool(tmp_path):
    """Run tools/compare.py; returns the content of comparison.json."""

    def run(*arguments, out="out"):
        command = [*map(str, arguments), "--output-dir", str(tmp_path / out), "--resamples", "30"]
        assert load_tool().main(command) == 0
        return json.loads((tmp_path / out / "comparison.json").read_text())

    return run


def refusal(tool, *arguments, capsys=None):
    """The one line with which the tool refuses its arguments."""
    if capsys is None:
        with pytest.raises(InputError) as refused:
            tool(*arguments)
        text = str(refused.value)
    else:
        with pytest.raises(SystemExit) as stopped:
            tool(*arguments)
        assert stopped.value.code == 2
        text = capsys.readouterr().err.strip()
    assert "\n" not in text
    return text


# ---- results alone ------------------------------------------------------------------------------------------------


def test_results_files_make_a_table_without_any_run(truth, tmp_path, tool):
    results = [f"{name}@{seed}={write(tmp_path / f'{name}{seed}.json', perturbed(DETECTIONS, [n, seed]))}"
               for n, name in enumerate(("CE", "ALS")) for seed in range(3)]  # fmt: skip
    found = tool("--truth", truth, *(text for one in results for text in ("--results", one)))
    assert [(row["label"], row["seed"]) for row in found["rows"]] == [(n, s) for n in ("CE", "ALS") for s in range(3)]
    assert len({row["protocol"] for row in found["rows"]}) == 1
    assert found["baseline"] == "CE"
    theirs = pycocotools_numbers(TRUTH, perturbed(DETECTIONS, [1, 2]))
    for name in PUBLISHED:
        assert found["rows"][5]["metrics"][name] == pytest.approx(theirs[name], abs=1e-9, nan_ok=True)
    assert found["rows"][5]["difference_to_baseline"]["AP"]["low"] is not None
    (verdict,) = [method["verdict"] for method in found["methods"] if method["label"] == "ALS"]
    assert verdict["word"]
    assert "From results files: CE, ALS. How these detectors were trained is not known." in found["notes"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "How these detectors were trained is not known" in page
    results = load_results(tmp_path / "out" / "results" / "ALS-2")
    assert results["details"]["results_file"]["file"] == str(tmp_path / "ALS2.json")
    assert sorted(path.name for path in (tmp_path / "out/results/ALS-2").iterdir()) == [
        "diagnosis.npz", "draws.npz", "influence.npz", "matches.npz", "results.json",
    ]  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_detections_of_two_names_are_identical(truth, tmp_path, tool, seeds):
    given = []
    for seed in range(seeds):
        file = write(tmp_path / f"{seed}.json", perturbed(DETECTIONS, seed))
        again = write(tmp_path / f"again{seed}.json", {"annotations": json.loads(file.read_text())[::-1]})
        given += ["--results", f"A@{seed}={file}", "--results", f"B@{seed}={again}"]
    methods = tool("--truth", truth, *given, "--baseline", "A")["methods"]
    assert [method["verdict"] and method["verdict"]["word"] for method in methods] == [None, "identical"]


@pytest.mark.parametrize("stated", [True, False])
def test_images_that_move_a_difference_are_drawn_from_their_folder(truth, tmp_path, tool, stated):
    tree = json.loads(truth.read_text())
    if not stated:
        tree["images"] = [{"id": one["id"], "file_name": one["file_name"]} for one in tree["images"]]
        write(truth, tree)
    (tmp_path / "images" / "val").mkdir(parents=True)
    for one in tree["images"]:
        Image.new("RGB", (600, 640), (90, 90, 90)).save(tmp_path / "images" / one["file_name"])
    files = []
    for name, kept in (("CE", DETECTIONS[::2]), ("ALS", DETECTIONS)):
        for seed in (0, 1):
            path = write(tmp_path / f"{name}{seed}.json", perturbed(kept, seed, 0.05))
            files += ["--results", f"{name}@{seed}={path}"]
    data = tool("--truth", truth, *files, "--images", tmp_path / "images")
    page = (tmp_path / "out" / "index.html").read_text()
    influence = data["diagnosis"][0]["methods"][1]["influence"]
    shown = [one for side in ("for", "against") for one in influence[side][:3]]
    assert page.count('class="scene"') == 2 * len(shown) > 2
    assert page.count(f'viewBox="0 0 280 {round(280 * 640 / 600)}"') == 2 * len(shown)
    names = {one["id"]: Path(one["file_name"]).name for one in tree["images"]}
    assert all(f"{names[one['image_id']]}: " in page for one in shown)
    assert "<h3>Detection after fine-tuning</h3>" in page
    assert "Attacks" not in page  # nothing is explained that no row has

    tool("--truth", truth, *files, out="none")
    said = f"The images cannot be shown: {truth} names its images but not their folder; give it with --images FOLDER"
    assert (tmp_path / "none" / "index.html").read_text().count(said) == 1
    missing = tmp_path / "images" / tree["images"][0]["file_name"]
    for path in missing.parent.iterdir():
        path.unlink()
    tool("--truth", truth, *files, "--images", tmp_path / "images", out="missing")
    assert re.search(
        r"\.jpg: no such image, though .* names it \(\d+ of \d+ are missing\); correct --images",
        (tmp_path / "missing" / "index.html").read_text(),
    )


def test_a_folder_of_results_files_says_how_to_show_its_images(truth, tmp_path, tool):
    for name, kept in (("CE", DETECTIONS[::2]), ("ALS", DETECTIONS)):
        evaluate(truth, kept, name=name, output_dir=tmp_path / "results")
    tool(tmp_path / "results")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "is of a results file; give the file itself with --truth, --results and --images FOLDER" in page


def test_without_a_baseline_the_page_says_how_to_name_one(truth, tmp_path, tool, capsys):
    files = [write(tmp_path / f"{name}.json", perturbed(DETECTIONS, n)) for n, name in enumerate("AB")]
    found = tool("--truth", truth, "--results", f"A={files[0]}", "--results", f"B={files[1]}")
    assert found["baseline"] is None
    note = "No baseline (a row of method CE) for A, B: no differences shown; name one with --baseline LABEL."
    assert note in found["notes"]
    assert note in " ".join(capsys.readouterr().out.split())


def test_unchanged_inputs_are_not_evaluated_again(truth, tmp_path, tool, monkeypatch):
    file = write(tmp_path / "a.json", DETECTIONS)
    evaluated = []
    real = results_files_module.measure_boxes
    monkeypatch.setattr(results_files_module, "measure_boxes", lambda *a: evaluated.append(1) or real(*a))
    arguments = ["--truth", truth, "--results", f"A={file}"]
    first = tool(*arguments)
    assert tool(*arguments) == first
    assert len(evaluated) == 1
    write(file, DETECTIONS[:-1])
    tool(*arguments)
    assert len(evaluated) == 2
    write(truth, {**sized(TRUTH), "annotations": TRUTH["annotations"][:-1]})
    tool(*arguments)
    assert len(evaluated) == 3
    (tmp_path / "out/results/A-0/matches.npz").write_bytes(b"broken")
    tool(*arguments)
    tool(*arguments, "--form", "voc")
    assert len(evaluated) == 5
    (tmp_path / "out/results/A-0/matches_voc.npz").unlink()
    tool(*arguments, "--form", "voc")
    assert len(evaluated) == 6


def test_a_kill_leaves_no_metrics_of_other_detections(truth, tmp_path, monkeypatch):
    folder = evaluate(truth, DETECTIONS, name="A", output_dir=tmp_path).folder
    matches = (folder / "matches.npz").read_bytes()

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(results_files_module, "save_results", kill)
    with pytest.raises(KeyboardInterrupt):
        evaluate(truth, DETECTIONS[::2], name="A", output_dir=tmp_path)
    assert (folder / "matches.npz").read_bytes() != matches
    assert not (folder / "results.json").exists()


def test_the_folder_states_the_current_file_and_protocol(truth, tmp_path, tool):
    add_voc(tmp_path / "runs", truth, "CE", DETECTIONS[::2])
    folder, file = tmp_path / "out" / "results" / "A-0", write(tmp_path / "a.json", DETECTIONS)
    tool(tmp_path / "runs", "--truth", truth, "--results", f"A={file}")
    assert load_results(folder)["protocol"] == {"name": "voc", "hash": "1"}
    tool("--truth", truth, "--results", f"A={file}", "--form", "voc")
    assert load_results(folder)["protocol"]["name"] == "results-files"
    moved = file.rename(tmp_path / "moved.json")
    tool("--truth", truth, "--results", f"A={moved}", "--form", "voc")
    assert load_results(folder)["details"]["results_file"]["file"] == str(moved)


def test_folders_of_different_names_differ(truth, tmp_path, tool):
    given = []
    for n, name in enumerate(("a/b", "a b", "a_b", "a")):
        given += ["--results", f"{name}={write(tmp_path / f'{n}.json', perturbed(DETECTIONS, n))}"]
    assert len(tool("--truth", truth, *given)["rows"]) == 4
    assert len(list((tmp_path / "out" / "results").iterdir())) == 4


def test_results_of_an_earlier_report_below_the_runs_are_not_rows(truth, tmp_path, tool):
    add_detection(tmp_path / "out", backbone("CE"), 0.8)
    file = write(tmp_path / "a.json", DETECTIONS)
    assert len(tool(tmp_path / "out", "--truth", truth, "--results", f"A={file}")["rows"]) == 2
    assert [row["label"] for row in tool(tmp_path / "out", out="again")["rows"]] == ["CE"]
    assert [row["label"] for row in tool(tmp_path / "out" / "results", out="again")["rows"]] == ["A"]
    alone = tmp_path / "alone"
    tool("--truth", truth, "--results", f"A={file}", out="alone")
    assert "evaluations of results files" in refusal(tool, alone)


# ---- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.json", "'a.json' is not NAME=FILE or NAME@SEED=FILE"),
        ("=a.json", "is not NAME=FILE"),
        ("A=", "is not NAME=FILE"),
        ("A@x=a.json", "the seed 'x' is not a whole number from 0"),
        ("A@1@2=a.json", "the seed '1@2' is not a whole number from 0"),
        ("A@-1=a.json", "the seed '-1'"),
        ("A=none.json", "no such file or folder: none.json; check the path"),
        ("ALS alpha=0.5=a.json", "(the first = ends the name, which cannot hold one)"),
    ],
)
def test_a_mistyped_results_option_is_one_line(truth, tool, capsys, text, message):
    assert message in refusal(tool, "--truth", truth, "--results", text, capsys=capsys)


def test_options_that_need_each_other(truth, tmp_path, tool, capsys):
    file = write(tmp_path / "a.json", DETECTIONS)
    assert refusal(tool, "--results", f"A={file}") == "--results without --truth; give both, or neither"
    runs = add_detection(tmp_path / "runs", backbone("CE"), 0.8)
    assert refusal(tool, runs, "--truth", truth) == "--truth without --results; give both, or neither"
    assert "nothing to compare; give RUN folders, or --truth and --results" in refusal(tool, capsys=capsys)


def test_a_name_and_seed_occurs_once(truth, tmp_path, tool):
    files = [write(tmp_path / f"{n}.json", perturbed(DETECTIONS, n)) for n in range(2)]
    text = refusal(tool, "--truth", truth, "--results", f"A={files[0]}", "--results", f"A@0={files[1]}")
    assert text == f"--results A@0={files[0]} and A@0={files[1]} have one name and seed; write NAME@SEED=FILE"
    text = refusal(tool, "--truth", truth, "--results", f"A={files[0]}", "--results", f"A@1={files[0]}")
    assert "hold the same detections, which are not two seeds" in text


# ---- ids and boxes ------------------------------------------------------------------------------------------------


def named(detections, image=lambda key: key, category=lambda key: key, box=lambda box: box):
    return [
        {**one, "image_id": image(one["image_id"]), "category_id": category(one["category_id"]),
         "bbox": box(one["bbox"])}
        for one in detections
    ]  # fmt: skip


OTHER_FORMS = {
    "file_name": ({"image": lambda key: f"val/im {key}.jpg"}, {"image_by": "file_name"}),
    "stem": ({"image": lambda key: f"im {key}"}, {"image_by": "stem"}),
    "name": ({"category": lambda key: f"class_{key}"}, {"category_by": "name"}),
    "index": ({"category": lambda key: (key - 2) // 3}, {"category_by": "index"}),
    "xyxy": ({"box": lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]}, {"box_form": "xyxy"}),
    "cxcywh": ({"box": lambda b: [b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]]}, {"box_form": "cxcywh"}),
    "xywh-relative": (
        {"box": lambda b: [b[0] / 600, b[1] / 640, b[2] / 600, b[3] / 640]}, {"box_form": "xywh-relative"},
    ),
    "xyxy-relative": (
        {"box": lambda b: [b[0] / 600, b[1] / 640, (b[0] + b[2]) / 600, (b[1] + b[3]) / 640]},
        {"box_form": "xyxy-relative"},
    ),
    "all": (
        {"image": lambda key: f"im {key}", "category": lambda key: f"class_{key}",
         "box": lambda b: [b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]]},
        {"image_by": "stem", "category_by": "name", "box_form": "cxcywh"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_FORMS)
def test_declared_ids_and_boxes_give_the_same_numbers(truth, tmp_path, case):
    how, declared = OTHER_FORMS[case]
    plain = evaluate(truth, DETECTIONS, name="A", output_dir=tmp_path / "plain")
    other = evaluate(truth, named(DETECTIONS, **how), name="A", output_dir=tmp_path / "other", **declared)
    assert other.metrics == pytest.approx(plain.metrics, abs=1e-12, nan_ok=True)
    assert (plain.metrics["AP"] or 0) > 0.05


def test_the_tool_takes_the_declarations(truth, tmp_path, tool):
    how, _ = OTHER_FORMS["all"]
    file = write(tmp_path / "a.json", named(DETECTIONS, **how))
    declared = ("--image-by", "stem", "--category-by", "name", "--box-form", "cxcywh")
    row = tool("--truth", truth, "--results", f"A={file}", *declared)["rows"][0]
    assert row["metrics"]["AP"] == pytest.approx(pycocotools_numbers(TRUTH, DETECTIONS)["AP"], abs=1e-9)


@pytest.mark.parametrize(
    ("case", "hint"),
    [
        ("file_name", "all detections fit with --image-by file_name (ground truth: "),
        ("stem", "all detections fit with --image-by stem (ground truth: "),
        ("name", "all detections fit with --category-by name (ground truth: "),
        ("index", "all detections fit with --category-by index (ground truth: "),
        ("all", "all detections fit with --image-by stem --category-by name (ground truth: "),
        ("xywh-relative", "they are relative to the image; declare --box-form xywh-relative, xyxy-relative or"),
    ],
)
def test_an_undeclared_form_is_refused_with_its_declaration(truth, tmp_path, tool, case, hint):
    file = write(tmp_path / "a.json", named(DETECTIONS, **OTHER_FORMS[case][0]))
    text = refusal(tool, "--truth", truth, "--results", f"A={file}")
    assert text.startswith(f"{file}: ")
    assert hint in text


def test_only_the_ids_that_do_not_fit_have_a_hint(truth, tmp_path, tool):
    """The category ids fit as they are, and would fit as positions, too."""
    found = named([one for one in DETECTIONS if one["category_id"] == 2], image=lambda key: f"im {key}")
    text = refusal(tool, "--truth", truth, "--results", f"A={write(tmp_path / 'a.json', found)}")
    assert "all detections fit with --image-by stem (ground truth" in text


def test_undeclared_corners_are_refused(tmp_path, tool):
    small = sized(TRUTH)
    small["images"] = [{**one, "width": 400, "height": 400} for one in small["images"]]
    inside = [one for one in DETECTIONS if max(np.add(one["bbox"][:2], one["bbox"][2:])) <= 400]
    file = write(tmp_path / "a.json", named(inside, **OTHER_FORMS["xyxy"][0]))
    text = refusal(tool, "--truth", write(tmp_path / "truth.json", small), "--results", f"A={file}")
    assert text == (
        f"{file}: with --box-form xywh, most boxes leave their images, and they fit as two corners; "
        "declare --box-form xyxy"
    )


def test_a_wrong_declaration_is_refused(truth, tmp_path, tool):
    file = write(tmp_path / "a.json", DETECTIONS)
    text = refusal(tool, "--truth", truth, "--results", f"A={file}", "--image-by", "stem")
    first = DETECTIONS[0]["image_id"]
    assert f"{file}: detection 0: image_id is {first}, which no stem equals" in text
    assert "all detections fit with --image-by id" in text
    text = refusal(tool, "--truth", truth, "--results", f"A={file}", "--box-form", "xyxy")
    assert "with --box-form xyxy, most boxes have a negative width or height" in text
    with pytest.raises(InputError, match="unknown box_form 'xywy'; did you mean"):
        evaluate(truth, DETECTIONS, name="A", output_dir=tmp_path, box_form="xywy")


def test_relative_boxes_need_the_sizes_of_images(tmp_path):
    how, declared = OTHER_FORMS["xywh-relative"]
    unsized = {**TRUTH, "images": [{"id": one["id"]} for one in TRUTH["images"]]}
    with pytest.raises(InputError, match="an image without width and height, which relative boxes need"):
        evaluate(unsized, named(DETECTIONS, **how), name="A", output_dir=tmp_path, **declared)


def test_images_of_one_name_cannot_be_told_apart(tmp_path):
    twice = sized(TRUTH)
    twice["images"][1]["file_name"] = "other/" + Path(twice["images"][0]["file_name"]).name
    found = named(DETECTIONS, image=lambda key: f"im {key}")
    with pytest.raises(InputError, match=r"have the same name 'im 100', by which results tell them apart"):
        evaluate(twice, found, name="A", output_dir=tmp_path, image_by="stem")


# ---- beside runs --------------------------------------------------------------------------------------------------


def test_results_join_the_runs_of_the_same_truth(truth, tmp_path, tool):
    """Under their protocol and score threshold, 0.05, below which these scores have some detections."""
    runs = tmp_path / "runs"
    add_detection(runs, backbone("CE"), 0.8)
    add_detection(runs, backbone("LS"), 1.0)
    file = write(tmp_path / "a.json", DETECTIONS)
    low = write(tmp_path / "b.json", [{**one, "score": one["score"] / 20} for one in DETECTIONS])
    found = tool(runs, "--truth", truth, "--results", f"A={file}", "--results", f"B={low}")
    rows = {row["label"]: row for row in found["rows"]}
    assert {row["protocol"] for row in rows.values()} == {"det@1"}
    assert {row["baseline"] for row in rows.values()} == {"CE"}
    assert rows["A"]["metrics"] == rows["LS"]["metrics"]
    assert rows["A"]["difference_to_baseline"]["AP"] == rows["LS"]["difference_to_baseline"]["AP"]
    assert rows["B"]["metrics"]["AP"] == 0
    said = "AP counts their scores above 0.05, as those of the runs."
    assert any("From results files: A, B." in note and said in note for note in found["notes"])


def add_voc(root, truth, label, detections, protocol="voc@1"):
    """Add results of a run on a VOC test set, with all scores counted."""
    test = TestSet(truth)
    name, digest = protocol.split("@")
    found = measure_boxes(test.truth, read_results(detections, test), "voc", 0.0, root / label / "matches.npz")
    who = backbone(label)
    results = make_results("detection", who, {"name": name, "hash": digest}, found.metrics, details=found.details)
    save_results(root / label, results)


def test_results_beside_runs_on_voc_have_vocs_numbers(truth, tmp_path, tool):
    add_voc(tmp_path / "runs", truth, "CE", DETECTIONS[::2])
    file = write(tmp_path / "a.json", DETECTIONS)
    rows = tool(tmp_path / "runs", "--truth", truth, "--results", f"A={file}")["rows"]
    expected = evaluate_voc(TRUTH, DETECTIONS)["metrics"]
    assert {name: rows[1]["metrics"][name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert rows[1]["protocol"] == "voc@1"


def test_results_join_the_one_protocol_of_their_truth(truth, tmp_path, tool):
    runs, other = tmp_path / "runs", scene(4, images=6)
    add_voc(runs, truth, "CE", DETECTIONS[::2])
    add_voc(runs, sized(other[0]), "LS", other[1], "elsewhere@1")
    given = ["--truth", truth, "--results", f"A={write(tmp_path / 'a.json', DETECTIONS)}", "--allow-mixed-protocols"]
    rows = {row["label"]: row for row in tool(runs, *given)["rows"]}
    assert rows["A"]["protocol"] == rows["CE"]["protocol"] == "voc@1"
    add_voc(runs, truth, "ALS", DETECTIONS[::3], "again@1")
    assert "the runs have several protocols, again@1, voc@1; give runs of one of them" in refusal(tool, runs, *given)


OTHER_TRUTHS = {
    "images": (lambda t: {**t, "images": [*t["images"], {**t["images"][0], "id": 1}]},
               "1 images are in only one of both, such as id 1"),
    "classes": (lambda t: {**t, "categories": [*t["categories"], {"id": 77, "name": "z"}]},
                "1 classes are in only one of both, such as id 77"),
    "objects": (lambda t: {**t, "annotations": t["annotations"][:-1]}, "objects, not"),
    "class": (lambda t: {**t, "annotations": [{**t["annotations"][0], "category_id": (t["annotations"][0][
        "category_id"] + 1) % 9 + 2}, *t["annotations"][1:]]}, "objects of another image, class or size"),
    "crowd": (lambda t: {**t, "annotations": [{**one, "iscrowd": 0} for one in t["annotations"]]},
              "objects of another image, class or size"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_TRUTHS)
def test_results_of_another_truth_are_refused_beside_runs(tmp_path, tool, case):
    change, said = OTHER_TRUTHS[case]
    run = add_detection(tmp_path / "runs", backbone("CE"), 0.8)
    other = write(tmp_path / "other.json", change(sized(TRUTH)))
    file = write(tmp_path / "a.json", DETECTIONS)
    text = refusal(tool, tmp_path / "runs", "--truth", other, "--results", f"A={file}")
    assert text.startswith(f"--results A={file}: their ground truth {other} is not that of the run {run}: ")
    assert said in text
    assert text.endswith("; give the truth of that test set, or leave the runs out")


def test_results_of_other_images_are_refused(truth, tmp_path, tool):
    file = write(tmp_path / "a.json", scene(5, images=30)[1])
    text = refusal(tool, "--truth", truth, "--results", f"A={file}")
    assert re.fullmatch(
        rf"{file}: detection \d+: image_id \d+ is not in the ground truth; use one json for both "
        rf"\(ground truth: {truth}\)", text,
    )  # fmt: skip


def test_a_name_of_a_run_is_refused(truth, tmp_path, tool):
    add_detection(tmp_path / "runs", backbone("CE"), 0.8)
    file = write(tmp_path / "a.json", DETECTIONS)
    text = refusal(tool, tmp_path / "runs", "--truth", truth, "--results", f"CE@7={file}")
    assert text.endswith("has this name; give the results file another")


def test_runs_without_a_detector_leave_the_results_their_own_protocol(truth, tmp_path, tool):
    add(tmp_path / "runs", "pretraining", backbone("CE"), {"top1": 0.5})
    file = write(tmp_path / "a.json", DETECTIONS)
    rows = tool(tmp_path / "runs", "--truth", truth, "--results", f"A={file}")["rows"]
    assert [row["label"] for row in rows if row["protocol"]] == ["A"]


def test_results_of_two_truths_are_not_compared(tmp_path):
    other = {**TRUTH, "annotations": TRUTH["annotations"][:-1]}
    folders = [evaluate(t, DETECTIONS, name=n, output_dir=tmp_path).folder for n, t in (("A", TRUTH), ("B", other))]
    with pytest.raises(InputError, match=r"rows under two detection protocols.*which differ in test.fingerprint"):
        compare(folders, tmp_path / "out")


# ---- VOC's competition files --------------------------------------------------------------------------------------


def comp4(folder, detections, split="test", names=lambda key: f"class_{key}"):
    """Write detections as comp4 files at full precision."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {}
    for one in detections:
        x, y, w, h = one["bbox"]
        line = f"im {one['image_id']} {one['score']!r} {x + 1!r} {y + 1!r} {x + w!r} {y + h!r}"
        lines.setdefault(names(one["category_id"]), []).append(line)
    for name, some in lines.items():
        (folder / f"comp4_det_{split}_{name}.txt").write_text("\n".join(some))
    return folder


def test_comp4_files_imply_vocs_numbers(truth, tmp_path, tool):
    folder = comp4(tmp_path / "comp4", DETECTIONS)
    file = write(tmp_path / "b.json", DETECTIONS)
    rows = tool("--truth", truth, "--results", f"A={folder}", "--results", f"B={file}")["rows"]
    expected = evaluate_voc(TRUTH, DETECTIONS)["metrics"]
    for row in rows:
        assert {name: row["metrics"][name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert rows[0]["metrics"] == pytest.approx(rows[1]["metrics"], abs=1e-12)
    assert tool("--truth", truth, "--results", f"B={file}", out="coco")["rows"][0]["metrics"]["VOC_mAP50"] is None


def test_the_class_of_a_comp4_file_is_the_longest_that_fits(tmp_path):
    for name in ("table", "dining_table", "x_table"):
        (tmp_path / f"comp4_det_my_split_{name}.txt").write_text("")
    assert find_split(tmp_path, ["table", "dining_table", "x_table"]) == "my_split"


def test_wrong_comp4_folders_are_refused(truth, tmp_path, tool):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty}: no comp4 file; give" in refusal(tool, "--truth", truth, "--results", f"A={empty}")
    folder = comp4(tmp_path / "two", DETECTIONS)
    comp4(folder, DETECTIONS, "val")
    text = refusal(tool, "--truth", truth, "--results", f"A={folder}")
    assert f"{folder}: comp4 files of several splits (test, val); give" in text
    folder = comp4(tmp_path / "zebra", DETECTIONS)
    (folder / "comp4_det_test_zebra.txt").write_text("")
    assert "has no class by which this name ends" in refusal(tool, "--truth", truth, "--results", f"A={folder}")


# ---- real files ---------------------------------------------------------------------------------------------------

REAL = {
    "official_val2014_100": (
        "annotations/instances_val2014_100.json", "results/instances_val2014_fakebbox100_results.json", "official_bbox",
    ),
    "sampled_bbox_area": ("sampled_gts_bbox_area.json", "sampled_bbox_results.json", "ours"),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_published_results_give_the_published_numbers(shared_data, tool, name):
    folder = shared_data / "coco-eval-parity" / name
    truth, results, key = REAL[name]
    (row,) = tool("--truth", folder / truth, "--results", f"A={folder / results}")["rows"]
    expected = json.loads((folder / "expected_metrics.json").read_text())[key]
    published = [expected[k] for k in expected if k != "per_category_AP"]
    assert [row["metrics"][n] for n in PUBLISHED] == pytest.approx(published, abs=1e-9)


def test_results_of_another_real_truth_are_refused(shared_data, tool):
    folder, other = shared_data / "coco-eval-parity" / "official_val2014_100", shared_data / "voc2012-100"
    results = folder / REAL["official_val2014_100"][1]
    text = refusal(tool, "--truth", other / "derived_coco_json" / "instances.json", "--results", f"A={results}")
    assert text.startswith(f"{results}: detection ")
    assert text.endswith(f"(ground truth: {other / 'derived_coco_json' / 'instances.json'})")


def read_comp4(folder, truth):
    """The detections of comp4 files by their definition, as COCO results."""
    images = {Path(image["file_name"]).stem: image["id"] for image in truth["images"]}
    classes = {category["name"]: category["id"] for category in truth["categories"]}
    found = []
    for path in sorted(folder.glob("comp4_det_*.txt")):
        for line in path.read_text().split("\n"):
            if line:
                image, score, *corners = line.split()
                left, top, right, bottom = map(float, corners)
                box = [left - 1, top - 1, right - (left - 1), bottom - (top - 1)]
                category = classes[path.stem.rpartition("_")[2]]
                found.append({"image_id": images[image], "category_id": category, "bbox": box, "score": float(score)})
    return found


def test_real_comp4_files_and_their_json_give_the_same_numbers_intervals_and_verdict(shared_data, tmp_path, tool):
    folder = shared_data / "voc2012-100"
    truth, files = folder / "derived_coco_json" / "instances.json", folder / "VOCdevkit/results/VOC2012/Main"
    plain = read_comp4(files, json.loads(truth.read_text()))
    assert len(plain) == 324
    names = {one["id"]: one["name"] for one in json.loads(truth.read_text())["categories"]}
    stems = {one["id"]: Path(one["file_name"]).stem for one in json.loads(truth.read_text())["images"]}
    found = {}
    for form in ("json", "comp4"):
        given = ["--results", f"A@0={files if form == 'comp4' else write(tmp_path / 'A0.json', plain)}"]
        for name, seed in (("A", 1), ("A", 2), ("B", 0), ("B", 1), ("B", 2)):
            other = perturbed(plain, [seed, ord(name)], 0.1 if name == "A" else 1.0)
            if form == "json":
                place = write(tmp_path / f"{name}{seed}.json", other)
            else:
                place = tmp_path / f"{name}{seed}"
                place.mkdir()
                for one in other:
                    x, y, w, h = one["bbox"]
                    line = f"{stems[one['image_id']]} {one['score']!r} {x + 1} {y + 1} {x + w} {y + h}\n"
                    with (place / f"comp4_det_trainval_{names[one['category_id']]}.txt").open("a") as file:
                        file.write(line)
            given += ["--results", f"{name}@{seed}={place}"]
        found[form] = tool("--truth", truth, *given, "--baseline", "A", "--form", "voc", out=form)
    for rows in zip(found["json"]["rows"], found["comp4"]["rows"], strict=True):
        one, other = ({**row, "stages": None} for row in rows)
        assert one == other
    assert found["json"]["methods"] == found["comp4"]["methods"]
    first = found["comp4"]["rows"][0]
    assert round(first["metrics"]["VOC_mAP50"], 4) == 0.6018
    assert round(first["metrics"]["VOC_mAP75_11"], 4) == 0.3573
    assert {*PUBLISHED, "VOC_mAP50", "VOC_mAP50_11"} <= first["intervals"].keys()
    assert found["comp4"]["methods"][1]["verdict"]["word"]


def test_a_truth_in_vocs_layout_needs_no_json(shared_data, tmp_path, tool):
    folder = shared_data / "voc2012-100" / "VOCdevkit"
    given = ["--results", f"A={folder / 'results' / 'VOC2012' / 'Main'}"]
    (row,) = tool("--truth", f"voc:{folder / 'VOC2012'}:trainval", *given)["rows"]
    json_truth = shared_data / "voc2012-100" / "derived_coco_json" / "instances.json"
    assert row["metrics"] == tool("--truth", json_truth, *given, out="json")["rows"][0]["metrics"]
    assert "no split file" in refusal(tool, "--truth", f"voc:{folder / 'VOC2012'}:nothing", *given)


def test_a_second_file_gives_the_same_verdict_in_both_box_forms(shared_data, tmp_path, tool):
    folder = shared_data / "coco-eval-parity" / "official_val2014_100"
    truth, results, _ = REAL["official_val2014_100"]
    plain = json.loads((folder / results).read_text())
    words = []
    for form in ("xywh", "xyxy"):
        given = []
        for name, share in (("A", 1), ("B", 2)):
            for seed in range(3):
                found = perturbed(plain[::share], [seed, ord(name)])
                if form == "xyxy":
                    found = named(found, box=lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
                given += ["--results", f"{name}@{seed}={write(tmp_path / form / f'{name}{seed}.json', found)}"]
        methods = tool("--truth", folder / truth, *given, "--baseline", "A", "--box-form", form)["methods"]
        words.append(methods[1]["verdict"]["word"])
    assert words == ["worse", "worse"]


def test_files_that_go_wrong_are_one_line(shared_cases, tmp_path, tool):
    """Ground truths of which each has another error, with one good results file."""
    good = json.loads((shared_cases / "00-good" / "ann.json").read_text())
    results = [{key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
               for one in good["annotations"]]  # fmt: skip
    file = write(tmp_path / "a.json", results)
    row = tool("--truth", shared_cases / "00-good" / "ann.json", "--results", f"A={file}")["rows"][0]
    assert row["metrics"]["AP"] == 1
    normal = json.loads((shared_cases / "22f-normalised" / "ann.json").read_text())
    small = [{key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
             for one in normal["annotations"]]  # fmt: skip
    text = refusal(
        tool, "--truth", shared_cases / "00-good" / "ann.json", "--results", f"A={write(tmp_path / 'b.json', small)}"
    )
    assert "declare --box-form xywh-relative" in text
    text = refusal(tool, "--truth", shared_cases / "22f-normalised" / "ann.json", "--results", f"A={file}")
    assert "boxes below one pixel, as with coordinates in 0..1: annotations[0]: bbox" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot read"),
        ("{}", "not a list of detections"),
        ("[1]", "[0] is 1, not an object with keys"),
        ('[{"image_id": 100, "category_id": 2, "bbox": [1, 2, 3], "score": 1}]', "'bbox' must be 4 finite numbers"),
        ('[{"image_id": 100, "category_id": 2, "bbox": [1, 2, 3, 4]}]', "'score' must be a finite number, is missing"),
        ('[{"image_id": 100, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]', "category_id 3 is not in"),
    ],
)
@pytest.mark.parametrize("declared", [(), ("--image-by", "id", "--category-by", "index")])
def test_broken_results_are_one_line(truth, tmp_path, tool, content, said, declared):
    file = tmp_path / "a.json"
    file.write_text(content)
    text = refusal(tool, "--truth", truth, "--results", f"A={file}", *declared)
    assert str(file) in text
    assert said in text or (declared and "which no index equals" in text)


# ---- as a library -------------------------------------------------------------------------------------------------


def test_the_documented_example_runs(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "results_files.md").read_text()
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "import compare" in code]
    write(tmp_path / "annotations.json", TRUTH)
    write(tmp_path / "ce.json", perturbed(DETECTIONS, 0, 1.0))
    write(tmp_path / "als.json", DETECTIONS)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    difference, interval = capsys.readouterr().out.splitlines()
    assert float(difference) > 0
    assert "'low'" in interval
    assert (tmp_path / "report" / "index.html").is_file()


def test_the_evidence_of_results_files_can_be_verified(truth, tmp_path, tool):
    files = [write(tmp_path / f"{name}.json", perturbed(DETECTIONS, n)) for n, name in enumerate("AB")]
    bundle = tmp_path / "evidence.zip"
    given = ["--results", f"A={files[0]}", "--results", f"B={files[1]}", "--baseline", "A", "--bundle", bundle]
    tool("--truth", truth, *given, "--form", "voc")
    found = verify(bundle)
    assert found.problems == ()
    assert found.numbers > 50
