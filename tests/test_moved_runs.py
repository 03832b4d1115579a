"""A pretraining whose data, teacher and start weights have moved is the same pretraining; with others it is refused."""

import shutil

import pytest
from helpers.pretraining import arguments

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.models.weights import load_backbone

LENET = ["MODEL.ARCH", "lenet", "SOLVER.MAX_EPOCH", 1]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def main(load_tool):
    return load_tool("pretrain").main


@pytest.fixture(scope="module")
def teachers(small_scenes, tmp_path_factory, main):
    """Two runs of other weights."""
    folder = tmp_path_factory.mktemp("teachers")
    for seed in (0, 1):
        main(arguments(small_scenes, folder / f"ce{seed}", *LENET, "SEED", seed))
    return folder


@pytest.fixture(
    scope="module", params=[["TEACHER.RUN", "METHOD.NAME", "ILS"], ["MODEL.WEIGHTS"]], ids=["run", "weights"]
)
def student(request, teachers, small_scenes, tmp_path_factory, main):
    """(run, its command at a place of what it has learned from or started from)."""
    key, *others = request.param
    run = tmp_path_factory.mktemp("student") / "run"

    def command(place, run=run, resume=True, data=small_scenes):
        return arguments(data, run, *LENET, *others, key, place, resume=resume)

    main(command(teachers / "ce0", resume=False))
    return run, command, key


def test_what_lies_elsewhere_is_the_same(student, teachers, small_scenes, tmp_path, main):
    run, command, _ = student
    own, provenance = load_results(run), load_backbone(run).provenance
    shutil.copytree(teachers / "ce0", tmp_path / "moved")
    shutil.copytree(small_scenes, tmp_path / "data")
    main(command(tmp_path / "moved", data=tmp_path / "data"))
    assert load_results(run) == own
    assert load_backbone(run).provenance == provenance
    again = tmp_path / "again"
    main(command(tmp_path / "moved", run=again, resume=False, data=tmp_path / "data"))
    assert load_results(again)["protocol"] == own["protocol"]
    assert load_backbone(again).provenance["config_hash"] == provenance["config_hash"]
    assert load_backbone(again).hash == own["backbone"]["hash"]


def test_what_has_changed_is_refused_and_leaves_nothing(student, teachers, small_scenes, tmp_path, main):
    run, command, key = student
    before = contents(run)
    with pytest.raises(InputError, match=f"cannot resume .*{load_backbone(teachers / 'ce1').hash}"):
        main(command(teachers / "ce1"))
    if key == "MODEL.WEIGHTS":
        with pytest.raises(InputError, match=r"MODEL\.WEIGHTS was '.*' and is now ''"):
            main(command("''"))
    data = tmp_path / "data"
    shutil.copytree(small_scenes, data)
    next(iter(sorted((data / "train").rglob("*.JPEG")))).unlink()
    with pytest.raises(InputError, match=r"trained on data of fingerprint"):
        main(command(teachers / "ce0", data=data))
    assert contents(run) == before


def test_other_start_weights_are_another_training(student, teachers, small_scenes, tmp_path, main):
    run, command, key = student
    main(command(teachers / "ce1", run=tmp_path / "other", resume=False))
    other = load_backbone(tmp_path / "other").provenance
    assert other["config_hash"] != load_backbone(run).provenance["config_hash"]
    same = load_results(tmp_path / "other")["protocol"] == load_results(run)["protocol"]
    assert same == (key == "TEACHER.RUN")


@pytest.mark.parametrize("student", [["MODEL.WEIGHTS"]], ids=["weights"], indirect=True)  # it has named its teacher
def test_a_checkpoint_of_an_earlier_version_goes_by_the_path(student, teachers, tmp_path, main):
    run, command, _ = student
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    main(command(teachers / "ce0", run=copy))
    state = load_checkpoint(copy / "checkpoint.pth")
    save_checkpoint(copy / "checkpoint.pth", **{name: value for name, value in state.items() if name != "start"})
    with pytest.raises(InputError, match=r"started from another file"):
        main(command(teachers / "ce1", run=copy))
    main(command(teachers / "ce0", run=copy))
