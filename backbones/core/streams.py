"""Standard output and error that survive any encoding, and a reader that has left (`tool ... | head`).

A text that the encoding lacks is written in escapes.  Where nobody reads any longer, the rest of the output is dropped
and the tool runs to its end, so that a training keeps its results; `run_tool` then returns CLOSED, as a process that
SIGPIPE ended would.
"""

import errno
import io
import os
import sys

from backbones.core.errors import NO_ROOM

CLOSED = 141  # 128 + SIGPIPE


class Output(io.FileIO):
    """The file descriptor of a standard stream.

    Args:
        progress: nothing depends on what is written, which is dropped where a full disk takes no more.

    Attributes:
        left: whether the reader has left.
    """

    def __init__(self, descriptor: int, *, progress: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.progress, self.left = progress, False

    def write(self, data: "io.ReadableBuffer", /) -> int:  # type: ignore[name-defined, override]
        try:
            return super().write(data)
        except OSError as error:
            # A terminal that was closed answers EIO.
            if error.errno == errno.EPIPE or (error.errno == errno.EIO and self.isatty()):
                self.left = True
                self.discard()
            elif not (self.progress and error.errno in NO_ROOM):
                raise
        return memoryview(data).nbytes

    def discard(self) -> None:
        """Send what is still to be written, also by other code of this process, to nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def protect_streams() -> Output | None:
    """Replace sys.stdout and sys.stderr by ones that survive; returns standard output's, None where it is not a file.

    A stream that was closed before the start leads nowhere.
    """
    outputs = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif type(stream) is io.TextIOWrapper:  # an editor or a notebook has its own, which is left alone
            stream.flush()
            outputs[name] = Output(stream.fileno(), progress=name == "stderr")
            replaced = io.TextIOWrapper(
                io.BufferedWriter(outputs[name]),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering or stream.write_through,
            )
            setattr(sys, name, replaced)
    return outputs.get("stdout")
