"""Label smoothing means two things, `all` and `k-1`: a table that holds both says which row is which."""

import re
from pathlib import Path

import pytest
import yaml

import backbones.config
from backbones.core.config import load_config
from suites.loading import load_suite

ROOT = Path(__file__).resolve().parent.parent
SUITES = sorted((ROOT / "configs" / "suites").glob("*.yaml"))


def conventions(path):
    """{label: convention} of the rows whose method has one."""
    suite, found = load_suite(path), {}
    for row in suite.rows:
        if row.backbone:
            continue
        overrides = [*suite.pretrain.overrides, *row.overrides]
        pairs = zip(overrides[::2], overrides[1::2], strict=True)
        method = [
            text for key, value in pairs if key.startswith("METHOD.") and "{" not in value for text in (key, value)
        ]
        cfg = load_config(backbones.config.get_defaults(), ROOT / (row.config or suite.pretrain.config), method)
        if convention := cfg.METHOD[cfg.METHOD.NAME].get("convention"):
            found[row.label] = convention
    return found


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_rows_of_several_conventions_say_theirs(path):
    found = conventions(path)
    if len(set(found.values())) > 1:
        assert all(f"({convention})" in label for label, convention in found.items()), found
    for label, convention in found.items():  # and no label says what is not so
        said = re.search(r"\((all|k-1)\)", label)
        assert not said or said[1] == convention, label


def test_als_of_the_quick_suite_says_that_it_is_not_the_papers():
    assert conventions(ROOT / "configs" / "suites" / "quick.yaml") == {"LS": "all", "ALS (all)": "all"}


def suite_of(tmp_path, *labels):
    rows = [
        {"LABEL": label, "OVERRIDES": ["METHOD.NAME", method]}
        for label, method in zip(labels, ("CE", "LS", "ALS"), strict=True)
    ]
    tree = {"PRETRAIN": {"CONFIG": "configs/pretrain/quick_scenes.yaml"}, "ROWS": rows}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(tree))
    return ["--config-file", str(path), "--output-dir", str(tmp_path / "out"), "--dry-run"]


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (("CE", "LS", "ALS"), "LS by all, ALS by k-1"),
        (("CE", "LS (all)", "ALS"), "ALS by k-1"),
        (("CE", "LS (k-1)", "ALS (k-1)"), "LS (k-1) by all"),
        (("CE", "LS (all)", "ALS (k-1)"), ""),
    ],
)
def test_a_suite_that_mixes_them_unsaid_is_warned_of(load_tool, tmp_path, capsys, labels, rows):
    assert load_tool("benchmark").main(suite_of(tmp_path, *labels)) == 0
    said = capsys.readouterr().err
    what = "warning: rows smooth by several conventions, which their labels do not say: "
    assert said == (f"{what}{rows}; write it there, as in 'LS (all)'\n" if rows else "")


def test_one_convention_needs_no_words(load_tool, tmp_path, capsys):
    arguments = suite_of(tmp_path, "CE", "LS", "ALS")
    assert load_tool("benchmark").main([*arguments, "PRETRAIN.OVERRIDES", "[METHOD.ALS.convention, all]"]) == 0
    assert capsys.readouterr().err == ""
