"""Methods, networks, data sets and detectors in files of the user, named in IMPORTS."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import finetuning, pretraining
from helpers.killing import ROOT
from helpers.suite_lab import Lab

from backbones.core.config import load_yaml
from backbones.core.errors import InputError
from backbones.core.imports import digest, find_imports, import_all, with_copies
from backbones.core.results import load_results
from suites.loading import load_suite
from suites.plan import build_plan

MANUAL = ROOT / "docs" / "own_code.md"
METHOD = re.search(r"```python\n(.*?)```", MANUAL.read_text(), flags=re.DOTALL)[1]
NETWORK = """
from torch import nn
from backbones.data.samples import DATASETS
from backbones.models.base import MODELS
from backbones.models.resnet_cifar import resnet29_cifar


@MODELS.register()
def own_network(num_classes, norm):
    network = resnet29_cifar(num_classes, norm)
    network.arch = "own_network"
    return network


@DATASETS.register()
def own_data(root, split, warnings):
    return DATASETS.get("imagenet_xml")(root, split, warnings)
"""


@pytest.fixture(scope="module")
def own(small_scenes, tmp_path_factory):
    """A folder with my_method.py, my_network.py and a config that uses both, and its finished run."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_method.py").write_text(METHOD)
    (folder / "my_network.py").write_text(NETWORK)
    tree = {
        "IMPORTS": ["my_method.py", "my_network.py"],
        "METHOD": {"NAME": "DecayingLS", "DecayingLS": {"amount": 0.2}},
        "DATA": {"NAME": "own_data"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return folder


def command(own, small_scenes, out, *overrides, resume=False):
    epochs = [] if "SOLVER.MAX_EPOCH" in overrides else ["SOLVER.MAX_EPOCH", 1]
    words = pretraining.arguments(small_scenes, out, "MODEL.ARCH", "own_network", *epochs, *overrides, resume=resume)
    return [*pretraining.TOOL, "--config-file", str(own / "config.yaml"), *words]


@pytest.fixture(scope="module")
def finished(own, small_scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    done = pretraining.run(command(own, small_scenes, out))
    assert done.returncode == 0, done.stderr
    return out


def test_a_run_keeps_a_copy_and_later_tools_use_it(own, finished, small_scenes, tmp_path):
    saved = load_yaml(finished / "config.yaml")
    assert saved["METHOD"]["DecayingLS"] == {"amount": 0.2}
    assert yaml.safe_load((finished / "config.yaml").read_text())["IMPORTS"] == [
        "imports/my_method.py",
        "imports/my_network.py",
    ]
    moved = tmp_path / "moved"  # without the user's files
    shutil.copytree(finished, moved)
    done = pretraining.run([sys.executable, "tools/evaluate_backbone.py", str(moved), "EVAL.CONTEXT", "False"])
    assert done.returncode == 0, done.stderr
    results = load_results(moved / "evaluation")
    assert results["backbone"]["method"] == "DecayingLS"
    stated = {name: digest(own / name) for name in ("my_method.py", "my_network.py")}
    assert results["details"]["imports"] == load_results(finished)["details"]["imports"] == stated


def test_a_changed_file_refuses_to_resume_and_an_unchanged_one_elsewhere_does_not(
    own, finished, small_scenes, tmp_path
):
    run, copy = tmp_path / "run", tmp_path / "own"
    shutil.copytree(finished, run)
    shutil.copytree(own, copy)
    done = pretraining.run(command(copy, small_scenes, run, resume=True))
    assert done.returncode == 0, done.stderr
    (copy / "my_method.py").write_text(METHOD.replace("epoch / self.epochs", "0.5 * epoch / self.epochs"))
    done = pretraining.run(command(copy, small_scenes, run, resume=True))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: cannot resume {run}: my_method.py of IMPORTS has changed since the run started; restore it from "
        f"{run / 'imports' / 'my_method.py'}, or start in another folder\n"
    )
    assert (run / "imports" / "my_method.py").read_text() == METHOD


def test_the_hash_of_the_backbone_config_covers_the_file(own, finished, small_scenes, tmp_path):
    copy = tmp_path / "own"
    shutil.copytree(own, copy)
    (copy / "my_method.py").write_text(METHOD + "# changed\n")
    done = pretraining.run(command(copy, small_scenes, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    first, second = (load_results(run) for run in (finished, tmp_path / "run"))
    assert first["backbone"]["hash"] == second["backbone"]["hash"]  # the same numbers
    provenance = [_provenance(run)["config_hash"] for run in (finished, tmp_path / "run")]
    assert provenance[0] != provenance[1]


def _provenance(run):
    from backbones.core.checkpoint import load_checkpoint

    return load_checkpoint(run / "backbone.pth")["provenance"]


def test_a_typing_error_in_an_argument_is_answered_with_the_nearest(own, small_scenes, tmp_path):
    done = pretraining.run(command(own, small_scenes, tmp_path / "run", "METHOD.DecayingLS.amuont", 0.1))
    assert done.returncode == 2
    assert "unknown key 'METHOD.DecayingLS.amuont'; did you mean 'METHOD.DecayingLS.amount'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_detector_by_imports_trains_and_its_copy_is_kept(small_scenes, tmp_path):
    shutil.copytree(Path(__file__).parent / "engines" / "toy", tmp_path / "toy")
    (tmp_path / "toy.yaml").write_text(f"IMPORTS: [toy]\nENGINE: toy\nDATASETS: {{ROOT: {small_scenes.parent}}}\n")
    backbone = finetuning.write_backbone(tmp_path / "backbone.pth")
    options = ["--config-file", tmp_path / "toy.yaml", "--backbone", backbone, "--output-dir", tmp_path / "run"]
    done = finetuning.run(list(map(str, options)))
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "run" / "imports" / "toy") == digest(tmp_path / "toy")
    assert load_results(tmp_path / "run")["details"]["imports"] == {"toy": digest(tmp_path / "toy")}
    (tmp_path / "toy" / "engine.py").write_text((tmp_path / "toy" / "engine.py").read_text() + "\n# changed\n")
    done = finetuning.run([*map(str, options), "--resume"])
    assert done.returncode == 2
    assert "toy of IMPORTS has changed" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_the_kind", r"my\.py, line 1: ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("\nx = (", r"my\.py, line 2: SyntaxError: "),
        ("\n\nraise ValueError('a\\nb')", r"my\.py, line 3: ValueError: a"),
        (
            "from backbones.methods.base import METHODS, Method\n@METHODS.register()\nclass CE(Method): pass",
            r"my\.py, line 2: InputError: the method 'CE' is registered already, by backbones.methods.smoothing",
        ),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "my.py").write_text(text)
    with pytest.raises(InputError, match=message):
        import_all([tmp_path / "my.py"])


def test_paths_that_cannot_be_imported_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "my.py").touch()
    (tmp_path / "my.py").touch()
    (tmp_path / "x.yaml").write_text("IMPORTS: [my.py, a/my.py]")
    assert load_yaml(tmp_path / "x.yaml")["IMPORTS"] == [str(tmp_path / "my.py"), str(tmp_path / "a" / "my.py")]
    with pytest.raises(InputError, match=r"several entries are called my\.py; rename one"):
        find_imports(load_yaml(tmp_path / "x.yaml"))
    with pytest.raises(InputError, match=r"IMPORTS: .*you\.py does not exist; give a path relative to the yaml file"):
        find_imports({"IMPORTS": [str(tmp_path / "you.py")]})
    with pytest.raises(InputError, match=r"x\.yaml is not a Python file"):
        find_imports({"IMPORTS": [str(tmp_path / "x.yaml")]})
    with pytest.raises(InputError, match=r"a has no engine\.py"):
        find_imports({"IMPORTS": [str(tmp_path / "a")]})


def test_a_name_is_imported_once_and_in_one_version(tmp_path):
    name = f"own_{tmp_path.name.replace('-', '_')}.py"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("")
    import_all([tmp_path / "a" / name])
    import_all([tmp_path / "b" / name])
    (tmp_path / "b" / name).write_text("X = 1")
    with pytest.raises(InputError, match=f"b/{name} differs from {tmp_path}/a/{name}, which was imported before"):
        import_all([tmp_path / "b" / name])


def test_copies_of_copies_are_equal(tmp_path):
    (tmp_path / "my.py").write_text("X = 1")
    first = with_copies({"IMPORTS": [str(tmp_path / "my.py")], "SEED": 1}, tmp_path / "run")
    assert first == {"IMPORTS": ["imports/my.py"], "SEED": 1}
    here = str(tmp_path / "run" / "imports" / "my.py")
    assert with_copies({"IMPORTS": [here]}, tmp_path / "run") == {"IMPORTS": ["imports/my.py"]}
    assert Path(here).read_text() == "X = 1"
    assert with_copies({"SEED": 1}, tmp_path / "run") == {"SEED": 1}


# ---- in a suite ---------------------------------------------------------------------------------------------------

NEVER = "raise SystemExit('imported')\n"  # a suite reads the file as text


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path / "lab")
    (lab.folder / "mine.py").write_text(NEVER + METHOD)
    lab.tree["ROWS"].append({"LABEL": "mine", "IMPORTS": ["mine.py"], "OVERRIDES": ["METHOD.NAME", "DecayingLS"]})
    return lab


