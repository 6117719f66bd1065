"""How fast a stage could be: what it must read and compute, over what the machine can do."""

import math
from dataclasses import dataclass
from typing import Literal

from memorywam_runtime.manifest import GraphCost, GraphEntry

__all__ = ["Bound", "Peaks", "Work", "bound_of", "rows_work", "work_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The best that a machine was measured to do."""

    bytes_per_s: float
    flops_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What calls must move and compute at least."""

    num_bytes: int
    flops: int

    def __add__(self, other: "Work") -> "Work":
        """Return both, one after the other."""
        return Work(num_bytes=self.num_bytes + other.num_bytes, flops=self.flops + other.flops)

    def times(self, count: int) -> "Work":
        """Return that many of them."""
        return Work(num_bytes=count * self.num_bytes, flops=count * self.flops)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The time below which no implementation can be, and why."""

    ms: float
    limit: Literal["bandwidth", "rate"]

    def share(self, measured_ms: float) -> float:
        """Return how close a measured time is: 1 at the bound, 0.5 at twice its time."""
        return self.ms / measured_ms


def work_of(entry: GraphEntry, *, rows: int, keys: int) -> Work | None:
    """Return the work of one call of a graph; None where the manifest does not tell its cost.

    Read once: the weights, the keys and values that are attended to, and every other input;
    written once: every output that is not the memory. What stays inside the graph is free.

    Args:
        entry: Of the manifest.
        rows: Of a memory tensor.
        keys: Rows that are attended to: those of memory, and where the graph gives new rows out,
            those too.
    """
    if entry.cost is None:
        return None
    edges = sum(
        spec.bound(rows=rows, keys=keys).num_bytes
        for spec in (*entry.inputs, *entry.outputs)
        if not spec.name.startswith(("memory.", "memory_out."))
    )
    fixed = Work(num_bytes=entry.cost.weight_bytes + edges, flops=entry.cost.flops)
    return fixed + rows_work(entry.cost, rows)


def rows_work(cost: GraphCost, rows: int) -> Work:
    """Return the work that rows of memory add to one call."""
    return Work(num_bytes=rows * cost.memory_bytes_per_row, flops=rows * cost.flops_per_row)


def bound_of(work: Work, peaks: Peaks) -> Bound:
    """Return the time that the work takes at the machine's best, moving and computing at once."""
    if not (peaks.bytes_per_s > 0 and peaks.flops_per_s > 0 and math.isfinite(peaks.flops_per_s)):
        raise ValueError(f"found {peaks}; expected rates above 0")
    moving_ms = 1e3 * work.num_bytes / peaks.bytes_per_s
    computing_ms = 1e3 * work.flops / peaks.flops_per_s
    if moving_ms >= computing_ms:
        return Bound(ms=moving_ms, limit="bandwidth")
    return Bound(ms=computing_ms, limit="rate")
