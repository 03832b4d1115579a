"""Published numbers beside ours: which are shown, in which units, and that nothing else of a comparison holds them."""

import csv
import re
from pathlib import Path

import pytest
import yaml
from helpers.result_folders import add, add_detection, backbone, compare_runs

from backbones.core.config import load_yaml
from backbones.core.errors import InputError
from comparison.evidence.verify import verify
from comparison.metrics import BY_NAME
from comparison.papers.published import missing_note, read_published

ROOT = Path(__file__).resolve().parent.parent
SUITES = sorted((ROOT / "configs" / "suites").glob("*.yaml"))
UNPUBLISHED = {
    "imagenet_coco",
    "imagenet_coco_slurm",
    "real_small",
    "voc_yolo_ols",
}  # own designs; quick suites and OLS Table V have none either


def paper_of(path):
    arguments = (load_yaml(path).get("COMPARE") or {}).get("ARGUMENTS", [])
    return arguments[arguments.index("--paper") + 1] if "--paper" in arguments else ""


def labels_of(path):
    tree = yaml.safe_load(path.read_text())
    base = yaml.safe_load((path.parent / tree["_BASE_"]).read_text()) if "_BASE_" in tree else {}
    return [row["LABEL"] for row in (tree.get("ROWS") or base.get("ROWS", []))]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_of_a_paper_names_its_table_and_other_suites_none(path):
    paper, name = paper_of(path), path.stem
    if (
        name.startswith(("quick", "answers", "ols_table4", "ols_table5", "ols_single", "ols_table6", "ols_table7"))
        or name in UNPUBLISHED
    ):
        assert paper == ""
        return
    assert name.startswith(paper.partition(":")[0])
    found = read_published(paper)
    assert found
    labels = labels_of(path)
    shown = [row["label"] for row in found["rows"]]
    assert set(shown) - set(labels) <= {"No LS+TempS"}  # a number of the row "No LS", not a row of the suite
    missing = [label for label in labels if label not in shown]
    teachers = {"ils_table3": ["Teacher"], "ils_table4": ["No LS", "LS", "ILS"]}
    assert missing == teachers.get(name[:10], [])
    assert all(column["metric"] in BY_NAME for column in found["columns"])


