"""Every row of the papers' tables has a config that works; every number in docs/papers.md is that of the csv files."""

import csv
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from backbones.config import get_defaults, validate
from backbones.core.config import load_config
from backbones.measuring.calibration import calibration_metrics, scaled_metrics
from backbones.measuring.context import context_metrics
from backbones.measuring.human_labels import human_metrics
from backbones.measuring.robustness import METHODS as ATTACKS
from backbones.pretraining.building import build_method
from comparison.metrics import DETECTORS, METRICS
from comparison.papers import rows as papers
from comparison.papers.files import stale_files, write_papers
from suites.loading import load_suite
from suites.plan import build_plan

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ROOT / "docs" / "paper_tables"
PAGE = ROOT / "docs" / "papers.md"
SUITES = sorted(p for p in (ROOT / "configs" / "suites").glob("*.yaml") if re.match("(als|ils|ols)_", p.name))
SLOW_PLANS = 1  # of the eleven suites of ILS Table III, so many are planned
CLASSES = {"imagenet_xml": 1000, "open_images": 480, "cifar100": 100, "cub200": 200, "flowers102": 102}
CLASSES |= {"stanford_cars": 196, "fgvc_aircraft": 100}


def read(name):
    with (NUMBERS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    for name in ("SMOOTH2DET_DATA", "IMAGENET", "OPEN_IMAGES"):
        monkeypatch.setenv(name, "/data")


@pytest.fixture(scope="module")
def source():
    return papers.load_papers(ROOT)


def test_nothing_is_stale():
    assert stale_files(ROOT, write_papers(ROOT)) == []


def test_every_line_of_a_published_table_is_mapped_or_excluded_with_a_reason(source):
    tree, tables = source
    wanted = {f"als_table{n}" for n in range(1, 8)} | {f"ils_table{n}" for n in range(1, 7)}
    wanted |= {f"ols_table{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9, 10)} | {"ols_single"}
    assert {table.key for table in tables} == wanted
    used = {name for table in tables for name in table.files}
    assert used | set(tree["unmapped"]) == {path.name for path in NUMBERS.glob("*.csv")}
    assert not used & set(tree["unmapped"])
    for table in tables:
        for name in table.files:
            for line in read(name):
                row = " | ".join(line[column] for column in table.spec["label"])
                reason = table.spec.get("exclude", {}).get(row)
                assert reason or table.spec.get("measure"), (name, row)
                if "rows" in table.spec and not reason:
                    cells = [cell for cell in table.cells if cell[0] == row]
                    assert len(cells) == len(table.spec.get("columns", [""])), (name, row)
    assert sum(len(table.trainings) for table in tables) == len(
        list((ROOT / papers.CONFIGS / "papers").rglob("*.yaml"))
    )


def test_every_suspected_error_is_said(source):
    tree, tables = source
    said = {error["table"] for table in tables for error in papers.suspected_errors(ROOT, table)}
    assert said | set(tree["unmapped_errors"]) == {error["table"] for error in read("suspected_errors.csv")}


def section(page, table):
    return next(part for part in page.split("\n## ") if part.startswith(f"{table.title}:"))


def numbers_of(line, spec):
    """The numbers of a line of a csv, in its order."""
    columns = [c for c in line if c not in (*spec["label"], spec.get("lines"), "source", "note")]
    if spec.get("columns"):
        columns = [c for own in spec["columns"].values() for c in own["show"]]
    return [line[c] for c in columns if re.fullmatch(r"[\d.]+%?", line[c])]


def test_the_numbers_of_the_page_are_those_of_the_files(source):
    """Every line of a csv is a line of its section, with the same numbers in the same order and no others."""
    page = PAGE.read_text(encoding="utf-8")
    checked = 0
    for table in source[1]:
        rows = re.sub(r"\[\w*table\w*\]\([^)]*\)", "", section(page, table))  # a link named after its config
        rows = re.sub(r"\]\([^)]*\)", "", rows).splitlines()  # numbers that are links
        for line in (line for lines in table.files.values() for line in lines):
            between = ", " if table.spec.get("columns") else " | "
            start = f"| {between.join(line[c] for c in table.spec['label'])} | "
            own = [row[len(start) :] for row in rows if row.startswith(start)]
            if "lines" in table.spec:
                own = [row.split(" | ", 1)[1] for row in own if row.startswith(f"{line[table.spec['lines']]} | ")]
            noted = [row.replace(line.get("note") or "no note", "") for row in own]
            printed = [re.findall(r"\d[\d.]*%?", row) for row in noted]
            assert numbers_of(line, table.spec) in printed, (table.key, line)
            checked += len(numbers_of(line, table.spec))
    assert checked > 1800


def test_headers_quote_the_numbers(source):
    """An independent look at one of each kind: a mean with its deviation, two validation sets, none, a doubt."""
    text = (ROOT / papers.CONFIGS / "papers/ols/table1_resnet50_byot_ols.yaml").read_text()
    line = next(line for line in read("ols_table1.csv") if line["Method"] == "BYOT + OLS")
    assert f"Published: ResNet-50 {line['ResNet-50 mean']} ± {line['ResNet-50 std']}.\n" in text
    text = (ROOT / papers.CONFIGS / "papers/als/table5_full_ricap.yaml").read_text()
    both = [line["Acc. mean"] for line in read("als_table5.csv") if line["Method"] == "RICAP"]
    assert f"Acc. mean {' / '.join(both)}," in text
    assert "Published: not available" in (ROOT / papers.CONFIGS / "papers/ols/table5_sce.yaml").read_text()
    exchanged = (ROOT / papers.CONFIGS / "papers/ols/table1_resnet34_ols.yaml").read_text()
    assert "more likely: ResNet-34: 20.04 +- 0.11" in exchanged
    assert "more likely" not in (ROOT / papers.CONFIGS / "papers/ols/table1_resnet50_ols.yaml").read_text()


def test_every_config_builds_its_method(source):
    """On the meta device: no memory, every shape.  Every network and every method with its arguments, once at least."""
    tree, tables = source
    built = set()
    for training in (training for table in tables for training in table.trainings):
        cfg = load_config(get_defaults(), ROOT / training.config)
        validate(cfg)
        assert papers.epochs_of(ROOT, tree, training) == cfg.SOLVER.MAX_EPOCH
        classes = CLASSES.get(cfg.DATA.NAME, 10)
        parts = {(cfg.MODEL.ARCH, classes), (cfg.METHOD.NAME, str(cfg.METHOD[cfg.METHOD.NAME]))}
        if not parts <= built:
            built |= parts
            with torch.device("meta"):
                assert build_method(cfg, classes).num_classes == classes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("als/table5_mask_ce", {"MAX_EPOCH": 300, "STEPS": [75, 150, 225], "BATCH_SIZE": 256, "WEIGHT_DECAY": 1e-4}),
        ("als/table6_als", {"MAX_EPOCH": 72, "STEPS": [18, 36, 54], "BATCH_SIZE": 256}),
        ("ols/table1_resnet34_ols", {"MAX_EPOCH": 300, "STEPS": [150, 225], "BATCH_SIZE": 128, "WEIGHT_DECAY": 5e-4}),
        ("ols/table10_ols", {"MAX_EPOCH": 300, "STEPS": [150, 225], "WEIGHT_DECAY": 1e-4}),
        ("ols/table2_resnet101_ols", {"MAX_EPOCH": 250, "STEPS": [75, 150, 225]}),
        ("ols/table4_cub200_mobilenetv2_ols", {"MAX_EPOCH": 100, "STEPS": [45, 80], "BASE_LR": 0.01, "BATCH_SIZE": 64}),
        ("ils/table3_resnet32w_cifar100", {"MAX_EPOCH": 200, "STEPS": [60, 120, 160], "GAMMA": 0.2}),
        ("ils/table3_resnet152sd_svhn", {"MAX_EPOCH": 500, "STEPS": [250, 325]}),
        (
            "ils/table4_inceptionv4_cifar10",
            {"MAX_EPOCH": 200, "STEPS": [30, 60, 90], "BATCH_SIZE": 256, "BASE_LR": 0.1},
        ),
        ("ils/table4_resnet18_cifar10", {"MAX_EPOCH": 200, "STEPS": [80, 150], "WEIGHT_DECAY": 1e-4, "BASE_LR": 0.1}),
        (
            "ils/table4_resnet50_cifar100",
            {"MAX_EPOCH": 200, "STEPS": [80, 150], "WEIGHT_DECAY": 1e-4, "BATCH_SIZE": 128},
        ),
    ],
)
def test_the_schedules_of_the_papers(name, expected):
    cfg = load_config(get_defaults(), ROOT / papers.CONFIGS / "papers" / f"{name}.yaml")
    assert {key: cfg.SOLVER[key] for key in expected} == expected


