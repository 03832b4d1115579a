"""Teachers: the cached one is the online one where nothing is augmented, and neither is taken for what it is not."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.pretraining import arguments
from helpers.seeded import make_backbone

from backbones.config import get_defaults, idle_settings, validate
from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.warning_counter import WarningCounter
from backbones.data.batch import Batch
from backbones.data.samples import load_samples
from backbones.measuring.calibration import fit_temperature, log_softmax, nll
from backbones.methods.base import METHODS
from backbones.models.weights import load_backbone
from backbones.pretraining.building import build_evaluation_batches
from backbones.pretraining.task import ClassificationTask
from backbones.pretraining.teacher import FORMAT, CachedTeacher, OnlineTeacher, TaughtBatches, write_cache

CPU = torch.device("cpu")
WHOLE = ["DATA.CROP_AREA", "[1.0, 1.0]", "DATA.CROP_RATIO", "[1.0, 1.0]", "DATA.FLIP", 0]


@pytest.fixture(scope="module")
def run(small_scenes, tmp_path_factory, load_tool):
    """A finished run on hard labels, with channel statistics of its own."""
    folder = tmp_path_factory.mktemp("run") / "ce"
    options = [
        "MODEL.ARCH",
        "lenet",
        "SOLVER.MAX_EPOCH",
        2,
        "DATA.MEAN",
        "[0.3, 0.5, 0.6]",
        "DATA.STD",
        "[0.2, 0.3, 0.1]",
    ]
    load_tool("pretrain").main(arguments(small_scenes, folder, *options))
    return folder


@pytest.fixture(scope="module")
def cache(run, tmp_path_factory, load_tool):
    """What tools/cache_teacher.py makes of the run."""
    folder = tmp_path_factory.mktemp("cache") / "teacher"
    load_tool("cache_teacher").main([str(run), "--output-dir", str(folder)])
    return folder


@pytest.fixture
def own(cache, tmp_path):
    """A copy of the cache, to spoil."""
    return shutil.copytree(cache, tmp_path / "own")


def scenes(folder, split="train"):
    return load_samples(
        "imagenet_xml", folder, split, drop_without_box=False, need_boxes=False, warnings=WarningCounter()
    )


def evaluated(folder, split):
    """Images, labels and indices of a split as they are evaluated, in one batch."""
    cfg = get_defaults()
    cfg.DATA.EVAL_RESIZE = cfg.DATA.EVAL_CROP = 32
    batches = list(build_evaluation_batches(cfg, scenes(folder, split)))
    return Batch(*(torch.cat([getattr(b, name) for b in batches]) for name in ("images", "labels", "index")))


@torch.no_grad()
def asked_by_hand(backbone, images):
    """Logits of uint8 images, from the specification of the backbone."""
    mean, std = (torch.tensor(backbone.spec[name])[:, None, None] for name in ("mean", "std"))
    return backbone.build()((images / 255 - mean) / std).logits


# What a teacher says


def test_cached_logits_are_the_teachers_of_every_image(run, cache, small_scenes):
    batch = evaluated(small_scenes, "train")
    logits = CachedTeacher(cache, scenes(small_scenes)).logits
    expected = asked_by_hand(load_backbone(run), batch.images)
    torch.testing.assert_close(torch.tensor(logits[batch.index.numpy()]), expected, rtol=1e-4, atol=1e-5)


def test_both_teachers_have_the_temperature_that_fits_the_validation_split(run, cache, small_scenes):
    val = evaluated(small_scenes, "val")
    logits, labels = asked_by_hand(load_backbone(run), val.images).numpy(), val.labels.numpy()
    expected = fit_temperature(logits, labels)
    online = OnlineTeacher(load_backbone(run), scenes(small_scenes).classes, CPU, torch.float32)
    assert online.temperature([val]) == pytest.approx(expected, rel=1e-3)
    fitted = CachedTeacher(cache, scenes(small_scenes)).fitted
    assert fitted == pytest.approx(expected, rel=1e-3)
    grid = [nll(log_softmax(logits / t), labels) for t in np.geomspace(0.05, 20, 200)]
    assert nll(log_softmax(logits / fitted), labels) <= min(grid) + 1e-9


def test_online_teacher_normalises_as_it_was_trained():
    mean, std = [0.1, 0.2, 0.7], [0.5, 0.2, 0.3]
    backbone = make_backbone(spec={"mean": mean, "std": std})
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    teacher = OnlineTeacher(backbone, backbone.spec["classes"], CPU, torch.float64)
    centre, spread = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
    expected = backbone.build().double()((images.double() / 255 - centre) / spread).logits
    torch.testing.assert_close(teacher(images), expected)
    # And the student as it is trained, in the same step.
    seen = []

    def step(batch):
        seen.append(batch)
        return SimpleNamespace(loss=torch.zeros(()), logits=batch.teacher_logits)

    student = METHODS.get("ILS2")(torch.nn.Identity(), 7, amount=0.1, temperature=1.0)
    student.forward = step
    task = ClassificationTask(student, [0.5] * 3, [0.25] * 3, dtype=torch.float64, channels_last=False, teacher=teacher)
    task(Batch(images, torch.zeros(3, dtype=torch.int64)))
    torch.testing.assert_close(seen[0].images, (images.double() / 255 - 0.5) / 0.25)
    assert torch.equal(seen[0].teacher_logits, teacher(images))


def test_online_teacher_is_a_constant_of_training():
    backbone = make_backbone()
    teacher = OnlineTeacher(backbone, backbone.spec["classes"], CPU, torch.float32)
    method = METHODS.get("SelfDistillation")(backbone.build(), 7, hard_weight=0.0, temperature=1.0)
    task = ClassificationTask(method, [0.5] * 3, [0.25] * 3, dtype=torch.float32, channels_last=False, teacher=teacher)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    task.train()
    task(Batch(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), torch.arange(4))).loss.backward()
    assert not teacher.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())
    assert not any("teacher" in name for name in task.state_dict())
    assert len(list(task.parameters())) == len(list(method.model.parameters()))


@pytest.mark.parametrize("method", ["ILS", "KD"])
def test_cached_is_online_where_nothing_is_augmented(run, cache, small_scenes, tmp_path, load_tool, method):
    exact = ["METHOD.NAME", method, "MODEL.ARCH", "lenet", "PRECISION", "float64", "SOLVER.MAX_EPOCH", 2, *WHOLE]
    for name, key, folder in (("online", "RUN", run), ("cached", "CACHE", cache)):
        load_tool("pretrain").main(arguments(small_scenes, tmp_path / name, *exact, f"TEACHER.{key}", folder))
    online, cached = (load_checkpoint(tmp_path / name / "checkpoint.pth")["method"] for name in ("online", "cached"))
    for name, tensor in online.items():
        torch.testing.assert_close(cached[name], tensor, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


# Which row belongs to which image


def test_rows_follow_the_index_whatever_the_order():
    logits = np.arange(20, dtype=np.float32).reshape(10, 2)
    order = torch.tensor([7, 0, 9, 3, 3])
    batch = Batch(torch.zeros(5, 3, 1, 1), torch.zeros(5, dtype=torch.int64), index=order)
    taught = TaughtBatches([batch, replace(batch, index=order.flip(0))], logits)
    assert len(taught) == 2
    for found, expected in zip(taught, (order, order.flip(0)), strict=True):
        assert torch.equal(found.teacher_logits[:, 0], 2.0 * expected)
        assert torch.equal(found.teacher_logits[:, 1], 2.0 * expected + 1)
        assert found.images is batch.images
    found.teacher_logits += 1  # a copy: the file stays as it is
    assert logits[7, 0] == 14


def test_cache_written_in_another_order_is_the_same(run, cache, small_scenes, tmp_path):
    samples, batch = scenes(small_scenes), evaluated(small_scenes, "train")
    teacher = OnlineTeacher(load_backbone(run), samples.classes, CPU, torch.float32)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    shuffled = [Batch(batch.images[i], batch.labels[i], index=batch.index[i]) for i in order.split(7)]
    write_cache(tmp_path, teacher, samples, shuffled, [evaluated(small_scenes, "val")])
    expected = CachedTeacher(cache, samples)
    found = CachedTeacher(tmp_path, samples)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert (found.hash, found.fitted) == (expected.hash, pytest.approx(expected.fitted, rel=1e-3))


# What is refused


def test_cache_of_other_data_names_both_fingerprints(cache, small_scenes):
    samples = scenes(small_scenes)
    for other in (scenes(small_scenes, "val"), samples.subset(np.arange(1, len(samples)))):
        with pytest.raises(InputError, match=f"{samples.fingerprint}.*{other.fingerprint}.*cache_teacher.py"):
            CachedTeacher(cache, other)


def test_missing_and_unfinished_caches_are_refused(run, cache, own, small_scenes, tmp_path):
    samples = scenes(small_scenes)
    with pytest.raises(InputError, match=r"no cached teacher in .*write it with tools/cache_teacher\.py"):
        CachedTeacher(tmp_path / "nowhere", samples)

    def interrupted():
        yield evaluated(small_scenes, "train")
        raise KeyboardInterrupt

    teacher = OnlineTeacher(load_backbone(run), samples.classes, CPU, torch.float32)
    for folder in (own, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            write_cache(folder, teacher, samples, interrupted(), [])
    with pytest.raises(InputError, match="no cached teacher in"):
        CachedTeacher(tmp_path / "new", samples)
    assert not list((tmp_path / "new").iterdir())
    assert CachedTeacher(own, samples).identity == CachedTeacher(cache, samples).identity  # the one before


def test_a_cache_that_is_written_again_does_not_change_under_an_open_one(run, own, small_scenes):
    samples, batch = scenes(small_scenes), evaluated(small_scenes, "train")
    opened = CachedTeacher(own, samples)
    before = np.array(opened.logits)
    teacher = OnlineTeacher(load_backbone(run), samples.classes, CPU, torch.float32)
    dark = Batch(batch.images // 2, batch.labels, index=batch.index)
    write_cache(own, teacher, samples, [dark], [evaluated(small_scenes, "val")])
    np.testing.assert_array_equal(opened.logits, before)
    found = CachedTeacher(own, samples)
    assert np.abs(found.logits - before).max() > 1e-3
    assert found.identity != opened.identity


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.write_bytes(b""), "cannot read .*logits.npy"),
        (lambda f: f.write_bytes(b"not an array"), "cannot read .*logits.npy"),
        (lambda f: f.write_bytes(f.read_bytes()[:-8]), "cannot read .*logits.npy"),
        (lambda f: f.unlink(), "cannot read .*logits.npy"),
        (lambda f: np.savez(f.open("wb"), a=np.zeros(3)), "cannot read .*logits.npy"),
        (lambda f: np.save(f, np.zeros((3, 2), np.float32)), r"shape \(3, 2\), not \(40, "),
    ],
    ids=["empty", "garbage", "truncated", "absent", "archive", "other shape"],
)
def test_broken_logits_are_refused_in_one_line(own, small_scenes, spoil, message):
    spoil(own / "logits.npy")
    with pytest.raises(InputError, match=f"{message}.*run tools/cache_teacher.py again") as refused:
        CachedTeacher(own, scenes(small_scenes))
    assert "\n" not in str(refused.value)


def test_folder_that_cannot_be_written_is_refused_in_one_line(run, tmp_path, load_tool):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file.*--output-dir"):
        load_tool("cache_teacher").main([str(run), "--output-dir", str(tmp_path / "file")])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", json.dumps({"format": FORMAT}), json.dumps({"format": "something else"})]
)
def test_broken_description_is_refused(own, small_scenes, text):
    (own / "teacher.json").write_text(text)
    with pytest.raises(InputError, match=r"teacher\.json"):
        CachedTeacher(own, scenes(small_scenes))


def test_teacher_of_other_classes_is_refused(small_scenes):
    backbone = make_backbone()
    with pytest.raises(InputError, match=r"teacher 18-BN-0 \(test\) knows 7 classes that are not the .*TEACHER\.RUN"):
        OnlineTeacher(backbone, scenes(small_scenes).classes, CPU, torch.float32)
    with pytest.raises(InputError, match="not the 7 of the data"):  # the same ones in another order
        OnlineTeacher(backbone, backbone.spec["classes"][::-1], CPU, torch.float32)


# The config


def config(**keys):
    cfg = get_defaults()
    cfg.DATA.ROOT = "somewhere"
    for key, value in keys.items():
        block, name = key.split("__")
        cfg[block][name] = value
    return cfg


@pytest.mark.parametrize("name", ["ILS1", "ILS1Sine", "ILS2", "ILS", "SelfDistillation", "KD"])
def test_exactly_one_teacher_is_needed(name):
    with pytest.raises(InputError, match=rf"METHOD\.NAME {name} needs a teacher: set TEACHER\.RUN .*TEACHER\.CACHE"):
        validate(config(METHOD__NAME=name))
    with pytest.raises(InputError, match=r"TEACHER\.RUN and TEACHER\.CACHE are both set"):
        validate(config(METHOD__NAME=name, TEACHER__RUN="a", TEACHER__CACHE="b"))
    for key in ("RUN", "CACHE"):
        cfg = config(METHOD__NAME=name, **{f"TEACHER__{key}": "a"})
        validate(cfg)
        assert not idle_settings(cfg)


def test_a_teacher_that_nobody_asks_is_said_to_be_idle():
    cfg = config(METHOD__NAME="PSKD", TEACHER__RUN="a", TEACHER__CACHE="b")
    validate(cfg)
    assert sorted(idle_settings(cfg)) == ["TEACHER.CACHE", "TEACHER.RUN"]


def test_teacher_that_may_know_the_held_out_images_is_refused(run, small_scenes, tmp_path, load_tool):
    """`run` was trained on all images: its temperature, and the choice among its students, would be biased."""
    held_out = ["SOLVER.MAX_EPOCH", 1, "DATA.HOLDOUT", "8", "DATA.VAL_SPLIT", "holdout", "DATA.MEAN", "[0.3, 0.5, 0.6]"]
    with pytest.raises(InputError, match=r"trained on data of fingerprint \w+, not on these .*DATA\.HOLDOUT"):
        load_tool("cache_teacher").main([str(run), "--output-dir", str(tmp_path / "cache"), *map(str, held_out)])
    main = load_tool("pretrain").main
    teacher = arguments(small_scenes, tmp_path / "teacher", "MODEL.ARCH", "lenet", *held_out)
    main(teacher)
    student = ["METHOD.NAME", "KD", "MODEL.ARCH", "lenet", *held_out, "TEACHER.RUN"]
    for number, (folder, seed) in enumerate(((run, 0), (tmp_path / "teacher", 1))):
        with pytest.raises(InputError, match=r"DATA\.HOLDOUT .*train a teacher with the same DATA, and with the same"):
            main(arguments(small_scenes, tmp_path / f"bad{number}", *student, folder, "SEED", seed))
    main(arguments(small_scenes, tmp_path / "good", *student, tmp_path / "teacher"))


def test_no_training_resumes_with_another_teacher(run, small_scenes, tmp_path, load_tool):
    main, teacher = load_tool("pretrain").main, shutil.copytree(run, tmp_path / "teacher")
    short = ["SOLVER.MAX_EPOCH", 1, "MODEL.ARCH", "lenet"]
    student = [*short, "METHOD.NAME", "KD", "TEACHER.RUN", teacher]
    main(arguments(small_scenes, tmp_path / "student", *student))
    assert load_results(tmp_path / "student")["details"]["teacher"] == load_backbone(run).hash
    shutil.rmtree(teacher)
    main(arguments(small_scenes, teacher, *short, "SEED", 5))
    before, now = (load_backbone(folder).hash for folder in (run, teacher))
    with pytest.raises(InputError, match=f"its teacher was {before} and is now {now}"):
        main(arguments(small_scenes, tmp_path / "student", *student, resume=True))


def test_a_cached_teacher_is_identified_by_its_logits_and_not_only_by_its_backbone(
    run, cache, small_scenes, tmp_path, load_tool
):
    """The same backbone gives other logits for images of another size, which are other targets."""
    main, other = load_tool("pretrain").main, tmp_path / "other"
    load_tool("cache_teacher").main([str(run), "--output-dir", str(other), "DATA.EVAL_RESIZE", "64"])
    short = ["SOLVER.MAX_EPOCH", 1, "MODEL.ARCH", "lenet", "METHOD.NAME", "KD", "TEACHER.CACHE"]
    students = {name: tmp_path / name for name in ("one", "same", "differs")}
    for name, teacher in (("one", cache), ("same", shutil.copytree(cache, tmp_path / "copy")), ("differs", other)):
        main(arguments(small_scenes, students[name], *short, teacher))
    hashes = {name: load_backbone(folder).provenance["config_hash"] for name, folder in students.items()}
    assert hashes["one"] == hashes["same"] != hashes["differs"]
    assert {load_results(folder)["details"]["teacher"] for folder in students.values()} == {load_backbone(run).hash}
    with pytest.raises(InputError, match=r"its teacher was \w+ and is now \w+; restore the teacher or its cache"):
        main(arguments(small_scenes, students["one"], *short, other, resume=True))
    main(arguments(small_scenes, students["one"], *short, tmp_path / "copy", resume=True))


def test_a_cache_of_an_earlier_version_counts_by_its_backbone(run, own, small_scenes):
    assert CachedTeacher(own, scenes(small_scenes)).identity != load_backbone(run).hash
    description = json.loads((own / "teacher.json").read_text())
    del description["digest"]
    (own / "teacher.json").write_text(json.dumps(description))
    assert CachedTeacher(own, scenes(small_scenes)).identity == load_backbone(run).hash
