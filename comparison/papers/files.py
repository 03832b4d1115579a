"""Generate files from docs/papers.yaml: a config for every row, suites, and the page docs/papers.md."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from backbones.core.errors import InputError
from comparison.papers import rows as papers
from comparison.papers.page import PAGE, page_text
from comparison.papers.rows import SOURCE, Table, Training
from comparison.papers.suites import is_shown_beside, suite_rows

SUITES = "configs/suites"
WRITTEN = f"# Written by tools/papers.py from {SOURCE}: change it there.\n"
DIGITS = 2  # significant digits of an estimate


def write_papers(root: Path) -> dict[str, str]:
    """Generate the text of every file, by path from the root."""
    source, tables = papers.load_papers(root)
    files = {}
    for table in tables:
        errors = papers.suspected_errors(root, table)
        for training in table.trainings:
            files[training.config] = config_text(root, source, table, training, errors)
        files |= _suites(root, source, table, tables)
    suites = [name for name in files if name.startswith(SUITES)]
    return files | {PAGE: page_text(root, source, tables, suites)}


def stale_files(root: Path, files: Mapping[str, str]) -> list[str]:
    """List stale files: "PATH is missing", "is out of date" or "is written for nothing"."""
    found = []
    for name, text in files.items():
        path = root / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.read_text(encoding="utf-8") != text:
            found.append(f"{name} is out of date")
    return found + [f"{name} is written for nothing" for name in left_over(root, files)]


def left_over(root: Path, files: Mapping[str, str]) -> list[str]:
    """List generated files that the source no longer has."""
    candidates = [*(root / papers.CONFIGS / "papers").rglob("*.yaml"), *(root / SUITES).glob("*.yaml")]
    names = sorted(str(path.relative_to(root)) for path in candidates)
    return [name for name in names if name not in files and WRITTEN in (root / name).read_text(encoding="utf-8")]


def config_text(
    root: Path, source: Mapping[str, Any], table: Table, training: Training, errors: list[papers.Line]
) -> str:
    """Generate a short config under a header with command, published numbers and cost."""
    title = table.spec.get("columns", {}).get(training.column, {}).get("title", "")
    parts = papers.parts_of(source, training)
    for part in parts:
        if not (root / papers.CONFIGS / part).is_file():
            raise InputError(f"{SOURCE}: {table.key}: {training.row}: {papers.CONFIGS}/{part} does not exist; write it")
    changes = papers.changes_of(source, training)
    own = yaml.safe_dump(changes, sort_keys=False) if changes else ""
    arguments = f" {training.arguments}" if training.arguments else ""
    return (
        f"# python tools/pretrain.py --config-file {training.config} --output-dir {training.run}{arguments}\n"
        f"# {table.title}, {table.spec['title']}.\n"
        f'# Row "{training.row}"{title and f", {title}"}; {source["data"][training.data]["says"]}.\n'
        f"{_published(table, training, papers.more_likely(training, errors, title))}"
        f"# Cost: {_cost(*papers.gpu_hours(root, source, training))}.\n"
        f"{WRITTEN}_BASE_:\n" + "".join(f"  - ../../{part}\n" for part in parts) + own
    )


def _published(table: Table, training: Training, suspect: str) -> str:
    if not training.lines:
        return f"# Published: {papers.said_in_text(table) or 'not available in our text'}.\n"
    by_name: dict[str, list[str]] = {}
    for line in training.lines:
        for name, text in papers.published(line, training.show):
            by_name.setdefault(name, []).append(text)
    column = table.spec.get("lines")
    which = f" ({' / '.join(line[column] for line in training.lines)})" if column else ""
    said = ", ".join(f"{name} {' / '.join(texts)}" for name, texts in by_name.items())
    where = table.spec.get("source", "")
    doubt = f"# Suspected to be an error in print; more likely: {suspect}.\n" if suspect else ""
    return f"# Published{f' ({where})' if where else ''}: {said}{which}.\n{doubt}"


def _cost(multiply_adds: float, hours: float) -> str:
    work = f"{_rounded(multiply_adds / 1e15)} P multiply-adds"
    return f"estimate {_rounded(hours)} hours of one V100 ({work}, docs/papers.md)"


def _rounded(value: float) -> str:
    text = f"{float(f'{value:.{DIGITS - 1}e}'):,.6f}".rstrip("0").rstrip(".")
    return text or "0"


# ---- Suites ----
def _suites(root: Path, source: Mapping[str, Any], table: Table, tables: list[Table]) -> dict[str, str]:
    spec = table.spec.get("suite")
    if not spec:
        return {}
    if "base" in spec:
        return {_suite_path(f"{table.key}_{t.name.split('_', 1)[1]}"): _pair_text(table, t) for t in table.trainings}
    files = {}
    for part, paper, rows in _suite_rows(table, tables):
        for variant, overrides in (spec.get("variants") or {"": []}).items():
            name = "_".join(text for text in (table.key, part, variant) if text)
            files[_suite_path(name)] = _suite_text(root, source, table, name, rows, overrides, paper)
    return files


def _suite_rows(table: Table, tables: list[Table]) -> Iterator[tuple[str, str, dict[str, Training]]]:
    """Yield (part of the name, value of --paper, label -> training) of every suite: per column or row."""
    columns = table.spec.get("columns") or {"": {}}
    if table.spec["suite"].get("by") == "row":
        trained = {(t.row, t.column): t for t in table.trainings}
        for row, entry in table.spec["rows"].items():
            yield entry["name"], table.key, {own["title"]: trained[row, column] for column, own in columns.items()}
        return
    for column in columns:
        rows = {label: training for label, (_, training) in suite_rows(table, tables, column).items()}
        yield column, f"{table.key}:{column}" if column else table.key, rows


def _suite_path(name: str) -> str:
    return f"{SUITES}/{name}.yaml"


def _pair_text(table: Table, training: Training) -> str:
    path, base = _suite_path(f"{table.key}_{training.name.split('_', 1)[1]}"), f"base/{table.spec['suite']['base']}"
    return (
        f"# python tools/benchmark.py --config-file {path} --output-dir runs/suites/{Path(path).stem}\n"
        f'# {table.title}, {table.spec["title"]}: row "{training.row}".  Rows and cost: {base}.\n'
        f"{_published(table, training, '')}{WRITTEN}_BASE_: {base}\nPRETRAIN:\n  CONFIG: {training.config}\n"
        f"COMPARE: {{ARGUMENTS: [{', '.join(_paper_arguments(table, f'{table.key}:{training.row}'))}]}}\n"
    )


def _shared_folder(table: Table) -> str:
    other = table.spec["suite"].get("folder")
    return f"# Shares the folder of {other}.yaml, so that trainings of both are not repeated.\n" if other else ""


def _paper_arguments(table: Table, paper: str) -> list[str]:
    """Return the option that shows the published numbers beside those of the suite; none if our text has none."""
    return ["--paper", f'"{paper}"'] if is_shown_beside(table) else []


def _suite_text(
    root: Path, source: Mapping[str, Any], table: Table, name: str, rows: Mapping[str, Training], overrides: list[Any],
    paper: str,
) -> str:  # fmt: skip
    spec, seeds = table.spec, table.spec["suite"]["seeds"]
    tuning = len(seeds) * len(rows) * papers.detection_hours(root, source, table)
    hours = tuning + len(seeds) * sum(papers.gpu_hours(root, source, training)[1] for training in rows.values())
    runs = f"{len(rows)} rows, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    runs += f", fine-tuning {_rounded(tuning)} of them" if tuning else ""
    folder = f"runs/suites/{spec['suite'].get('folder', name)}"
    text = (
        f"# python tools/benchmark.py --config-file {_suite_path(name)} --output-dir {folder}\n"
        f"# {table.title}, {spec['title']}.\n{_shared_folder(table)}"
        f"# Cost: estimate {_rounded(hours)} hours of one V100: {runs}.  Published numbers: docs/papers.md.\n{WRITTEN}"
        f"SEEDS: {seeds}\n"
    )
    if overrides:
        text += f"PRETRAIN: {{OVERRIDES: [{', '.join(map(str, overrides))}]}}\n"
    baseline = spec["suite"].get("baseline")  # several rows have hard labels
    arguments = [*(["--baseline", f'"{baseline}"'] if baseline else []), *_paper_arguments(table, paper)]
    text += f"COMPARE: {{ARGUMENTS: [{', '.join(arguments)}]}}\n" if arguments else ""
    if attack := spec["suite"].get("attack"):
        text += f"ATTACK: {{ENABLED: true, OVERRIDES: {yaml.safe_dump(attack, default_flow_style=True).strip()}}}\n"
    if config := spec.get("detection"):  # classifiers of several data sets have no measure in common
        text += f"EVALUATE: {{ENABLED: false}}\nFINETUNE:\n  - {{NAME: {Path(config).stem}, CONFIG: {config}}}\n"
    text += "LOCALIZE: {ENABLED: false}\nROWS:\n"
    for row, training in rows.items():
        label = yaml.safe_dump(row, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
        text += f"  - LABEL: {label}\n    CONFIG: {training.config}\n"
        if training.arguments:
            text += f"    OVERRIDES: [{', '.join(training.arguments.split())}]\n"
    return text