def test_rows_differ_in_what_the_paper_varies():
    def data(name):
        return load_config(get_defaults(), ROOT / papers.CONFIGS / "papers" / f"{name}.yaml").DATA

    versions = {kind: data(f"als/table5_{kind}_ce").VERSION for kind in ("full", "box", "mask")}
    assert versions == {"full": "full", "box": "box", "mask": "mask"}
    assert data("als/table5_mask_als_context").CONTEXT_SHARE == 0.15
    assert data("als/table5_mask_als").CONTEXT_SHARE == 0
    assert (data("ils/table3_lenet_cifar10").HOLDOUT, data("ils/table3_resnet152sd_svhn").HOLDOUT) == (5000, 6000)
    assert data("ols/table10_ols").HOLDOUT == 0
    flips = {name: data(f"ils/{name}").FLIP for name in ("table4_densenet40_fashion_mnist", "table3_resnet152sd_svhn")}
    assert set(flips.values()) == {0}  # ILS, App. C: CIFAR only
    assert data("ils/table4_resnet18_cifar10").FLIP == data("ils/table3_lenet_cifar100").FLIP == 0.5


def without_references(overrides):
    return [re.sub(r"\{.*\}", "/runs/teacher", text) for text in overrides]


@pytest.mark.parametrize("path", [p for p in SUITES if "ils_table4" in p.name], ids=lambda path: path.stem)
def test_students_of_ils_keep_the_weight_decay_of_ils_and_their_own_schedule(path):
    suite = load_suite(path)
    students = [row for row in suite.rows if row.label.startswith("AlexNet")]
    assert len(students) == 3
    for row in students:
        cfg = load_config(get_defaults(), ROOT / suite.pretrain.config, without_references(row.overrides))
        solver = cfg.SOLVER
        assert (solver.OPTIMIZER, solver.BASE_LR, solver.MAX_EPOCH, solver.STEPS) == ("ADAM", 0.01, 150, [50, 100])
        assert solver.WEIGHT_DECAY == 1e-4


