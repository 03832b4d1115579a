"""Failed stages in a comparison: every output shows the row as failed, with the reason, where its numbers would be."""

import csv
import json
import re
from html import unescape

import pytest
from helpers.result_folders import add, add_detection, backbone, compare_runs

from backbones.core.entry import run_tool as run_entry
from backbones.core.errors import InputError
from backbones.core.results import BackboneIdentity, random_identity
from comparison.failures import load_failures
from comparison.tables.formats import MISSING
from comparison.tables.terminal import terminal_table

NOT_FINITE = "error: the loss is not finite at iteration 12; lower SOLVER.BASE_LR"


def failure(label, what="pretrain", reason=NOT_FINITE, *, seed=0, protocol="", log="/runs/x/log.txt"):
    return {"label": label, "seed": seed, "protocol": protocol, "what": what, "reason": reason, "log": log}


def complete(root, label, keep=0.8, *, top1=0.5, seed=0, protocols=("det@1",)):
    """A row with measures of the backbone and a detector under each protocol."""
    who = random_identity(seed) if label == "random" else backbone(label, seed=seed)
    if label != "random":
        add(root, "backbone", who, {"top1": top1})
    for protocol in protocols:
        add_detection(root, who, keep, protocol=protocol)


class Outputs:
    """The five outputs of the tool."""

    def __init__(self, tmp_path, capsys, failures, *arguments):
        file, out = tmp_path / "failures.json", tmp_path / "out"
        file.write_text(json.dumps(failures))
        self.data = compare_runs(tmp_path / "runs", out, "--failures", str(file), *arguments)
        self.terminal = capsys.readouterr().out
        self.markdown = (out / "comparison.md").read_text()
        with (out / "comparison.csv").open() as stream:
            self.lines = list(csv.DictReader(stream))
        self.page = (out / "index.html").read_text()

    def row(self, name, protocol=None):
        (row,) = [r for r in self.data["rows"] if r["name"] == name and protocol in (None, r["protocol"])]
        return row

    def terminal_line(self, name):
        """The line of a row, in each group that has it."""
        return [line for line in self.terminal.splitlines() if line.startswith(f"{name} ")]

    def page_rows(self, title, name):
        """The cells of a row in the table `title`, as texts, in each of these tables that has the row."""
        found = []
        for table in re.findall(rf'aria-label="{title}">(.*?)</table>', self.page, flags=re.DOTALL):
            for line in re.findall(r"<tr>(.*?)</tr>", table, flags=re.DOTALL):
                cells = re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", line, flags=re.DOTALL)
                texts = [" ".join(unescape(re.sub(r"<[^>]*>", "", text)).split()) for _, text in cells]
                if texts[0].removesuffix(" baseline") == name:
                    found.append(list(zip(texts[1:], (attributes for attributes, _ in cells[1:]), strict=True)))
        return found

    @property
    def notes(self):
        return self.data["notes"]


DETECTION, ALONE = "Detection metrics", "Classification, calibration, context and localisation metrics"


# ---- a row without results ----------------------------------------------------------------------------------------


def test_a_failed_pretraining_is_a_row_with_the_reason_in_every_output(tmp_path, capsys):
    for label in ("random", "CE", "LS"):
        complete(tmp_path / "runs", label)
    out = Outputs(tmp_path, capsys, [failure("ALS (all)")])
    assert [row["label"] for row in out.data["rows"]] == ["random", "CE", "LS", "ALS (all)"]
    assert out.data["failures"] == [failure("ALS (all)")]
    row = out.row("ALS (all)")
    assert set(row["metrics"].values()) == {None}
    assert (row["stages"], row["protocol"], row["failures"]) == ({}, "det@1", [failure("ALS (all)")])
    said = f"failed: pretrain: {NOT_FINITE}"
    (line,) = out.terminal_line("ALS (all)")
    assert line.split(maxsplit=2)[2] == said
    assert MISSING not in line
    assert f"- ALS (all) {said}" in out.markdown
    assert re.search(r"^\| AP ↑ \|.*\| failed \|", out.markdown, flags=re.MULTILINE)
    assert re.search(r"^\| Top-1 ↑ \|.*\| failed \|", out.markdown, flags=re.MULTILINE)
    assert [line["failure"] for line in out.lines] == ["", "", "", f"pretrain: {NOT_FINITE}"]
    assert out.lines[3]["AP"] == ""
    for title in (DETECTION, ALONE):
        (((text, attributes),),) = out.page_rows(title, "ALS (all)")
        assert text == said
        assert 'class="failed"' in attributes
        (cells,) = out.page_rows(title, "LS")
        assert f'colspan="{len(cells)}"' in attributes
    assert "1 of 4 rows without results" in out.page
    assert out.notes[0] == f"Failed: pretrain of ALS (all): {NOT_FINITE} (log: /runs/x/log.txt)"


