"""The source of a method is a part of its stages' hashes: what counts of it, and what does not."""

import shutil

import pytest
from helpers.suite_lab import ALS, ROOT

import backbones.config
import detection.engines.yolo.config
from backbones.core.errors import InputError
from backbones.methods.base import METHODS
from detection.engines.yolo.labels import CLASS_LABELS
from suites.fingerprints import sources as suite_sources
from suites.fingerprints.sources import BY_TOOL, class_source, named_class

pytest_plugins = ["helpers.suite_fixtures"]


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A copy of what is followed; `code(file, old, new)` edits it."""
    folder = tmp_path / "code"
    for part in ("backbones/methods", "detection/engines/yolo"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(suite_sources, "ROOT", folder)

    def edit(file, old, new):
        path = folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


def test_every_registered_class_is_found():
    found = [class_source("pretrain", name) for name in METHODS.names()]
    found += [class_source("finetune_voc", name) for name in CLASS_LABELS.names()]
    assert len(set(found)) == len(found) == 35
    for tool, cfg, registry in (
        ("pretrain", backbones.config.get_defaults(), METHODS),
        ("finetune_voc", detection.engines.yolo.config.get_defaults(), CLASS_LABELS),
    ):
        block = cfg[BY_TOOL[tool].key.partition(".")[0]]
        assert BY_TOOL[tool].default == block.NAME
        with pytest.raises(InputError, match=rf"unknown {BY_TOOL[tool].key} 'OLZ'; did you mean 'OLS'\?"):
            class_source(tool, "OLZ")
        assert "OLS" in registry.names()


WATCHED = ("CE", "LS", "ALS", "ALSContext", "ALSCutMix", "CutMix", "CutOutLS", "ILS1", "KD", "OLS", "BYOTOLS")
METHODS_FOLDER = "backbones/methods"


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        # a formula, used by name, or by another function
        ("functional.py", "wrong = amount /", "wrong = 2 * amount /", "LS ALS ALSContext ALSCutMix CutOutLS ILS1"),
        ("functional.py", "beta * (1 - objectness", "beta * (2 - objectness", "ALS ALSContext ALSCutMix"),
        ("functional.py", "total / total.sum(dim=1, keepdim=True)", "total", "OLS BYOTOLS"),
        # the base class
        ("base.py", "self.observe(outputs, batch)", "self.observe(outputs, None)", " ".join(WATCHED)),
        # the class itself; a helper class beside it; a constant of the module
        ("adaptive.py", "(1 - drawn.pasted) *", "drawn.pasted *", "ALSCutMix"),
        ("adaptive.py", "beta > 0 else 0.0", "beta > 0 else 1.0", "ALS ALSContext"),
        ("functional.py", 'CONVENTIONS = ("all", ', "CONVENTIONS = (", "LS ALS ALSContext ALSCutMix CutOutLS"),
        # a default
        ("adaptive.py", 'convention: str = "k-1"', 'convention: str = "all"', "ALS ALSContext"),
        ("smoothing.py", "amount: float = 0.1", "amount: float = 0.2", "LS CutOutLS"),  # the base's: its class counts
        # what changes no number
        ("adaptive.py", "WARNING_SHARE = 0.05", "WARNING_SHARE = 0.05  # five percent", ""),
        ("adaptive.py", '"""Adaptive label smoothing by objectness, alone', '"""By objectness, alone', ""),
        ("functional.py", "    amount = amount.to(dtype)\n", "\n    amount = amount.to(\n        dtype\n    )\n", ""),
        ("functional.py", "\nimport torch", "\nimport json\nimport torch", ""),
    ],
)  # fmt: skip
def test_a_change_concerns_the_methods_that_use_it(code, file, old, new, changed):
    before = {name: class_source("pretrain", name) for name in WATCHED}
    code(f"{METHODS_FOLDER}/{file}", old, new)
    after = {name: class_source("pretrain", name) for name in WATCHED}
    assert {name for name in WATCHED if before[name] != after[name]} == set(changed.split())


def test_class_labels_of_yolo_follow_the_functions_of_pretraining(code):
    def found():
        return [class_source("finetune_voc", name) for name in ("Hard", "LS", "OLS")]

    hard, ls, ols = found()
    code("backbones/methods/functional.py", "wrong = amount /", "wrong = 2 * amount /")
    assert [a == b for a, b in zip(found(), (hard, ls, ols), strict=True)] == [True, False, True]
    code(
        "detection/engines/yolo/config.py",
        '_C.CLASS_LABELS.OLS.empty = "uniform"',
        '_C.CLASS_LABELS.OLS.empty = "keep"',
    )
    assert found()[0] == hard
    assert found()[2] != ols


WRITTEN = {
    "backbones/__init__.py": "",
    "backbones/models.py": "class Far:\n    power = 1\n\n\ndef far(): return 1\n",
    "backbones/methods/__init__.py": "from .own import Own\n",
    "backbones/methods/tables.py": "TABLE = {}\nTABLE['a'] = 1\nOTHER = 1\n",
    "backbones/methods/helpers.py": "def used(): return 1\n\n\ndef unused(): return 1\n",
    "backbones/methods/own.py": """
