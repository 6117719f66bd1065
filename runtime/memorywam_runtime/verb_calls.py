"""Other verbs of the program, each in a process of its own; their results come back as JSON."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memorywam_runtime.errors import MemorywamError

__all__ = ["Document", "VerbCalls"]

Document = dict[str, Any]
"""What `--json` writes: verb, ok, versions, data."""

_PROGRAM = (sys.executable, "-m", "memorywam_runtime.cli")
_RAN = (0, 1)
"""Exit statuses of a verb that ran to its end: every check held, or one did not."""
_STOP_S = 10.0
"""For a verb that is stopped, to remove what it has not finished."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For torch: on two busy cores a second thread made small models 25 times slower."""


class VerbCalls:
    """Calls verbs and keeps what they wrote."""

    def __init__(self, results: Path, tell: Callable[[str], None]) -> None:
        """Make the directory for the verbs' results.

        Args:
            results: Each call leaves one JSON file there.
            tell: Called with a line when a call begins and when it ends.
        """
        self._results = results
        self._tell = tell
        results.mkdir(parents=True, exist_ok=True)

    def call(self, verb: str, *words: str, name: str | None = None) -> Document:
        """Run a verb to its end.

        Args:
            verb: Its name.
            words: Its arguments.
            name: Of the file with its result; the verb's by default.

        Returns:
            Its result; `ok` is false where a check failed.

        Raises:
            MemorywamError: it could not run; what it said.
        """
        path = self._results / f"{name or verb}.json"
        self._tell(f"{name or verb} ...")
        started_s = time.monotonic()
        status, text = _ended([*_PROGRAM, verb, *words, "--json", str(path)])
        if status not in _RAN or not path.is_file():
            lines = text.strip().splitlines()
            said = lines[-1] if lines else f"exit status {status}"
            raise MemorywamError(f"{said} (from: memorywam {verb} {' '.join(words)})")
        document: Document = json.loads(path.read_text(encoding="utf-8"))
        held = "" if document["ok"] else ", a check failed"
        self._tell(f"{name or verb}: {time.monotonic() - started_s:.0f} s{held}")
        return document


def _ended(words: Sequence[str]) -> tuple[int, str]:
    """Run a process to its end; return its status and what it said on standard error."""
    with subprocess.Popen(
        words,
        env=_ONE_THREAD | dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
    ) as process:
        try:
            _, text = process.communicate()
        except BaseException:
            process.terminate()  # killed at once it would leave drafts behind
            try:
                process.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return process.returncode, text
