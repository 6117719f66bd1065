"""The program as a process of its own, to be watched and to be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ended", "shards_of", "started", "until"]


def started(*words: object, **variables: str) -> subprocess.Popen[Any]:
    """Start `memorywam` with words, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "memorywam_runtime.cli", *(str(word) for word in words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A job in the background of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def ended(process: subprocess.Popen[Any], timeout_s: float = 300.0) -> tuple[int, str]:
    """Wait for a program; return its status and all that it said."""
    try:
        said = "".join(process.communicate(timeout=timeout_s))
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, said


def until(
    process: subprocess.Popen[Any], is_so: Callable[[], object], timeout_s: float = 120.0
) -> None:
    """Wait until something is so, while a program runs."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert process.poll() is None, f"it ended before: {process.communicate()}"
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.002)


def shards_of(out: Path) -> list[Path]:
    """Return the shards of a calibration that is under way."""
    return sorted(out.with_name(f"{out.name}.shards").glob("*.shard"))