def test_the_reason_is_cut_on_the_terminal_only(tmp_path, capsys):
    reason = " ".join(["error: a", *(f"word{n}" for n in range(60)), "end"])
    complete(tmp_path / "runs", "CE", protocols=())
    complete(tmp_path / "runs", "LS")
    out = Outputs(tmp_path, capsys, [failure("ALS", reason=reason), failure("CE", "finetune", reason, protocol="det")])
    for name in ("ALS", "CE"):
        (line,) = out.terminal_line(name)
        assert line.endswith("…")
        assert len(line) <= 120
    assert max(map(len, out.terminal.splitlines())) <= 120 + len(str(tmp_path))  # the last line is a path
    assert reason in " ".join(out.terminal.split())  # in the note
    assert all(reason in text for text in (out.markdown, out.page, out.lines[2]["failure"]))


def test_a_failed_baseline_and_its_missing_differences_read_well_together(tmp_path, capsys):
    for label in ("LS", "ALS"):
        complete(tmp_path / "runs", label)
    out = Outputs(tmp_path, capsys, [failure("CE")])
    assert [row["label"] for row in out.data["rows"]] == ["CE", "LS", "ALS"]
    assert out.data["baseline"] is None
    assert out.notes[:2] == [
        f"Failed: pretrain of CE: {NOT_FINITE} (log: /runs/x/log.txt)",
        "No baseline (a row of method CE) for LS, ALS: no differences shown; name one with --baseline LABEL.",
    ]
    assert not any("commit" in note or "matches.npz" in note for note in out.notes)
    out = Outputs(tmp_path, capsys, [failure("CE")], "--baseline", "CE")  # a row of the suite, not a mistyped label
    assert out.data["baseline"] is None
    assert "No baseline (a row labelled CE) for LS, ALS: no differences shown." in out.notes
    with pytest.raises(InputError, match="--baseline EC: unknown row"):
        Outputs(tmp_path, capsys, [failure("CE")], "--baseline", "EC")


def test_failures_of_many_rows_in_one_way_are_one_note(tmp_path, capsys):
    complete(tmp_path / "runs", "CE")
    out = Outputs(tmp_path, capsys, [failure(label, reason="no room", log=f"/{label}") for label in ("A", "B")])
    assert "Failed: pretrain of A, B: no room (first log: /A)" in out.notes
    assert all(len(out.terminal_line(label)) == 1 for label in "AB")


def test_several_failures_of_a_row_are_counted_and_all_in_the_csv(tmp_path, capsys):
    complete(tmp_path / "runs", "CE")
    out = Outputs(tmp_path, capsys, [failure("A", "grid", "one"), failure("A", "select", "two")])
    assert out.terminal_line("A")[0].endswith("failed: grid: one (and 1 more)")
    assert out.lines[1]["failure"] == "grid: one; select: two"
    assert out.notes[0].startswith("Failed: grid of A: one")
    assert out.notes[1].startswith("Failed: select of A: two")


# ---- a row with some results --------------------------------------------------------------------------------------


