"""The command line: paths, values of config keys, what standard output may be, and one line for what is wrong."""

import argparse
import locale
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.result_folders import add, backbone

from backbones.config import get_defaults
from backbones.core.arguments import (
    ArgumentParser,
    backbone_argument,
    data_argument,
    path_argument,
    root_argument,
)
from backbones.core.config import CfgNode, expand_path, load_config
from backbones.core.errors import InputError
from backbones.core.run_log import get_logger, log_to_file
from backbones.core.sampling import StatelessBatchSampler
from detection.config import get_defaults as detection_defaults
from detection.evaluation.arguments import results_argument, truth_argument

ROOT = Path(__file__).resolve().parent.parent
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
EXPANDING = (path_argument, backbone_argument, data_argument, root_argument, results_argument, truth_argument)
# Options that take a text which is not a path; a new one is added here, or is given one of EXPANDING as its type.
TEXTS = {
    "arch", "baseline", "better", "box_form", "by", "category_by", "channel_order", "chosen", "dist_url", "error",
    "form", "image_by", "keep", "key", "kind", "label", "method", "metric", "norm", "note", "overrides", "paper",
    "primary", "rows", "scaled", "set", "sort", "source", "split", "to", "variant",
}  # fmt: skip


class _ParserError(Exception):
    pass


def parsers_of(tool, monkeypatch):
    """The parsers of a tool, those of its subcommands included."""
    found = []

    def stop(self, *_args, **_kwargs):
        found.append(self)
        raise _ParserError

    with monkeypatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, stop)
        with pytest.raises(_ParserError):
            tool.main([])
    for parser in found:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += action.choices.values()
    return found


def not_expanding(parser):
    """The options that take a text or a path which is neither in TEXTS nor expands."""
    return [
        action.dest
        for action in parser._actions
        if action.nargs != 0
        and not isinstance(action, argparse._SubParsersAction)
        and action.type not in (int, float, *EXPANDING)
        and action.dest not in TEXTS
    ]


@pytest.mark.parametrize("name", TOOLS)
def test_every_path_of_every_tool_expands(load_tool, monkeypatch, name):
    parsers = parsers_of(load_tool(name), monkeypatch)
    assert parsers
    for parser in parsers:
        assert isinstance(parser, ArgumentParser)
        assert not_expanding(parser) == []


def test_a_path_that_does_not_expand_is_found():
    parser = ArgumentParser()
    parser.add_argument("--output-dir", type=Path)
    parser.add_argument("--csv")
    parser.add_argument("--label")
    parser.add_argument("--root", type=path_argument)
    assert not_expanding(parser) == ["output_dir", "csv"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("S2D_PLACE", str(tmp_path / "place"))
    monkeypatch.delenv("S2D_ABSENT", raising=False)
    return tmp_path


def test_what_expands(home, monkeypatch):
    assert path_argument("~/x") == home / "x"
    assert path_argument("${S2D_PLACE}/y") == home / "place/y"
    assert data_argument("coco:~/a.json:$S2D_PLACE/b") == f"coco:{home}/a.json:{home}/place/b"
    assert data_argument("voc:~/VOC2007:trainval") == f"voc:{home}/VOC2007:trainval"
    assert data_argument("coco_2017_val") == "coco_2017_val"
    assert backbone_argument("random") == "random"
    assert backbone_argument("~/ce") == f"{home}/ce"
    assert root_argument("~/data") == f"{home}/data"
    monkeypatch.delenv("SMOOTH2DET_DATA", raising=False)
    assert root_argument("$SMOOTH2DET_DATA") == "$SMOOTH2DET_DATA"  # DETECTRON2_DATASETS may stand in for it


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "$S2D_ABSENT/x",
            "the environment variable S2D_ABSENT of '$S2D_ABSENT/x' is not set; export S2D_ABSENT=",
        ),
        ("${S2D_ABSENT}", "the environment variable S2D_ABSENT"),
        ("~no-such-user/x", "no user 'no-such-user' has a home folder; write ./~no-such-user/x"),
        ("", "the path is empty"),
    ],
)
def test_a_path_that_cannot_expand_is_one_line(home, load_tool, capsys, text, message):
    if text:
        with pytest.raises(InputError, match=re.escape(message)):
            expand_path(text)
    with pytest.raises(SystemExit) as stopped:
        load_tool("pretrain").main([f"--output-dir={text}"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: argument --output-dir: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_tilde_after_an_equals_sign_is_the_home_folder(home, load_tool, monkeypatch):
    """No shell expands it there."""
    monkeypatch.chdir(home)
    add(home / "runs", "pretraining", backbone("CE"), {"top1": 0.5})
    load_tool("compare").main(["~/runs", "--output-dir=~/report"])
    assert (home / "report/index.html").is_file()
    assert not (home / "~").exists()


def test_bases_expand(home):
    (home / "base.yaml").write_text("SEED: 7\n")
    (home / "child.yaml").write_text("_BASE_: ${HOME}/base.yaml\n")
    assert load_config(get_defaults(), home / "child.yaml").SEED == 7


# ---------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["pretrain", "--reusme"], "error: unknown option --reusme; did you mean '--resume'?"),
        (["benchmark", "--config-file", "x", "--output-dir", "y", "--dry-rum"],
         "error: unknown option --dry-rum; did you mean '--dry-run'?"),
        (["plot_backbone", "reliabilty", "x", "-o", "y.png"],
         "error: argument kind: unknown 'reliabilty'; did you mean 'reliability'?"),
        (["compare", "x"], "error: the following arguments are required: --output-dir"),
    ],
)  # fmt: skip
def test_a_mistyped_option_is_one_line_with_the_nearest(load_tool, capsys, argv, line):
    with pytest.raises(SystemExit) as stopped:
        load_tool(argv[0]).main(argv[1:])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"


