"""The synthetic study as a whole: rows and their choice, files, resumption, directions, the page and the tool."""

import csv
import itertools
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.killing import kill_this_process

from backbones.core.errors import InputError
from backbones.gaussian import curve, directions, measures, published, replicate, study
from backbones.gaussian.candidates import QUICK, Candidate, Grids, build_candidates
from backbones.gaussian.families import FAMILIES
from backbones.gaussian.replicate import COLUMNS, HARD, Settings, Students, distil_chosen, draw_data, run_replicate
from backbones.gaussian.report import NUMBERS, row_titles, write_report
from backbones.gaussian.rows import PLAIN, SCALED, all_rows, build_rows, choose
from backbones.gaussian.study import load_study, mean_and_error, replicate_file, run_study
from backbones.gaussian.tables import TABLES
from backbones.gaussian.task import NORMAL, SEPARATE_MEANS, SETUPS
from backbones.gaussian.training import Recipe
from backbones.measuring import calibration

TINY = Settings(Recipe(max_epochs=3), QUICK, FAMILIES, (20, 20, 100))


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory):
    """Two replicates, run without interruption, with their report."""
    folder = tmp_path_factory.mktemp("study")
    run_study(TINY, folder, 2)
    write_report(TINY, folder, 2)
    return folder


# ---- rows ----------------------------------------------------------------------------------------


def test_the_grids_are_the_papers():
    count = {family: len(build_candidates(Grids(), [family])) for family in FAMILIES}
    # LS with 0.2; both grids of T share three values; Fig. 11 with its 12 x 6 values
    methods = {"ls": 13, "ils1": 30, "sine": 30, "ils2": 72, "ils": 180}
    assert count == methods | {"distillation": 2, "figure11": 72, "curves": 22}
    assert len(build_candidates(Grids(), ["ils1", "figure11"])) == 30 + 72 - 10  # P1 of all five, P2 of 1 and 2
    paper = published.load_figure11()
    assert {(c.p1, c.p2) for c in build_candidates(Grids(), ["figure11"])} == set(paper)


def test_a_row_takes_the_lowest_of_its_own_criterion():
    candidates = [HARD, Candidate("ls", eps=0.01), Candidate("ls", eps=0.05), Candidate("ls", eps=0.2)]
    rows = {row.key: row for row in build_rows(Grids(eps=(0.01, 0.05)), candidates)}
    scores = {
        PLAIN: np.array([0.1, 0.5, 0.4, 0.3]),
        SCALED: np.array([0.1, 0.3, 0.4, 0.2]),
        "val_ce_dense": np.array([0.1, 0.2, 0.2, 0.1]),
        "val_ce_sparse": np.array([0.1, 0.9, 0.8, 0.1]),
    }
    chosen = {key: choose(row, candidates, scores) for key, row in rows.items()}
    assert chosen == {
        **{"hard": 0, "hard_scaled": 0, "ls": 2, "ls_scaled": 1, "ls02": 3, "ls02_scaled": 3},
        **{"ls_on_dense": 1, "ls_on_sparse": 2},
    }


def test_a_part_of_a_grid_is_not_a_row():
    """Fig. 11 trains 10 of ILS1's 30 points."""
    alone = [HARD, *build_candidates(Grids(), ["figure11"])]
    assert {row.key for row in build_rows(Grids(), alone)} == {"hard", "hard_scaled"}
    both = [HARD, *build_candidates(Grids(), ["ils1", "figure11"])]
    assert {row.key for row in build_rows(Grids(), both)} == {"hard", "hard_scaled", "ils1", "ils1_scaled"}


def test_each_grid_row_sees_its_own_temperatures():
    candidates = build_candidates(Grids(), FAMILIES)
    seen = {row.key: {c.t for c in candidates if row.member(c)} for row in build_rows(Grids(), candidates)}
    assert seen["ils2"] == seen["ils_wide"] == {1, 2, 4, 8, 16}
    assert seen["ils"] == seen["ils2_text"] == {1, 2, 4, 6}
    sizes = {row.key: sum(map(row.member, candidates)) for row in build_rows(Grids(), candidates)}
    assert sizes["ils1"] == 30  # not the further points of Fig. 11
    assert sizes["ls"] == 12  # not the further amounts of the curves
    assert (sizes["ils"], sizes["ils_wide"]) == (120, 150)


