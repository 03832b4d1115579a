"""Our own run folders and backbone files, imported under another label: the weights are the same, bit for bit."""

import json

import pytest
import torch
from helpers.noise_runs import write_run
from helpers.seeded import make_backbone

from backbones.core.errors import InputError
from backbones.core.results import load_results
from backbones.core.warning_counter import WarningCounter
from backbones.measuring.run import find_choices, load_run
from backbones.models.weights import load_backbone, save_backbone_state

pytest_plugins = ["helpers.noise_fixtures"]

NETWORK = """
from backbones.models.base import MODELS
from backbones.models.resnet_cifar import resnet29_cifar

@MODELS.register()
def imported_again(num_classes, norm):
    network = resnet29_cifar(num_classes, norm)
    network.arch = "imported_again"
    return network
"""


@pytest.fixture
def adopt(load_tool):
    def call(path, target, *options):
        argv = ["--checkpoint", path, "--source", "smooth2det", "--label", "mine", "--output-dir", target, *options]
        return load_tool("import_backbone").main([str(text) for text in argv])

    return call


def test_a_run_is_the_same_network_under_another_label(tmp_path, root, adopt, load_tool, capsys):
    run = write_run(tmp_path / "run", root, 3)
    assert adopt(run, tmp_path / "mine", "--config-file", run / "config.yaml") == 0
    assert "its classes are those of" in capsys.readouterr().out
    before, after = load_backbone(run), load_backbone(tmp_path / "mine")
    assert (after.hash, after.spec) == (before.hash, before.spec)
    assert all(torch.equal(tensor, before.state[name]) for name, tensor in after.state.items())
    assert after.provenance == {**before.provenance, "label": "mine"}
    about = json.loads((tmp_path / "mine" / "import.json").read_text())
    assert about["backbone"] == {"label": "mine", "method": "CE", "seed": 3, "hash": before.hash}
    assert load_tool("evaluate_backbone").main([str(tmp_path / "mine")]) == 0
    assert load_results(tmp_path / "mine" / "evaluation")["backbone"] == about["backbone"]


def test_label_method_and_seed_can_be_given(tmp_path, root, adopt):
    run = write_run(tmp_path / "run", root, 3)
    adopt(run / "backbone.pth", tmp_path / "mine", "--method", "SimCLR", "--seed", 7)
    found = load_backbone(tmp_path / "mine").provenance
    assert (found["label"], found["method"], found["seed"]) == ("mine", "SimCLR", 7)
    assert not (tmp_path / "mine" / "config.yaml").exists()


def test_what_a_run_chose_by_validation_stays_known(tmp_path, root, adopt):
    run = write_run(tmp_path / "run", root, 3)
    results = {"schema_version": 1, "stage": "pretraining", "metrics": {}, "data": {}, "warnings": [], "files": {}}
    results |= {
        "backbone": {"label": "x", "method": "CE", "seed": 3, "hash": "0"},
        "protocol": {"name": "p", "hash": "1"},
    }
    chosen = {"choices": [{"what": "reported epoch", "split": "val"}]}
    (run / "results.json").write_text(json.dumps(results | {"details": chosen}))
    adopt(run, tmp_path / "mine", "--config-file", run / "config.yaml")
    cfg, _ = load_run(tmp_path / "mine", [])
    found = find_choices(tmp_path / "mine", cfg, ["val"], WarningCounter())
    assert found == {"chosen_on_measured": ["reported epoch"]}


@pytest.mark.parametrize(
    "options", [["--arch", "resnet18"], ["--mean", "0", "0", "0"], ["--no-classifier"], ["--stride-in-1x1"]]
)
def test_what_the_file_states_is_not_declared(options, tmp_path, root, adopt):
    run = write_run(tmp_path / "run", root, 3)
    with pytest.raises(InputError, match=f"{options[0]}: with --source smooth2det, the file states it"):
        adopt(run, tmp_path / "mine", *options)
    assert not (tmp_path / "mine").exists()


def test_existing_files_are_replaced_only_on_demand(tmp_path, root, adopt):
    first, second = (write_run(tmp_path / f"run{seed}", root, seed) for seed in (3, 4))
    adopt(first, tmp_path / "mine")
    with pytest.raises(InputError, match=r"backbone\.pth exists; choose another --output-dir"):
        adopt(second, tmp_path / "mine")
    adopt(second, tmp_path / "mine", "--overwrite")
    assert load_backbone(tmp_path / "mine").hash == load_backbone(second).hash
    (tmp_path / "mine" / "results.json").touch()
    with pytest.raises(InputError, match="holds the results of a training"):
        adopt(first, tmp_path / "mine", "--overwrite")


def test_a_network_of_the_users_own_comes_along(tmp_path, adopt):
    run = tmp_path / "run"
    (run / "imports").mkdir(parents=True)
    (run / "imports" / "again_network.py").write_text(NETWORK)
    (run / "config.yaml").write_text("IMPORTS: [imports/again_network.py]\n")
    own = make_backbone(spec={"arch": "imported_again"})
    save_backbone_state(run / "backbone.pth", own.state, own.spec, own.provenance)
    adopt(run, tmp_path / "mine")
    assert (tmp_path / "mine" / "config.yaml").read_text() == "IMPORTS:\n- imports/again_network.py\n"
    assert (tmp_path / "mine" / "imports" / "again_network.py").read_text() == NETWORK


def test_a_config_with_imports_is_replaced_only_on_demand(tmp_path, load_tool):
    """With --output, too; and never beside the results of a training."""
    run, target = tmp_path / "run", tmp_path / "other"
    (run / "imports").mkdir(parents=True)
    (run / "imports" / "third_network.py").write_text(NETWORK.replace("imported_again", "imported_third"))
    (run / "config.yaml").write_text("IMPORTS: [imports/third_network.py]\n")
    own = make_backbone()
    save_backbone_state(run / "backbone.pth", own.state, own.spec, own.provenance)
    target.mkdir()
    (target / "config.yaml").write_text("SEED: 7\n")
    main = load_tool("import_backbone").main
    argv = ["--checkpoint", run, "--source", "smooth2det", "--label", "x", "--output", target / "mine.pth"]
    with pytest.raises(InputError, match=r"config\.yaml exists; choose another --output$"):
        main([str(text) for text in argv])
    (target / "results.json").touch()
    with pytest.raises(InputError, match=r"holds the results of a training; choose another --output$"):
        main([*map(str, argv), "--overwrite"])
    assert (target / "config.yaml").read_text() == "SEED: 7\n"
    assert sorted(path.name for path in target.iterdir()) == ["config.yaml", "results.json"]


def test_a_foreign_file_needs_its_architecture(tmp_path, load_tool):
    torch.save(make_backbone().state, tmp_path / "x.pth")
    argv = [
        "--checkpoint",
        tmp_path / "x.pth",
        "--source",
        "torchvision",
        "--label",
        "x",
        "--output",
        tmp_path / "y.pth",
    ]
    with pytest.raises(InputError, match="--arch is missing; choices: resnet18"):
        load_tool("import_backbone").main([str(text) for text in argv])
