"""Generate docs/papers.md: every row of the papers' tables with published numbers, config and commands."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison.papers import rows as papers
from comparison.papers.rows import Line, Table

PAGE = "docs/papers.md"
INTRODUCTION = """\
# The papers, row by row

Written by `tools/papers.py` from `docs/papers.yaml` and `docs/paper_tables/*.csv`; published numbers are copies of
those files as printed, errors included.

* ALS: Krothapalli & Abbott, arXiv 2009.06432. ILS: Maher & Kull, ICMLA 2021. OLS: Zhang et al., arXiv 2011.12562.
* `IMAGENET`, `IMAGENET_V2`, `OPEN_IMAGES` and `SMOOTH2DET_DATA` (CIFAR, SVHN, Fashion-MNIST, fine-grained data) are
  environment variables with the folders of the data.
* Train a row with `python tools/pretrain.py --config-file CONFIG --output-dir RUN`; the header of the config shows
  this command, the published number and a cost. Below, `RUN` is the output folder of the training:
  `runs/papers/PAPER/NAME` for the config `papers/PAPER/NAME.yaml`. For another seed add `SEED 1` and choose another
  folder. A suite trains and measures all rows of a table with its seeds; add `LAUNCH.NUM_GPUS 4` to train on 4 GPUs, as
  ALS did.
* Costs are estimates: multiply-adds of the network x 3 (backward counts twice) x images x epochs, at the rate at
  which the ALS paper's V100s trained ResNet-50 ({rate:.1f} T multiply-adds per second each). Small networks on small
  images use a GPU less efficiently.
* Except for the synthetic study, we have trained none of these rows at full scale: all numbers are the papers'.
"""


def page_text(root: Path, source: Mapping[str, Any], tables: Sequence[Table], suites: Sequence[str]) -> str:
    """Generate the page; `suites`: paths of all generated suites."""
    rate = _rate(root, source, tables)
    blocks = [INTRODUCTION.format(rate=rate / 1e12), _overview(root, source, tables)]
    for table in tables:
        blocks += [f"## {table.title}: {table.spec['title']}", *_table_blocks(root, source, table, suites)]
    blocks.append(
        "## Tables and figures without a config\n\n" + "\n".join(f"* {k}: {v}." for k, v in source["without"].items())
    )
    blocks.append("## Figures")
    for title, commands in source["figures"].items():
        blocks += [f"{title}:", "```\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"


def count_rows(table: Table) -> tuple[int, int, int]:
    """Return (rows with a config or a command, excluded rows, trainings of this table)."""
    excluded = len(table.spec.get("exclude", {}))
    if "rows" in table.spec:
        return len(table.spec["rows"]), excluded, len(table.trainings)
    return len({table.label(line) for lines in table.files.values() for line in lines}), excluded, 0


def _rate(root: Path, source: Mapping[str, Any], tables: Sequence[Table]) -> float:
    total, hours = papers.gpu_hours(root, source, tables[0].trainings[0] if tables[0].trainings else _first(tables))
    return total / (3600 * hours)


def _first(tables: Sequence[Table]) -> papers.Training:
    return next(training for table in tables for training in table.trainings)


def _overview(root: Path, source: Mapping[str, Any], tables: Sequence[Table]) -> str:
    lines = []
    for table in tables:
        hours = sum(papers.gpu_hours(root, source, training)[1] for training in table.trainings)
        counts = map(str, count_rows(table))
        said = f"{hours:,.0f}" if table.trainings else ""
        lines.append((f"[{table.title}](#{_anchor(table)})", table.spec["title"], *counts, said))
    return _markdown(("table", "what", "rows mapped", "excluded", "own configs", "GPU hours of these, one seed"), lines)


def _anchor(table: Table) -> str:
    text = f"{table.title}: {table.spec['title']}".lower().replace(" ", "-")
    return "".join(c for c in text if c.isalnum() or c in "-_")  # as GitHub does


def _table_blocks(root: Path, source: Mapping[str, Any], table: Table, suites: Sequence[str]) -> Iterator[str]:
    if "columns" in table.spec:
        yield _grid(table)
    elif table.files:
        for lines in table.files.values():
            yield f"{lines[0]['source']}:" if len(table.files) > 1 else ""
            yield _list(table, lines)
    else:
        published = "" if table.prose else "not available"
        rows = [(row, published, _link(table, row, "")) for row in table.spec["rows"]]
        yield _markdown(("row", "published", "config"), rows)
    if table.prose:
        yield f"Published in the running text: {papers.said_in_text(table)}."
    if config := table.spec.get("detection"):
        hours = papers.detection_hours(root, source, table)
        yield f"Fine-tuned by [{Path(config).stem}](../{config}), {hours:.0f} hours of one V100 per row."
    if own := [path for path in suites if re.match(f"{table.key}(_|$)", Path(path).stem)]:
        yield "Suites: " + ", ".join(f"[{Path(path).stem}](../{path})" for path in own) + "."
    if table.spec.get("measure"):
        commands = (command.format(run="RUN") for command in table.spec["measure"])
        yield "```\n" + "\n".join(commands) + "\n```"
    if table.spec.get("metrics"):
        said = [f"{name}: {value if ' ' in value else f'`{value}`'}" for name, value in table.spec["metrics"].items()]
        yield f"Numbers in `results.json`: {'; '.join(said)}."
    if table.spec.get("exclude"):
        yield "Excluded:\n" + "\n".join(f"* {row.strip(' |')}: {why}." for row, why in table.spec["exclude"].items())
    if table.spec.get("notes"):
        yield "\n".join(f"* {note}" for note in table.spec["notes"])
    if errors := papers.suspected_errors(root, table):
        columns = ("row", "column", "printed", "suspected value or reading", "evidence")
        yield "Suspected errors in print or in our copy:"
        yield _markdown(columns, [[error[column] for column in columns] for error in errors])


def _grid(table: Table) -> str:
    """Format one row per csv line; every cell is a separate training, its numbers link to the config."""
    columns, lines = table.spec["columns"], []
    for line in next(iter(table.files.values())):
        row = table.label(line)
        numbers = (", ".join(text for _, text in papers.published(line, own["show"])) for own in columns.values())
        cells = [_link(table, row, name, text) for name, text in zip(columns, numbers, strict=True)]
        lines.append([row.replace(papers.SEPARATOR, ", "), *cells, line.get("note", "")])
    return _markdown(("row", *(own["title"] for own in columns.values()), "note"), lines)


def _list(table: Table, lines: Sequence[Line]) -> str:
    """Format one row per csv line with all its numbers."""
    label = [*table.spec["label"], *([table.spec["lines"]] if "lines" in table.spec else [])]
    columns = [c for c in lines[0] if c not in (*label, "source", "note") and not c.endswith(" rank")]
    rows = []
    for line in lines:
        numbers = [text for _, text in papers.published(line, columns)]
        said = [line[column] for column in label]
        rows.append([*said, *numbers, _link(table, table.label(line), ""), line.get("note", "")])
    return _markdown((*label, *columns, "config", "note"), rows)


def _link(table: Table, row: str, column: str, text: str = "") -> str:
    """Return a Markdown link to the config of a cell, or its text without one."""
    name = table.cells.get((row, column))
    if name is None:
        return text
    if name.endswith(".yaml"):
        return f"[{text or Path(name).stem}](../{name})"
    return f"[{text or name}](../{papers.CONFIGS}/papers/{table.paper}/{name}.yaml)"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table; columns that are empty in every row are omitted."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    cells = [[row[i].replace("|", "\\|") for i in kept] for row in [head, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(kept), *lines[1:]])
