"""Figures of the demo's report, from what the verbs found."""

from collections.abc import Mapping
from typing import Any

__all__ = ["LARGEST_DIFFERENCE", "complaints_from_report", "latency_by_frame", "memory_by_frame"]

LARGEST_DIFFERENCE = 0.04
"""Between the share of successes by ONNX Runtime and by torch, on one task."""

_PLOTTED = {"see", "remember", "chunk", "tick"}
"""Stages that are whole; more lines could not be told apart."""

Points = list[tuple[float, float]]


def memory_by_frame(bench: Mapping[str, Any]) -> tuple[Points, Points]:
    """Return (frames remembered, bytes): of memory as it is, and if every frame stayed whole."""
    kept = [(frame, size) for frame, size in bench["memory_bytes_by_frame"]]
    everything = [(fill["frames"], fill["full_history_bytes"]) for fill in bench["by_frames"]]
    return kept, everything


def latency_by_frame(bench: Mapping[str, Any]) -> dict[str, Points]:
    """Return (frames remembered, median ms) of what a tick is made of; the parts are in a table."""
    points: dict[str, Points] = {}
    for fill in bench["by_frames"]:
        for stage in _PLOTTED & set(fill["stages_ms"]):
            points.setdefault(stage, []).append((fill["frames"], fill["stages_ms"][stage]["p50"]))
    return dict(sorted(points.items()))


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