OF_A_RUN = ("evaluate_backbone", "localize", "attack_backbone", "cache_teacher")
MISTYPED = {
    "pretrain": ["--output-dir", "{}/out", "DATA.ROOT", "{}/no-data"],
    **{name: ["{}", "--output-dir", "{}/out"] for name in OF_A_RUN},
    "finetune_coco": [
        *("--config-file", "configs/detection/quick.yaml", "--backbone", "{}/none.pth", "--output-dir", "{}/out"),
        *("DATASETS.ROOT", "{}/no-data"),
    ],
    "finetune_voc": [
        *("--config-file", "configs/yolo/quick.yaml", "--backbone", "{}/none.pth", "--output-dir", "{}/out"),
        *("DATASETS.ROOT", "{}/no-data"),
    ],
    "import_backbone": [
        *("--checkpoint", "{}/none.pth", "--source", "torchvision", "--arch", "resnet18", "--label", "x"),
        *("--output", "{}/out/x.pth", "--config-file", "configs/pretrain/quick_scenes.yaml"),
    ],
    "benchmark": ["--config-file", "configs/suites/quick.yaml", "--output-dir", "{}/out"],
}


def test_every_tool_that_takes_overrides_is_asked(load_tool, monkeypatch):
    asked = {
        name for name in TOOLS for parser in parsers_of(load_tool(name), monkeypatch)
        if "overrides" in {action.dest for action in parser._actions}
    }  # fmt: skip
    assert asked == MISTYPED.keys()


@pytest.mark.parametrize("name", MISTYPED)
def test_a_mistyped_key_is_answered_before_anything_is_read(tmp_path, name):
    """Data, backbone and checkpoint are not there, which the tool would say otherwise; a suite's data are not drawn."""
    (tmp_path / "config.yaml").write_text("DATA:\n  ROOT: no-data\n")
    key, nearest = ("COMPARE.ARGUMENT", "COMPARE.ARGUMENTS") if name == "benchmark" else ("SEDE", "SEED")
    arguments = [text.format(tmp_path) for text in MISTYPED[name]]
    process = start(f"tools/{name}.py", *arguments, key, "1", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert error.decode() == f"error: command line: unknown key '{key}'; did you mean '{nearest}'?\n"
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("[!.]*"))


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("('scenes_train',)", ("scenes_train",)),
        ("('a', 'b')", ("a", "b")),
        ('("a", "b")', ("a", "b")),
        (" ( 'a' , ) ", ("a",)),
        ("['a', 'b']", ("a", "b")),
        ("[a, b]", ("a", "b")),
        ("['a (left)', 'b']", ("a (left)", "b")),
        ("()", ()),
    ],
)
def test_lists_as_python_and_detectron2_write_them(tmp_path, text, value):
    cfg = load_config(detection_defaults(), None, ["DATASETS.TRAIN", text])
    assert value == cfg.DATASETS.TRAIN
    path = tmp_path / "a.yaml"
    path.write_text(f"DATASETS:\n  TRAIN: {text.strip()}\n")
    assert value == load_config(detection_defaults(), path).DATASETS.TRAIN


