"""What a comparison writes: the page, the tables, the figures."""

import csv
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.many_runs import add_many
from helpers.result_folders import METRIC_NAMES, add, add_detection, add_suite, backbone, compare_runs

from backbones.methods.base import METHODS
from comparison.method_names import MEANINGS, explain_methods
from comparison.metrics import BY_NAME, METRICS, best_value, explain_scores
from comparison.page import figures
from comparison.page.page import question_of
from comparison.page.runs import by_chance
from comparison.tables.formats import MINUS, MISSING, format_difference, format_number
from comparison.tables.terminal import terminal_table


@pytest.fixture
def runs(tmp_path):
    return add_suite(tmp_path / "runs")


# ---- the files and the page ---------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Collects open tags, references and texts; complains about tags that are not closed."""

    VOID = ("meta", "link", "br", "img", "wbr")

    def __init__(self, text):
        super().__init__()
        self.stack, self.references, self.texts, self.tags, self.images_without_alt = [], [], [], [], 0
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for key, value in attrs if key in ("src", "href")]
        self.images_without_alt += tag == "img" and not dict(attrs).get("alt")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_one_valid_self_contained_file(runs, tmp_path):
    add(
        runs,
        "backbone",
        backbone("<b>&"),
        {"top1": 0.5},
        warnings=[{"what": "grey <i>", "count": 2, "examples": ["x"]}],
    )
    compare_runs(runs, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    page = _Page(text)
    assert all(reference.startswith("data:") for reference in page.references)
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", text)
    assert "url(" not in text
    assert "@import" not in text
    assert page.tags.count("script") == 1  # inline, and the page is complete without
    assert page.images_without_alt == 0
    assert page.tags.count("img") == 3  # two tiles of CE, one of LS
    assert 'lang="en"' in text
    assert "viewport" in text
    words = " ".join(page.texts)
    assert (
        "A difference whose interval includes 0 is not significant; one seed cannot show which method is better."
        in words
    )
    assert "<b>&" in words
    assert "grey <i>" in words
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        drawing = ElementTree.fromstring(svg)
        assert drawing.get("aria-label") or drawing.get("aria-hidden")  # hidden where the cell says the same


def test_single_runs_under_two_protocols_are_told_apart_and_have_no_verdict(tmp_path):
    methods = {"CE": (0.3, 0.02), "ALS": (0.9, 0.02)}
    runs = add_many(tmp_path / "runs", methods=methods, seeds=1, protocols=("c@1", "d@2"))
    data = compare_runs(runs, tmp_path / "out", "--allow-mixed-protocols")
    text = " ".join(re.sub(r"<[^>]*>", " ", (tmp_path / "out" / "index.html").read_text()).split())
    for row in data["rows"]:
        if row["label"] == "ALS":
            said = format_difference(row["difference_to_baseline"]["AP"])
            assert f"under {row['protocol'][0]} AP {said}, above CE on these images" in text
    assert "1 method 2 protocols against the baseline CE" in text
    assert "Verdict" not in text
    assert "Which pretraining gives the better detector?" in text


def test_rows_with_one_backbone_compare_detectors():
    rows = [{"label": f"{n % 2}", "seed": n // 2, "hash": f"weights {n // 2}"} for n in range(4)]
    assert question_of(rows, ["top1"]) == "Which detector is better?"
    other = {"label": "2", "seed": 1, "hash": "others"}
    assert question_of([*rows, other], ["top1"]) == "Which pretraining gives the better detector?"
    assert question_of([*rows, other], []) == "Which detector is better?"


def test_a_method_alone_is_not_compared(tmp_path):
    runs = add_many(tmp_path / "runs", methods={"CE": (0.5, 0.02)}, seeds=3, protocols=("c@1",))
    compare_runs(runs, tmp_path / "out")
    text = " ".join(_Page((tmp_path / "out" / "index.html").read_text()).texts)
    assert "How well does CE detect?" in text
    alone = [{"label": "CE", "seed": 0, "hash": "a", "protocol": None}]
    assert question_of(alone, ["top1"]) == "How well does CE classify?"
    assert " 1 method 3 seeds each AP decides " in " ".join(text.split())
    assert "What makes AP vary" not in text  # components need a second method, or repeated fine-tunings


def test_a_warning_of_the_data_is_shown_once_per_data_set(tmp_path):
    """Every run that reads a data set warns of it: 2 stages x 2 rows of val, and the detectors of another one."""
    grey = {"what": "grey images converted", "count": 2, "examples": ["a.jpg"]}
    others = {"what": "grey images converted", "count": 9, "examples": ["b.jpg"]}
    splits = {name: {"name": f"scenes_{name}"} for name in ("train", "val")}
    for label in ("CE", "LS"):
        who = backbone(label)
        add(tmp_path / "runs", "pretraining", who, {"top1": 0.5}, data=splits, warnings=[grey])
        add(tmp_path / "runs", "backbone", who, {"top1": 0.5}, data={"val": splits["val"]}, warnings=[grey])
        add_detection(tmp_path / "runs", who, 0.5, data={"test": {"name": "coco"}}, warnings=[others])
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out")
    assert len(comparison["warnings"]) == 6
    text = " ".join(_Page((tmp_path / "out" / "index.html").read_text()).texts)
    first = "scenes_val: grey images converted (2; for example a.jpg), in the pretraining and backbone of CE, LS"
    assert text.count(first) == 1
    assert text.count("coco: grey images converted (9; for example b.jpg), in the detection of CE, LS") == 1
    assert text.count("grey images converted") == 2


def test_long_labels_are_wrapped_not_cut():
    """A label of three lines of 15 letters makes its bar higher; the others stay as they are."""
    label = "ALS with a schedule of its own"
    shared = {"intervals": {}, "metrics": {"AP": 0.5}, "stages": {"detection": {}}}
    rows = [{"name": name, "label": name, **shared} for name in ("CE", label, "LS")]
    drawing = ElementTree.fromstring(figures.bar_panel(rows, "AP", dict.fromkeys(["CE", label, "LS"], "#000")))
    texts = [one for one in drawing.iter("{http://www.w3.org/2000/svg}text") if one.get("text-anchor") == "end"]
    drawn = [one.text for one in texts if one.get("class") is None]
    assert drawn == ["CE", "ALS with a", "schedule of its", "own", "LS"]
    heights = [float(one.get("y", 0)) for one in texts if one.get("class") is None]
    assert np.diff(heights).min() >= 12  # no two lines overlap
    assert drawing.get("viewBox") == f"0 0 340 {30 + 3 * 24 + 2 * 13 + 22}"


@pytest.mark.parametrize("stage", ["pretraining", "backbone", "localization", "detection"])
def test_missing_stages_are_dashes(tmp_path, stage):
    who = backbone("CE")
    if stage == "detection":
        add_detection(tmp_path / "runs", who, 0.5)
    else:
        add(tmp_path / "runs", stage, who, {"top1": 0.5, "pointing": 0.5})
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out")
    assert len(comparison["rows"]) == 1
    _Page((tmp_path / "out" / "index.html").read_text())


def test_results_without_matches_have_no_intervals_and_the_page_says_so(tmp_path):
    for label, value in (("CE", 0.2), ("LS", 0.3)):
        add(tmp_path / "runs", "detection", backbone(label), {"AP": value}, protocol="det@1")
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out")
    difference = comparison["rows"][1]["difference_to_baseline"]["AP"]
    assert difference == {"value": pytest.approx(0.1), "low": None, "high": None}
    assert any("No matches.npz" in note for note in comparison["notes"])
    _Page((tmp_path / "out" / "index.html").read_text())


def test_training_images_and_a_choice_on_test_images_are_labelled_everywhere(tmp_path, capsys):
    data = {"evaluated_on_training_images": True, "chosen_on_test_images": True}
    add_detection(tmp_path / "runs", backbone("CE"), 0.5, data=data, details={"best": {"metric": "AP50"}})
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out")
    assert comparison["rows"][0]["on_training_images"]
    assert comparison["rows"][0]["chosen_on_test_images"]
    assert r"CE $\dagger$ \P{}" in (tmp_path / "out" / "comparison.tex").read_text()
    for text in (
        capsys.readouterr().out,
        *((tmp_path / "out" / f).read_text() for f in ("comparison.md", "index.html")),
    ):
        assert "CE † ¶" in text
        assert "chosen by AP50 on the TEST images (¶), whose" in " ".join(text.split())
        assert "TRAINING images" in text


def test_csv_and_markdown_hold_the_same_numbers(runs, tmp_path):
    comparison = compare_runs(runs, tmp_path / "out")
    with (tmp_path / "out" / "comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    for row, line in zip(comparison["rows"], lines, strict=True):
        assert line["label"] == row["label"]
        for name, value in row["metrics"].items():
            assert line[name] == ("" if value is None else repr(value))
        assert float(line["AP_difference_low"]) == row["difference_to_baseline"]["AP"]["low"]
        assert format_number(row["metrics"]["AP"]) in markdown


def test_latex_escapes_and_compiles(tmp_path):
    """Every character that LaTeX reads as a command, in a label; compiled where pdflatex is installed."""
    label = r"a&b %c $d #e _f {g} ~h ^i \j <k> |l|"
    add_detection(tmp_path / "runs", backbone("CE"), 0.5)
    add_detection(tmp_path / "runs", backbone(label, "LS"), 0.6)
    compare_runs(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "comparison.tex").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("a")]
    assert line.startswith(r"a\&b \%c \$d \#e \_f \{g\} \textasciitilde{}h \textasciicircum{}i \textbackslash{}j")
    assert re.search(r"& 0\.\d{3} & .{1,3}0\.\d{3} \[.*\] &", line)
    lines = text[text.index(r"\begin{tabular}") :].splitlines()
    assert len({line.count(" & ") for line in lines if line.endswith(r"\\")}) == 1  # as many cells in every line
    if shutil.which("pdflatex"):
        document = (
            r"\documentclass[landscape]{article}\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}"
            r"\usepackage{booktabs}\begin{document}\tiny\input{comparison.tex}\end{document}"
        )
        (tmp_path / "out" / "paper.tex").write_text(document)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]


def test_latex_has_methods_over_seeds(tmp_path):
    compare_runs(add_many(tmp_path / "runs", seeds=3, protocols=("det@1",), images=20), tmp_path / "out")
    text = (tmp_path / "out" / "comparison.tex").read_text()
    assert [line.split(" & ")[0] for line in text.splitlines() if "seeds)" in line][:2] == [
        "CE (3 seeds)",
        "LS (3 seeds)",
    ]
    assert re.search(r"^ALS \(all\) \(3 seeds\) & 0\.\d{3} \$\\pm\$ 0\.\d{3} & .*\]", text, re.M)


def test_every_figure_is_a_file(runs, tmp_path):
    """The figures of the page, as SVG that stands alone and as PDF; those of an earlier call go."""
    folder = tmp_path / "out" / "figures"
    compare_runs(runs, tmp_path / "out")
    drawn = re.findall(r'<svg viewBox="0 0 340 .*?</svg>', (tmp_path / "out" / "index.html").read_text(), re.DOTALL)
    assert len(list(folder.glob("*.svg"))) == len(drawn)
    for path in folder.glob("*.svg"):
        assert ElementTree.fromstring(path.read_text()).get("width") == "340"
        assert not re.search(r"var\(|currentColor", path.read_text())
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    (folder / "old.pdf").write_text("")
    compare_runs(runs, tmp_path / "out")
    assert not (folder / "old.pdf").exists()


def test_terminal_table_fits_the_terminal(runs, tmp_path):
    comparison = compare_runs(runs, tmp_path / "out")
    everything = dict.fromkeys(METRIC_NAMES, 0.5)
    comparison["rows"][1]["metrics"] = everything
    text = terminal_table(comparison)
    assert max(map(len, text.splitlines())) <= 120
    assert all(row["label"] in text for row in comparison["rows"])


def test_the_tool_reports_errors_in_one_line(run_tool, tmp_path):
    finished = run_tool("compare", tmp_path, "--output-dir", tmp_path / "out")
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: no results.json")
    assert len(finished.stderr.splitlines()) == 1
    assert run_tool("compare", "--help").returncode == 0


# ---- pieces -------------------------------------------------------------------------------------------------------


def test_only_differences_with_an_interval_count_as_chances():
    found = [{"value": 0.1, "low": low, "high": 0.2} for low in (0.05, -0.1, 0.01)]
    identical = {"value": 0.0, "low": None, "high": None}
    assert by_chance([*found, identical], 0.95) == "2 of 3 intervals exclude 0; by chance alone, about 0.2 would."
    assert by_chance([found[0], identical], 0.95) == ""


def test_the_legend_says_which_detections_count(tmp_path, capsys):
    settings = {"name": "det", "hash": "1", "settings": {"TEST.AP_SCORE_THRESH": 0.05}}
    for label, keep in (("CE", 0.8), ("ALS", 1.0)):
        path = add_detection(tmp_path, backbone(label), keep) / "results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"protocol": settings}))
    assert compare_runs(tmp_path, tmp_path / "report")["score_thresholds"] == [0.05]
    said = " ".join(capsys.readouterr().out.split())
    assert "Of the detections, AP counts those scored above 0.05, AR all." in said
    assert "classes; of the detections, AP counts those scored above 0.05, AR all</dd>" in (
        tmp_path / "report" / "index.html"
    ).read_text(encoding="utf-8")
    assert explain_scores([0.0, 0.05]) == "of the detections, AP counts all or those scored above 0.05, AR all"
    assert explain_scores([]) == ""


def test_best_follows_the_direction_of_the_metric():
    assert best_value("AP", [0.1, None, 0.3]) == 0.3
    assert best_value("ece15", [0.1, None, 0.3]) == 0.1
    assert best_value("average_confidence", [0.1, 0.3]) is None
    for name in ("objectness_deviation", "overconfidence", "context_average_confidence"):  # optimised by construction
        assert best_value(name, [0.1, 0.3]) is None
        assert "never marked as best" in BY_NAME[name].meaning
    assert best_value("context_average_confidence_scaled", [0.1, 0.3]) == 0.1
    assert best_value("AP", [0.1, None]) is None
    assert [metric.name for metric in METRICS] == METRIC_NAMES


def test_methods_are_spelled_out_and_names_of_results_files_are_not(runs, tmp_path):
    compare_runs(runs, tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text()
    assert (
        "random: random weights, no pretraining; CE: cross-entropy with hard labels; LS: label smoothing; ALS: " in page
    )
    rows = [{"method": "CE", "from_results_file": True}, {"method": "Mine", "from_results_file": False}]
    assert explain_methods(rows) == []
    assert set(MEANINGS) == {"random", *METHODS.names()}


def test_a_backbone_without_measures_is_named_and_has_no_line(runs, tmp_path):
    compare_runs(runs, tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text()
    alone = page[page.index("The backbone alone") : page.index("How to read this page")]
    assert "Not measured: random." in alone
    lines = re.findall(r"<tr><th scope=.row.>.*?</tr>", alone, re.DOTALL)
    assert len(lines) >= 3
    assert not any(set(re.findall(r"<td[^>]*>([^<]*)</td>", line)) == {MISSING} for line in lines)


def test_each_panel_of_differences_has_its_own_scale():
    """A small difference is as visible beside a large one as alone."""
    small, large = {"value": 0.01, "low": 0.002, "high": 0.018}, {"value": 0.5, "low": 0.4, "high": 0.6}
    row = {"name": "ALS", "label": "ALS", "method": "ALS", "difference_to_baseline": {"AP": small, "AR100": large}}
    for name in ("AP", "AR100"):
        panel = figures.forest_panel([row], name, {"ALS": "#000"})
        [ends] = re.findall(r'<path d="M([\d.]+) [\d.]+H([\d.]+)', panel)
        assert figures.PLOT_LEFT < float(ends[0]) < float(ends[1]) < figures.PLOT_RIGHT
        assert float(ends[1]) > figures.PLOT_LEFT + 0.9 * (figures.PLOT_RIGHT - figures.PLOT_LEFT)


def test_numbers_are_printed_with_their_signs():
    assert format_difference({"value": 0.0314, "low": -0.002, "high": 0.06}) == f"+0.031 [{MINUS}0.002, +0.060]"
    assert format_difference({"value": -0.5, "low": None, "high": None}) == f"{MINUS}0.500"
    assert format_number(None) == MISSING


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.017), (-0.36, 0.127), (-0.004, 0.0), (0, 3.3), (-2e-4, 1e-4)])
def test_ticks_are_round_within_the_scale_and_few(low, high):
    ticks = figures.Scale(low, high).ticks()
    assert 3 <= len(ticks) <= 6
    assert low <= ticks[0]
    assert ticks[-1] <= high
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    texts = [figures._tick_text(tick, ticks) for tick in ticks]
    assert [float(text.replace(MINUS, "-")) for text in texts] == pytest.approx(ticks, abs=1e-12)