import backbones.methods.tables
from backbones.models import Far, far
from . import helpers as h
from .more import *

if True:
    LIMIT: int = 1


@METHODS.register()
class Own(Far):
    def loss(self):
        from backbones.methods.late import late
        x: "text" = late() + backbones.methods.tables.TABLE[LIMIT]
        return h.used() + star() + far() + lost + len(x)
""",
    "backbones/methods/more.py": "from .own import *\nfrom .own import lost\ndef star(): return 1\n",
    "backbones/methods/late.py": "def late(): return 1\ndef dark(): return 1\n",
}


@pytest.mark.parametrize(
    ("file", "old", "counts"),
    [
        ("models.py", "power = 1", True),  # a base class of another package
        ("models.py", "far(): return 1", False),  # a function of another package: our version stands for it
        ("methods/tables.py", "['a'] = 1", True),  # a change of what is referred to
        ("methods/tables.py", "OTHER = 1", False),
        ("methods/helpers.py", "def used(): return 1", True),
        ("methods/helpers.py", "def unused(): return 1", False),
        ("methods/own.py", "int = 1", True),  # in a block of the module
        ("methods/more.py", "star(): return 1", True),  # from an import of everything
        ("methods/late.py", "late(): return 1", True),  # imported inside of a function
        ("methods/late.py", "dark(): return 1", False),
    ],
)
def test_every_way_to_refer_to_something_is_followed(tmp_path, monkeypatch, file, old, counts):
    for name, text in WRITTEN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(suite_sources, "ROOT", tmp_path)
    before = class_source("pretrain", "Own")
    path = tmp_path / "backbones" / file
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, f"{old} + 22"))
    assert (class_source("pretrain", "Own") != before) == counts


def test_source_that_cannot_be_parsed_is_named(code):
    code("backbones/methods/smoothing.py", "class LS(", "class LS((")
    with pytest.raises(InputError, match=r"cannot read the source .*smoothing.py: .*; correct it"):
        class_source("pretrain", "CE")


@pytest.mark.parametrize(
    ("config", "overrides", "name"),
    [
        ({}, [], "CE"),
        ({"METHOD": {"NAME": "LS"}}, [], "LS"),
        ({"METHOD": {"NAME": "LS"}}, ["METHOD.LS.amount", "0.2"], "LS"),
        ({"METHOD": {"NAME": "LS"}}, ["METHOD.NAME", "ALS", "A", "1", "METHOD.NAME", "'OLS'"], "OLS"),
        ({"METHOD": {"NAME": "LS"}}, ["METHOD", "{NAME: KD}"], "KD"),
        ({"METHOD": "LS"}, [], "CE"),  # refused later, by the whole config
    ],
)
def test_the_class_that_a_config_names(config, overrides, name):
    assert named_class("pretrain", config, overrides) == name
    assert named_class("finetune_coco", config, overrides) == ""


# ---- suites ---------------------------------------------------------------------------------------------------------


def test_a_suite_runs_again_what_a_changed_formula_concerns(finished, code):
    assert finished.to_run() == []  # a copy of the source at another place
    code("backbones/methods/functional.py", "amount = beta * (1 -", "amount = beta * (2 -")
    assert finished.to_run() == [*ALS, "compare"]


def test_a_student_runs_again_with_its_teacher(finished, code):
    student = {"LABEL": "ILS", "OVERRIDES": ["METHOD.NAME", "ILS", "TEACHER.RUN", "{run:ALS}"]}
    finished.tree["ROWS"].append(student)
    assert finished.run()[0] == 0
    code("backbones/methods/adaptive.py", 'needs = frozenset({"objectness"})', "needs = frozenset()")
    assert "ILS pretrain" in finished.to_run()
    assert "CE pretrain" not in finished.to_run()


def test_a_mistyped_method_is_refused_when_the_suite_is_planned(lab):
    lab.tree["ROWS"][2]["OVERRIDES"] = ["METHOD.NAME", "ASL"]
    with pytest.raises(InputError, match=r"ALS: pretrain: unknown METHOD.NAME 'ASL'; did you mean 'ALS'\?"):
        lab.plan()


def test_a_source_that_changes_while_the_suite_runs_trains_nothing_under_the_old_name(lab, code):
    plan = lab.plan()
    code("backbones/methods/functional.py", "amount = beta * (1 -", "amount = beta * (2 -")
    result, said = lab.run_plan(plan)
    assert result == 1
    why = "not run: the source of METHOD.NAME ALS has changed since the suite was started; start it again"
    assert f"ALS: pretrain ... {why}" in said
    assert not [name for name in lab.called() if name.startswith("ALS")]
    assert lab.run()[0] == 0
    assert "ALS pretrain" in lab.called()