def lines(name):
    with (ROOT / "docs" / "paper_tables" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def texts(paper, label):
    found = read_published(paper)
    assert found
    [row] = [row for row in found["rows"] if row["label"] == label]
    return row["texts"]


def test_the_numbers_are_those_of_the_files():
    [line] = [one for one in lines("als_table7.csv") if one["Method"] == "RICAP"]
    assert texts("als_table7", "RICAP | 1.28M") == {key: line[key] for key in line if key.startswith("AP ")}
    [line] = [one for one in lines("ols_table9.csv") if one["Method"] == "OLS"]
    own = {
        f"ResNet-74 {key}": f"{line[f'ResNet-74 {key} mean']} ± {line[f'ResNet-74 {key} std']}"
        for key in ("Top-1", "ECE%")
    }
    assert texts("ols_table9:resnet74", "OLS") == own
    first = next(one for one in lines("als_table5.csv") if one["Method"] == "RICAP")  # of both validation sets
    assert first["Val. Set"] == "V1"
    assert texts("als_table5", "RICAP | 1.28M")["Acc. mean"] == first["Acc. mean"]
    pair = "ResNet110 | CIFAR100"
    [ce, acc] = [
        next(
            one
            for one in lines(f"ils_table3_{name}.csv")
            if (one["Model"], one["Dataset"]) == ("ResNet110", "CIFAR100")
        )
        for name in ("ce", "acc")
    ]
    assert texts(f"ils_table3:{pair}", "cLS")["Cross-Entropy"] == ce["cLS"]
    assert texts(f"ils_table3:{pair}", "cLS")["Accuracy"] == acc["cLS"]
    # After temperature scaling only the accuracy is the same metric as ours.
    assert texts(f"ils_table3:{pair}", "LS+TempS") == {"Accuracy": acc["LS+TempS"]}
    [line] = [one for one in lines("ils_table4.csv") if one["Teacher"] == "InceptionV4"]
    assert texts("ils_table4:InceptionV4 | CIFAR10", "AlexNet from ILS") == {
        "CE": line["CE ILS"],
        "Acc%": line["Acc% ILS"],
    }


@pytest.mark.parametrize(
    ("paper", "said"),
    [
        ("als_tabel7", "no table 'als_tabel7'.*did you mean 'als_table7'"), ("als_table1", "no table 'als_table1'"),
        ("ols_table5", "no table"), ("ols_table1", "its parts are resnet34, .*, not ''"),
        ("ols_table1:resnet35", "resnet34, .*not 'resnet35'; did you mean"), ("als_table7:x", "not 'x'"),
    ],
)  # fmt: skip
def test_an_unknown_table_is_refused_by_name(paper, said):
    with pytest.raises(InputError, match=said):
        read_published(paper)


def test_without_the_repository_a_note_says_so(tmp_path):
    assert read_published("als_table7", tmp_path) is None
    [note] = missing_note("als_table7", None)
    assert "als_table7" in note
    assert "\n" not in note
    assert missing_note("", None) == missing_note("als_table7", {}) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    for label, top1 in (("Hard Label", 0.75), ("OLS", 0.5)):
        for seed in (0, 1):
            who = backbone(label, "CE" if label == "Hard Label" else label, seed=seed)
            data = {"train": {"name": "made", "images": 500}, "val": {"name": "made"}}
            add(folder / "runs", "pretraining", who, {"top1": 0.1}, protocol=f"{label.replace(' ', '')}@1", data=data)
            add(folder / "runs", "backbone", who, {"top1": top1 + 0.02 * seed, "ece15": 0.125})
            tuned = {
                "train": {"name": "scenes", "images": 7, "annotations": 1234},
                "test": {"images": 10, "objects": 30},
            }
            add_detection(folder / "runs", who, 0.8, data=tuned)
    plain = compare_runs(folder / "runs", folder / "plain")
    options = ["--paper", "ols_table9:resnet56", "--bundle", str(folder / "evidence.zip")]
    return folder, plain, compare_runs(folder / "runs", folder / "out", *options)


def test_the_page_shows_both_with_their_scales_in_the_units_of_the_paper(made):
    page = (made[0] / "out" / "index.html").read_text()
    section = page[page.index("Published numbers beside ours") : page.index("How to read this page")]
    cells = [
        re.findall(r"<td[^>]*>(.*?)</td>", line) for line in re.findall(r"<tr><th scope=\"row\">.*?</tr>", section)
    ]
    assert [line[:2] for line in cells] == [["26.81 ± 0.36", "11.37 ± 0.53"], ["25.24 ± 0.18", "2.85 ± 1.44"]]
    assert [line[3:5] for line in cells] == [["24.00", "12.50"], ["49.00", "12.50"]]
    assert all("CIFAR-100" in line[2] and "300 epochs" in line[2] for line in cells)
    for text in ("made 500 images", "scenes 7 images, 1,234 objects", "tested on 10 images, 30 objects", "2 seeds"):
        assert all(text in line[5] for line in cells)
    assert "not comparable unless" in section


def test_they_enter_nothing_else(made):
    folder, plain, found = made
    assert {**found, "published": None} == plain
    for name in ("comparison.csv", "comparison.md", "comparison.tex"):
        assert (folder / "out" / name).read_bytes() == (folder / "plain" / name).read_bytes()
    assert "Published numbers" not in (folder / "plain" / "index.html").read_text()
    page, without = ("".join((folder / name / "index.html").read_text().split()) for name in ("out", "plain"))
    start, end = page.index("<h2>Publishednumbers"), page.index("<h2>Howtoread")
    assert page[:start] + page[end:] == without
    assert verify(folder / "evidence.zip").problems == ()


def test_without_a_common_row_the_section_is_absent(made, tmp_path):
    compare_runs(made[0] / "runs", tmp_path, "--paper", "als_table7")
    assert "Published numbers beside ours" not in (tmp_path / "index.html").read_text()