def test_the_cost_of_the_reference_is_what_the_paper_reports(source):
    """The run that calibrates the rate comes back as itself: its hours times its GPUs."""
    tree, tables = source
    known = next(line for line in read("als_runtimes.csv") if line["Job"] == tree["cost"]["job"])
    reference = next(t for table in tables for t in table.trainings if t.name == "table5_mask_ce")
    work, hours = papers.gpu_hours(ROOT, tree, reference)
    assert hours == pytest.approx(4 * float(known["Approx. hours"]))
    assert work == pytest.approx(3 * 4.09e9 * 528000 * 300)
    two_views = next(t for table in tables for t in table.trainings if t.name == "table1_resnet34_two_view")
    one_view = next(t for table in tables for t in table.trainings if t.name == "table1_resnet34_ce")
    assert papers.gpu_hours(ROOT, tree, two_views)[1] == pytest.approx(2 * papers.gpu_hours(ROOT, tree, one_view)[1])


def test_the_page_names_numbers_that_are_measured(source):
    p, labels = np.full((40, 10), 0.1), np.arange(40) % 10
    names = {
        *calibration_metrics(np.log(p), labels),
        *scaled_metrics(np.log(p), labels),
        *human_metrics(p, np.log(p), labels),
    }
    names |= {*context_metrics("mean", None), "clean_top1_error"}
    names |= {metric.name for metric in METRICS if metric.group in DETECTORS}
    names |= {f"{attack}_{bound}_top{k}_error" for attack in ATTACKS for bound in (1, 8) for k in (1, 5)}
    for table in source[1]:
        for said in table.spec.get("metrics", {}).values():
            for word in re.findall(r"VOC_\w+|[a-z]+(?:[0-9]+|_)[a-z0-9_]*|nll|A[PR]\w*", said):
                assert word in names, (table.key, word)


