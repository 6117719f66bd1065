"""How large a release is, and how long it takes to start: `python -m tests.release_numbers [DIST]`.

DIST is the folder of its wheel and sdist; without it they are built. Every Python that is supported
and found by its name (`python3.12`) gets an environment of its own, with one backend.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from memorywam_robot.sim.tasks import INSTRUCTIONS
from tests.distribution import (
    Distribution,
    called,
    demo_bundle_for,
    distribution_in,
    environment,
    install,
    interpreters,
    released,
    version_in,
)

__all__ = ["HEADERS", "SIZES_CODE", "START_CODE", "main", "row_of", "table"]

NUM_STARTS = 7
HEADERS = (
    "Python",
    "NumPy, ONNX Runtime",
    "installed, MB",
    "with all it needs, MB",
    "interpreter alone, ms",
    "`memorywam --help`, ms",
    "`import memorywam_runtime`, ms",
    "imports and `open_bundle`, ms",
    "first frame and chunk, ms",
)

SIZES_CODE = """
import importlib.metadata, json

sizes = {}
for found in importlib.metadata.distributions():
    files = [found.locate_file(file) for file in found.files or ()]
    sizes[found.name.lower()] = sum(file.stat().st_size for file in files if file.is_file())
print(json.dumps(sizes))
"""
"""Bytes of every distribution of an environment, compiled modules included."""

START_CODE = """
import json, sys, time
began_ns = time.monotonic_ns(), time.process_time_ns()
import numpy as np
from memorywam_runtime import Observation, Policy, open_bundle

policy = Policy(open_bundle(sys.argv[1], num_threads=1))
opened_ns = time.monotonic_ns(), time.process_time_ns()
policy.reset(sys.argv[2])
images = {name: np.zeros((64, 64, 3), np.uint8) for name in policy.contract.observations.cameras}
(step,) = policy.expected_steps()
policy.remember([Observation(images=images, state=np.zeros(14), step=step)])
policy.act(np.zeros(14))
ended_ns = time.monotonic_ns(), time.process_time_ns()
print(json.dumps([[b - a for a, b in zip(began_ns, opened_ns)],
                  [b - a for a, b in zip(opened_ns, ended_ns)]]))
"""
"""Takes a bundle and an instruction; prints ns, by the clock and of the processor: open, chunk."""


def main(argv: list[str] | None = None) -> int:
    """Measure, and print two lines of markdown and the table."""
    words = sys.argv[1:] if argv is None else argv
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if words:
            distribution = distribution_in(Path(words[0]))
        else:
            distribution = released(work / "dist", work / "source")
        rows = []
        for number, program in enumerate(interpreters()):
            python = environment(program, work / f"environment-{number}")
            install(python, distribution.wheel, "cpu")
            rows.append(row_of(python, demo_bundle_for(python, work)))
        sys.stdout.write(table(distribution, rows) + "\n")
    return 0


def row_of(python: Path, bundle: Path) -> tuple[str, ...]:
    """Measure one environment; every time is the median of `NUM_STARTS` processes."""
    sizes: dict[str, int] = json.loads(called(python, "-c", SIZES_CODE))
    needed = sum(size for name, size in sizes.items() if name not in {"pip", "setuptools"})
    program = python.with_name("memorywam")
    starts: list[list[list[int]]] = [
        json.loads(called(python, "-c", START_CODE, bundle, INSTRUCTIONS["recall"]))
        for _ in range(NUM_STARTS)
    ]
    return (
        called(python, "-c", "import platform; print(platform.python_version())").strip(),
        f"{version_in(python, 'numpy')}, {version_in(python, 'onnxruntime')}",
        f"{sizes['memorywam'] / 1e6:.1f}",
        f"{needed / 1e6:.0f}",
        _cell([_timed_ns(python, "-c", "") for _ in range(NUM_STARTS)]),
        _cell([_timed_ns(program, "--help") for _ in range(NUM_STARTS)]),
        _cell([_timed_ns(python, "-c", "import memorywam_runtime") for _ in range(NUM_STARTS)]),
        _cell([opened for opened, _ in starts]),
        _cell([chunk for _, chunk in starts]),
    )


def _timed_ns(*words: object) -> list[int]:
    """Run a program; return what it took by the clock, and of the processor."""
    began_ns, before = time.monotonic_ns(), resource.getrusage(resource.RUSAGE_CHILDREN)
    called(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [time.monotonic_ns() - began_ns, int(busy_s * 1e9)]


def _cell(times_ns: list[list[int]]) -> str:
    clock, busy = (statistics.median(column) / 1e6 for column in zip(*times_ns, strict=True))
    return f"{clock:.0f} ({busy:.0f})"


def table(distribution: Distribution, rows: list[tuple[str, ...]]) -> str:
    """Return the sizes of the files and the rows as markdown."""
    wheel, sdist = (path.stat().st_size / 1e6 for path in (distribution.wheel, distribution.sdist))
    title = (
        f"wheel {wheel:.2f} MB, sdist {sdist:.2f} MB; times by the clock (of the processor): "
        f"median of {NUM_STARTS} processes, one thread"
    )
    marks = ["---", "---", *("---:" for _ in HEADERS[2:])]
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in (HEADERS, marks, *rows))])


if __name__ == "__main__":
    sys.exit(main())
