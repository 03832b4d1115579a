"""One word for one thing, in plain technical English, as CONTRIBUTING.md asks: other words are said nowhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".md", ".yaml", ".html", ".toml", ".svg", ".css", ".js", ".txt", ""}
FOLDERS = ("backbones", "detection", "comparison", "suites", "tools", "tests", "configs", "benchmarks", "docs", ".ci")
FILES = sorted(
    path
    for path in [*ROOT.glob("*"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*"))]
    if path.is_file()
    and path.suffix in SUFFIXES
    and "__pycache__" not in path.parts
    and not path.name.startswith(".git")
)
# What is said -> what to say.
WORDS = {
    r"\w*pictures?\w*": "image",
    r"go(es)?[ _]on\b|going[ _]on\b|went[ _]on\b": "resume, continue",
    r"mend(s|ed|ing)?(?![a-z])": "fix",
    r"br(ing|ings|inging|ought) (together|home)\b": "group, average, collect on the main process",
    r"(speak|speaks|speaking|spoke) against\b": "contradicts",
    r"is[ _]no(?![a-z])": "is not a",
    r"(stand|stands|stood) twice\b": "is duplicated",
    r"cannot be meant\b": "rejected",
}
WRONG = re.compile(r"(?<![\w-])(?:" + "|".join(WORDS) + ")", re.IGNORECASE)
# Names that earlier versions wrote to disk or took on the command line, and that are still read.
OLD_NAMES = re.compile(r"evaluated_on_training_pictures|--no-pictures")


def wrong_words(text: str) -> list[str]:
    """The words of `text` that have a better one, each with its line number; a sentence may be broken between lines."""
    text = OLD_NAMES.sub("", re.sub(r"(?m)\n[ \t]*(?:#|\*|//)?[ \t]*", lambda line: "\n", text))
    return [
        f"line {text.count(chr(10), 0, found.start()) + 1}: {found[0]!r}"
        for found in re.finditer(WRONG.pattern.replace(" ", r"\s"), text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_the_one_word(path):
    if path == Path(__file__):
        return
    assert wrong_words(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a picture", ["line 1: 'picture'"]),
        ("x\n# the run goes\n    # on here", ["line 2: 'goes\\non'"]),
        (
            "StoredPictures, mended; stands twice",
            ["line 1: 'StoredPictures'", "line 1: 'mended'", "line 1: 'stands twice'"],
        ),
        ("it is not a number, recommend, algorithm; this is normal", []),
        ("MENDED_SHARE = 1", ["line 1: 'MENDED'"]),
        ("evaluated_on_training_pictures", []),
    ],
)
def test_the_search_finds_words_across_lines_and_within_names(text, found):
    assert wrong_words(text) == found
