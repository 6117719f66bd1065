"""What the measured times mean: ratios, work outside the engines, roofline, growth with frames."""

from collections.abc import Mapping, Sequence
from typing import Any

from memorywam_runtime.bench.bench_arm import Spans
from memorywam_runtime.bench.bench_operators import OperatorTimes, attention_ms
from memorywam_runtime.bench.bench_ratios import (
    all_spans,
    median_of,
    outside_shares,
    ratio_of_medians,
    totals,
)
from memorywam_runtime.bench.roofline import Peaks, Work, bound_of, rows_work, work_of
from memorywam_runtime.manifest import Manifest

__all__ = ["findings"]

_COMPARED = ("tick", "total", "see", "remember", "chunk", "cache_update")
_ATTENDING = ("cache_update", "action_step")
"""Graphs that attend to memory."""
_FROM_FRAMES = 10
"""By then every slot is taken: what grows from there on is the gist table."""

Sizes = Mapping[int, Mapping[str, Mapping[str, Any]]]
Measured = Mapping[int, Mapping[str, Sequence[Spans]]]


def findings(
    manifest: Manifest,
    sizes: Sizes,
    measured: Measured,
    num_steps: int | None,
    peaks: Mapping[str, Any] | None,
    operators: Mapping[int, OperatorTimes],
) -> dict[str, Any]:
    """Return what follows from the times; the first arm is the one that is judged.

    Args:
        manifest: Of the bundle.
        sizes: Fill to arm to what it told of its memory.
        measured: Fill to arm to the spans of each round.
        num_steps: Of a chunk; the contract's by default.
        peaks: Of the machine; None leaves the roofline out.
        operators: Fill to what each kind of operator takes on the first arm; empty if not timed.
    """
    steps = num_steps or manifest.contract.conventions.num_steps
    first = next(iter(next(iter(measured.values()))))
    best = None
    if peaks is not None:
        best = Peaks(bytes_per_s=peaks["read_bytes_per_s"], flops_per_s=peaks["flops_per_s"])
    return {
        "ratios": _ratios(measured, first),
        "outside": _outside(measured),
        "roofline": _roofline(manifest, sizes, measured, best) if best else [],
        "growth": _growth(manifest, sizes, measured, steps, best),
        "operators": [{"frames": fill, "graphs_ms": times} for fill, times in operators.items()],
        "attention": _attention(measured, first, operators),
    }


def _ratios(measured: Measured, first: str) -> list[dict[str, Any]]:
    """Return each arm's time over the first arm's: above 1, the first is faster."""
    found = []
    for fill, rounds in measured.items():
        for arm, spans in rounds.items():
            for stage in _COMPARED if arm != first else ():
                times, reference = totals(spans, stage), totals(rounds[first], stage)
                if times and reference:
                    ratio = ratio_of_medians(times, reference[: len(times)])
                    found.append({"frames": fill, "stage": stage, "arm": arm, **ratio})
    return found


def _outside(measured: Measured) -> list[dict[str, Any]]:
    """Return the share of each arm's tick that is not spent in engines, median over rounds.

    Left out are arms whose calls return before the device is done, and so tell no engine's time.
    """
    return [
        {"frames": fill, "arm": arm, "share": median_of(outside_shares(spans))}
        for fill, rounds in measured.items()
        for arm, spans in rounds.items()
        if "engines" in spans[0]
    ]


def _roofline(
    manifest: Manifest, sizes: Sizes, measured: Measured, peaks: Peaks
) -> list[dict[str, Any]]:
    """Return for each engine's stage what it must do, its bound, and how close it comes."""
    found = []
    for fill, rounds in measured.items():
        for arm, spans in rounds.items():
            size = sizes[fill][arm]
            for stage, times in all_spans(spans).items():
                if stage not in manifest.graphs:
                    continue
                keys = size["keys"].get(stage, 0)
                work = work_of(manifest.graphs[stage], rows=size["rows"], keys=keys)
                if work is None:
                    continue
                bound, median_ms = bound_of(work, peaks), median_of(times)
                found.append(
                    {
                        "frames": fill,
                        "arm": arm,
                        "stage": stage,
                        "bytes": work.num_bytes,
                        "flops": work.flops,
                        "bound_ms": bound.ms,
                        "limit": bound.limit,
                        "p50_ms": median_ms,
                        "share": bound.share(median_ms),
                    }
                )
    return found


def _growth(
    manifest: Manifest,
    sizes: Sizes,
    measured: Measured,
    steps: int,
    peaks: Peaks | None,
) -> list[dict[str, Any]]:
    """Return how each arm's tick grows from 10 frames, and how much of that is gist read.

    The rows that were added cost what they read and compute at the machine's best, `rows_ms`;
    `apart` is the ratio once that is taken off, so that what is badly done with them still counts.
    """
    fills = [fill for fill in measured if fill >= _FROM_FRAMES]
    found = []
    for start, fill in ((fills[0], fill) for fill in fills[1:]):
        for arm, spans in measured[fill].items():
            before = median_of(totals(measured[start][arm], "tick"))
            after = median_of(totals(spans, "tick"))
            entry: dict[str, Any] = {
                "arm": arm,
                "from_frames": start,
                "frames": fill,
                "ratio": after / before,
                "difference_ms": after - before,
            }
            rows = sizes[fill][arm]["rows"] - sizes[start][arm]["rows"]
            work = _rows_of_tick(manifest, rows, steps)
            if work is not None:
                entry |= {"rows": rows, "bytes": work.num_bytes, "flops": work.flops}
            if work is not None and peaks is not None:
                rows_ms = bound_of(work, peaks).ms
                entry |= {"rows_ms": rows_ms, "apart": (after - rows_ms) / before}
            found.append(entry)
    return found


def _attention(
    measured: Measured, first: str, operators: Mapping[int, OperatorTimes]
) -> list[dict[str, Any]]:
    """Return how the first arm's tick grows from 10 frames once attention's growth is taken off.

    Attention is the operator that reads memory; `read_ms` is by how much it takes longer, and
    `apart` the ratio of ticks without that. Left out where attention is no operator of its own.
    """
    fills = [fill for fill in operators if fill >= _FROM_FRAMES]
    found = []
    for start, fill in ((fills[0], fill) for fill in fills[1:]):
        before, after = (attention_ms(operators[at], _ATTENDING) for at in (start, fill))
        if before is None or after is None:
            continue
        ticks = [median_of(totals(measured[at][first], "tick")) for at in (start, fill)]
        found.append(
            {
                "arm": first,
                "from_frames": start,
                "frames": fill,
                "attention_ms": [before, after],
                "read_ms": after - before,
                "apart": (ticks[1] - (after - before)) / ticks[0],
            }
        )
    return found


def _rows_of_tick(manifest: Manifest, rows: int, steps: int) -> Work | None:
    """Return the work that rows of memory add to a tick; None where costs are not told."""
    update, step = (manifest.graphs[name].cost for name in ("cache_update", "action_step"))
    if update is None or step is None:
        return None
    return rows_work(update, rows) + rows_work(step, rows).times(steps)