def test_a_failed_detector_stands_where_its_ap_would_be(tmp_path, capsys):
    for label in ("CE", "LS"):
        complete(tmp_path / "runs", label)
    complete(tmp_path / "runs", "ALS", top1=0.625, protocols=())
    out = Outputs(tmp_path, capsys, [failure("ALS", "finetune", "killed by signal 9", protocol="det")])
    assert [(row["name"], row["protocol"]) for row in out.data["rows"]] == [
        (name, "det@1") for name in ("CE", "LS", "ALS")
    ]
    assert out.row("ALS")["metrics"]["top1"] == 0.625
    assert out.row("ALS")["difference_to_baseline"]["top1"]["value"] == pytest.approx(0.125)
    said = "failed: finetune: killed by signal 9"
    assert re.fullmatch(rf"ALS +0\.625\* +{said}", out.terminal_line("ALS")[0])
    assert out.terminal_line("ALS")[0].index("failed") == out.terminal_line("CE")[0].index(
        f"{out.row('CE')['metrics']['AP']:.3f}"
    )
    assert re.search(r"^\| Top-1 ↑ \| 0\.500 \| 0\.500 \| \*\*0\.625\*\* \|$", out.markdown, flags=re.MULTILINE)
    assert re.search(r"^\| AP ↑ \| .* \| failed \|$", out.markdown, flags=re.MULTILINE)
    assert f"- ALS {said}" in out.markdown
    assert [(text, "failed" in style) for text, style in out.page_rows(DETECTION, "ALS")[0]] == [(said, True)]
    assert [text for text, _ in out.page_rows(ALONE, "ALS")[0]] == ["0.625"]
    assert re.search(r'<svg[^>]*aria-label="AP ↑[^"]*; ALS failed"', out.page)
    assert out.page_rows("Differences to the baseline", "ALS") == []
    assert len(out.page_rows("Differences to the baseline", "LS")) == 1
    assert out.lines[2]["top1"] == "0.625"
    assert out.lines[2]["failure"] == "finetune: killed by signal 9"
    assert out.notes[0].startswith("Failed: finetune (det) of ALS: killed by signal 9")
    assert "§" not in out.terminal


def test_only_failures_that_no_cell_shows_are_marked(tmp_path, capsys):
    for label in ("CE", "ALS"):
        complete(tmp_path / "runs", label, protocols=())
    tunings = [failure(label, "finetune", "no room", protocol="det") for label in ("CE", "ALS")]
    out = Outputs(tmp_path, capsys, [*tunings, failure("ALS", "localize", "broken image")])
    assert [note.partition(":")[0] for note in out.notes[:2]] == ["Failed", "Failed (§)"]
    assert re.match(r"ALS § +0\.500.* failed: finetune: no room$", out.terminal_line("ALS §")[0])
    assert "CE §" not in out.terminal


def test_the_detector_of_the_baseline_failed(tmp_path, capsys):
    complete(tmp_path / "runs", "CE", protocols=())
    complete(tmp_path / "runs", "LS", top1=0.75)
    out = Outputs(tmp_path, capsys, [failure("CE", "finetune", protocol="det")])
    assert out.data["baseline"] == "CE"
    assert out.row("LS")["difference_to_baseline"]["top1"]["value"] == pytest.approx(0.25)
    assert "No differences in AP for LS: the detector of the baseline failed." in out.notes


def test_every_detector_failed(tmp_path, capsys):
    for label in ("CE", "LS"):
        complete(tmp_path / "runs", label, protocols=())
    out = Outputs(tmp_path, capsys, [failure(label, "finetune", protocol="det") for label in ("CE", "LS")])
    for label in ("CE", "LS"):
        assert re.fullmatch(rf"{label} +0\.500\* +failed: finetune: {NOT_FINITE}", out.terminal_line(label)[0])
        assert [text for text, _ in out.page_rows(DETECTION, label)[0]] == [f"failed: finetune: {NOT_FINITE}"]
        assert f"- {label} failed: finetune" in out.markdown
        assert out.row(label)["protocol"] == "det"  # its hash is only in results
    assert "fine-tune a detector" not in out.page


