"""The real tools/select_run.py on folders of runs: what it leaves, and what it refuses."""

import pytest
import torch
from helpers.noise_runs import write_run
from helpers.tools import tool

from backbones.core.config import load_yaml
from backbones.core.errors import InputError
from backbones.core.results import load_results, make_results, save_results
from backbones.models.weights import identity, load_backbone
from suites.selection import select

pytest_plugins = ["helpers.noise_fixtures"]

DATA = {"train": {"fingerprint": "t"}, "val": {"fingerprint": "v"}}


def add_run(folder, root, seed, nll, data=DATA):
    write_run(folder, root, seed)
    (folder / "config.yaml").write_text(f"LABEL: {folder.name}\nMETHOD: {{LS: {{amount: 0.{seed}}}}}\n")
    who = identity(load_backbone(folder))
    save_results(folder, make_results("pretraining", who, {"name": "p", "hash": "1"}, {"nll": nll}, data=data))
    return folder


@pytest.fixture
def runs(root, tmp_path):
    return [add_run(tmp_path / f"point{seed}", root, seed, nll) for seed, nll in ((1, 0.9), (2, 0.5), (3, 0.7))]


def choose(runs, output):
    options = ["--key", "METHOD.LS.amount", "--label", "LS", "--output-dir", str(output)]
    return tool("select_run")([*options, *map(str, runs)])


def test_the_chosen_backbone_under_the_new_label(runs, tmp_path, capsys):
    assert choose(runs, tmp_path / "ls") == 0
    assert "chosen: METHOD.LS.amount 0.2, nll 0.5000" in capsys.readouterr().out
    left, source = load_backbone(tmp_path / "ls"), load_backbone(runs[1])
    assert (identity(left).label, left.hash) == ("LS", source.hash)
    built = left.build().state_dict()
    for name, value in source.build().state_dict().items():
        assert torch.equal(built[name], value)
    assert load_yaml(tmp_path / "ls" / "config.yaml") == {"LABEL": "LS", "METHOD": {"LS": {"amount": 0.2}}}
    results = load_results(tmp_path / "ls")
    assert results["backbone"] == {**load_results(runs[1])["backbone"], "label": "LS"}
    assert [c["nll"] for c in results["details"]["selection"]["candidates"]] == [0.9, 0.5, 0.7]
    assert all((tmp_path / "ls" / name).is_file() for name in results["files"].values())


def test_a_candidate_is_never_overwritten(runs):
    before = (runs[0] / "backbone.pth").read_bytes()
    with pytest.raises(InputError, match="one of the candidates"):
        choose(runs, runs[0])
    assert (runs[0] / "backbone.pth").read_bytes() == before


def test_runs_validated_on_other_images_are_not_compared(runs, root, tmp_path):
    other = add_run(tmp_path / "other", root, 4, 0.1, {"train": {"fingerprint": "t"}, "val": {"fingerprint": "w"}})
    with pytest.raises(InputError, match=r"point1 and .*other were validated on different images"):
        select([*runs, other], [], "nll")
    noisy = add_run(tmp_path / "noisy", root, 5, 0.1, {"train": {"fingerprint": "n"}, "val": {"fingerprint": "v"}})
    assert select([*runs, noisy], [], "nll")["chosen"]["run"] == "noisy"  # what is trained on may differ
