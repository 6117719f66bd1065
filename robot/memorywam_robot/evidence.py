"""Figures of the demo's report, from what the verbs found."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import Rows

__all__ = [
    "LARGEST_DIFFERENCE",
    "complaints_from_report",
    "latency_by_frame",
    "memory_by_frame",
    "pooled_stages",
]

LARGEST_DIFFERENCE = 0.04
"""Between the share of successes by ONNX Runtime and by torch, on one task."""

Points = list[tuple[int, float]]


def memory_by_frame(manifest: Manifest) -> tuple[Points, Points]:
    """Return (frames remembered, bytes of keys and values): as kept, and if all were kept."""
    rows, plan = Rows(manifest.contract), manifest.memory
    frames = sorted({*range(1, 33), *range(32, plan.max_frames + 1, 8), plan.max_frames})
    frames = [frame for frame in frames if frame <= plan.max_frames]
    kept, everything = [], []
    for frame in frames:
        in_full = min(frame, rows.num_slots) * (rows.num_visual + rows.num_history)
        gists = frame * rows.num_gists
        kept.append((frame, float((in_full + gists) * plan.bytes_per_token)))
        all_rows = frame * (rows.num_visual + rows.num_history)
        everything.append((frame, float(all_rows * plan.bytes_per_token)))
    return kept, everything


def latency_by_frame(runs: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    """Return per job (frames remembered, median ms) over all episodes that got so far.

    Frames that fewer than half of the episodes reached are left out.
    """
    episodes = [episode for run in runs for episode in run["episodes"]]
    points: dict[str, Points] = {"remember": [], "act": []}
    for job, found in points.items():
        spans = [episode[f"{job}_ms"] for episode in episodes]
        for frame in range(max(map(len, spans))):
            reached = [span[frame] for span in spans if len(span) > frame]
            if 2 * len(reached) >= len(spans):
                found.append((frame + 1, median(reached)))
    return points


def pooled_stages(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return p50 and p99 of every stage, ms, over runs that each tell theirs.

    The p50 is the mean of the runs', weighted by count; the p99 is the worst run's.
    """
    pooled = {}
    for stage in runs[0]["stages_ms"]:
        each = [run["stages_ms"][stage] for run in runs]
        weights = [times["count"] for times in each]
        pooled[stage] = {
            "p50": float(np.average([times["p50"] for times in each], weights=weights)),
            "p99": max(times["p99"] for times in each),
        }
    return pooled


def complaints_from_report(report: Mapping[str, Any]) -> list[str]:
    """Return what does not hold; empty if everything does."""
    found = [] if report["parity"]["ok"] else ["parity with the reference does not hold"]
    for name, task in report["tasks"].items():
        difference = abs(task["success"] - task["success_torch"])
        if difference > LARGEST_DIFFERENCE + 1e-9:
            found.append(
                f"{name}: ONNX Runtime succeeds in {task['success']:.0%}, torch in "
                f"{task['success_torch']:.0%}; expected at most {LARGEST_DIFFERENCE:.0%} between"
            )
    return found