def test_the_text_and_the_published_means_allow_the_temperatures_of_a_row():
    """The mean of chosen values is within the grid: ILS2's published means need more than the text's grid."""
    papers, grids = published.load_all(), Grids()
    for key, grid in (("ils", grids.t_text), ("ils2", grids.t)):
        for row in (key, f"{key}_scaled"):
            assert min(grid) <= papers[row]["t"] <= max(grid)
    assert papers["ils2_scaled"]["t"] > max(grids.t_text)


def test_every_row_of_the_papers_tables_is_ours():
    for name, table in published.load_tables().items():
        assert set(table) <= set(TABLES[name].rows)
        assert set(TABLES[name].rows) <= {"bayes", *(row.key for row in all_rows(Grids()))}


# ---- a replicate ---------------------------------------------------------------------------------


def test_replicates_draw_different_points_and_the_same_ones_again():
    first, again, other = draw_data(TINY, 0), draw_data(TINY, 0), draw_data(TINY, 1)
    np.testing.assert_array_equal(first.train.x, again.train.x)
    assert not np.isin(first.train.x, other.train.x).any()
    assert not np.isin(first.train.x, first.val.x).any()


def test_what_else_is_trained_changes_nothing(study_folder):
    """A candidate's seed is its own: without the other families the row LS has the same numbers."""
    alone = run_replicate(Settings(TINY.recipe, QUICK, ("ls",), TINY.per_class), 0)
    everything = load_study(study_folder, 2)
    shared = [everything["rows"].tolist().index(row) for row in alone["rows"].tolist()]
    np.testing.assert_allclose(alone["values"], everything["values"][0, shared], rtol=1e-4)


def test_a_row_holds_the_numbers_of_what_it_chose(study_folder):
    study = load_study(study_folder, 2)
    names = study["candidates"].tolist()
    for r, key in enumerate(study["rows"].tolist()[1:], start=1):
        for n in range(2):
            c = names.index(study["chosen"][n, r])
            values = dict(zip(COLUMNS, study["values"][n, r], strict=True))
            assert values["val_ce"] == study["val_ce_scaled" if key.endswith("_scaled") else "val_ce"][n, c]
            assert values["temperature_free"] == study["temperature_free"][n, c]
            if not key.endswith("_scaled"):
                assert values["ce"] == pytest.approx(study["test_ce"][n, c], abs=1e-12)


def test_scaled_rows_are_measured_at_their_temperature(study_folder):
    """The hard-label network again, its logits divided by the stored temperature."""
    data, study = draw_data(TINY, 1), load_study(study_folder, 2)
    students = Students(TINY, 1, data)
    students.train([HARD], np.eye(3)[data.train.labels][None])
    logits = students.logits([0], data.test.x)[0].astype(float)
    rows = study["rows"].tolist()
    for key in ("hard", "hard_scaled"):
        values = dict(zip(COLUMNS, study["values"][1, rows.index(key)], strict=True))
        log_p = calibration.log_softmax(logits / values["temperature"])
        assert values["ce"] == pytest.approx(calibration.nll(log_p, data.test.labels), rel=1e-5)
        assert values["cwece15"] == pytest.approx(calibration.cwece(np.exp(log_p), data.test.labels), rel=1e-3)
    assert values["temperature"] != 1


def test_candidates_have_independent_seeds():
    """A student does not start where its teacher did; the same candidate does, each time."""
    data = draw_data(TINY, 0)
    twice = Students(TINY, 0, data), Students(TINY, 0, data)
    targets = np.repeat(np.eye(3)[data.train.labels][None], 3, axis=0)
    for students in twice:
        students.train([HARD, Candidate("ls", eps=0.1), Candidate("ls", eps=0.2)], targets)
    assert torch.equal(twice[0].parameters, twice[1].parameters)
    correlation = np.corrcoef(twice[0].parameters.numpy())
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 0.2
    other = Students(TINY, 1, data)
    other.train([HARD], targets[:1])
    assert abs(np.corrcoef(other.parameters[0].numpy(), twice[0].parameters[0].numpy())[0, 1]) < 0.2


