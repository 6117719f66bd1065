"""An arm in a process of its own: calls go in as lines of JSON, results come back the same way.

One process an arm, so that each has its own start from nothing, its own threads from the first, and
memory that the others do not share; and so that one may die. Not for speed: in turns on two cores,
ticks of `random:bench-100m` took ONNX Runtime 478 ms and eager torch 907 ms in one process, and 494
and 900 ms in two.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, TextIO

import msgspec

from memorywam_runtime import errors
from memorywam_runtime.bench.bench_arm import Arm, ArmOptions, SessionArm, Spans
from memorywam_runtime.bench.bench_history import HistoryArm
from memorywam_runtime.errors import MemorywamError

__all__ = ["RemoteArm", "arm_from_options", "main"]

_STOP_S = 10.0
"""How long a process may take to end before it is killed."""


def arm_from_options(options: ArmOptions) -> Arm:
    """Return the arm that the options describe, not opened yet."""
    return HistoryArm(options) if options.full_history else SessionArm(options)


class RemoteArm:
    """An arm in another process. Use as a context manager, which ends the process."""

    def __init__(self, options: ArmOptions) -> None:
        self._options = options

    def __enter__(self) -> "RemoteArm":
        """Start the process; it loads nothing yet."""
        self._started_s = time.monotonic()
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "memorywam_runtime.bench.bench_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | _threads(self._options.opening.num_threads),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process, whatever happened."""
        if self._process.stdin is not None:
            # What a process that died has not read is written once more; it is closed all the same.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def open(self) -> dict[str, Any]:
        """Load everything; the time from the process's start is told as `start_s`."""
        self._call("start", options=msgspec.to_builtins(self._options))
        start_s = time.monotonic() - self._started_s
        found: dict[str, Any] = self._call("open")
        return {"start_s": start_s, **found}

    def fill(self, frames: int) -> dict[str, Any]:
        """Fill memory to that many frames."""
        found: dict[str, Any] = self._call("fill", frames=frames)
        return found

    def tick(self, *, discard: int = 0) -> Spans:
        """Make ticks; return the spans of the last."""
        found: Spans = self._call("tick", discard=discard)
        return found

    def end_profile(self) -> dict[str, str]:
        """Return the file of each graph's profile, which ends now."""
        found: dict[str, str] = self._call("end_profile")
        return found

    def _call(self, name: str, **arguments: object) -> Any:  # noqa: ANN401 - by name
        """Return what the other process answers.

        Raises:
            MemorywamError: what it raised, or that it died.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"call": name, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise MemorywamError(self._death(name))
        answer = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"], MemorywamError)(answer["text"])
        return answer["result"]

    def _death(self, name: str) -> str:
        """Return what is known of a process that gave no answer."""
        status = self._process.wait(_STOP_S)
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        name_of_arm = self._options.opening.backend
        return (
            f"the process that measures '{name_of_arm}' ended with status {status} in "
            f"'{name}'; expected an answer. Its last words: {said[-1] if said else 'none'}. If "
            "the machine ran out of memory, measure fewer arms at once, or at fewer frames"
        )


def _threads(count: int) -> dict[str, str]:
    """Return the variables that hold array libraries to a number of threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(count)) if count else {}


def main() -> None:
    """Answer calls until standard input ends."""
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _serve(sys.stdin, answers)


def _serve(calls: TextIO, answers: TextIO) -> None:
    """Answer each line with one line."""
    arm: Arm | None = None
    for line in calls:
        call = json.loads(line)
        name = call.pop("call")
        try:
            if name == "start":
                arm = arm_from_options(msgspec.convert(call["options"], ArmOptions))
                answer: dict[str, Any] = {"result": None}
            else:
                method: Callable[..., Any] = getattr(arm, name)
                answer = {"result": method(**call)}
        except MemorywamError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
