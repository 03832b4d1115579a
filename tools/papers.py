"""Generate the configs of all rows of the papers' tables, their suites and docs/papers.md from docs/papers.yaml.

python tools/papers.py            writes the files from docs/papers.yaml and docs/paper_tables/*.csv
python tools/papers.py --check    writes nothing; exit code 2 and the name of an outdated file if there is one
"""

import argparse
from pathlib import Path

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.entry import run_tool
from backbones.core.errors import InputError
from backbones.core.files import save_text
from comparison.papers.files import left_over, stale_files, write_papers

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    files = write_papers(args.root)
    stale = stale_files(args.root, files)
    if args.check and stale:
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        raise InputError(f"{stale[0]}{more}; run python tools/papers.py")
    for name, text in files.items():
        if not args.check:
            save_text(args.root / name, text)
    if not args.check:
        for name in left_over(args.root, files):
            (args.root / name).unlink()
    print(f"{len(files)} files, {len(stale)} of them changed")
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; report outdated files")
    parser.add_argument("--root", type=path_argument, default=ROOT, help="root of the repository (default: this one)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_tool(main)
