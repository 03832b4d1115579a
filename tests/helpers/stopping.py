"""Send this process a signal at a moment of a training: when a function is called for the n-th time."""

import importlib
import os
import signal

import pytest

from backbones.core.stopping import Stopped, catch_signals


def signal_at(patch, target, call=1, number=signal.SIGTERM):
    """Replace the function `target` (dotted path), so that its `call`-th call begins with a signal to this process."""
    module, name = target.rsplit(".", 1)
    owner = importlib.import_module(module)
    original, calls = getattr(owner, name), []

    def signalling(*args, **kwargs):
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    patch.setattr(owner, name, signalling)


def stop_in_process(main, argv, target, call=1, number=signal.SIGTERM):
    """Run `main(argv)` as `run_tool` does, with a signal at a moment; return the exit code."""
    with pytest.MonkeyPatch.context() as patch, catch_signals():
        signal_at(patch, target, call, number)
        with pytest.raises(Stopped) as stopped:
            main(argv)
    return stopped.value.exit_code