def test_lists_of_numbers_and_of_lists():
    defaults = CfgNode({"STEPS": (60, 80), "MEAN": [0.5, 0.5], "ANCHORS": [[[1.0, 2.0]]], "ANY": []})
    pairs = ["STEPS", "(3, 5)", "MEAN", "(1, 2)", "ANCHORS", "[[(10, 13), (16, 30)]]", "ANY", "[('bbox', 'AP', 38.5)]"]
    cfg = load_config(defaults, None, pairs)
    assert cfg.STEPS == (3, 5)
    assert cfg.MEAN == [1.0, 2.0]
    assert all(isinstance(value, float) for value in cfg.MEAN)
    assert cfg.ANCHORS == [[[10.0, 13.0], [16.0, 30.0]]]
    assert cfg.ANY == [["bbox", "AP", 38.5]]


@pytest.mark.parametrize(
    ("key", "text", "hint"),
    [
        ("DATASETS.TRAIN", "scenes_train", ("scenes_train",)),
        ("DATASETS.TRAIN", "('scenes_train')", ("scenes_train",)),
        ("DATASETS.TRAIN", "(scenes_train, scenes_val)", ("scenes_train", "scenes_val")),
        ("DATASETS.TRAIN", "scenes_train,scenes_val", ("scenes_train", "scenes_val")),
        ("DATASETS.TRAIN", "[scenes_train", ("scenes_train",)),
        ("SOLVER.STEPS", "(60, 80", (60, 80)),
        ("SOLVER.STEPS", "60", (60,)),
        ("DATASETS.TRAIN", "null", ("scenes_train",)),
        ("DATASETS.TRAIN", "", ("scenes_train",)),
    ],
)
def test_the_hint_for_a_list_works_when_it_is_typed(tmp_path, key, text, hint):
    with pytest.raises(InputError) as refused:
        load_config(detection_defaults(), None, [key, text])
    typed = shlex.split(str(refused.value).rsplit("write ", 1)[1])
    block, leaf = key.split(".")
    assert load_config(detection_defaults(), None, typed)[block][leaf] == hint
    path = tmp_path / "a.yaml"
    path.write_text(f"{block}:\n  {leaf}: {text}\n")
    with pytest.raises(InputError) as refused:
        load_config(detection_defaults(), path)
    if "not valid yaml" in str(refused.value):
        return
    path.write_text(f"{block}:\n  {leaf}: {str(refused.value).rsplit('write ', 1)[1]}\n")
    assert load_config(detection_defaults(), path)[block][leaf] == hint


def test_tuples_within_a_yaml_list_are_refused(tmp_path):
    """yaml reads them as the texts "('a'" and "1)"."""
    path = tmp_path / "a.yaml"
    path.write_text("ANY: [('a', 1)]\n")
    with pytest.raises(InputError, match=r"ANY holds tuples, which yaml reads as strings"):
        load_config(CfgNode({"ANY": []}), path)


