"""Results name the code that made them, and say so where they replace numbers of another protocol."""

import logging
import subprocess

import pytest

from backbones import __version__
from backbones.core import revision
from backbones.core.results import BackboneIdentity, load_results, make_results, save_results
from backbones.core.run_log import get_logger, hold_log, log_to_file
from backbones.core.runs import environment

ME = BackboneIdentity("CE", "CE", 0, "abc")


def git(folder, *arguments):
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with one commit, while a hook of another repository has set git's variables."""
    (tmp_path / "clone" / "tools").mkdir(parents=True)
    folder = tmp_path / "clone"
    (folder / "tools" / "a.py").write_text("a = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    return folder


def test_the_state_of_a_clone(clone, tmp_path, monkeypatch):
    monkeypatch.delenv("GIT_DIR")
    commit = git(clone, "rev-parse", "HEAD").strip()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert revision.clone_state(clone) == {"commit": commit, "modified": False}
    (clone / "README.md").write_text("no code")
    assert revision.clone_state(clone) == {"commit": commit, "modified": False}
    (clone / "tools" / "b.py").write_text("b = 1\n")  # not part of the commit
    assert revision.clone_state(clone) == {"commit": commit, "modified": True}
    (clone / "tools" / "b.py").unlink()
    (clone / "tools" / "a.py").write_text("a = 2\n")
    assert revision.clone_state(clone) == {"commit": commit, "modified": True}


def test_outside_of_a_clone_of_ours_nothing_is_known(clone, tmp_path, monkeypatch):
    """A package that is installed below somebody's clone must not take that clone's commit for its own."""
    nothing = {"commit": None, "modified": None}
    assert revision.clone_state(tmp_path) == nothing
    assert revision.clone_state(clone / "tools") == nothing
    monkeypatch.setenv("PATH", "")  # git is not installed
    assert revision.clone_state(clone) == nothing


def test_results_and_environment_name_the_code(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        revision, "clone_state", lambda root: calls.append(root) or {"commit": "c" * 40, "modified": True}
    )
    revision.code_revision.cache_clear()
    try:
        for folder in (tmp_path / "a", tmp_path / "b"):
            save_results(folder, make_results("backbone", ME, {"name": "p", "hash": "1"}, {"top1": 0.5}))
            assert load_results(folder)["code"] == {"version": __version__, "commit": "c" * 40, "modified": True}
        assert environment()["git"] == {"commit": "c" * 40, "modified": True}
        assert len(calls) == 1  # git is asked once in a process
    finally:
        revision.code_revision.cache_clear()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ({"commit": "0123456789abcdef", "modified": False}, "0123456789ab"),
        ({"commit": "0123456789abcdef", "modified": True}, "0123456789ab (modified)"),
        ({"commit": None, "modified": None, "version": "1"}, None),
        (None, None),  # of an earlier version
    ],
)
def test_how_a_revision_is_written(code, said):
    assert revision.describe_revision(code) == said


def test_numbers_that_replace_those_of_another_protocol_are_called_out(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(get_logger(), "propagate", True)  # to where caplog listens

    def save(digest, **settings):
        caplog.clear()
        save_results(tmp_path, make_results("backbone", ME, {"name": "p", "hash": digest} | settings, {}))
        return caplog.text

    assert save("1") == ""
    assert save("1") == ""
    assert save("1", settings={"SIZE": 3}) == ""  # the first ones are of an earlier version, without settings
    assert "replaces {'name': 'p', 'hash': '1'}, another protocol" in save("2")
    (tmp_path / "results.json").write_text('{"cut')
    assert save("3") == ""


def test_a_log_is_kept_until_its_file_is_known(tmp_path):
    logger = get_logger()
    hold_log()  # nothing is left of what an earlier test kept
    log_to_file(tmp_path / "first.txt")
    logger.info("one")
    hold_log()
    logger.info("two")
    hold_log()  # the run of "two" was refused
    logger.info("three")
    log_to_file(tmp_path / "second.txt")
    logger.info("four")
    texts = [(tmp_path / name).read_text() for name in ("first.txt", "second.txt")]
    said = [[line.split()[-1] for line in text.splitlines()] for text in texts]
    assert said == [["one"], ["three", "four"]]
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()