def test_the_page_names_tools_and_keys_that_exist(load_tool):
    keys = [key for key, _ in yaml_leaves(get_defaults())]
    page = PAGE.read_text(encoding="utf-8")
    for name in set(re.findall(r"tools/(\w+)\.py", page)):
        assert callable(load_tool(name).main)
        assert "argv" in inspect.signature(load_tool(name).main).parameters
    for key in set(re.findall(r"\b(?:DATA|MODEL|METHOD|EVAL|ATTACK)\.[\w.]+\w", page)):
        assert key in keys, key
    for config in set(re.findall(r"configs/[\w./]+\.yaml", page)):
        assert (ROOT / config).is_file(), config
    for link in set(re.findall(r"\]\(\.\./([^)]*)\)", page)):
        assert (ROOT / link).is_file(), link


def yaml_leaves(tree, prefix=""):
    for key, value in tree.items():
        yield from yaml_leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suites_of_the_papers(path, load_tool, tmp_path, capsys):
    assert path.read_text().startswith(f"# python tools/benchmark.py --config-file configs/suites/{path.name}")
    suite = load_suite(path)
    staged = [p for p in SUITES if p.name.startswith("ils_table3")]
    if path in staged[SLOW_PLANS:]:
        return
    load_tool("benchmark").main(["--config-file", str(path), "--output-dir", str(tmp_path / "out"), "--dry-run"])
    planned = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    for row in suite.rows:
        decided = not row.grid and "{chosen:" not in str(row.overrides)
        measures = [kind for kind in ("evaluate", "attack") if suite.measuring(kind).enabled]
        measures += [rf"finetune \({entry.name}\)" for entry in suite.finetune]
        measured = [] if row.seed_offset else measures  # a teacher is only trained
        for stage in ("pretrain", *measured) if decided else ():
            title = rf"^\[\d+/\d+\] {re.escape(row.label)}( seed \d)?: {stage}: to run$"
            assert len(re.findall(title, planned, re.MULTILINE)) == len(suite.seeds_of(row)), title
        assert f"{row.label} seed" in planned or f"{row.label}:" in planned  # perhaps after a choice
    assert "localize" not in planned


def test_the_suites_of_ils_have_the_columns_of_the_table():
    columns = [
        c for c in read("ils_table3_ce.csv")[0] if not c.endswith("rank") and c not in ("Model", "Dataset", "source")
    ]
    suite = load_suite(SUITES[[p.stem for p in SUITES].index("ils_table3_lenet_cifar10")])
    rows = [row.label for row in suite.rows if not row.seed_offset]
    assert set(columns) == {*rows, "No LS+TempS"}  # the same training as No LS


def test_yaml_of_the_source_has_no_published_number():
    """Numbers of the source are settings and sizes: none has the form of a result in the tables."""
    results = {
        cell
        for name in ("ols_table1.csv", "ols_table2.csv", "als_table5.csv", "ils_table4.csv")
        for line in read(name)
        for cell in line.values()
        if cell and re.fullmatch(r"\d+\.\d{2,3}", cell)
    }
    text = yaml.safe_dump(yaml.safe_load((ROOT / "docs/papers.yaml").read_text()))
    assert not set(re.findall(r"(?<![\w.=])\d+\.\d{2,3}(?![\w.])", text)) & results


# ---- detection: ALS Tables 4 and 7 ----------------------------------------------------------------------------------

# Pre-training set and size of the csv -> data set, version.
TRAINED_ON = {
    "ImageNet | 1.28M": ("imagenet_xml", "full"),
    "ImageNet | 0.474M": ("imagenet_xml", "box"),
    "ImageNet | 0.528M": ("imagenet_xml", "mask"),
    "OpenImages | 1.20M": ("open_images", "mask"),
}
# What the name of a row holds -> method, in the order in which it is looked for.
METHOD_OF = {"Context": "ALSContext", "+ CutMix": "ALSCutMix", "CutMix": "CutMix", "RICAP": "RICAP", "Hard": "CE"}
METHOD_OF |= {"Label Smoothing": "LS", "daptive L.S.": "ALS", "A. L. S.": "ALS"}


