"""Average ranks and their tests: scipy's, printed quantiles, the published table with its reversed column."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.result_folders import add, backbone
from scipy import stats

from backbones.core.errors import InputError
from comparison.ranking import ranks
from comparison.ranking.tables import collect_table, direction, load_csv, rank_table

# evaluation of methods over data sets: q at 0.05 for k = 2 .. 12 (Demsar 2006, Table 5a)
PRINTED_Q = (1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164, 3.219, 3.268)


def table3(metric):
    return Path(__file__).parent.parent / "docs" / "paper_tables" / f"ils_table3_{metric}.csv"


def draw(n=9, k=5, ties=False, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, k)) + 0.5 * np.arange(k)
    return values.round() if ties else values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("better", [1, -1])
def test_ranks_and_friedman_against_scipy(ties, better):
    values = draw(ties=ties)
    found = ranks.average_ranks(values, better=better)
    np.testing.assert_allclose(found.sum(axis=1), 5 * 6 / 2)  # mid-ranks conserve the sum
    assert (found[:, 0].mean() > found[:, 4].mean()) == (better > 0)
    expected = stats.friedmanchisquare(*(-better * values).T)
    test = ranks.friedman(found)
    assert (test.chi2, test.chi2_p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)


def test_iman_davenport_is_the_f_of_an_analysis_of_variance_of_the_ranks():
    """F of the two-way layout without interaction, methods against what is left."""
    found = ranks.average_ranks(draw(), better=1)
    n, k = found.shape
    between = n * ((found.mean(axis=0) - found.mean()) ** 2).sum() / (k - 1)
    rest = ((found - found.mean(axis=0)) ** 2).sum() / ((n - 1) * (k - 1))
    test = ranks.friedman(found)
    assert test.f == pytest.approx(between / rest, rel=1e-12)
    assert test.f_p == pytest.approx(stats.f.sf(between / rest, k - 1, (k - 1) * (n - 1)), rel=1e-12)


def test_both_ends_of_friedmans_test():
    same = ranks.friedman(ranks.average_ranks(np.ones((6, 4)), better=1))
    assert same == (0, 1, 0, 1)
    agreed = ranks.friedman(ranks.average_ranks(np.tile(np.arange(4.0), (6, 1)), better=1))
    assert agreed.chi2 == pytest.approx(6 * 3)  # its largest value, N (k - 1)
    assert (agreed.f, agreed.f_p) == (np.inf, 0)


def test_nemenyi_to_the_printed_digits():
    assert [round(ranks.nemenyi_q(k), 3) for k in range(2, 13)] == pytest.approx(PRINTED_Q, abs=0.0011)
    assert ranks.nemenyi_q(2) == pytest.approx(stats.norm.ppf(0.975), abs=1e-6)
    assert ranks.critical_difference(12, 11) == pytest.approx(5.024, abs=5e-4)
    assert ranks.critical_difference(12, 44) == pytest.approx(ranks.critical_difference(12, 11) / 2)


def test_bars_join_what_lies_within_the_difference():
    means = np.array([4.0, 1.0, 2.0, 6.5, 3.0])
    assert ranks.indistinct_groups(means, 2.0) == [(1, 2, 4), (2, 4, 0)]  # 3.0 - 1.0 does not exceed 2
    assert ranks.indistinct_groups(means, 0.5) == []
    assert ranks.indistinct_groups(means, 10.0) == [(1, 2, 4, 0, 3)]


def test_holm_by_hand_and_wilcoxon_of_twins():
    assert ranks.holm(np.array([0.01, 0.04, 0.03, 0.5])) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert ranks.holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])
    values = draw(n=12, k=2)
    three = np.column_stack([values, values[:, 0]])
    pairs = {(pair.first, pair.second): pair.p for pair in ranks.wilcoxon_holm(three, "abc")}
    assert pairs["a", "c"] == 1  # the same numbers
    assert pairs["a", "b"] == pytest.approx(min(1, 3 * stats.wilcoxon(*values.T).pvalue))


# ---- tables ------------------------------------------------------------------------------------


def test_published_ranks_come_back_and_the_reversed_column_is_found():
    """Printed ranks are of unrounded numbers, so that only ties of the printed values may differ."""
    table = load_csv(table3("cwece"))
    assert table.values.shape == (11, 12)
    means = ranks.average_ranks(table.values, better=-1).mean(axis=0)
    found = dict(zip(table.methods, means.tolist(), strict=True))
    with table3("cwece").open(encoding="utf-8") as file:
        printed = list(csv.DictReader(file))[-1]
    for method, mean in found.items():
        expected = float(printed[method])
        if method == "Beta":
            assert expected == 4.18
            expected = 13 - expected  # suspected_errors.csv: reversed in every row
        assert mean == pytest.approx(expected, abs=0.46), method
    assert found["Beta"] == pytest.approx(8.82, abs=0.2)


def test_a_claim_of_the_paper_against_the_critical_difference():
    """ILS + TempS is not significantly better than all others in cross-entropy: a bar joins it to No LS + TempS."""
    table = load_csv(table3("ce"))
    means = ranks.average_ranks(table.values, better=-1).mean(axis=0)
    first = ranks.indistinct_groups(means, ranks.critical_difference(12, 11))[0]
    assert {"ILS+TempS", "No LS+TempS", "LS+TempS"} <= {table.methods[i] for i in first}
    accuracy = load_csv(table3("acc"))
    means = ranks.average_ranks(accuracy.values, better=1).mean(axis=0)
    by_name = dict(zip(accuracy.methods, means.tolist(), strict=True))
    assert by_name["ILS"] == by_name["ILS+TempS"] == pytest.approx(1.86, abs=0.1)  # mid-ranks; 1.36 is printed


def test_tool_end_to_end_and_what_it_refuses(load_tool, tmp_path, capsys):
    main = load_tool("rank_methods").main
    arguments = ["--metric", "cwECE", "--csv", str(table3("cwece")), "--output-dir", str(tmp_path)]
    assert main([*arguments, "--better", "lower"]) == 0
    assert "critical difference at 95%: 5.024" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "ranks.json").read_text())["mean_ranks"]) == 12
    assert (tmp_path / "ranks.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="--better"):
        main(arguments)
    with pytest.raises(InputError, match="give either folders of runs, or one file"):
        main(["--metric", "nll", "--output-dir", str(tmp_path)])
    hole = tmp_path / "hole.csv"
    hole.write_text("Data,a,b\nx,1,2\ny,,3\n")
    with pytest.raises(InputError, match="'a' on 'y'"):
        main([*arguments[:2], "--better", "lower", "--csv", str(hole), "--output-dir", str(tmp_path)])
    with pytest.raises(InputError, match="no_such"):
        main([*arguments[:2], "--better", "lower", "--csv", "no_such.csv", "--output-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"Data,a,b\nx,1,2\ny,-,3\n", "column 'a' has numbers and '-'"),  # else a would be a name of data sets
        (b"Data,a,a\nx,1,2\n", "column 'a' is duplicated"),
        (b"Data,a,b\nx,1,2,3\n", "line 2 has more cells"),
        (b"\xff\xfe\x00,1\n", "it is not UTF-8 text"),
        (b"", "no column of numbers"),
    ],
)
def test_tables_that_would_be_read_as_something_else(tmp_path, text, message):
    (tmp_path / "table.csv").write_bytes(text)
    with pytest.raises(InputError, match=message):
        load_csv(tmp_path / "table.csv")


def test_data_sets_that_all_agree(load_tool, tmp_path, capsys):
    """F is infinite there, which JSON has not."""
    (tmp_path / "table.csv").write_text("Data,a,b,c\nx,1,2,3\ny,1,2,3\nz,1,2,3\n")
    arguments = ["--metric", "x", "--better", "lower", "--csv", str(tmp_path / "table.csv")]
    assert load_tool("rank_methods").main([*arguments, "--output-dir", str(tmp_path)]) == 0
    test = json.loads((tmp_path / "ranks.json").read_text())["friedman"]
    assert (test["chi2"], test["f"], test["f_p"]) == (pytest.approx(6), None, 0)
    assert "F inf (p 0)" in capsys.readouterr().out


def test_two_backbones_of_one_name_and_seed_are_no_seeds(tmp_path):
    first, second = backbone("LS", seed=0), backbone("LS", seed=0)
    second = type(second)(second.label, second.method, 0, "another")
    for who, value in ((first, 0.4), (second, 0.8)):
        add(tmp_path, "backbone", who, {"nll": value}, folder=who.hash)
    with pytest.raises(InputError, match="two backbones are called LS with seed 0"):
        collect_table([tmp_path], "nll")


def test_a_backbone_under_two_detection_protocols_counts_once(tmp_path):
    for label, seeds in (("LS", (0.2, 0.5)), ("CE", (0.4, 0.6))):
        for seed, value in enumerate(seeds):
            add(tmp_path, "backbone", backbone(label, seed=seed), {"nll": value})
    for protocol in ("det@1", "det@2"):
        add(tmp_path, "detection", backbone("LS", seed=0), {"AP": 0.1}, protocol=protocol)
    table = collect_table([tmp_path], "nll")
    assert dict(zip(table.methods, table.values[0], strict=True)) == pytest.approx({"LS": 0.35, "CE": 0.5})


def test_runs_are_averaged_over_seeds_and_told_apart_by_network(tmp_path):
    config = "MODEL:\n  ARCH: {}\n"
    numbers = {("CE", 0): 0.4, ("CE", 1): 0.6, ("LS", 0): 0.3}
    for arch in ("resnet18", "resnet34"):
        for (label, seed), value in numbers.items():
            who = backbone(label, label, seed)
            who = type(who)(who.label, who.method, seed, f"{arch}-{who.hash}")
            data = {"val": {"name": "flowers"}}
            folder = add(tmp_path, "backbone", who, {"nll": value}, data=data, folder=f"{arch}-{who.label}-{seed}")
            (folder / "config.yaml").write_text(config.format(arch))
    table = collect_table([tmp_path], "nll")
    assert [line.split(" (")[0] for line in table.datasets] == ["flowers resnet18", "flowers resnet34"]
    np.testing.assert_allclose(table.values, [[0.5, 0.3]] * 2)
    assert direction("nll", None) == -1
    assert direction("nll", "higher") == 1
    with pytest.raises(InputError, match="did you mean 'nll'"):
        collect_table([tmp_path], "nl")
    add(tmp_path, "backbone", backbone("ALS"), {"nll": 1.0}, data={"val": {"name": "cars"}})
    wider = collect_table([tmp_path], "nll")
    with pytest.raises(InputError, match=r"cells have no number.*remove one of them"):
        rank_table(wider, "nll", -1)