def test_distillation_learns_from_what_the_rows_chose(monkeypatch):
    data = draw_data(TINY, 0)
    students = Students(replace(TINY, grids=replace(QUICK, p2=(1.0,), t=(1.0,))), 0, data)
    grid = [HARD, Candidate("ls", eps=0.01), Candidate("ls", eps=0.1), Candidate("ils", p1=0.8, p2=1.0, t=1.0)]
    students.train(grid, np.repeat(np.eye(3)[data.train.labels][None], 4, axis=0))
    students.scores["val_ce"] = np.array([0.1, 0.3, 0.2, 0.4])
    asked = {}
    monkeypatch.setattr(students, "train", lambda new, targets: asked.update(zip(new, targets, strict=True)))
    distil_chosen(students)
    logits = students.logits([2, 3], data.train.x)
    assert [candidate.name for candidate in asked] == ["distil_ls", "distil_ils"]
    for found, z in zip(asked.values(), logits, strict=True):
        np.testing.assert_allclose(found, np.exp(calibration.log_softmax(z)), rtol=1e-6)


# ---- the study -----------------------------------------------------------------------------------


def test_a_resumed_study_equals_an_uninterrupted_one(study_folder, tmp_path):
    run_study(TINY, tmp_path, 1)
    before = replicate_file(tmp_path, 0).stat().st_mtime_ns
    run_study(TINY, tmp_path, 2)  # and in another number of calls
    assert replicate_file(tmp_path, 0).stat().st_mtime_ns == before
    whole, resumed = load_study(study_folder, 2), load_study(tmp_path, 2)
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        np.testing.assert_array_equal(value, resumed[key], err_msg=key)


def test_another_study_in_the_folder_is_refused(study_folder):
    other = Settings(Recipe(lr=3e-3, max_epochs=3), QUICK, FAMILIES, (20, 20, 100))
    with pytest.raises(InputError, match=r"recipe\.lr was 0\.01 and is now 0\.003"):
        run_study(other, study_folder, 2)


def test_a_broken_replicate_is_named(tmp_path):
    path = replicate_file(tmp_path, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"0000\.npz.*delete it"):
        load_study(tmp_path, 1)


def test_standard_error_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(size=(50, 3))
    mean, error = mean_and_error(values)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(error, values.std(axis=0, ddof=1) / 50**0.5)
    assert np.isnan(mean_and_error(values[:1])[1]).all()


# ---- published numbers and directions --------------------------------------------------------------


def test_published_numbers_are_read_as_printed():
    tables = published.load_tables()
    lines = {name: (published.FOLDER / f"ils_table{n}.csv").read_text() for name, n in (("I", 1), ("V", 5))}
    assert "79.48%" in lines["I"]
    assert tables["I"]["ls_scaled"]["acc"] == pytest.approx(0.7948)
    assert tables["I"]["ls_on_sparse"]["eps"] == 0.122
    assert tables["II"].keys() == {"distil_bayes", "distil_hard", "distil_ls"}
    # Conflict I2: the column printed as P1 holds P2
    assert re.search(r"^ILS,No,.*,2\.91,-,1\.63,0\.80,", lines["V"], re.MULTILINE)
    assert (tables["V"]["ils"]["p1"], tables["V"]["ils"]["p2"], tables["V"]["ils"]["t"]) == (0.80, 1.63, 2.91)
    assert "eps" not in tables["V"]["ils"]
    assert published.load_tuned_curve() == (0.8, 2.0)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"ils_table1\.csv"):
        published.load_tables(tmp_path)


@pytest.mark.parametrize(
    ("difference", "error", "paper", "expected"),
    [
        (-0.03, 0.01, -0.02, directions.APPEARED),
        (0.03, 0.01, -0.02, directions.OPPOSITE),
        (-0.03, 0.02, -0.02, directions.UNDECIDED),
        (-0.02, 0.01, -0.02, directions.APPEARED),  # two standard errors decide
        (0.0, 0.0, -0.02, directions.UNDECIDED),
        (-0.03, np.nan, -0.02, directions.UNDECIDED),
    ],
)
def test_verdicts(difference, error, paper, expected):
    assert directions.verdict(difference, error, paper) == expected


def test_differences_are_paired():
    """Two rows that differ by a constant: the replicates' spread does not enter the standard error."""
    rng, papers = np.random.default_rng(0), published.load_all()
    hard = rng.normal(size=(20, len(COLUMNS)))
    study = {"rows": np.array(["bayes", "hard", "ls"]), "values": np.stack([hard, hard, hard - 0.01], axis=1)}
    titles = row_titles(Settings())
    found = {(e["column"], e["first"]): e for e in directions.compare_directions(study, papers, titles)}
    entry = found["ce", "ls"]
    assert entry["difference"] == pytest.approx(-0.01)
    assert entry["se"] < 1e-12
    assert entry["published"] == pytest.approx(papers["ls"]["ce"] - papers["hard"]["ce"])
    assert entry["verdict"] == directions.APPEARED
    assert entry["statement"] == "CE of Standard LS is lower than that of No LS"
    assert found["acc", "ls"]["verdict"] == directions.OPPOSITE
    assert all(e["first"] in ("ls",) and e["second"] == "hard" for e in found.values())