def trained_by(label, data):
    """(method, beta of ALS or None, data set, version) that a row of a csv means."""
    method = next(name for text, name in METHOD_OF.items() if text in label)
    beta = re.search(r"[Bb]eta ?=(0\.\d+)", label)
    return method, float(beta[1]) if beta else 1.0 if method in ("ALS", "ALSContext") else None, *TRAINED_ON[data]


def settings_of(name):
    cfg = load_config(get_defaults(), ROOT / papers.CONFIGS / "papers/als" / f"{name}.yaml")
    beta = cfg.METHOD[cfg.METHOD.NAME].get("beta") if cfg.METHOD.NAME in ("ALS", "ALSContext") else None
    assert cfg.MODEL.ARCH == "resnet50"
    return cfg.METHOD.NAME, beta, cfg.DATA.NAME, cfg.DATA.VERSION


def test_every_detection_row_has_the_backbone_that_it_names(source):
    seven = next(table for table in source[1] if table.key == "als_table7")
    four = next(table for table in source[1] if table.key == "als_table4")
    assert (len(seven.cells), len(four.cells)) == (18, 7)
    for (row, _), name in seven.cells.items():
        label, _, data = row.partition(" | ")
        assert settings_of(name) == trained_by(label, data), row
    for (row, _), name in four.cells.items():
        assert settings_of(name) == trained_by(row, "ImageNet | 0.528M"), row
    # The two tables print the same AP for the same backbone, whatever they call it.
    by_name = {seven.cells[seven.label(line), ""]: line["AP 0.5:0.95"] for line in read("als_table7.csv")}
    for line in read("als_table4.csv"):
        assert by_name[four.cells[line["Method"], ""]] == line["AP (0.5:0.95)"]


def test_the_suite_of_table_7_continues_that_of_table_5(source, tmp_path):
    """In one folder their trainings are the same stages, all but those of Open Images."""
    plans = [build_plan(load_suite(ROOT / f"configs/suites/als_table{n}.yaml"), tmp_path) for n in (5, 7)]
    five, seven = ({s.output for s in plan.stages if s.kind == "pretrain"} for plan in plans)
    assert (len(five), len(seven), len(five & seven)) == (15, 18, 13)
    used = {Path(stage.config).stem for stage in plans[1].stages if stage.kind == "pretrain"}
    assert used == set(next(table for table in source[1] if table.key == "als_table7").cells.values())
    tuned = [stage for stage in plans[1].stages if stage.kind == "finetune"]
    assert [str(stage.config) for stage in tuned] == [str(ROOT / "configs/detection/als_r50_c4.yaml")] * 18
    assert {stage.inputs[0].output for stage in tuned} == seven


def test_the_suites_of_attacks_continue_those_of_the_trainings(tmp_path):
    """In one folder, Tables VI and VII attack the trainings of Tables X and II, on all images, with the paper's two."""
    for attacked, trained, split in (("ols_table6", "ols_table10", "test"), ("ols_table7", "ols_table2", "val")):
        path = ROOT / f"configs/suites/{attacked}.yaml"
        text = path.read_text()
        assert f"--output-dir runs/suites/{trained}\n" in text
        assert f"\n# Shares the folder of {trained}.yaml, so that trainings of both are not repeated.\n" in text
        plan = build_plan(load_suite(path), tmp_path)
        own, other = (
            {s.output for s in p.stages if s.kind == "pretrain"}
            for p in (plan, build_plan(load_suite(ROOT / f"configs/suites/{trained}.yaml"), tmp_path))
        )
        assert own <= other
        attacks = [stage for stage in plan.stages if stage.kind == "attack"]
        assert {stage.inputs[0].output for stage in attacks} == own
        cfg = load_config(get_defaults(), attacks[0].config, attacks[0].overrides)
        attack = cfg.ATTACK
        assert not attack.MAX_IMAGES
        assert split == attack.SPLIT
        assert attack.METHODS == ["fgsm", "pgd"]
        assert attack.STEPS == 20
        assert 8 in attack.BOUNDS


