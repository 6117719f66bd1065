"""What a verb tells: a table for people, JSON for machines, progress while it runs."""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TextIO

from memorywam_runtime.streams import one_line

__all__ = ["Outcome", "Progress", "Verb", "format_table", "json_from_data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one verb that ran to its end."""

    ok: bool
    """Every check held; otherwise the program exits with status 1."""
    headers: Sequence[str] = ()
    """The table's columns, for people."""
    rows: Sequence[Sequence[object]] = ()
    """The table's lines; each as long as `headers`."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The same and more, for machines."""
    note: str = ""
    """A closing sentence under the table, if any."""
    stopped_by: int = 0
    """The signal that ended the job early, if any: the program exits with 128 more, having told."""


class Verb(Protocol):
    """What an entry point of the group `memorywam.verbs` names: a class without arguments."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options; import nothing heavy, `--help` must work without extras."""
        ...

    def run(self, args: argparse.Namespace) -> Outcome:
        """Do the job; raise a MemorywamError for whatever cannot be done."""
        ...


def format_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align columns with spaces: numbers to the right, everything else to the left.

    Args:
        headers: The columns' names.
        rows: The cells; each row as long as `headers`.

    Returns:
        The lines, without a newline at the end.

    Raises:
        ValueError: A row is shorter or longer than `headers`.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(f"a row has {len(row)} cells {list(row)}; expected {len(headers)}")
    texts = [[_cell_text(cell) for cell in row] for row in rows]
    rights = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(headers))
    ]
    widths = [max(len(line[i]) for line in [headers, *texts]) for i in range(len(headers))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, rights, strict=True)
        ).rstrip()
        for line in [list(headers), rule, *texts]
    )


def json_from_data(data: object, *, ascii_only: bool = False) -> str:
    """Write a result as strict JSON.

    Args:
        data: Mappings, sequences, text, numbers, paths, and arrays or scalars with `tolist`.
        ascii_only: Escape all other signs, for what takes no UTF-8.

    Returns:
        Indented JSON; a figure that is not finite becomes the text "nan", "inf" or "-inf", which
        every reader of JSON takes.
    """
    plain = _json_value(data)
    text = json.dumps(plain, indent=2, ensure_ascii=ascii_only, allow_nan=False) + "\n"
    # A file's name may hold bytes that are no text; only their escapes are.
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        text = json.dumps(plain, indent=2, allow_nan=False) + "\n"
    return text


class Progress:
    """A line on a terminal's standard error, for a job that takes more than two seconds.

    Elsewhere, and for shorter jobs, it writes nothing. Use as a context manager, which clears
    the line at the end.
    """

    SILENT_S = 2.0
    """Nothing is shown before."""
    REDRAW_S = 0.1
    """Nor more often than this."""

    def __init__(
        self, title: str, *, total: int | None = None, stream: TextIO | None = None
    ) -> None:
        self._title = title
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._started_s = time.monotonic()
        self._drawn_s = -math.inf
        self._width = 0

    def __enter__(self) -> "Progress":
        """Start counting the two seconds."""
        self._started_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear the line, whatever happened."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

    def update(self, done: int, doing: str = "") -> None:
        """Say how far the job is.

        Args:
            done: How many of `total` are finished.
            doing: What is at work now, in a few words.
        """
        now_s = time.monotonic()
        elapsed_s = now_s - self._started_s
        if elapsed_s < self.SILENT_S or now_s - self._drawn_s < self.REDRAW_S:
            return
        if not self._stream.isatty():
            return
        of_total = f"/{self._total}" if self._total is not None else ""
        line = one_line(f"{self._title}: {done}{of_total}  {elapsed_s:.0f} s  {doing}".rstrip())
        line = line[: _terminal_columns(self._stream) - 1]
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)
        self._drawn_s = now_s


def _terminal_columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _cell_text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return "" if cell is None else one_line(str(cell))


def _json_value(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes):
        return [_json_value(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # numpy and torch, met by their common method: this module must import neither.
    tolist = getattr(value, "tolist", None)
    if callable(tolist):
        return _json_value(tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form; expected plain data, got {value!r}")
