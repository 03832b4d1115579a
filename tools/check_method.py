"""Check that the methods in a Python file of your own keep the contract of methods, before any training.

    python tools/check_method.py my_method.py

Every class that the file registers is checked on a tiny network and random images: its arguments are config keys, its
targets sum to 1, its loss is finite and learns, it never waits for the device, it resumes from its state dict.  The
exit code is 1 if a check fails.  backbones/contract/checks.py lists the checks, backbones/methods/base.py the contract.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from backbones.core.arguments import ArgumentParser, path_argument
from backbones.core.entry import fast_imports, run_tool
from backbones.core.errors import InputError


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    with fast_imports():  # slow: imported after the arguments are checked
        from backbones.core.imports import find_imports, import_all
        from backbones.methods.base import METHODS

    before = METHODS.names()
    import_all(find_imports({"IMPORTS": [str(args.file.absolute())]}))
    names = [name for name in METHODS.names() if name not in before]
    if not names:
        raise InputError(f"{args.file} registers no method; write @METHODS.register() above its class")
    failed = 0
    for name in names:
        for check, problem in check_all(name):
            failed += bool(problem)
            print(f"{'FAIL' if problem else 'ok  '} {name}: {check}{f': {problem}' * bool(problem)}")
    print(f"{args.file}: {', '.join(names)}: {f'{failed} failed' if failed else 'all checks passed'}")
    return 1 if failed else 0


def check_all(name: str) -> Iterator[tuple[str, str]]:
    """Yield every check, with why the method fails it, or ""."""
    from backbones.contract.checks import CHECKS, Violation

    for check in CHECKS:
        said = (check.__doc__ or "").partition("\n")[0].rstrip(".")
        try:
            check(name)
        except (Violation, InputError) as error:
            yield said, " ".join(str(error).split())
        except Exception as error:  # of the user's code
            yield said, f"{type(error).__name__}: {' '.join(str(error).split())}"
        else:
            yield said, ""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("file", type=path_argument, metavar="FILE", help="Python file that registers methods")
    return parser.parse_args(argv, namespace=Arguments())


class Arguments(argparse.Namespace):
    file: Path


if __name__ == "__main__":
    run_tool(main)
