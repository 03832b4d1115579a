"""Evaluations of other sets beside a run's own results, and data sets that go by their content, wherever they lie."""

import json
import shutil

import pytest
from helpers.finetuning import arguments, write_backbone
from helpers.yolo_tiny import arguments as yolo_arguments
from helpers.yolo_tiny import write_data

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.models.weights import NEW_NORMS
from detection import config
from detection.config import protocol_hash
from detection.engines.yolo import config as yolo_config
from detection.training.resuming import TEST_DATA

OWN = {"config.yaml", "environment.json", "log.txt", "results.json", "predictions.json", "matches.npz", "loading.json"}
SHORT = ["SOLVER.MAX_ITER", 3, "SOLVER.WARMUP_ITERS", 0]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Detector:
    """A finished run of three iterations by one of the tools; `call` adds arguments to its command."""

    def __init__(self, tool, command, data, run, train, test, other, own):
        self.main, self.command, self.data, self.run, self.own = tool.main, command, data, run, own
        self.train, self.test, self.other = train, test, other

    def call(self, *overrides, flags=("--eval-only",), data=None, run=None):
        argv = self.command(data or self.data, run or self.run, *self.own, *SHORT, *overrides, flags=list(flags))
        return self.main(argv)

    def explicit(self, data):
        """DATASETS.TRAIN and DATASETS.TEST by their paths below the folder `data`."""
        names = [self.train.format(data), self.test.format(data)]
        return ["DATASETS.TRAIN", json.dumps(names[:1]), "DATASETS.TEST", json.dumps(names[1:])]


@pytest.fixture(scope="module")
def made(small_scenes, tmp_path_factory, load_tool):
    """Of each tool: a run whose data sets are named by their paths."""
    folder = tmp_path_factory.mktemp("detectors")
    scenes = folder / "scenes"
    shutil.copytree(small_scenes / "detection", scenes)
    coco = "coco:{0}/annotations/instances_%s.json:{0}/%s"
    voc = write_data(folder / "voc")
    backbone = write_backbone(folder / "backbone.pth")
    found = {
        "coco": Detector(
            load_tool("finetune_coco"),
            lambda data, run, *own, flags: arguments(data, run, *own, backbone=backbone, flags=flags),
            scenes, folder / "coco-run", coco % ("train", "train"), coco % ("val", "val"), "instances_train", [],
        ),
        "voc": Detector(
            load_tool("finetune_voc"),
            lambda data, run, *own, flags: yolo_arguments(data, run, *own, backbone=backbone, flags=flags),
            voc / "scenes-voc", folder / "voc-run", "voc:{0}:train", "voc:{0}:val", "scenes-voc_train",
            ["CLASS_LABELS.NAME", "OLS"],
        ),
    }  # fmt: skip
    for one in found.values():
        one.own = [*one.own, *one.explicit(one.data)]
        one.call(flags=())
    return found


@pytest.fixture(params=["coco", "voc"])
def detector(request, made):
    return made[request.param]


def test_another_set_goes_to_a_folder_of_its_own(detector, capsys):
    before = contents(detector.run)
    on_training = ["DATASETS.TEST", json.dumps([detector.train.format(detector.data)])]
    detector.call(*on_training)
    folder = detector.run / f"evaluation-{detector.other}"
    assert f"results in {folder / 'results.json'}" in capsys.readouterr().out
    after = contents(detector.run)
    assert {path: after[path] for path in before} == before
    voc = {"matches_voc.npz"} if detector.test.startswith("voc:") else set()
    assert {path.name for path in folder.iterdir()} == OWN | voc
    own, other = load_results(detector.run), load_results(folder)
    assert other["data"]["test"]["images"] == 12
    assert other["data"]["evaluated_on_training_images"]
    assert other["protocol"]["hash"] != own["protocol"]["hash"]
    assert other["details"]["backbone_loading"] == own["details"]["backbone_loading"]
    assert list(other["details"]["evaluation_of"]["changed"]) == ["DATASETS.TEST"]
    assert all((folder / name).exists() for name in other["files"].values())
    assert "evaluation_of" not in own["details"]
    results = (folder / "results.json").read_bytes()
    detector.call(*on_training)  # again: the same folder, and none beside it
    assert (folder / "results.json").read_bytes() == results
    assert contents(detector.run).keys() == after.keys()
    detector.call(flags=["--resume"])  # still possible, and its own numbers are what they were
    kept = {path for path in before if path.name not in ("log.txt", "environment.json")}
    assert {path: contents(detector.run)[path] for path in kept} == {path: before[path] for path in kept}
    shutil.rmtree(folder)


def test_other_settings_of_the_test_go_to_folders_of_their_own(detector):
    before = contents(detector.run)
    changes = [["TEST.AP_SCORE_THRESH", 0.3], ["TEST.AP_SCORE_THRESH", 0.4], ["LABEL", "renamed"]]
    for change in changes:
        detector.call(*change)
    folders = list(detector.run.glob("evaluation-*"))
    assert len(folders) == 3
    changed = [load_results(folder)["details"]["evaluation_of"]["changed"] for folder in folders]
    assert sorted(str(next(iter(one.values()))[1]) for one in changed) == ["0.3", "0.4", "renamed"]
    after = contents(detector.run)
    assert {path: after[path] for path in before} == before
    for folder in folders:
        shutil.rmtree(folder)


