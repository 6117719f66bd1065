"""The process's standard streams: open, whatever it was started with, and fit for any text."""

import contextlib
import io
import os
import sys
from pathlib import Path

__all__ = ["drop_output", "is_utf8", "one_line", "open_streams"]

_NUM_STREAMS = 3


def open_streams() -> None:
    """Open what a process was started without (`>&-`), and let no sign be refused.

    A file opened later would get the free number, and what a library prints would end up in it.
    """
    null = os.open(os.devnull, os.O_RDWR)  # takes the least number that is free
    while null < _NUM_STREAMS:
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    # None in such a process, whatever the stubs say; the files stay open to the process's end.
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (
            stream.errors == "strict" or not is_utf8(stream.encoding)
        ):
            stream.reconfigure(errors="backslashreplace")


def is_utf8(encoding: str) -> bool:
    """Say whether an encoding by this name is UTF-8."""
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def drop_output() -> None:
    """Let go of a standard output that takes nothing, or the interpreter's last flush fails."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


def one_line(text: str) -> str:
    """Write signs that end a line or command a terminal by their escapes, as Python does."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