# ---- the curve -------------------------------------------------------------------------------------


def test_the_best_amount_of_a_bin_is_the_nearest():
    teacher = np.array([0.3, 0.3, 0.95, 0.1, 1.0])
    students = np.array([[0.35, 0.35, 0.5, 0.0, 1.0], [0.9, 0.9, 0.94, 0.0, 0.5]])
    count, sums = curve.bin_sums(teacher, np.stack([teacher, *students]))
    assert count.sum() == 4  # 0.1 is below the bins
    found = curve.build_curve(count, sums, np.array([0.01, 0.2]))
    np.testing.assert_allclose(found.teacher, [0.3, 0.95, 1.0])
    np.testing.assert_array_equal(found.best, [0.01, 0.2, 0.01])


def test_fits_recover_the_curve_that_made_the_amounts():
    p = np.linspace(0.5, 1, 40)
    ones = np.ones_like(p)
    for name, amount in (("ils1", curve.curve_amount(p, 0.85, 1.5)), ("sine", curve.sine_amount(p, 0.6, 4.0))):
        made = curve.Curve(ones, p, ones, p[None], amount)
        assert name == "sine" or curve.fit_curves(made)[name] == pytest.approx((0.85, 1.5), abs=1e-4)
        if name == "sine":  # P1 is known up to a period
            np.testing.assert_allclose(curve.sine_amount(p, *curve.fit_curves(made)[name]), amount, atol=1e-4)