def test_an_empty_text_is_a_text():
    assert load_config(get_defaults(), None, ["LABEL", ""]).LABEL == ""
    assert load_config(get_defaults(), None, ["LABEL", "''"]).LABEL == ""
    assert load_config(get_defaults(), None, ["LABEL", '"None"']).LABEL == "None"


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (["SEED", ""], r"^command line: SEED has no value \(null\); give a value of type int, such as 0"),
        (["SOLVER.BASE_LR", "null"], r"SOLVER.BASE_LR has no value \(null\); give a value of type float"),
        (["CHANNELS_LAST", "~"], r"CHANNELS_LAST has no value \(null\); give a value of type bool"),
        (
            ["LABEL", "null"],
            r"^command line: LABEL 'null' gives no value; give '' \(two quotes\) to leave it",
        ),
        (["LABEL", "None"], r"LABEL 'None' gives no value"),
        (["SEED", "None"], r"SEED must be of type int \(such as 0\), not 'None'"),
        (["SEED=3"], r"'SEED=3' has no value; write SEED 3$"),
    ],
)
def test_no_value_is_named(pair, message):
    with pytest.raises(InputError, match=message):
        load_config(get_defaults(), None, pair)


def test_a_key_without_a_value_in_a_file(tmp_path):
    (tmp_path / "a.yaml").write_text("LABEL:\n")
    with pytest.raises(InputError, match=r"a\.yaml: LABEL has no value \(null\); give '' \(two quotes\)"):
        load_config(get_defaults(), tmp_path / "a.yaml")


# ---------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    ("groups", "batch", "message"),
    [
        ([0] * 8, 9, r"^8 samples do not fill one batch of 9; use a batch of 8 or less$"),
        ([0] * 3 + [1] * 5, 8, r"^the 8 samples form groups of 3 and 5 .* none of which fills one batch of 8; "
         r"use a batch of 5 or less, or set DATALOADER.ASPECT_RATIO_GROUPING False$"),
        ([], 8, r"^the training set holds no samples"),
    ],
)  # fmt: skip
def test_why_no_batch_is_filled(groups, batch, message):
    with pytest.raises(InputError, match=message):
        StatelessBatchSampler(len(groups), batch, seed=0, start=0, stop=1, groups=np.array(groups, np.int64))


def test_the_batch_that_is_named_works():
    groups = np.array([0] * 3 + [1] * 5)
    assert StatelessBatchSampler(8, 5, seed=0, start=0, stop=1, groups=groups).iterations_per_epoch == 1
    assert StatelessBatchSampler(8, 8, seed=0, start=0, stop=1).iterations_per_epoch == 1


# ---------------------------------------------------------------------------------------------- start and end

GARBAGE = """
import atexit, gc, sys
from backbones.core.entry import fast_imports, run_tool
def state(): return gc.isenabled(), gc.get_freeze_count() > 0
atexit.register(lambda: print("exit", *state()))  # after what run_tool registers
def main(argv):
    with fast_imports():
        print("import", *state())
    try:
        with fast_imports():
            raise ImportError
    except ImportError:
        print("run", *state())
    gc.disable()
    with fast_imports():
        pass
    print("off", *state())
    return 3
run_tool(main)
"""


def test_garbage_is_collected_while_a_tool_runs_and_not_while_it_starts_and_ends(tmp_path):
    (tmp_path / "tool.py").write_text(GARBAGE)
    process = start(tmp_path / "tool.py", stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert out.splitlines() == ["import False False", "run True False", "off False False", "exit False True"]


# ---------------------------------------------------------------------------------------------- streams


def start(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, **options)


# "ALS alpha=0.25 +-" with the Greek letter and the sign.
LABEL = "ALS \u03b1=0.25 \u00b1"
SCRIPT = f"""
import sys
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
def main(argv):
    print({LABEL!a})
    raise InputError({LABEL!a})
run_tool(main)
"""


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"ALS \u03b1=0.25 \xb1"),
        ({"PYTHONIOENCODING": "latin-1"}, b"ALS \\u03b1=0.25 \xb1"),
        ({"PYTHONIOENCODING": "cp1252"}, b"ALS \\u03b1=0.25 \xb1"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, rb"ALS \u03b1=0.25 \xb1"),
        ({"PYTHONIOENCODING": "utf-8"}, LABEL.encode()),
    ],
)
def test_any_encoding_keeps_the_exit_code(tmp_path, env, shown):
    (tmp_path / "tool.py").write_text(SCRIPT)
    process = start(tmp_path / "tool.py", env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), error.strip()) == (2, shown, b"error: " + shown)


