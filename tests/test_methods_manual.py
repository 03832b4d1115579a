"""What a method says of itself is its config block and its manual; a class in a new module needs no other line."""

import subprocess
import sys

import pytest
from helpers.killing import ROOT

from backbones.config import get_defaults
from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.core.registry import Registry
from backbones.methods.base import METHODS, Method
from backbones.methods.manual import DEFAULT, Argument, list_methods, method_defaults, read_arguments


class Documented(Method):
    """One line.

    More of it.
    """

    def __init__(
        self, model, num_classes, *, share: float = 1, soft: bool = False, count: int = 3, form: str = "a: b"
    ) -> None:
        """What comes before the section.

        Args:
            share: of the batch, in [0, 1]: 0 is CE,
                as in the paper.
            soft: whether.

            form: "a: b", or
                "c".

        Raises:
            InputError: is not an argument.
        """
        super().__init__(model, num_classes)


class Inheriting(Documented):
    """Has the arguments of its base."""


def test_arguments_are_those_of_init_and_its_docstring():
    expected = [
        Argument("share", 1.0, "of the batch, in [0, 1]: 0 is CE, as in the paper."),
        Argument("soft", False, "whether."),
        Argument("count", 3, ""),
        Argument("form", "a: b", '"a: b", or "c".'),
    ]
    assert read_arguments(Documented) == read_arguments(Inheriting) == expected
    assert [type(argument.default) for argument in read_arguments(Documented)] == [float, bool, int, str]
    assert read_arguments(Method) == []


def method_with(source):
    """A method whose `__init__` has these parameters."""
    space = {"Method": Method}
    exec(f"class Odd(Method):\n    def __init__(self, model, num_classes, {source}): pass", space)
    return space["Odd"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("*, share", r"^METHOD\.Odd\.share has no default.*; give it one$"),
        ("*, share=None", r"^METHOD\.Odd\.share: the default must be a bool, int, float or str, not None$"),
        ("*, share=(1, 2)", r"must be a bool, int, float or str, not \(1, 2\)$"),
        ("share=0.5", r"^METHOD\.Odd\.share: .* must be keyword-only; write `\*,` before it$"),
        ("*shares", r"^METHOD\.Odd\.shares: .* must be keyword-only"),
        ("**options", r"^METHOD\.Odd\.options: .* must be keyword-only"),
    ],
)
def test_arguments_that_a_config_cannot_give_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        read_arguments(method_with(source))


def test_the_block_of_the_config_is_made_of_the_classes():
    block = get_defaults().METHOD
    assert block == method_defaults()
    assert list(block) == ["NAME", *METHODS.names()]
    assert block.NAME == DEFAULT
    for name in METHODS.names():
        arguments = read_arguments(METHODS.get(name))
        assert [(key, type(value), value) for key, value in block[name].items()] == [
            (argument.name, type(argument.default), argument.default) for argument in arguments
        ]


def test_a_whole_number_is_taken_for_a_fraction():
    cfg = load_config(get_defaults(), None, ["METHOD.LS.amount", "1", "METHOD.OLS.period", "7"])
    assert (type(cfg.METHOD.LS.amount), type(cfg.METHOD.OLS.period)) == (float, int)
    with pytest.raises(InputError, match=r"METHOD\.OLS\.period must be of type int"):
        load_config(get_defaults(), None, ["METHOD.OLS.period", "0.5"])


def test_the_list_shows_every_argument_with_default_and_meaning(load_tool, capsys):
    load_tool("pretrain").main(["--list-methods"])
    text = capsys.readouterr().out
    assert text == list_methods() + "\n"
    assert max(map(len, text.splitlines())) <= 120
    blocks = dict(block.partition(": ")[::2] for block in text.strip().split("\n\n"))
    assert list(blocks) == METHODS.names()
    for name, block in blocks.items():
        words = " ".join(block.split())
        for argument in read_arguments(METHODS.get(name)):
            assert f" {argument.name} {argument.default} {argument.meaning}" in words
    assert "    amount      0.1  smoothed mass in [0, 1]; 0 is CE.\n    convention  all  " in text


def test_modules_of_the_package_are_found_at_the_first_look(tmp_path, monkeypatch):
    """In any file of it, once; and nothing is imported before."""
    package = tmp_path / "found_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("import sys\nsys.modules['found_package'].read = True\n")
    for name in ("One", "Two"):
        (package / f"{name.lower()}.py").write_text(
            f"from found_registry import REGISTRY\n\n\n@REGISTRY.register()\nclass {name}: pass\n"
        )
    registry = Registry("thing", package="found_package")
    module = type(sys)("found_registry")
    module.REGISTRY = registry
    monkeypatch.setitem(sys.modules, "found_registry", module)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("", ".helper", ".one", ".two"):
        monkeypatch.setitem(sys.modules, f"found_package{name}", None)
        monkeypatch.delitem(sys.modules, f"found_package{name}")
    assert "found_package" not in sys.modules
    assert registry.names() == ["One", "Two"]
    assert "Two" in registry
    assert registry.get("One").__module__ == "found_package.one"
    assert sys.modules["found_package"].read
    with pytest.raises(InputError, match="unknown thing 'Tow'; did you mean 'Two'"):
        registry.get("Tow")


def test_what_detection_imports_brings_no_method():
    """functional and tables alone: neither the methods nor the data of classifiers."""
    code = (
        "import sys, backbones.methods.functional, backbones.methods.tables\n"
        "print(*(name for name in sys.modules if name.startswith('backbones.') and '.core' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    light = {"methods", "methods.functional", "methods.learnt", "methods.tables"}
    assert set(done.stdout.split()) == {f"backbones.{name}" for name in light}
