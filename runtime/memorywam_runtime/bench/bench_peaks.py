"""What the machine can do at best: bytes read and products summed a second, measured."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from memorywam_runtime.errors import MemorywamError

__all__ = ["best_of", "main", "measure_peaks", "measured_peaks", "measuring_peaks"]

_READ_BYTES = 512 << 20
"""Far more than any cache holds."""
_SIDE = 2048
"""Of the square matrices: 34 GFLOP a product, 50 MB."""
_REPEAT = 9
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def measured_peaks(num_threads: int) -> dict[str, Any]:
    """Return the host's peaks, measured by a process that has that many threads from its start.

    Raises:
        MemorywamError: the process failed; with its last words.
    """
    ended = subprocess.run(
        [sys.executable, "-m", "memorywam_runtime.bench.bench_peaks", str(num_threads)],
        env=os.environ | dict.fromkeys(_VARIABLES, str(num_threads)),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        said = ended.stderr.strip().splitlines()
        raise MemorywamError(
            f"the process that measures the machine's bandwidth ended with status "
            f"{ended.returncode}: {said[-1] if said else 'no words'}; expected figures: free "
            f"{_READ_BYTES / 1e9:.1f} GB of memory"
        )
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@contextmanager
def measuring_peaks(
    num_threads: int, tell: Callable[[str], None], *, wanted: bool
) -> Iterator[list[dict[str, Any]]]:
    """Measure the peaks before and after the body: one of the two may fall on a busy machine.

    Args:
        num_threads: As for `measured_peaks`.
        tell: Called with what is being done.
        wanted: Measure at all.

    Yields:
        The peaks; two once the body is done, or none.
    """
    found: list[dict[str, Any]] = []
    if wanted:
        tell("measure the machine")
        found.append(measured_peaks(num_threads))
    yield found
    if wanted:
        tell("measure the machine")
        found.append(measured_peaks(num_threads))


def best_of(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the best of each figure: a machine that was busy for a while did worse meanwhile."""
    rates = ("read_bytes_per_s", "copy_bytes_per_s", "flops_per_s")
    return found[0] | {rate: max(one[rate] for one in found) for rate in rates}


def measure_peaks(
    num_threads: int, *, read_bytes: int = _READ_BYTES, side: int = _SIDE, repeat: int = _REPEAT
) -> dict[str, Any]:
    """Return the best of several reads, copies and matrix products, in this process.

    Args:
        num_threads: Threads that copy; matrix products take those of the BLAS.
        read_bytes: Size of what is read.
        side: Of the square float32 matrices.
        repeat: Turns of each.
    """
    # A wide matrix times a vector reads the matrix once, as an engine reads its weights.
    source = np.ones((read_bytes // 4 // side, side), np.float32)
    vector, sums = np.ones(side, np.float32), np.empty(len(source), np.float32)
    target = np.empty_like(source)
    parts = list(
        zip(np.array_split(target, num_threads), np.array_split(source, num_threads), strict=True)
    )
    copies = [lambda t=t, p=p: np.copyto(t, p) for t, p in parts]
    matrix = np.random.default_rng(0).standard_normal((side, side), np.float32)
    out = np.empty_like(matrix)
    # Only the copies have threads of ours: those of the BLAS under them would wait for each other.
    read_s = _best(lambda: np.matmul(source, vector, out=sums), repeat)
    copy_s = _best(lambda: _together(copies), repeat)
    product_s = _best(lambda: np.matmul(matrix, matrix, out=out), repeat)
    return {
        "threads": num_threads,
        "read_bytes_per_s": source.nbytes / read_s,
        "copy_bytes_per_s": 2 * source.nbytes / copy_s,
        "flops_per_s": 2 * side**3 / product_s,
        "how": (
            f"best of {repeat}, float32, numpy: {source.nbytes >> 20} MiB times a vector (read), "
            f"copied (read and written), and a product of matrices {side} x {side}"
        ),
    }


def _together(calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls at once, one thread each."""
    threads = [threading.Thread(target=call) for call in calls[1:]]
    for thread in threads:
        thread.start()
    calls[0]()
    for thread in threads:
        thread.join()


def _best(call: Callable[[], object], repeat: int) -> float:
    """Return the shortest of several turns after one that is not counted, s."""
    call()
    taken = []
    for _ in range(repeat):
        started_s = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started_s)
    return min(taken)


def main() -> None:
    """Measure with the number of threads that is the first argument, and write JSON."""
    sys.stdout.write(json.dumps(measure_peaks(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