def test_the_suites_of_the_fine_grained_table_have_its_four_columns_and_start_from_imagenet():
    paths = sorted((ROOT / "configs/suites").glob("ols_table4_*.yaml"))
    assert len(paths) == 12
    for path in paths:
        suite = load_suite(path)
        methods = {row.label: load_config(get_defaults(), ROOT / row.config, row.overrides) for row in suite.rows}
        assert {label: cfg.METHOD.NAME for label, cfg in methods.items()} == {
            "Hard Label": "CE", "LS": "LS", "Tf-KD": "TFKD", "OLS": "OLS",
        }  # fmt: skip
        assert len({(cfg.DATA.NAME, cfg.MODEL.ARCH, cfg.MODEL.WEIGHTS) for cfg in methods.values()}) == 1
        assert methods["LS"].MODEL.WEIGHTS


@pytest.mark.parametrize("name", ["ils_table3_lenet_cifar10", "ils_table4_resnet18_cifar10"])
def test_a_teacher_of_ils_is_a_run_of_another_seed_on_the_same_images(name, tmp_path):
    """Initial weights and order of images follow SEED, the images held out HOLDOUT_SEED (-1: SEED)."""
    plan = build_plan(load_suite(ROOT / f"configs/suites/{name}.yaml"), tmp_path)
    taught = 0
    for stage in plan.stages:
        if stage.kind not in ("pretrain", "grid"):
            continue
        cfg = load_config(get_defaults(), stage.config, stage.overrides)
        for teacher in (other for other in stage.inputs if str(other.output) == cfg.TEACHER.RUN):
            other = load_config(get_defaults(), teacher.config, teacher.overrides)
            assert other.SEED != cfg.SEED
            held = [c.SEED if c.DATA.HOLDOUT_SEED < 0 else c.DATA.HOLDOUT_SEED for c in (cfg, other)]
            assert held[0] == held[1] == stage.run.seed
            assert not next(own for own in plan.stages if own.output == teacher.output).compared
            taught += 1
    assert taught > 10


def test_numbers_of_the_running_text_are_quoted(source):
    page = PAGE.read_text(encoding="utf-8")
    prose = {(line["paper"], line["quantity"]): line["value"] for line in read("prose.csv")}
    quoted = {
        "als_table2": ["Mean objectness of ImageNet val images", "Mean objectness deviation, ALS"],
        "ols_table8": ["YOLO VOC2007 test mAP: OLS minus hard label", "YOLO VOC2007 test mAP: OLS minus LS"],
        "ols_single": ["OLS vs OLS-Single, ResNet-56 top-1 error"],
    }
    for key, quantities in quoted.items():
        table = next(table for table in source[1] if table.key == key)
        for quantity in quantities:
            assert f"{quantity}: {prose[table.paper.upper(), quantity]}" in section(page, table)
    assert "26.18 +- 0.30" in (ROOT / papers.CONFIGS / "papers/ols/single_resnet56.yaml").read_text()
    cfg = load_config(get_defaults(), ROOT / papers.CONFIGS / "papers/ols/single_resnet56.yaml")
    whole = load_config(get_defaults(), ROOT / papers.CONFIGS / "papers/ols/table9_resnet56_ols.yaml")
    assert (cfg.METHOD.NAME, cfg.SOLVER, cfg.DATA, cfg.MODEL) == ("OLSSingle", whole.SOLVER, whole.DATA, whole.MODEL)


def test_cost_of_a_fine_tuning_is_what_the_paper_reports(source):
    tree, tables = source
    hours = {table.key: papers.detection_hours(ROOT, tree, table) for table in tables}
    assert {key for key, value in hours.items() if value} == {"als_table4", "als_table7"}
    assert hours["als_table7"] == 4 * 34
    trained = sum(
        papers.gpu_hours(ROOT, tree, t)[1]
        for table in tables
        for t in table.trainings
        if table.key == "als_table6"
        or (table.key == "als_table5" and t.name not in ("table5_box_ls", "table5_box_cutmix"))
    )
    said = re.search(r"Cost: estimate ([\d,]+) hours", (ROOT / "configs/suites/als_table7.yaml").read_text())
    assert float(said[1].replace(",", "")) == pytest.approx(trained + 18 * 136, rel=0.05)
