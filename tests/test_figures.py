"""The numbers behind the figures of classifiers, and each figure as its command draws it."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from helpers.noise_runs import write_run
from helpers.pretraining import arguments as pretraining
from helpers.tools import tool

from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.errors import InputError
from backbones.core.results import BackboneIdentity, load_results, make_results, save_results
from backbones.measuring import figure_data, figures

pytest_plugins = ["helpers.noise_fixtures"]


def add_pretraining(run, top1):
    lines = [{"iteration": k, "train_top1": k / 100, "loss": 2.0 - k / 100} for k in range(0, 100, 10)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    who = BackboneIdentity(run.name, "CE", 0, f"hash-{run.name}")
    save_results(run, make_results("pretraining", who, {"name": "p", "hash": "1"}, {"top1": top1}))
    return run


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    made = [add_pretraining(write_run(folder / f"r{seed}", root, seed), 0.5 + 0.1 * seed) for seed in range(3)]
    text = (made[2] / "config.yaml").read_text()
    (made[2] / "config.yaml").write_text(text.replace("BASE_LR: 0.1\n", "BASE_LR: 0.4\n"))
    for run in made[:2]:
        assert tool("evaluate_backbone")([str(run)]) == 0
    return made


def plot(kind, runs, output, *arguments):
    assert tool("plot_backbone")([kind, *map(str, runs), "-o", str(output), *arguments]) == 0
    assert cv2.imread(str(output)).std() > 5  # not an empty sheet
    return json.loads(output.with_suffix(".json").read_text())


@pytest.mark.parametrize(("variant", "bins"), [("standard", 15), ("pycalib", 100)])
def test_reliability_is_of_the_saved_predictions(runs, tmp_path, variant, bins):
    for panel, run in zip(plot("reliability", runs[:2], tmp_path / "a.png", "--variant", variant), runs, strict=False):
        metrics = json.loads((run / "evaluation" / "results.json").read_text())["metrics"]
        assert panel["ece"] == pytest.approx(metrics["ece15" if variant == "standard" else "ece100_pycalib"])
        assert panel["accuracy_of_all"] == metrics["top1"]
        assert len(panel["count"]) == bins
        assert sum(panel["count"]) == 24
        assert all((a is None) == (n == 0) for a, n in zip(panel["accuracy"], panel["count"], strict=True))
    with pytest.raises(InputError, match="'shifted'"):
        plot("reliability", runs[:1], tmp_path / "a.png", "--split", "shifted")


def test_bins_with_few_samples_are_not_drawn_and_empty_ones_lie_on_the_diagonal():
    panel = {"label": "a", "ece": 0.1, "low": 0.0, "count": [9, 10, 0], "accuracy": [1.0, 0.5, None]}
    figure = figures.draw_reliability([panel | {"confidence": [0.3, 0.5, None]}], "standard")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.5]
    stairs = figures.draw_reliability([panel | {"confidence": [0.3, 0.5, 0.8]}], "pycalib").axes[0].patches[0]
    np.testing.assert_allclose(stairs.get_data().values, [1.0, 0.5, 0.8])


@pytest.mark.parametrize("number", [1, 4, 5, 7])
def test_every_panel_is_shown_and_no_other(number):
    one = {"label": "", "ece": 0.1, "low": 0.0, "count": [20, 20], "accuracy": [0.2, 0.8], "confidence": [0.3, 0.7]}
    figure = figures.draw_reliability([one | {"label": f"m{n}"} for n in range(number)], "standard")
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert sorted(title.split()[0] for title in titles if title) == [f"m{n}" for n in range(number)]
    assert len(titles) == 2 * number


def test_samples_per_class(runs, tmp_path):
    assert plot("classes", runs[:1], tmp_path / "a.png") == {"train": [4] * 6, "val": [4] * 6}


def test_maps_show_the_same_images_for_every_backbone(runs, tmp_path):
    found = plot("maps", runs[:2], tmp_path / "a.png", "--images", "2")
    assert found["backbones"] == ["net0", "net1"]
    assert len(found["rows"]) == 2
    for row in found["rows"]:
        assert row[0]["image"] == row[1]["image"]
        assert row[0]["top3"] != row[1]["top3"]


def test_the_last_rows_show_images_without_their_objects(runs, tmp_path):
    """ALS Fig. 6, last row: the boxes are painted with the mean colour before the network sees the image."""
    plain = plot("maps", runs[:2], tmp_path / "a.png", "--images", "2")["rows"]
    found = plot("maps", runs[:2], tmp_path / "b.png", "--images", "2", "--covered", "1")["rows"]
    assert [[tile["covered"] for tile in row] for row in found] == [[False] * 2, [False] * 2, [True] * 2]
    assert found[:2] == plain
    assert found[2][0]["image"] == found[1][0]["image"]
    assert found[2][0]["top3"] != found[1][0]["top3"]
    rows, _ = figure_data.map_rows(runs[:1], [], "GradCAMPlusPlus", images=2, covered=1)
    _, _, samples, inputs = figure_data._open(runs[0], [])
    index = samples.relative.index(rows[2][0].image_id)
    x0, y0, x1, y1 = (samples.boxes_of(index)[0] * figure_data.MAP_SIZE / 32).round().astype(int)
    inside = rows[2][0].image[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8]
    assert np.abs(inside - 255 * np.array(inputs.mean)).max() <= 0.5
    assert rows[1][0].image[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8].std() > 5
    with pytest.raises(InputError, match="--covered is 3; it must be between 0 and 2"):
        plot("maps", runs[:1], tmp_path / "c.png", "--images", "2", "--covered", "3")
    options = ["--images", "2", "--covered", "1", "--set", "DATA.VAL_SPLIT", "unboxed"]
    with pytest.raises(InputError, match="no image of the validation split has a box"):
        plot("maps", runs[:1], tmp_path / "c.png", *options)


def test_features_before_the_last_layer(runs, tmp_path):
    """The last layer of these features gives the logits; the image does not depend on chance."""
    _, model, samples, inputs = figure_data._open(runs[0], [])
    chosen = np.array([0, 3, 9])
    features = figure_data.penultimate_features(model, samples, chosen, inputs)
    logits = features @ model.fc.weight.detach().numpy().T + model.fc.bias.detach().numpy()
    said = figure_data.predict_samples(model, samples, inputs, chosen=chosen)
    np.testing.assert_allclose(logits, said.logits, atol=1e-4)
    (panel,) = plot("tsne", runs[:1], tmp_path / "a.png", "--classes", "3", "--per-class", "4")
    assert panel == plot("tsne", runs[:1], tmp_path / "b.png", "--classes", "3", "--per-class", "4")[0]
    assert sorted(panel["classes"]) == [0] * 4 + [1] * 4 + [2] * 4


def test_spread_of_clusters_in_closed_form():
    """Two classes of two points at distance r of their centres, which lie d apart."""
    features = np.array([[0, 1.0], [0, -1], [8, 1], [8, -1]])
    assert figure_data.class_spread(features, np.array([3, 3, 5, 5])) == pytest.approx(1 / 8)
    assert figure_data.class_spread(features[[0, 0, 2, 2]], np.array([0, 0, 1, 1])) == 0


def test_curves_and_ablation_from_the_files_of_runs(runs, tmp_path):
    first = plot("curves", runs, tmp_path / "a.png")[1]
    assert first["train"] == {"iteration": list(range(0, 100, 10)), "value": [k / 100 for k in range(0, 100, 10)]}
    assert (first["label"], first["val"], first["last"]) == ("r1", None, 0.6)
    assert plot("curves", runs, tmp_path / "a.png", "--metric", "loss")[0]["train"]["value"][0] == 2.0
    best = shutil.copytree(runs[0], tmp_path / "best")
    results = json.loads((best / "results.json").read_text())
    (best / "results.json").write_text(json.dumps(results | {"details": {"reported_epoch": "best"}}))
    assert plot("curves", [best], tmp_path / "a.png")[0]["last"] is None  # it is not the last epoch's
    low, high = plot("ablation", runs, tmp_path / "a.png", "--key", "SOLVER.BASE_LR")
    measured = [json.loads((run / "evaluation" / "results.json").read_text())["metrics"]["top1"] for run in runs[:2]]
    assert (low["value"], low["runs"]) == (0.1, 2)
    assert (low["mean"], low["deviation"]) == pytest.approx((np.mean(measured), np.std(measured, ddof=1)))
    assert (high["value"], high["mean"], high["deviation"]) == (0.4, 0.7, None)  # not evaluated: its pretraining's


def test_soft_labels_are_those_of_the_checkpoint(small_scenes, runs, tmp_path):
    """Each class with its own share, and the others by descending share."""
    short = ["SOLVER.MAX_EPOCH", 2, "MODEL.ARCH", "lenet", "METHOD.NAME", "OLS"]
    tool("pretrain")(pretraining(small_scenes, tmp_path / "ols", *short))
    table = load_checkpoint(tmp_path / "ols" / "checkpoint.pth")["method"]["table.soft"].double().numpy()
    names = load_results(tmp_path / "ols")["details"]["classes"]
    table[0] = np.arange(12.0)[::-1] / 66  # as if learned: the own class first, then in the order of the classes
    path = tmp_path / "ols" / "checkpoint.pth"
    state = load_checkpoint(path)
    state["method"]["table.soft"] = torch.from_numpy(table)
    save_checkpoint(path, **state)
    (panel,) = plot("soft_labels", [tmp_path / "ols"], tmp_path / "a.png", "--classes", "12")
    assert [row["class"] for row in panel["rows"]] == names
    first = panel["rows"][0]
    assert first["own"] == pytest.approx(11 / 66)
    assert first["others"] == [[name, pytest.approx((11 - k) / 66)] for k, name in enumerate(names[:6]) if k]
    assert [row["own"] for row in panel["rows"]] == pytest.approx(np.diag(table).tolist())
    assert len(plot("soft_labels", [tmp_path / "ols"], tmp_path / "a.png", "--classes", "3")[0]["rows"]) == 3
    with pytest.raises(InputError, match=r"no .*checkpoint\.pth, which holds the soft labels"):
        plot("soft_labels", runs[:1], tmp_path / "b.png")
    del state["method"]["table.soft"]
    save_checkpoint(path, **state)
    with pytest.raises(InputError, match="its method learns no soft labels; give a run of OLS"):
        plot("soft_labels", [tmp_path / "ols"], tmp_path / "b.png")


def test_curves_of_detectors_are_those_of_their_own_folders(runs, tmp_path):
    """Beside a pretraining; with the test set's AP (TEST.EVAL_PERIOD), and the losses."""
    run = tmp_path / "detector"
    run.mkdir()
    lines = [{"iteration": k, "loss": 2.0 - k / 10} | ({"AP": k / 100} if k % 4 == 3 else {}) for k in range(8)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    who = BackboneIdentity("r0", "CE", 0, "hash-r0")
    save_results(run, make_results("detection", who, {"name": "p", "hash": "1"}, {"AP": 0.08}))
    [curve] = plot("curves", [run], tmp_path / "a.png", "--metric", "AP")
    assert curve == {"label": "r0", "train": None, "val": {"iteration": [3, 7], "value": [0.03, 0.07]}, "last": 0.08}
    # Of a run with DATASETS.VAL: the curve of the validation set, without the dot of the test set.
    other = tmp_path / "validated"
    shutil.copytree(run, other)
    text = "".join(json.dumps({k.replace("AP", "val_AP"): v for k, v in line.items()}) + "\n" for line in lines)
    (other / "metrics.jsonl").write_text(text)
    assert plot("curves", [other], tmp_path / "a.png", "--metric", "AP") == [curve | {"last": None}]
    losses = plot("curves", [run, runs[0]], tmp_path / "a.png", "--metric", "loss")
    assert [one["train"]["value"][1] for one in losses] == [1.9, 1.9]
    assert len(losses[0]["train"]["value"]) == 8
    with pytest.raises(InputError, match=r"metrics.jsonl has no 'VOC_mAP50'; choices: AP, loss"):
        plot("curves", [run], tmp_path / "a.png", "--metric", "VOC_mAP50")


def test_what_figures_refuse(runs, tmp_path):
    for arguments, message in (
        (["ablation", "--key", "SOLVER.LR"], "no key SOLVER.LR"),
        (["ablation"], "--key"),
        (["ablation", "--key", "SEED", "--metric", "topp1"], "topp1"),
        (["curves", "--metric", "lose"], "did you mean 'loss'"),
        (["classes"], "give one"),
        (["reliability", "--bins", "-3"], "--bins is -3; it must be at least 0"),
        (["maps", "--images", "0"], "--images is 0; it must be at least 1"),
        (["tsne", "--classes", "1", "--per-class", "1"], "t-SNE needs 3"),
        (["tsne", "--classes", "2", "--per-class", "1"], "2 images of 2 classes"),
    ):
        with pytest.raises(InputError, match=message):
            plot(arguments[0], runs, tmp_path / "a.png", *arguments[1:])
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        plot("curves", [tmp_path], tmp_path / "a.png")
    with pytest.raises(InputError, match=r"must end in \.png"):  # its numbers would overwrite it
        plot("curves", runs, tmp_path / "a.json")
    broken = shutil.copytree(runs[0], tmp_path / "broken")
    (broken / "evaluation" / "predictions.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="evaluate the backbone again"):
        plot("reliability", [broken], tmp_path / "a.png")
    (broken / "evaluation" / "predictions.npz").unlink()
    with pytest.raises(InputError, match="evaluate the backbone again"):
        plot("reliability", [broken], tmp_path / "a.png")


def test_human_labels_of_several_runs(runs, tmp_path):
    _, labels = figure_data.load_predictions(runs[0], "val")
    np.save(tmp_path / "cifar10h-probs.npy", np.eye(6)[labels])
    arguments = [*map(str, runs[:2]), "--human-labels", str(tmp_path), "--output", str(tmp_path / "human.json")]
    assert tool("compare_human_labels")(arguments) == 0
    rows = json.loads((tmp_path / "human.json").read_text())["rows"]
    for row, run in zip(rows, runs, strict=False):  # unanimous votes: the divergence is the cross-entropy
        metrics = json.loads((run / "evaluation" / "results.json").read_text())["metrics"]
        assert row["human_kl_all"] == pytest.approx(metrics["nll"])
