"""What a fine-tuning leaves for other evaluators: its test set's ground truth, once, and comp4 files on request."""

import json

import pytest
from helpers.detection_files import save_image, write_coco, write_voc
from helpers.finetuning import arguments, write_backbone
from helpers.killing import ROOT

from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import load_data
from detection.drawing.results import load_results_file
from detection.evaluation import evaluate
from detection.evaluation.declared import Declared
from detection.evaluation.foreign import TestSet, read_results
from detection.evaluation.voc_results import load_comp4, save_comp4
from detection.exchange.detections import TRUTH_FILE, save_truth, save_truth_once
from suites.loading import load_suite
from suites.plan import build_plan
from suites.stages import Finetune


@pytest.fixture(scope="module")
def truths(tmp_path_factory):
    return tmp_path_factory.mktemp("truths")


@pytest.fixture(scope="module")
def run(small_scenes, tmp_path_factory, load_tool, truths):
    """A tiny fine-tuning, which shares the folder of ground truths."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    backbone = write_backbone(folder.parent / "backbone.pth")
    flags = ["--truth-dir", truths]
    load_tool("finetune_coco").main(
        arguments(small_scenes, folder, "SOLVER.MAX_ITER", 3, backbone=backbone, flags=flags)
    )
    return folder


@pytest.fixture(scope="module")
def export(load_tool):
    def call(run, out, *flags):
        assert load_tool("export_detections").main([str(run), "--output-dir", str(out), *map(str, flags)]) == 0
        return out

    return call


def test_a_run_writes_the_truth_once(run, truths):
    """The file is that of the fingerprint, so that another run on the same data finds it."""
    fingerprint = load_results(run)["data"]["test"]["fingerprint"]
    (file,) = truths.iterdir()
    assert file.name == f"scenes_val-{fingerprint}.json"
    assert not (run / TRUTH_FILE).exists()


def test_the_fine_tunings_of_a_suite_share_one_folder_of_truths(tmp_path):
    """It is an option, which enters no hash: the stages of a suite in two folders have the same hashes."""
    suite = load_suite(ROOT / "configs" / "suites" / "quick.yaml")
    plans = [build_plan(suite, tmp_path / name, without_data=True) for name in ("a", "b")]
    for plan in plans:
        commands = [stage.command for stage in plan.stages if isinstance(stage, Finetune)]
        assert len(commands) > 1
        assert {one[one.index("--truth-dir") + 1] for one in commands} == {str(plan.output / "ground_truth")}
    assert [stage.hash for stage in plans[0].stages] == [stage.hash for stage in plans[1].stages]


def test_the_truth_and_the_predictions_give_the_runs_numbers(run, truths, tmp_path, export):
    (shared,) = truths.iterdir()
    own = export(run, tmp_path / "out") / TRUTH_FILE
    assert own.read_text() == shared.read_text()
    assert [path.name for path in own.parent.iterdir()] == [TRUTH_FILE]
    found = evaluate(own, run / "predictions.json", name="A", output_dir=tmp_path / "results")
    assert found.metrics["AR100"] is not None
    results = load_results(run)
    cut = json.loads((run / "predictions.json").read_text())
    above = [one for one in cut if one["score"] > 0.05]  # the run's score threshold of AP, which AR does not have
    for metrics, names in (
        (found.metrics, ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")),
        (evaluate(own, above, name="B", output_dir=tmp_path / "results").metrics, ("AP", "AP50", "AP75", "APs")),
    ):
        for name in names:
            assert metrics[name] == pytest.approx(results["metrics"][name], abs=1e-12)


def test_the_predictions_join_the_table_of_their_run(run, tmp_path, export, load_tool):
    truth = export(run, tmp_path / "out") / TRUTH_FILE
    given = ["--truth", truth, "--results", f"again={run / 'predictions.json'}", "--output-dir", tmp_path / "report"]
    load_tool("compare").main([str(run), *map(str, given), "--baseline", "made up", "--resamples", "20"])
    rows = json.loads((tmp_path / "report" / "comparison.json").read_text())["rows"]
    assert rows[0]["protocol"] == rows[1]["protocol"]
    assert rows[0]["metrics"] == rows[1]["metrics"]
    methods = json.loads((tmp_path / "report" / "comparison.json").read_text())["methods"]
    assert "identical" in [method["verdict"]["word"] for method in methods if method["verdict"]]


def test_comp4_files_hold_the_predictions(run, tmp_path, export):
    out = export(run, tmp_path / "out", "--comp4", "--split", "val")
    truth = json.loads((out / TRUTH_FILE).read_text())
    files = sorted(path.name for path in out.glob("comp4_*"))
    assert files == sorted(f"comp4_det_val_{one['name']}.txt" for one in truth["categories"])
    found = load_comp4(out, "val", truth)
    predictions = json.loads((run / "predictions.json").read_text())
    assert len(found) == len(predictions) > 0

    def key(one):
        return one["category_id"], one["image_id"], -one["score"], one["bbox"]

    for one, other in zip(sorted(found, key=key), sorted(predictions, key=key), strict=True):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-9)
        assert one | {"bbox": 0} == other | {"bbox": 0}


def test_the_truth_of_voc_states_its_form(shared_data, tmp_path):
    folder = shared_data / "voc2012-100"
    data = load_data([f"voc:{folder / 'VOCdevkit' / 'VOC2012'}:trainval"], "", WarningCounter())
    path = save_truth_once(data, tmp_path)
    assert save_truth_once(data, tmp_path) == path
    detections = load_comp4(folder / "VOCdevkit/results/VOC2012/Main", "trainval", data.to_coco())
    found = evaluate(path, detections, name="A", output_dir=tmp_path / "results")
    assert round(found.metrics["VOC_mAP50"] or 0, 4) == 0.6018


def check_folders(name, folder, files, tmp_path):
    """The exported truth of a data set names its images by these files, and so finds images and detections again."""
    data = load_data([name], "", WarningCounter())
    save_truth(data, tmp_path / "truth.json")
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert [image["file_name"] for image in truth["images"]] == files
    boxes = [{key: one[key] for key in ("image_id", "category_id", "bbox")} for one in truth["annotations"]]
    found = [{**box, "score": 0.9} for box in boxes]
    shown = load_results_file(tmp_path / "truth.json", save(tmp_path / "found.json", found), folder, Declared())
    assert [path for path, _, _ in shown.images] == [folder / file for file in files]
    assert all(path.is_file() for path, _, _ in shown.images)
    save_comp4(tmp_path / "comp4", "val", found, truth)
    assert [one["image_id"] for one in load_comp4(tmp_path / "comp4", "val", truth)] == [
        one["image_id"] for one in sorted(found, key=lambda one: one["category_id"])
    ]
    named = [{**one, "image_id": files[one["image_id"] - 1]} for one in found]
    by_name = read_results(named, TestSet(truth), Declared(image_by="file_name"))
    assert by_name.image.tolist() == [one["image_id"] - 1 for one in found]


def save(path, tree):
    path.write_text(json.dumps(tree))
    return path


def test_the_truth_keeps_the_folders_of_images(tmp_path):
    """Without them, images of equal names in several folders could not be told apart."""
    files = ["cam1/0001.jpg", "cam2/0001.jpg", "cam2/deep/0001.jpg"]

    def rename(tree):
        for image, file in zip(tree["images"], files, strict=True):
            save_image(tmp_path / "images" / file)
            image["file_name"] = file

    check_folders(write_coco(tmp_path, rename), tmp_path / "images", files, tmp_path)


def test_the_truth_keeps_the_folders_of_a_split(tmp_path):
    stems = ("cam1/0001", "cam2/0001", "b")
    for stem in stems:
        (tmp_path / "voc" / "Annotations" / stem).parent.mkdir(parents=True, exist_ok=True)
    name = write_voc(tmp_path / "voc", stems=stems)
    check_folders(name, tmp_path / "voc" / "JPEGImages", [f"{stem}.jpg" for stem in stems], tmp_path)


def test_an_image_outside_the_folder_of_images_is_named_without_a_folder(tmp_path):
    elsewhere = tmp_path / "elsewhere" / "a.jpg"
    save_image(elsewhere)
    name = write_coco(tmp_path / "data", lambda tree: tree["images"][0].update(file_name=str(elsewhere)))
    images = load_data([name], "", WarningCounter()).to_coco()["images"]
    assert [image["file_name"] for image in images] == ["a.jpg", "p2.jpg", "p3.jpg"]


def test_what_cannot_be_exported_is_refused(run, small_scenes, tmp_path, load_tool):
    def refuse(folder, *flags):
        with pytest.raises(InputError) as refused:
            load_tool("export_detections").main([str(folder), "--output-dir", str(tmp_path / "out"), *flags])
        return str(refused.value)

    assert "no such file" in refuse(tmp_path / "nothing")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("results.json", "predictions.json", "config.yaml"):
        (copy / name).write_bytes((run / name).read_bytes())
    results = json.loads((copy / "results.json").read_text())
    results["data"]["test"]["fingerprint"] = "0123456789ab"
    (copy / "results.json").write_text(json.dumps(results))
    assert "was tested on data of the fingerprint 0123456789ab" in refuse(copy)
    (copy / "results.json").write_text(json.dumps({**results, "files": {}}))
    assert "not a fine-tuning with predictions" in refuse(copy)
    assert not (tmp_path / "out").exists()


def test_a_class_that_cannot_name_a_file_is_refused(tmp_path):
    truth = {"images": [], "categories": [{"id": 1, "name": "a/b"}]}
    with pytest.raises(InputError, match="class 'a/b': a / cannot be part of a file name"):
        save_comp4(tmp_path, "test", [], truth)
