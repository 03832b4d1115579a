"""What README, CONTRIBUTING, the pages of docs/ and the configs name exists: paths, classes, options, keys, links."""

import ast
import contextlib
import io
import re
import xml.etree.ElementTree as ElementTree
from functools import lru_cache
from pathlib import Path

import pytest

import backbones.config
import backbones.data.defaults
import detection.config
import detection.engines.yolo.config as yolo_config
import suites.config
from backbones.core.config import flatten
from comparison.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
DEFAULTS = (backbones.config, backbones.data.defaults, detection.config, yolo_config)
DIAGRAM = ROOT / "docs" / "architecture.svg"
ROOMS = "backbones|detection|comparison|suites|tools|tests|configs|benchmarks|docs"
PATH = re.compile(rf"(?<![\w/.$~>-])(?:{ROOMS})/(?:[\w./-]*[\w/])?(?![\w*<{{])")
SYMBOL = re.compile(r"([\w./-]+\.py)::(\w+(?:\.\w+)*)")
# Named as what a reader writes, or in the repositories of others (detectron2, MoCo).
PLACEHOLDERS = {"FILE", "NAME", "halfway"}
FOREIGN = {
    *("configs/Base-RCNN-C4.yaml", "configs/Base-RCNN-FPN.yaml"),
    *("detection/configs/Base-RCNN-C4-BN.yaml", "detection/README.md"),
}


def named(path):
    return str(path.relative_to(ROOT))


def named_module(module):
    return module.__name__


def unknown_paths(text):
    """The paths below the repository's folders that `text` names and that do not exist."""
    found = {match.rstrip(".") for match in PATH.findall(text)}
    found = {path for path in found - FOREIGN if Path(path).stem not in PLACEHOLDERS}
    return sorted(path for path in found if not (ROOT / path).exists())