def test_the_log_is_utf8_in_any_locale(tmp_path, monkeypatch):
    monkeypatch.setattr(locale, "getpreferredencoding", lambda *_: "ascii")
    log_to_file(tmp_path / "log.txt")
    get_logger().info("%s", LABEL)
    assert LABEL in (tmp_path / "log.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    add(folder, "pretraining", backbone("CE"), {"top1": 0.5})
    add(folder, "pretraining", backbone(LABEL), {"top1": 0.5}, folder="als")
    return folder


def test_compare_shows_its_table_in_ascii(labelled, tmp_path):
    process = start(
        "tools/compare.py", labelled, "--output-dir", tmp_path, env={"PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, b"")
    assert rb"ALS \u03b1=0.25" in out
    assert b"report: " in out
    assert LABEL in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("tool", ["pretrain", "compare"])
def test_a_reader_that_leaves_ends_nothing(labelled, tmp_path, tool):
    """`tool | head`: no word on standard error, the exit code of SIGPIPE, and every file is there."""
    arguments = ["--list-methods"] if tool == "pretrain" else [labelled, "--output-dir", tmp_path / "report"]
    read, write = os.pipe()
    os.close(read)
    process = start(f"tools/{tool}.py", *arguments, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    error = process.communicate(timeout=60)[1]
    assert (process.returncode, error) == (141, b"")
    assert tool == "pretrain" or (tmp_path / "report/index.html").is_file()


LONG = """
import sys
from pathlib import Path
from tqdm import tqdm
from backbones.core.entry import run_tool
def main(argv):
    for step in tqdm(range(50), mininterval=0):
        tqdm.write(f"step {step}", file=sys.stderr)
        print("step", step, flush=True)
    Path(sys.argv[1]).write_text("trained")
    return CODE
run_tool(main)
"""


@pytest.mark.parametrize(("both", "code", "expected"), [(True, 0, 141), (False, 0, 0), (True, 1, 1)])
def test_a_training_outlives_the_reader_of_its_progress(tmp_path, both, code, expected):
    """`tool 2>&1 | head`; where standard error alone is closed, the tool's own exit code stays."""
    script = tmp_path / "tool.py"
    script.write_text(LONG.replace("CODE", str(code)))
    read, write = os.pipe()
    os.close(read)
    process = start(script, tmp_path / "result", stdout=write if both else subprocess.DEVNULL, stderr=write)
    os.close(write)
    process.wait(60)
    assert process.returncode == expected
    assert (tmp_path / "result").read_text() == "trained"


def test_streams_that_are_closed_from_the_start(tmp_path):
    script = tmp_path / "tool.py"
    script.write_text(LONG.replace("CODE", "0"))
    command = f"{shlex.quote(sys.executable)} {script} {tmp_path}/result >&- 2>&-"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0
    assert (tmp_path / "result").read_text() == "trained"


@pytest.mark.parametrize(
    ("resume", "line"),
    [
        ("", "interrupted\n"),
        ("add --resume", "interrupted; add --resume\n"),
    ],
)
def test_only_a_tool_that_resumes_says_so(tmp_path, resume, line):
    script = tmp_path / "tool.py"
    script.write_text(
        "from backbones.core.entry import run_tool\n"
        "def main(argv):\n    raise KeyboardInterrupt\n"
        f"run_tool(main, resume={resume!r})\n"
    )
    process = start(script, stderr=subprocess.PIPE)
    assert process.communicate(timeout=60)[1].decode() == line
    assert process.returncode == 130


@pytest.mark.parametrize("name", TOOLS)
def test_tools_that_name_resume_have_it(load_tool, monkeypatch, name):
    said = re.search(r"run_tool\(main, resume=\"(.*?)\"", (ROOT / "tools" / f"{name}.py").read_text())
    parsers = parsers_of(load_tool(name), monkeypatch)
    options = [option for parser in parsers for option in parser._option_string_actions]
    assert ("--resume" in options) == (said is not None and "--resume" in said[1])
