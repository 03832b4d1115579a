"""Standard output and error that work with any encoding, and after their reader has closed (`tool ... | head`).

Characters that the encoding lacks are written as escapes.  If the reader has closed, the rest of the output is dropped
and the tool runs to its end, so that a training run keeps its results; `run_tool` then exits with CLOSED, the exit code
of a process ended by SIGPIPE.
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
        progress: the output is informative only, and is dropped on a full disk.

    Attributes:
        left: whether the reader has closed the stream.
    """

    def __init__(self, descriptor: int, *, progress: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.progress, self.left = progress, False

    def write(self, data: "io.ReadableBuffer", /) -> int:  # type: ignore[name-defined, override]
        """Write `data` and return its number of bytes, even if the reader has closed the stream."""
        try:
            return super().write(data)
        except OSError as error:
            # A closed terminal raises EIO.
            if error.errno == errno.EPIPE or (error.errno == errno.EIO and self.isatty()):
                self.left = True
                self.discard()
            elif not (self.progress and error.errno in NO_ROOM):
                raise
        return memoryview(data).nbytes

    def discard(self) -> None:
        """Redirect the descriptor to the null device, for all code of this process."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def protect_streams() -> Output | None:
    """Replace sys.stdout and sys.stderr with protected streams; return that of standard output, None if it has no file.

    A stream that was closed before the start is redirected to the null device.
    """
    outputs = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif type(stream) is io.TextIOWrapper:  # editors and notebooks have their own streams, which stay
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