@pytest.mark.parametrize("what", ["evaluate", "localize"])
def test_a_failed_measure_leaves_the_numbers_and_is_noted(tmp_path, capsys, what):
    complete(tmp_path / "runs", "CE")
    add_detection(tmp_path / "runs", backbone("ALS"), 0.9)
    add(tmp_path / "runs", "pretraining", backbone("ALS"), {"top1": 0.625}, protocol="ALS@1")
    out = Outputs(tmp_path, capsys, [failure("ALS", what, "broken image")])
    assert out.row("ALS")["metrics"]["top1"] == 0.625
    assert out.row("ALS")["metrics"]["AP"] > 0
    assert "failed:" not in out.terminal_line("ALS §")[0]
    assert f"{out.row('ALS')['metrics']['AP']:.3f}" in out.terminal_line("ALS §")[0]
    assert out.notes[0] == f"Failed (§): {what} of ALS: broken image (log: /runs/x/log.txt)"
    assert "ALS §" in out.markdown
    assert len(out.page_rows(DETECTION, "ALS §")) == len(out.page_rows(ALONE, "ALS §")) == 1
    assert out.lines[1]["failure"] == f"{what}: broken image"
    assert "CE §" not in out.terminal


def test_a_row_that_only_its_detector_knows_shows_a_failed_measure_among_the_backbones(tmp_path, capsys):
    complete(tmp_path / "runs", "CE")
    add_detection(tmp_path / "runs", backbone("ALS"), 0.9)
    out = Outputs(tmp_path, capsys, [failure("ALS", "evaluate", "broken image")])
    assert [text for text, _ in out.page_rows(ALONE, "ALS §")[0]] == ["failed: evaluate: broken image"]
    assert "failed" not in out.page_rows(DETECTION, "ALS §")[0][0][0]


# ---- seeds --------------------------------------------------------------------------------------------------------


def seeds(root, *, without=(), untuned=()):
    """CE and ALS with seeds 0, 1 and 2; leave out pretrainings and fine-tunings."""
    for label, top1 in (("CE", 0.5), ("ALS", 0.6)):
        for seed in (0, 1, 2):
            if (label, seed) not in without:
                protocols = () if (label, seed) in untuned else ("det@1",)
                complete(root, label, 0.7 + 0.1 * seed, top1=top1 + 0.1 * seed, seed=seed, protocols=protocols)


def test_a_mean_over_two_of_three_seeds_says_so(tmp_path, capsys):
    seeds(tmp_path / "runs", without=[("ALS", 1)])
    out = Outputs(tmp_path, capsys, [failure("ALS", seed=1)])
    als, ce = (next(m for m in out.data["methods"] if m["label"] == label) for label in ("ALS", "CE"))
    assert (als["seeds"], als["runs"], als["planned"], als["made_of"]) == ([0, 2], 2, 3, "2 of 3 seeds")
    assert als["metrics"]["top1"]["mean"] == pytest.approx(0.7)
    assert als["metrics"]["top1"]["count"] == 2
    assert (ce["planned"], ce["made_of"]) == (3, "3 seeds")
    assert [row["name"] for row in out.data["rows"]][3:] == [f"ALS (seed {seed})" for seed in (0, 1, 2)]
    assert out.row("ALS (seed 1)")["method"] == "ALS"
    assert f"Failed: pretrain of ALS (seed 1): {NOT_FINITE} (log: /runs/x/log.txt)" in out.notes
    assert "Means over seeds are without the failed runs: ALS (2 of 3 seeds)." in out.notes
    assert len(out.page_rows("Methods", "ALS (2 of 3 seeds)")) == 1
    assert len(out.page_rows("Methods", "CE (3 seeds)")) == 1
    assert not any("not seeds of one method" in note or "One seed" in note for note in out.notes)
    assert out.terminal_line("ALS s1") or out.terminal_line("ALS (seed 1)")


def test_a_mean_without_one_detector_says_so_in_its_cell(tmp_path, capsys):
    seeds(tmp_path / "runs", untuned=[("ALS", 2)])
    out = Outputs(tmp_path, capsys, [failure("ALS", "finetune", seed=2, protocol="det")])
    (als,) = [m for m in out.data["methods"] if m["label"] == "ALS"]
    assert (als["made_of"], als["metrics"]["top1"]["count"], als["metrics"]["AP"]["count"]) == ("3 seeds", 3, 2)
    (cells,) = out.page_rows("Methods", "ALS")
    texts = [text for text, _ in cells]
    assert texts[1].endswith("(2 of 3 seeds)")  # AP, after the verdict
    assert texts[3].endswith("(2 of 3 seeds)")  # AP50, after the difference
    assert "Means over seeds are without the failed runs: ALS (det@1: 2 of 3 seeds)." in out.notes