@lru_cache
def definitions(path):
    """Names of the classes, functions, tables and methods (as Class.method) that a module defines."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {name.id for target in targets for name in ast.walk(target or node) if isinstance(name, ast.Name)}
    return names


def commands(text):
    """(tool, options) of every command in `text`; a line that ends in a backslash continues."""
    for match in re.finditer(r"tools/(\w+)\.py([^\n`|#]*)", text.replace("\\\n", " ")):
        yield match[1], re.findall(r"(?<!\S)(--[a-z][\w-]*)", match[2])


@pytest.fixture(scope="module")
def options_of(load_tool):
    """The options in the help of a tool and of its subcommands."""

    @lru_cache
    def options(name):
        texts, pending = [], [[]]
        while pending:
            arguments = pending.pop()
            with contextlib.redirect_stdout(io.StringIO()) as stream, pytest.raises(SystemExit):
                load_tool(name).main([*arguments, "--help"])
            texts.append(stream.getvalue())
            choices = re.search(r"^  \{([\w,-]+)\}", stream.getvalue(), flags=re.MULTILINE)
            if choices and not arguments:
                pending += [[choice] for choice in choices[1].split(",")]
        return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", "\n".join(texts)))

    return options


@pytest.mark.parametrize("path", [*PAGES, DIAGRAM], ids=named)
def test_every_path_exists(path):
    assert unknown_paths(path.read_text()) == []


def test_every_path_in_a_config_exists():
    assert len(CONFIGS) > 100
    found = {named(path): unknown_paths(path.read_text()) for path in CONFIGS}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_name_is_defined_in_its_file(path):
    wrong = [f"{file}::{name}" for file, name in SYMBOL.findall(path.read_text()) if name not in definitions(file)]
    assert wrong == []


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_option_is_in_the_help_of_its_tool(path, options_of):
    wrong = {(tool, option) for tool, given in commands(path.read_text()) for option in given}
    assert {(tool, option) for tool, option in wrong if option not in options_of(tool)} == set()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_target_of_make_exists(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"quickstart", "test"} <= targets
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), flags=re.MULTILINE)) <= targets


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_config_key_exists(path):
    trees = [module.get_defaults() for module in (backbones.config, detection.config, yolo_config)]
    known = {key for tree in [*trees, suites.config.DEFAULTS] for key, _ in flatten(tree)}
    known |= {key.rsplit(".", n)[0] for key in known for n in range(1, key.count(".") + 1)}
    blocks = "|".join(sorted({key.split(".")[0] for key in known if "." in key}))
    keys = set(re.findall(rf"(?<![\w.$])(?:{blocks})\.[A-Za-z_]\w*(?:\.\w+)*", path.read_text()))
    halfway = {key for key in keys if "Halfway" in key or "DecayingLS" in key}  # examples of a method of one's own
    halfway |= {key for key in keys if key.endswith(".register")}  # a registry
    short = {key for key in keys if any(longer.endswith(f".{key}") for longer in known)}  # MODEL.FPN.NORM as FPN.NORM
    assert sorted(keys - known - halfway - short) == []


def uncommented(text):
    """The keys of a module of defaults that have a comment neither in the line above nor in their own."""
    lines = text.splitlines()
    keys = {n: found[1] for n, line in enumerate(lines) if (found := re.match(r"_C\.([\w.]+) = (?!\w*Block\()", line))}
    keys = {n: key for n, key in keys.items() if not lines[n].endswith("CfgNode()")}  # a block of a method of labels
    return [key for n, key in keys.items() if not lines[n - 1].startswith("#") and "  # " not in lines[n]]


@pytest.mark.parametrize("module", DEFAULTS, ids=named_module)
def test_every_config_key_is_explained_beside_its_default(module):
    text = Path(module.__file__).read_text()
    assert text.count("\n_C.") > 20
    assert uncommented(text) == []
    assert uncommented("# x\n_C.A = 1\n_C.B = Block(X)\n_C.B.C = MACHINE(2)\n_C.D = 3  # x\n_C.E = 4") == ["B.C", "E"]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_link_leads_to_a_file_or_a_heading(path):
    text = path.read_text()
    headings = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in headings_of(text)}
    for target in re.findall(r"\]\((?!https://)([^)\s]+)\)", text):  # of this repository
        file, _, anchor = target.partition("#")
        assert not file or (path.parent / file).exists(), target
        assert file or anchor in headings, target


def headings_of(text):
    return [line for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines() if line.startswith("#")]


def test_the_function_quoted_as_an_example_is_the_one_of_the_file():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    ((file, code),) = re.findall(r"This function of `([\w/.]+)`.*?```python\n(.*?)```", text, flags=re.DOTALL)
    assert code in (ROOT / file).read_text()


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", index)}
    assert linked >= {*PAGES, DIAGRAM} - {ROOT / "docs" / "README.md"}


def test_the_table_of_folders_lists_every_package():
    """In architecture.md, one line each; README's layout names those of the first two levels."""
    packages = ("backbones", "detection", "comparison", "suites")
    folders = {named(path.parent) for package in packages for path in (ROOT / package).rglob("__init__.py")}
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert re.findall(r"(?m)^\| `([\w/]+)/` \| \S.* \|$", text) == sorted(folders)
    layout = (ROOT / "README.md").read_text().partition("## Layout\n")[2].partition("```\n")[2].partition("```")[0]
    lines = dict(re.findall(r"(?m)^(\w+)/ +(.*(?:\n .*)*)", layout))
    for folder in folders:
        package, _, inner = folder.partition("/")
        assert not inner or "/" in inner or f"{inner}/" in lines[package], folder


def test_the_diagram_is_well_formed_and_its_texts_lie_inside():
    drawing = ElementTree.parse(DIAGRAM).getroot()
    width, height = map(float, drawing.attrib["viewBox"].split()[2:])
    texts = [element for element in drawing.iter() if element.tag.endswith("}text")]
    assert len(texts) > 20
    for text in texts:
        letters = len(" ".join("".join(text.itertext()).split()))
        assert float(text.attrib["x"]) + 0.6 * float(text.attrib.get("font-size", 12)) * letters < width, text.text
        assert float(text.attrib["y"]) < height


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("see `backbones/gone.py`.", ["backbones/gone.py"]),
        ("`comparison/suite.py`, backbones/core/.", ["comparison/suite.py"]),
        ("configs/pretrain/FILE.yaml, runs/backbones/x, $X/tests/y, configs/suites/*.yaml", []),
    ],
)
def test_the_search_sees_what_it_must(text, wrong):
    assert unknown_paths(text) == wrong
    assert "_TABLE" in definitions("comparison/metrics.py")
    assert "Method.targets" in definitions("backbones/methods/base.py")
    assert list(commands("tools/a.py x \\\n  --b c --d-e")) == [("a", ["--b", "--d-e"])]


def test_the_table_of_measures_lists_the_columns_of_the_report():
    text = (ROOT / "docs" / "measures.md").read_text()
    direction = {1: "higher", -1: "lower", 0: "-"}
    for metric in METRICS:
        assert f"| `{metric.name}` | {metric.title} | {direction[metric.better]} | {metric.meaning} |" in text
        assert f"\n## {metric.group}\n" in text
    assert len(re.findall(r"(?m)^\| `\w+` \|", text)) == len(METRICS)
