"""What each kind of operator takes in a tick, told by the backend's own profile."""

import bisect
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from memorywam_runtime.bench.bench_arm import ArmOptions, Spans
from memorywam_runtime.bench.bench_worker import RemoteArm
from memorywam_runtime.errors import MemorywamError

__all__ = [
    "PROFILED_BACKEND",
    "OperatorTimes",
    "attention_ms",
    "operator_times",
    "times_from_profile",
]

PROFILED_BACKEND = "ort"
"""The backend that times its operators."""
_TICKS = 5
"""Profiled at each fill; a profile holds a million events at most."""

OperatorTimes = dict[str, dict[str, float]]
"""Graph to kind of operator to what one tick spends in it, ms; `other` is between operators."""


def operator_times(
    options: ArmOptions, fills: Sequence[int], tell: Callable[[str], None]
) -> dict[int, OperatorTimes]:
    """Return by fill what each kind of operator takes in a tick.

    Each fill has a process of its own, which is profiled from its start; the ticks that were
    timed were not.

    Args:
        options: Of the arm that is judged.
        fills: In latent frames.
        tell: Called with what is being done.

    Raises:
        MemorywamError: the profile lacks calls that were made.
    """
    found = {}
    for fill in fills:
        tell(f"time operators at {fill} frames")
        with tempfile.TemporaryDirectory() as directory:
            profiled = msgspec.structs.replace(options, profile=directory)
            with RemoteArm(profiled) as arm:
                arm.open()
                arm.fill(fill)
                ticks = [arm.tick() for _ in range(_TICKS)]
                files = arm.end_profile()
            found[fill] = {
                graph: times_from_profile(Path(path), _calls(ticks, graph), len(ticks))
                for graph, path in files.items()
                if _calls(ticks, graph)
            }
    return found


def times_from_profile(path: Path, num_calls: int, num_ticks: int) -> dict[str, float]:
    """Return what one tick spends in each kind of operator of one graph, ms.

    Args:
        path: The profile that ONNX Runtime wrote of one session.
        num_calls: The newest calls of the graph, which are counted.
        num_ticks: Ticks that made them.

    Raises:
        MemorywamError: a profile of fewer calls.
    """
    events = json.loads(path.read_text(encoding="utf-8"))
    runs = sorted((e["ts"], e["dur"]) for e in events if e.get("name") == "model_run")[-num_calls:]
    if len(runs) < num_calls:
        raise MemorywamError(
            f"{path.name}: found {len(runs)} calls; expected {num_calls}: a profile holds a "
            "million events, profile at fewer denoising steps"
        )
    starts = [start for start, _ in runs]
    spent: dict[str, float] = {}
    for event in events:
        if not str(event.get("name", "")).endswith("_kernel_time"):
            continue
        place = bisect.bisect_right(starts, event["ts"]) - 1
        if place >= 0 and event["ts"] <= starts[place] + runs[place][1]:
            kind = event["args"]["op_name"]
            spent[kind] = spent.get(kind, 0.0) + event["dur"]
    spent["other"] = sum(took for _, took in runs) - sum(spent.values())
    each = {kind: us / 1e3 / num_ticks for kind, us in spent.items()}
    return dict(sorted(each.items(), key=lambda item: -item[1]))


def _calls(ticks: Sequence[Spans], graph: str) -> int:
    """Return how often ticks called a graph."""
    return sum(len(spans.get(graph, ())) for spans in ticks)


def attention_ms(times: OperatorTimes, graphs: Sequence[str]) -> float | None:
    """Return what a tick spends in attention; None where a graph has it in parts.

    Args:
        times: At one fill.
        graphs: That attend to memory.
    """
    each = [times.get(graph, {}).get("Attention") for graph in graphs]
    known: list[Any] = [ms for ms in each if ms is not None]
    return sum(known) if len(known) == len(each) else None