def test_a_changed_file_reruns_exactly_its_rows(lab):
    assert lab.run()[0] == 0
    lab.calls()
    assert lab.to_run() == []
    path = lab.folder / "mine.py"
    path.write_text(path.read_text().replace("0.1", "0.3"))
    assert lab.run()[0] == 0
    assert lab.called() == [
        "mine pretrain", "mine evaluate_backbone", "mine localize", "mine finetune_coco", "compare",
    ]  # fmt: skip


def test_moving_the_suite_and_its_file_reruns_nothing(lab, tmp_path):
    assert lab.run()[0] == 0
    other = lab.copy(tmp_path / "elsewhere")
    assert other.to_run() == []


def test_the_file_reaches_the_tool(lab):
    (stage,) = [one for one in lab.plan().stages if one.title == "mine: pretrain"]
    where = stage.command.index("IMPORTS")
    assert json.loads(stage.command[where + 1]) == [str(lab.folder / "mine.py")]
    assert stage.labels == "DecayingLS"
    assert stage.changed_source() == ""
    (lab.folder / "mine.py").write_text("")
    assert stage.changed_source() == f"{lab.folder / 'mine.py'} (IMPORTS)"


def test_a_base_class_of_the_project_counts(lab, monkeypatch, tmp_path):
    (lab.folder / "mine.py").write_text(
        "from backbones.methods.base import METHODS\nfrom backbones.methods.smoothing import LS\n"
        "@METHODS.register()\nclass DecayingLS(LS):\n    pass\n"
    )
    hashes = {stage.title: stage.hash for stage in lab.plan().stages}
    for package in ("backbones", "detection"):
        shutil.copytree(ROOT / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("suites.fingerprints.sources.ROOT", tmp_path / "code")
    assert {stage.title: stage.hash for stage in lab.plan().stages} == hashes
    path = tmp_path / "code" / "backbones" / "methods" / "smoothing.py"
    path.write_text(path.read_text().replace("smooth_labels(batch.labels, ", "smooth_labels(batch.labels + 0, "))
    now = {stage.title: stage.hash for stage in lab.plan().stages}
    assert now["mine: pretrain"] != hashes["mine: pretrain"]
    assert now["CE: pretrain"] == hashes["CE: pretrain"]


def test_a_row_without_its_file_is_named(lab):
    (lab.folder / "mine.py").unlink()
    with pytest.raises(InputError, match=r"mine: pretrain: IMPORTS: .*mine\.py does not exist"):
        build_plan(load_suite(lab.write()), lab.output, tools=lab.tools)


# ---- the checking tool --------------------------------------------------------------------------------------------


def check(path):
    return subprocess.run(
        [sys.executable, "tools/check_method.py", str(path)], capture_output=True, text=True, cwd=ROOT
    )


def test_the_example_of_the_manual_keeps_the_contract(own):
    done = check(own / "my_method.py")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 12
    assert lines[-1].endswith("my_method.py: DecayingLS: all checks passed")


def test_what_breaks_the_contract_is_named(tmp_path):
    (tmp_path / "bad.py").write_text(METHOD.replace("return hard.lerp", "return 2 * hard.lerp"))
    done = check(tmp_path / "bad.py")
    assert done.returncode == 1
    assert "the targets of a sample do not sum to 1" in done.stdout
    assert done.stderr == ""
    (tmp_path / "empty.py").write_text("")
    done = check(tmp_path / "empty.py")
    assert done.returncode == 2
    assert "registers no method; write @METHODS.register() above its class" in done.stderr
