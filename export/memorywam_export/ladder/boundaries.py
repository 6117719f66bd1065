"""The frames at which memories break, by name: first, full, evicting, wrapping, growing."""

from collections.abc import Mapping, Sequence

from memorywam_export.parity.parity_report import Check
from memorywam_export.parity.tolerances import TOLERANCES
from memorywam_export.parity.trace_report import RungResult
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import MemoryPlan

__all__ = ["boundary_checks", "boundary_frames"]


def boundary_frames(contract: InferenceContract, plan: MemoryPlan) -> dict[str, int]:
    """Return the frame at which each boundary is passed, whether an episode gets there or not.

    Args:
        contract: Sizes of memory.
        plan: Sizes of the gist table.
    """
    found = {"first frame": 0}
    if contract.conventions.vae_history == "single_frame":
        return found | {"second frame, which replaces the first": 1}
    anchors, ring = contract.memory.num_anchors, contract.num_ring_slots
    if anchors > 1:
        found["anchors filling"] = 1
    if anchors:
        found["anchors full, first frame of the window"] = anchors
    found["first eviction"] = anchors + ring
    found["ring wrap"] = anchors + 2 * ring
    if contract.memory.num_gists:
        found |= {f"gist bucket of {size} full": size for size in plan.gist_buckets[:-1]}
    return found


def boundary_checks(
    results: Sequence[RungResult], boundaries: Mapping[str, int], num_frames: int
) -> list[Check]:
    """Return a check for each boundary that the episode came past: the worst of all rungs.

    Latents, what was written to memory, and actions of that frame are each within the tolerance
    of the rung's precision, every rung with a memory of its own.

    Args:
        results: Of every rung.
        boundaries: Name to frame.
        num_frames: Of the episode.
    """
    checks = []
    for name, frame in boundaries.items():
        if frame >= num_frames:
            continue
        limits = [TOLERANCES[result.precision].max_abs for result in results]
        errors = [result.by_frame.at(frame) for result in results]
        worst = max(range(len(results)), key=lambda i: errors[i] / limits[i])
        checks.append(
            Check(
                rung=results[worst].name,
                what=f"{name} (frame {frame})",
                max_abs=errors[worst],
                tolerance=limits[worst],
                worst="of all rungs: latents, memory, actions",
                ok=all(error <= limit for error, limit in zip(errors, limits, strict=True)),
            )
        )
    return checks
