"""Run what needs a GPU, one command after the other, and leave one JSON file with all of it.

A step that fails is told with the end of what it said, and the next one runs: a backend that does
not load is a finding, not the end. Usage: `tests/gpu/run.sh`, or `python -m tests.gpu.measure`.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memorywam_runtime.files import atomic_write
from memorywam_runtime.versions import versions

__all__ = ["Step", "main", "measured", "steps"]

BACKENDS = ("eager-cuda", "ort-cuda", "tensorrt-rtx", "tensorrt")
BUILT = ("tensorrt-rtx", "tensorrt")
"""Backends whose engines are built first."""
PARITY = (("tiny", "fp32"), ("tiny", "fp16"), ("tiny", "bf16"), ("tiny-fastwam", "fp32"))
REAL = "robotwin-384x320"
_TAIL = 4000
"""Characters that are kept of what a step said."""


@dataclass(frozen=True)
class Step:
    """One command of the program, and where its JSON goes."""

    name: str
    words: tuple[str, ...]
    limit_s: int = 900


@dataclass(frozen=True)
class Result:
    """What came of a step."""

    name: str
    command: str
    status: int
    seconds: float
    said: str
    data: Any


def steps(out: Path, target: str, *, is_quick: bool) -> list[Step]:
    """Return everything in its order.

    Args:
        out: Where bundles and reports go.
        target: Architecture of the GPU here, as `sm_90`.
        is_quick: Leave the real size out.
    """
    found = [Step("doctor", ("doctor",), 120)]
    for preset, precision in PARITY:
        bundle, source = str(out / f"{preset}-{precision}"), f"random:{preset}"
        found.append(Step(f"export {preset} {precision}", _export(source, bundle, precision)))
        for backend in BACKENDS:
            what = f"{preset} {precision} {backend}"
            if backend in BUILT:
                found.append(Step(f"build {what}", _build(bundle, backend, target)))
            words = ("verify", bundle, "--checkpoint", source, "--backend", backend)
            found.append(Step(f"verify {what}", (*words, "--frames", "40")))
    if is_quick:
        return found
    bundle = str(out / REAL)
    found.append(Step(f"export {REAL}", _export(f"random:{REAL}", bundle, "bf16"), 1200))
    found += [Step(f"build {REAL} {b}", _build(bundle, b, target), 1800) for b in BUILT]
    for backend in BACKENDS[1:]:
        words = ("bench", bundle, "--backend", backend, "--against", "eager-cuda,compile-cuda")
        fills = ("--frames", "1,10,100", "--repeat", "20", "--plot", str(out / f"{backend}.html"))
        unverified = ("--allow-unverified",) if backend in BUILT else ()
        found.append(Step(f"bench {REAL} {backend}", (*words, *fills, *unverified), 1800))
    return found


def measured(step: Step, out: Path) -> Result:
    """Run one step; what it cannot do is in the result."""
    path = out / f"{step.name.replace(' ', '-')}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "memorywam_runtime.cli", *step.words, "--json", str(path)]
    started_s = time.monotonic()
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=step.limit_s, check=False
        )
        status, said = ran.returncode, ran.stdout + ran.stderr
    except subprocess.TimeoutExpired as error:
        status, said = 124, f"not done after {step.limit_s} s: {error.stderr or b''!r}"
    return Result(
        name=step.name,
        command=f"memorywam {' '.join(step.words)}",
        status=status,
        seconds=round(time.monotonic() - started_s, 2),
        said=said[-_TAIL:],
        data=json.loads(path.read_bytes()) if path.is_file() else None,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run all steps, or those asked for; 0 if each did, 1 if one did not, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="tests/gpu/run.sh", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--quick", action="store_true", help="leave the real size out")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="steps whose names begin so")
    args = parser.parse_args(arguments)
    device = _device()
    if device is None:
        print(
            f"tests/gpu: {sys.executable} has no torch that sees a CUDA device; expected one: run "
            "this on a machine with a GPU, with PYTHON naming an interpreter that has torch",
            file=sys.stderr,
        )
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    results = []
    for step in steps(args.out, device["target"], is_quick=args.quick):
        if args.only and not step.name.startswith(tuple(args.only)):
            continue
        print(f"{step.name} ...", flush=True)
        results.append(measured(step, args.out))
        print(f"{step.name}: {results[-1].status}, {results[-1].seconds} s", flush=True)
        document = {
            "device": device,
            "versions": versions(),
            "steps": [asdict(result) for result in results],
        }
        atomic_write(args.out / "results.json", json.dumps(document, indent=1).encode())
    return int(any(result.status for result in results))


def _export(source: str, bundle: str, precision: str) -> tuple[str, ...]:
    """Return the words that make a bundle."""
    return ("export", source, "--out", bundle, "--precision", precision, "--overwrite")


def _build(bundle: str, backend: str, target: str) -> tuple[str, ...]:
    """Return the words that build its engines here."""
    return ("build", bundle, "--backend", backend, "--target", target)


def _device() -> dict[str, Any] | None:
    """Return what the GPU is, or None."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "target": f"sm_{found.major}{found.minor}",
        "memory_bytes": found.total_memory,
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    sys.exit(main())
