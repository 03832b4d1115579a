"""tools/papers.py reports and repairs what is out of date, and refuses a wrong source in one line."""

import re
import shutil
from pathlib import Path

import pytest

from backbones.core.errors import InputError
from comparison.papers.files import write_papers

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def copy(tmp_path):
    """A repository with only what the tool reads and writes."""
    for folder in ("docs", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_tool_repairs_what_it_reports(copy, load_tool):
    config = copy / "configs/pretrain/papers/ols/table9_resnet56_ls.yaml"
    extra = copy / "configs/pretrain/papers/ols/table9_resnet56_old.yaml"
    fresh, lines = config.read_text(), (copy / "docs/paper_tables/ols_table9.csv").read_text()
    extra.write_text(fresh)
    tool = load_tool("papers")
    with pytest.raises(InputError, match=r"table9_resnet56_old.yaml is written for nothing; run python tools"):
        tool.main(["--check", "--root", str(copy)])
    config.unlink()
    with pytest.raises(InputError, match=r"table9_resnet56_ls.yaml is missing and 1 more"):
        tool.main(["--check", "--root", str(copy)])
    (copy / "docs/paper_tables/ols_table9.csv").write_text(lines.replace("LS,26.37,", "LS,26.38,", 1))
    assert tool.main(["--root", str(copy)]) == 0
    assert not extra.exists()
    assert config.read_text() == fresh.replace("26.37", "26.38")
    assert "26.38 ± 0.41" in (copy / "docs/papers.md").read_text()
    assert tool.main(["--check", "--root", str(copy)]) == 0


def test_the_tool_ends_with_2(copy, run_tool):
    (copy / "docs/papers.md").write_text("by hand\n")
    done = run_tool("papers", "--check", "--root", copy)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "docs/papers.md is out of date; run python tools/papers.py" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("      Boothard: {use: table10_boothard}\n", "", "row 'Boothard' of ols_table6.csv is neither in rows nor"),
        (
            "      OLS: {use: table10_ols}",
            "      OLS: {use: table10_olss}",
            "unknown config 'table10_olss'; did you mean",
        ),
        ("LS: {use: table10_ls}", "LSS: {use: table10_ls}", "ols_table6.csv"),
        (
            "configs/yolo/voc0712_ols.yaml}",
            "configs/yolo/voc0712_o.yaml}",
            "configs/yolo/voc0712_o.yaml does not exist",
        ),
        ('["OLS vs OLS-Single, ', '["OLS vs OLS-Double, ', "prose.csv has no 'OLS vs OLS-Double, ResNet-56 top-1"),
        ("csv: ols_table6.csv", "csv: ols_table66.csv", "docs/paper_tables/ols_table66.csv does not exist"),
        ("show: [ResNet-34 mean, ", "show: [ResNet-35 mean, ", "ols_table1.csv has no column 'ResNet-35 mean'"),
        ("headline: [ACC, ECE 15]", "headline: [ACC, ECE 16]", "has no column 'ECE 16'"),
        ("headline: [ACC, ECE 15]", "headlines: [ACC]", "unknown key 'headlines'; did you mean 'headline'?"),
        ("network: resnet101\n", "network: resnet1001\n", "configs/pretrain/network/resnet1001.yaml does not exist"),
        ("    data: open_images\n", "    data: open_photos\n", "data 'open_photos' is missing"),
    ],
)
def test_a_wrong_source_is_one_line(copy, old, new, message):
    path = copy / "docs/papers.yaml"
    change(path, old, new)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        write_papers(copy)
    assert "\n" not in str(caught.value)


def test_the_source_is_read_strictly(copy):
    change(copy / "docs/papers.yaml", "tables:\n  als_table1:", "tables:\n  als_table2: {}\n  als_table1:")
    with pytest.raises(InputError, match="is duplicated"):
        write_papers(copy)
