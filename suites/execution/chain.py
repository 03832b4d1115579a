"""Run several tools one after the other in this process, which imports and reads once what they share.

    python -m suites.execution.chain CONTEXT CALLS

CONTEXT is MODULE:NAME of the context manager within which they run, or empty.  CALLS is JSON:
[{"script": file of a tool, "arguments": [...], "log": file, "output": file}, ...].  Each tool finds its arguments in
sys.argv, writes to its own log and standard output, and cannot stop the others by failing.  When it has ended, its exit
code is written to the descriptor `CODES`, one line each.
"""

import json
import os
import runpy
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

STOPPED = (130, 143)  # by Ctrl-C or SIGTERM
CODES = "SMOOTH2DET_CODES"  # environment variable with the number of the descriptor


def main(calls: list[dict[str, Any]], codes: int) -> None:
    """Run `calls` and write their exit codes to the descriptor `codes`, one line each."""
    for call in calls:
        redirect(2, call["log"], os.O_APPEND)
        redirect(1, call["output"], os.O_APPEND if call["output"] == call["log"] else os.O_TRUNC)
        code = run(call["script"], call["arguments"])
        os.write(codes, f"{code}\n".encode())
        if code in STOPPED:
            break


def redirect(descriptor: int, path: str, flag: int) -> None:
    """Make an open descriptor write to a file."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o666)
    os.dup2(opened, descriptor)
    os.close(opened)


def run(script: str, arguments: list[str]) -> int:
    """Run the file of a tool as a program; return its exit code."""
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
        code: Any = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def load_context(name: str) -> AbstractContextManager:
    """Return the context manager of this name."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)() if name else nullcontext()


if __name__ == "__main__":
    with load_context(sys.argv[1]):
        main(json.loads(sys.argv[2]), int(os.environ.pop(CODES)))