def test_a_method_without_any_seed_is_failed(tmp_path, capsys):
    seeds(tmp_path / "runs", without=[("ALS", seed) for seed in (0, 1, 2)])
    out = Outputs(tmp_path, capsys, [failure("ALS", seed=seed) for seed in (0, 1, 2)])
    (cells,) = out.page_rows("Methods", "ALS (0 of 3 seeds)")
    [(text, attributes)] = cells
    assert text == f"failed: pretrain: {NOT_FINITE}"
    assert 'class="failed"' in attributes
    assert [row["name"] for row in out.data["rows"] if not row["stages"]] == [f"ALS (seed {n})" for n in (0, 1, 2)]
    assert not any("One seed" in note for note in out.notes)


def test_rows_of_a_baseline_whose_seed_failed_are_compared_with_another(tmp_path, capsys):
    seeds(tmp_path / "runs", without=[("CE", 1)])
    out = Outputs(tmp_path, capsys, [failure("CE", seed=1)])
    assert out.row("CE (seed 1)")["difference_to_baseline"] is None
    assert out.row("ALS (seed 1)")["difference_to_baseline"]["top1"]["value"] == pytest.approx(0.2)
    assert "Compared with a baseline of another seed: ALS (seed 1)." in out.notes
    assert re.search(r"background:currentColor.{0,80}CE \(seed 1\)", out.page, flags=re.DOTALL)  # the baseline's colour


def test_a_row_that_its_detector_renames_is_found_by_the_label_of_its_pretraining(tmp_path, capsys):
    """YOLO names a row "CE, hard labels"; a suite knows it as "CE"."""
    for label in ("CE", "ALS"):
        for seed in (0, 1, 2):
            who = backbone(label, seed=seed)
            if (label, seed) != ("ALS", 2):
                add(tmp_path / "runs", "backbone", who, {"top1": 0.5 + 0.1 * seed})
                renamed = BackboneIdentity(f"{label}, hard labels", who.method, seed, who.hash)
                if (label, seed) != ("ALS", 1):
                    add_detection(tmp_path / "runs", renamed, 0.8, protocol="voc@1")
    failures = [
        failure("CE", "localize"), failure("CE, hard labels", "evaluate"),
        failure("ALS", "finetune", protocol="voc", seed=1), failure("ALS, hard labels", seed=2),
    ]  # fmt: skip
    out = Outputs(tmp_path, capsys, failures)
    names = [f"{label}, hard labels (seed {seed})" for label in ("CE", "ALS") for seed in (0, 1, 2)]
    failed = [["localize", "evaluate"], [], [], [], ["finetune"], ["pretrain"]]
    assert groups(out) == {"voc@1": dict(zip(names, failed, strict=True))}
    (als,) = [m for m in out.data["methods"] if m["label"] == "ALS, hard labels"]
    assert (als["made_of"], als["metrics"]["AP"]["count"]) == ("2 of 3 seeds", 1)
    incomplete = "ALS, hard labels (2 of 3 seeds), ALS, hard labels (voc@1: 1 of 3 seeds)"
    assert f"Means over seeds are without the failed runs: {incomplete}." in out.notes


# ---- protocols ----------------------------------------------------------------------------------------------------


def groups(out):
    """Names and failures of the rows, by protocol."""
    found = {}
    for row in out.data["rows"]:
        found.setdefault(row["protocol"], {})[row["name"]] = [one["what"] for one in row["failures"]]
    return found