def test_both_teachers_are_binned_by_both_probabilities():
    """Two points, of which the second is predicted wrongly; a student of each amount."""
    labels = np.array([0, 1])
    bayes = np.log([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    hard = np.log([[0.9, 0.05, 0.05], [0.25, 0.25, 0.5]])
    students = [np.log([[0.8, 0.1, 0.1], [0.1, 0.4, 0.5]]), bayes]
    count, sums = curve.curve_sums([bayes, hard], students, labels)
    assert count.shape == (2, 2, curve.BINS)
    assert sums.shape == (2, 2, 3, curve.BINS)
    values = {(0, 0): [0.7, 0.3], (0, 1): [0.7, 0.6], (1, 0): [0.9, 0.25], (1, 1): [0.9, 0.5]}
    own = {0: [0.8, 0.4], 1: [0.8, 0.5]}  # of the first student, by kind
    for (teacher, kind), points in values.items():
        places = [int((p - 0.2) / 0.8 * curve.BINS) for p in points]
        assert np.flatnonzero(count[teacher, kind]).tolist() == sorted(places)
        np.testing.assert_allclose(sums[teacher, kind][0, places], points)
        np.testing.assert_allclose(sums[teacher, kind][1, places], own[kind])
        found = curve.build_curve(count[teacher, kind], sums[teacher, kind], np.array([0.1, 0.05]))
        if teacher == 0:  # the second student is Bayes itself
            np.testing.assert_allclose(found.best, 0.05)


def test_histograms_count_every_point():
    labels, log_p = np.array([0, 1]), np.log([[0.71, 0.19, 0.1], [0.61, 0.3, 0.09]])
    true, largest, every = curve.histograms(log_p, labels)
    edges = np.linspace(0, 1, curve.HISTOGRAM_BINS + 1)
    for found, points in ((true, [0.71, 0.3]), (largest, [0.71, 0.61]), (every, np.exp(log_p).ravel())):
        np.testing.assert_array_equal(found, np.histogram(points, edges)[0])


def test_other_setups_have_their_own_networks_points_and_task():
    by_name = {setup.name: setup for setup in SETUPS}
    data = {name: draw_data(TINY, 0, setup) for name, setup in by_name.items()}
    assert len(data["bigger"].train.labels) == 4 * len(data["normal"].train.labels)
    assert len(data["bigger"].val.labels) == len(data["normal"].val.labels)
    assert not np.isin(data["shallow"].train.x, data["normal"].train.x).any()
    students = replicate._train_setup(TINY, 0, by_name["shallow"], [Candidate("ls", eps=0.1)])
    assert students.parameters.shape == (2, 3 * 64 + 65 * 3)
    assert not torch.equal(students.parameters[0], students.parameters[1])
    different = data["different"].test
    for k, mean in enumerate(SEPARATE_MEANS):
        np.testing.assert_allclose(different.x[different.labels == k].mean(axis=0), mean, atol=0.5)


def test_other_setups_are_of_the_first_replicates_only(study_folder, monkeypatch):
    count = load_study(study_folder, 2)["curve_count"]
    assert (count[:, :, :, 1].sum(axis=3) == 3 * TINY.per_class[2]).all()  # the largest is always in a bin
    monkeypatch.setattr(replicate, "SETUP_REPLICATES", 0)
    alone = run_replicate(replace(TINY, families=("curves",)), 0)["curve_count"]
    assert alone[0].any()
    assert not alone[1:].any()


def test_the_normal_curve_is_that_of_the_label_smoothing_candidates(study_folder):
    """The students' mean probability of the true class, over all bins, from the networks again."""
    data, study = draw_data(TINY, 1), load_study(study_folder, 2)
    students = Students(TINY, 1, data)
    grid = [Candidate("ls", eps=eps) for eps in study["curve_eps"]]
    hard = np.eye(3)[data.train.labels]
    students.train(grid, np.stack([(1 - c.eps) * hard + c.eps / 3 for c in grid]))
    log_p = measures.log_softmax(students.logits([0, 1], data.test.x))
    used = np.exp(NORMAL.log_posterior(data.test.x).max(axis=1)) >= curve.LOWEST
    expected = np.exp(log_p.max(axis=2))[:, used].sum(axis=1)
    np.testing.assert_allclose(study["curve_sums"][1, 0, 0, 1][1:].sum(axis=1), expected, rtol=1e-4)


# ---- published figures -------------------------------------------------------------------------------


def test_published_curves_use_the_amounts_of_the_grid():
    curves = published.load_curves()
    assert set(curves) == {(teacher, setup.name) for teacher in curve.TEACHERS for setup in SETUPS}
    for p, best in curves.values():
        assert len(p) == len(best) == curve.BINS
        assert p[-1] == 1
        assert (best >= min(Grids().curve_eps)).all()
        assert (best <= max(Grids().curve_eps)).all()
    bayes = curves["bayes", "normal"]
    assert bayes.best[bayes.teacher < 0.5].tolist() == [0.2] * 19
    p1, p2 = published.load_tuned_curve()  # which the paper says is close to it
    assert np.abs(curve.curve_amount(bayes.teacher, p1, p2) - bayes.best).mean() < 0.01


def test_the_published_histogram_is_of_the_largest_probability():
    """The exact posterior at many points: its largest probability has the published shares, that of the label not."""
    edges, count = published.load_histograms()["bayes"]
    points = NORMAL.sample(np.random.default_rng(0), 20000)
    log_p = NORMAL.log_posterior(points.x)
    found = [np.histogram(p, edges)[0] / len(p) for p in curve.kinds_of(log_p, points.labels)]
    off = [np.abs(share - count / count.sum()).sum() / 2 for share in found]  # share of the points in other bins
    assert off[1] < 0.03 < 0.08 < off[0]
    assert count.sum() == pytest.approx(10 * 3 * 5000, rel=0.02)  # of 10 data sets


# ---- what is written -------------------------------------------------------------------------------


def test_the_report_has_every_row_and_needs_no_other_file(study_folder):
    page, text = ((study_folder / name).read_text() for name in ("report.html", "tables.md"))
    titles = row_titles(TINY)
    keys = {key for table in TABLES.values() for key in table.rows}
    assert keys == set(load_study(study_folder, 2)["rows"].tolist())
    for key in keys:
        assert f'<th scope="row">{titles[key]}</th>' in page, key
        assert f"| {titles[key]} |" in text, key
    captions = {
        1: "the task",
        2: "probabilities with and without label smoothing",
        4: "the best amount for each probability of Bayes",
        5: "the task with other distances between the classes",
        6: "other set-ups, teacher the Bayes-optimal model",
        7: "other set-ups, teacher No LS + TempS",
        8: "probabilities of both teachers",
        11: "ILS1 with fixed P1 and P2",
    }
    assert re.findall(r"<h3>Figure (\d+): (.*)</h3>", page) == [(str(n), text) for n, text in captions.items()]
    for number in captions:
        assert (study_folder / f"figure_{number}.png").stat().st_size > 1000
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_the_curves_are_beside_the_published_ones(study_folder):
    numbers = json.loads((study_folder / NUMBERS).read_text())
    means = {(entry["teacher"], entry["kind"]): entry["mean"] for entry in numbers["curve_means"]}
    assert set(means) == set(itertools.product(curve.TEACHERS, (*curve.KINDS, "published")))
    p, best = published.load_curves()["bayes", "normal"]
    assert means["bayes", "published"][4] == pytest.approx(best[(p >= 0.6) & (p < 0.7)].mean())
    bins = numbers["curves"]["normal"]["hard_scaled"]["true"]
    inside = [b for t, b in zip(bins["teacher"], bins["best"], strict=True) if 0.3 <= t < 0.4]
    assert means["hard_scaled", "true"][1] == pytest.approx(np.mean(inside))
    for name in ("tables.md", "report.html"):
        assert f"{means['bayes', 'published'][4]:.3f}" in (study_folder / name).read_text()


def test_numbers_tables_and_page_agree(study_folder):
    numbers = json.loads((study_folder / NUMBERS).read_text())
    study, papers = load_study(study_folder, 2), published.load_all()
    for name, table in TABLES.items():
        with (study_folder / f"table_{name}.csv").open() as file:
            lines = {line["row"]: line for line in csv.DictReader(file)}
        assert list(lines) == list(table.rows)
        for key, line in lines.items():
            values = study["values"][:, study["rows"].tolist().index(key), COLUMNS.index("ce")]
            cell = numbers["rows"][key]["ce"]
            assert cell["mean"] == pytest.approx(values.mean())
            assert cell["se"] == pytest.approx(abs(values[0] - values[1]) / 2)
            assert float(line["ce"]) == pytest.approx(values.mean(), rel=1e-5)
            assert line["ce_published"] == (f"{papers[key]['ce']:.6g}" if key in papers else "")
    assert {check["column"] for check in numbers["bayes_checks"]} == set(directions.BAYES_TOLERANCE)


# ---- the tool --------------------------------------------------------------------------------------


def test_the_tool_runs_some_rows_in_two_processes(load_tool, tmp_path, capsys):
    options = ["--quick", "--replicates", "2", "--workers", "2", "--rows", "ls"]
    assert load_tool("gaussian_study").main(["--output-dir", str(tmp_path), *options]) == 0
    said = capsys.readouterr()
    assert "published directions" in said.out
    assert "2/2" in said.err  # progress
    rows = json.loads((tmp_path / NUMBERS).read_text())["rows"]
    assert "ls" in rows
    assert "ils" not in rows
    assert not (tmp_path / "table_II.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--replicates", "0"], "--replicates is 0; it must be at least 1"),
        (["--workers", "-1"], "--workers is -1; it must be at least 1"),
        (["--lr", "0"], "--lr is 0.0; it must be above 0 and at most 1"),
        (["--lr", "nan"], "--lr is nan; it must be above 0"),
        (["--seed", "-3"], "--seed is -3; it must be at least 0"),
        (["--rows", "isl"], "unknown family 'isl'"),
    ],
)
def test_bad_input_is_one_line(load_tool, tmp_path, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_tool("gaussian_study").main(["--output-dir", str(tmp_path), *options])
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_one_line_and_its_replicate_is_run_by_the_next_call(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(study, "_run", kill_this_process)
        with pytest.raises(
            InputError, match=r"^a worker was killed, .*; use fewer --workers; run the same command again"
        ):
            run_study(TINY, tmp_path, 2, workers=2)
    run_study(TINY, tmp_path, 1)
    assert replicate_file(tmp_path, 0).exists()


def test_the_workers_are_those_that_the_container_allows(load_tool, tmp_path, monkeypatch):
    tool = load_tool("gaussian_study")
    monkeypatch.setattr(tool, "count_cores", lambda: 3)
    assert tool.parse_arguments(["--output-dir", str(tmp_path)]).workers == 3


def test_bad_input_ends_with_2(load_tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gaussian_study.py", "--output-dir", str(tmp_path), "--rows", "isl1"])
    tool = load_tool("gaussian_study")
    with pytest.raises(SystemExit) as stopped:
        tool.run_tool(tool.main)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "did you mean 'ils1'" in said