def test_two_sets_of_one_name_have_two_folders(made, tmp_path):
    """Another data set whose files are called the same does not replace the first one's evaluation."""
    detector = made["coco"]
    copy = tmp_path / detector.data.name
    shutil.copytree(detector.data, copy)
    path = copy / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    for place in (detector.data, copy, copy):
        detector.call("DATASETS.TEST", json.dumps([detector.train.format(place)]))
    folders = sorted(detector.run.glob("evaluation-*"))
    assert folders[0].name == f"evaluation-{detector.other}"
    assert len({load_results(folder)["data"]["test"]["fingerprint"] for folder in folders}) == len(folders) == 2
    for folder in folders:
        shutil.rmtree(folder)


def test_moved_data_are_the_same_data(detector, tmp_path):
    """Resumed, tested and measured by one protocol from another place; other data are refused by name."""
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(detector.data, moved)
    run = tmp_path / "run"
    shutil.copytree(detector.run, run)
    own = load_results(run)
    for flags in (["--eval-only"], ["--resume"]):
        detector.call(*detector.explicit(moved), flags=flags, data=moved, run=run)
        assert not list(run.glob("evaluation-*"))
        assert load_results(run)["protocol"] == own["protocol"]
        assert load_results(run)["metrics"] == own["metrics"]
    assert "SOLVER.MAX_ITER" in own["protocol"]["settings"]
    assert NEW_NORMS in {one["what"] for one in own["warnings"]}  # of a backbone that was never trained
    assert str(detector.data) not in json.dumps(own["protocol"])  # data sets go by their fingerprints
    before = contents(run)
    image = sorted((*moved.glob("JPEGImages/train*"), *moved.glob("train/*")))[0]
    image.write_bytes(image.read_bytes() + b"\0")  # another file
    for flags in (["--eval-only"], ["--resume"]):
        with pytest.raises(
            InputError, match=r"the data set has changed: the fingerprint of DATASETS\.TRAIN was \w{12} and"
        ):
            detector.call(*detector.explicit(moved), flags=flags, data=moved, run=run)
    other_test = ["DATASETS.TEST", json.dumps([detector.train.format(detector.data)])]
    with pytest.raises(InputError, match=r"the data set has changed: the fingerprint of DATASETS\.TEST was"):
        detector.call(*other_test, flags=["--resume"], run=run)
    assert contents(run) == before


def test_the_case_of_a_data_set_at_two_places(shared_cases, small_scenes, tmp_path, load_tool):
    """One protocol, and a run that is resumed from the other place."""
    main, found = load_tool("finetune_coco").main, []
    categories = len(json.loads((shared_cases / "15-data" / "ann.json").read_text())["categories"])
    for place in ("15-data", "15-moved"):
        names = json.dumps([f"coco:{shared_cases / place}/ann.json:{shared_cases / place}/images"])
        data = ["DATASETS.TRAIN", names, "DATASETS.TEST", names, "MODEL.ROI_HEADS.NUM_CLASSES", categories]
        for run in [tmp_path / place] + ([tmp_path / "15-data"] if place == "15-moved" else []):
            flags = ["--resume"] if run.exists() else []
            main(arguments(small_scenes, run, *SHORT, "SOLVER.MAX_ITER", 1, *data, flags=flags))
            found.append(load_results(run))
    assert len({one["protocol"]["hash"] for one in found}) == 1
    assert found[0]["metrics"] == found[1]["metrics"] == found[2]["metrics"]


def test_a_checkpoint_of_an_earlier_version_goes_by_its_results(made, tmp_path):
    """It does not name the data of the test."""
    detector = made["voc"]
    run = tmp_path / "run"
    shutil.copytree(detector.run, run)
    state = load_checkpoint(run / "checkpoint.pth")
    settings = {key: value for key, value in state["resume_key"].items() if key != TEST_DATA}
    save_checkpoint(run / "checkpoint.pth", **{**state, "resume_key": {**settings, "DATASETS.TRAIN": "['x']"}})
    detector.call(run=run)
    assert not list(run.glob("evaluation-*"))
    other = ["DATASETS.TEST", json.dumps([detector.train.format(detector.data)])]
    detector.call(*other, run=run)
    assert [path.name for path in run.glob("evaluation-*")] == [f"evaluation-{detector.other}"]
    (run / "results.json").unlink()  # killed between the training and the test: nothing but the names is known
    with pytest.raises(InputError, match=r"DATASETS\.TEST was \['(coco|voc):.*set it back"):
        detector.call(*other, flags=["--resume"], run=run)


def test_an_unfinished_run_is_left_as_it_is(detector, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(detector.run, run)
    state = load_checkpoint(run / "checkpoint.pth")
    save_checkpoint(run / "checkpoint.pth", **{**state, "iteration": 2})
    before = contents(run)
    for change in (["TEST.AP_SCORE_THRESH", 0.5], ["DATALOADER.NUM_WORKERS", 1]):
        with pytest.raises(InputError, match="is at iteration 2 of 3; finish it with --resume first"):
            detector.call(*change, run=run)
    assert contents(run) == before


@pytest.mark.parametrize("module", [config, yolo_config], ids=["coco", "voc"])
def test_a_protocol_names_its_data_by_fingerprint_alone(module):
    one, other = module.get_defaults(), module.get_defaults()
    other.DATASETS.TRAIN, other.DATASETS.TEST = ("coco:/a/b.json:/a/c",), ("voc:/d:val",)
    assert module.protocol_hash(one, "a", "b") == module.protocol_hash(other, "a", "b")
    assert len({module.protocol_hash(one, *data) for data in (("a", "b"), ("b", "a"), ("a", "a"))}) == 3
    assert protocol_hash(config.get_defaults(), "a") != yolo_config.protocol_hash(yolo_config.get_defaults(), "a")