def test_a_failed_detector_is_shown_under_its_protocol_only(tmp_path, capsys):
    both = ("x@1", "y@2")
    complete(tmp_path / "runs", "CE", protocols=both)
    complete(tmp_path / "runs", "ALS", top1=0.625, protocols=("x@1",))
    failures = [failure("ALS", "finetune", "no room", protocol="y"), failure("LS")]
    out = Outputs(tmp_path, capsys, failures, "--allow-mixed-protocols")
    assert groups(out) == {
        "x@1": {"CE": [], "ALS": [], "LS": ["pretrain"]},
        "y@2": {"CE": [], "ALS": ["finetune"], "LS": ["pretrain"]},
    }
    under_x, under_y = out.terminal.split("detection protocol: ")[1:]
    assert "no room" not in under_x
    assert re.search(r"^ALS +0\.625\* +failed: finetune: no room$", under_y, flags=re.MULTILINE)
    assert under_x.count("failed: pretrain") == 1
    under_x, under_y = (part.partition("## ")[0] for part in out.markdown.split("\n## ")[1:])
    assert "no room" not in under_x
    assert "- ALS failed: finetune: no room" in under_y
    assert [len(cells) for cells in out.page_rows(DETECTION, "LS")] == [1, 1]
    x, y = out.page_rows(DETECTION, "ALS")
    assert [text for text, _ in y] == ["failed: finetune: no room"]
    assert all("failed" not in text for text, _ in x)
    assert len(out.page_rows(ALONE, "ALS")) == len(out.page_rows(ALONE, "LS")) == 1
    assert out.row("ALS", "y@2")["difference_to_baseline"]["top1"]["value"] == pytest.approx(0.125)
    assert sum(note.startswith("Failed") for note in out.notes) == 2


@pytest.mark.parametrize("failed", ["a", "y"])  # before and after the other in the report
def test_a_protocol_without_any_detector_is_a_group(tmp_path, capsys, failed):
    for label in ("random", "CE"):
        complete(tmp_path / "runs", label, protocols=("x@1",))
    failures = [failure(label, "finetune", protocol=failed) for label in ("random", "CE")]
    out = Outputs(tmp_path, capsys, failures, "--allow-mixed-protocols")
    assert groups(out) == {"x@1": {"random": [], "CE": []}, failed: {"random": ["finetune"], "CE": ["finetune"]}}
    assert out.terminal.count("failed: finetune") == 2
    assert out.page_rows(ALONE, "random") == []  # the classifier of random initialisation did not fail
    assert len(out.page_rows(ALONE, "CE")) == 1
    assert not any("several protocols" in note for note in out.notes)  # there are numbers of one


def test_a_detector_that_failed_without_any_result_of_its_row_concerns_one_protocol(tmp_path, capsys):
    complete(tmp_path / "runs", "CE", protocols=("x@1", "y@2"))
    out = Outputs(tmp_path, capsys, [failure("random", "finetune", protocol="y")], "--allow-mixed-protocols")
    assert groups(out) == {"x@1": {"CE": []}, "y@2": {"random": ["finetune"], "CE": []}}
    assert out.page_rows(ALONE, "random") == []  # its classifier would not be measured


def test_a_failed_row_has_no_detectors_seed_in_its_name(tmp_path, capsys):
    for label in ("CE", "ALS"):
        complete(tmp_path / "runs", label)
    for path in (tmp_path / "runs").glob("*-detection-*/results.json"):
        results = json.loads(path.read_text())
        path.write_text(json.dumps(results | {"details": {"seed": 7}}))
    out = Outputs(tmp_path, capsys, [failure("ALS", "finetune", protocol="y")], "--allow-mixed-protocols")
    assert groups(out) == {"det@1": {"CE": [], "ALS": []}, "y": {"ALS": ["finetune"]}}


def test_a_failure_does_not_change_the_colours_of_other_rows(tmp_path, capsys):
    for label in ("CE", "BAN", "OLS"):
        complete(tmp_path / "runs", label)
    colours = []
    for failures in ([], [failure("ALS")]):
        page = Outputs(tmp_path, capsys, failures).page
        colours.append(dict(re.findall(r'style="background:(#?\w+)"></span><span>(\w+)', page)))
    assert len(colours[0]) == 3
    assert colours[0].items() < colours[1].items()


