"""The names of an imported classifier's outputs: read as they are, and compared with the data's, in order."""

import pytest
import torch
from helpers.noise_runs import CLASSES, MEAN, STD, write_run
from helpers.seeded import make_backbone

from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.measuring.run import load_run
from backbones.models.weights import differing_classes
from detection.exchange.importing import load_classes

pytest_plugins = ["helpers.noise_fixtures"]

SIX = {name: t[:6] if name.startswith("fc.") else t for name, t in make_backbone().state.items()}


@pytest.fixture
def command(tmp_path, root, load_tool):
    """Import a classifier of six classes for the data below `root`, whose names are in class0 .. class5's order."""

    def run(names, *overrides, classes=True):
        torch.save(SIX, tmp_path / "foreign.pth")
        (tmp_path / "classes.txt").write_bytes(names if isinstance(names, bytes) else "\n".join(names).encode())
        declared = {"checkpoint": tmp_path / "foreign.pth", "source": "torchvision", "arch": "resnet18", "label": "x"}
        declared |= {"output": tmp_path / "run" / "backbone.pth", "config-file": "configs/pretrain/base/small.yaml"}
        declared |= {"classes": tmp_path / "classes.txt"} if classes else {}
        argv = [str(part) for key, value in declared.items() for part in (f"--{key}", value)]
        for key, values in (("--mean", MEAN), ("--std", STD)):
            argv += [key, *map(str, values)]
        keys = ["DATA.NAME", "imagenet_xml", "DATA.ROOT", root, "DATA.EVAL_CROP", 32, "DATA.EVAL_RESIZE", 0]
        return load_tool("import_backbone").main([*argv, *map(str, [*keys, *overrides])])

    return run


def test_the_datas_own_order_is_taken_and_evaluated(command, tmp_path, load_tool, capsys):
    assert command(CLASSES) == 0
    assert "its classes are those of" in capsys.readouterr().out
    assert load_tool("evaluate_backbone").main([str(tmp_path / "run")]) == 0
    assert load_results(tmp_path / "run" / "evaluation")["backbone"]["label"] == "x"


REFUSED = {
    "reversed": (CLASSES[::-1], "the same names in another order: output 0 of the backbone is 'class5', class 0 of the "
                                "data 'class0'"),
    "two swapped": ([*CLASSES[:4], "class5", "class4"], "another order: output 4 of the backbone is 'class5'"),
    "another name": ([*CLASSES[:5], "cat"], "other names: output 5 of the backbone is 'cat', class 5 of the data"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_another_order_and_other_names_are_refused_before_anything_is_written(case, command, tmp_path):
    names, reason = REFUSED[case]
    with pytest.raises(InputError) as refused:
        command(names)
    assert reason in str(refused.value)
    assert "--classes" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_outputs_without_names_are_refused_where_the_data_have_some(command, tmp_path):
    with pytest.raises(InputError, match=r"output 0 of the backbone is '0'.*name its outputs with --classes"):
        command(CLASSES, classes=False)


def test_data_that_are_not_here_are_compared_when_they_are_measured(command, tmp_path, root, load_tool, capsys):
    assert command(CLASSES[::-1], "DATA.ROOT", tmp_path / "elsewhere") == 0
    assert "its classes were not compared with the data: no folder" in capsys.readouterr().out
    for name in ("evaluate_backbone", "localize", "attack_backbone", "cache_teacher"):
        with pytest.raises(InputError, match="the same names in another order: output 0"):
            load_tool(name).main([str(tmp_path / "run"), "DATA.ROOT", str(root)])


def test_a_run_of_our_own_is_compared_as_well(root, tmp_path, load_tool):
    run = write_run(tmp_path / "run", root, 0, classes=[*CLASSES[1:], CLASSES[0]])
    with pytest.raises(InputError, match=r"another order: output 0 .*'class1'.*set DATA\.ROOT to the data") as refused:
        load_tool("evaluate_backbone").main([str(run)])
    assert "--classes" not in str(refused.value)
    assert load_run(run, [])[1].spec["classes"][0] == "class1"


def test_where_two_lists_differ():
    assert differing_classes(["a", "b"], ["a", "b"]) == ""
    assert differing_classes(["a", "b"], ("a", "b")) == ""
    assert differing_classes(["a"], ["a", "b"]) == "there are 1 and 2 of them"
    assert differing_classes(["a", "c", "d"], ["a", "b"]).startswith("other names: output 1 of the backbone is 'c'")


@pytest.mark.parametrize(
    "text", ["\ufeffone\ntwo words\nthree\n", "one\r\ntwo words\r\nthree", "one \ntwo words\n three\n\n\n"]
)
def test_names_are_read_whatever_the_editor(text, tmp_path):
    (tmp_path / "classes.txt").write_bytes(text.encode())
    assert load_classes(tmp_path / "classes.txt") == ["one", "two words", "three"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a\n\nb", "line 2: is empty"),
        (b"a\nb\na\n", "line 3: 'a' is duplicated"),
        (b"", "line 1: is empty"),
        (b"\xff\xfea\x00", "cannot read"),
    ],
)
def test_names_that_are_not_distinct_are_refused(content, reason, tmp_path):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        load_classes(tmp_path / "classes.txt")