def test_of_two_protocols_of_one_name_the_one_without_results_failed(tmp_path, capsys):
    complete(tmp_path / "runs", "CE", protocols=("x@1", "x@2"))
    complete(tmp_path / "runs", "ALS", protocols=("x@1",))
    out = Outputs(
        tmp_path, capsys, [failure("ALS", "finetune", protocol="x")], "--allow-mixed-protocols",
    )  # fmt: skip
    assert groups(out) == {"x@1": {"CE": [], "ALS": []}, "x@2": {"CE": [], "ALS": ["finetune"]}}


# ---- texts and files ----------------------------------------------------------------------------------------------


def test_reasons_are_escaped_and_kept_to_one_line(tmp_path, capsys):
    complete(tmp_path / "runs", "CE")
    reason = "error: \x1b[31m<b>bad</b>\x1b[0m & 'x' | \"y\"\n  <script>alert(1)</script>"
    out = Outputs(tmp_path, capsys, [failure("A<i>", reason=reason), failure("CE", "localize", reason, log="/<u>")])
    assert not re.search(r"<(b|i|u)\b|alert\(1\)</script>", out.page)
    assert "\x1b" not in out.terminal + out.page + out.markdown
    said = "error: [31m<b>bad</b> [0m & 'x' | \"y\" <script>alert(1)</script>"
    assert out.lines[1]["failure"] == f"pretrain: {said}"
    assert [text for text, _ in out.page_rows(DETECTION, "A<i>")[0]] == [f"failed: pretrain: {said}"]
    assert "- A\\<i> failed: pretrain: error: [31m\\<b>bad\\</b>" in out.markdown
    assert not re.search(r"(?<!\\)<script", out.markdown)
    for note in out.notes:
        assert "\n" not in note


def test_without_failures_there_is_an_empty_list_and_an_empty_column(tmp_path, capsys):
    for label in ("CE", "ALS"):
        complete(tmp_path / "runs", label)
    plain = compare_runs(tmp_path / "runs", tmp_path / "plain")
    assert (plain["failures"], [row["failures"] for row in plain["rows"]]) == ([], [[], []])
    out = Outputs(tmp_path, capsys, [])
    assert out.data == plain
    assert [line["failure"] for line in out.lines] == ["", ""]
    for name in ("comparison.md", "comparison.csv", "index.html"):
        assert (tmp_path / "plain" / name).read_text() == (tmp_path / "out" / name).read_text()
    assert "fail" not in terminal_table(plain)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"failures": []}, "f.json is not a list of failures; write one object per failed stage, or [] for none"),
        ([failure("A"), "B"], "f.json: entry 2 is not an object; a failure has the keys label, seed, protocol, what"),
        ([{"label": "A"}], "f.json: entry 1 has no key 'seed'; a failure has the keys label, seed"),
        ([failure("A") | {"logs": ""}], "f.json: entry 1 has an unknown key 'logs'; a failure has the keys label"),
        ([failure("A") | {"seed": "0"}], "f.json: entry 1: seed is '0'; it must be an integer"),
        ([failure("A", seed=True)], "f.json: entry 1: seed is True; it must be an integer"),
        ([failure("A"), failure("B") | {"reason": None}], "f.json: entry 2: reason is None; it must be text"),
        ([failure(3)], "f.json: entry 1: label is 3; it must be text"),
        ([failure(" ")], "f.json: entry 1: label is empty; name the row"),
        ([failure("A", "")], "f.json: entry 1: what is empty; name the step"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path, content, said):
    (tmp_path / "f.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as refused:
        load_failures(tmp_path / "f.json")
    assert str(refused.value).startswith(f"{tmp_path / said}")
    assert "\n" not in str(refused.value)


def test_the_file_is_read_before_any_result(run_tool, tmp_path):
    (tmp_path / "f.json").write_text("[{]")
    for name, said in (("f.json", "cannot read"), ("none.json", "no such file")):
        done = run_tool("compare", tmp_path, "--output-dir", tmp_path / "out", "--failures", tmp_path / name)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {said}")
        assert len(done.stderr.splitlines()) == 1


def test_a_file_without_permission_is_one_line(capsys):
    def refuse(argv):
        raise PermissionError(13, "Permission denied", "/a/b")

    with pytest.raises(SystemExit) as left:
        run_entry(refuse)
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: no permission for /a/b; allow it, or choose another place\n"
