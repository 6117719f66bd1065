"""What may differ by how much between a bundle and its checkpoint, judged check by check."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memorywam_export.trace_report import Difference, RungResult
from memorywam_runtime.manifest import Manifest

__all__ = ["TOLERANCES", "Check", "coverage", "judged", "rung_checks", "rung_data"]

_DRIFT_FROM = 10
"""Frames up to this one say how large the error is at the start."""
_DRIFT_LAST = 5
"""So many frames say how large it is at the end."""


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """Largest absolute error, and why that much."""

    max_abs: float
    reason: str


TOLERANCES: dict[str, _Tolerance] = {
    "fp64": _Tolerance(1e-6, "a session gives actions as float32, whose last digit is 6e-8 of 1"),
    "fp32": _Tolerance(1e-4, "24 bits: the order of sums differs between runtimes"),
    "fp16": _Tolerance(
        5e-2, "11 bits, in the weights too: keys and values up to 3.6 were off by 2e-2 (tiny)"
    ),
    "bf16": _Tolerance(
        4e-1, "8 bits, eight times coarser than fp16: feature caches were off by 0.29 (tiny)"
    ),
}
"""By precision; for latents, keys, values, feature caches and normalized actions alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing compared, and whether it holds."""

    rung: str
    what: str
    max_abs: float | None
    tolerance: float | None
    worst: str
    """Where the largest error is, or what was found."""
    ok: bool

    @property
    def row(self) -> tuple[object, ...]:
        """A line of the table."""
        figures = (
            "" if value is None else f"{value:.2g}" for value in (self.max_abs, self.tolerance)
        )
        return (self.rung, self.what, *figures, self.worst, "ok" if self.ok else "FAILED")


def judged(rung: str, what: str, tensors: Mapping[str, Difference], limit: float) -> Check:
    """Judge a group of tensors by its worst."""
    name, worst = _worst(tensors)
    return Check(
        rung=rung,
        what=what,
        max_abs=worst.max_abs,
        tolerance=limit,
        worst=f"{name} {worst.worst}".strip(),
        ok=worst.max_abs <= limit,
    )


def rung_checks(result: RungResult) -> list[Check]:
    """Return the checks of one rung."""
    name, limit = result.name, TOLERANCES[result.precision].max_abs
    checks = [
        judged(name, f"graph {graph}", tensors, limit) for graph, tensors in result.graphs.items()
    ]
    checks += [
        judged(name, "latents, free-running", {"": result.latents}, limit),
        judged(name, "memory after the last frame", result.memory, limit),
        judged(name, "actions, free-running", {"": result.actions}, limit),
    ]
    if len(result.drift) > _DRIFT_FROM + _DRIFT_LAST:
        checks.append(_drift_check(name, result.drift, floor=limit / 10))
    checks.append(
        Check(
            rung=name,
            what="other noise gives other actions",
            max_abs=result.noise_effect,
            tolerance=None,
            worst="the change must exceed the error above",
            ok=bool(result.noise_effect > result.actions.max_abs),
        )
    )
    return checks


def rung_data(result: RungResult) -> dict[str, Any]:
    """Return one rung's figures."""
    return {
        "rung": result.name,
        "precision": result.precision,
        "graphs": {
            graph: {
                **asdict(_worst(tensors)[1]),
                "worst_tensor": _worst(tensors)[0],
                "tensors": {name: asdict(one) for name, one in tensors.items()},
            }
            for graph, tensors in result.graphs.items()
        },
        "latents": asdict(result.latents),
        "actions": {**asdict(result.actions), "per_joint": result.per_joint},
        "drift": [{"frame": frame, "max_abs": value} for frame, value in enumerate(result.drift)],
        "memory": {name: asdict(one) for name, one in result.memory.items()},
        "noise_effect": result.noise_effect,
    }


def coverage(manifest: Manifest, num_frames: int) -> dict[str, int]:
    """Return how often the episode of a ladder came past what breaks memories."""
    contract = manifest.contract
    if contract.conventions.vae_history == "single_frame":
        return {"evictions": 0, "ring_wraps": 0, "gist_bucket_changes": 0}
    in_ring = max(num_frames - contract.memory.num_anchors, 0)
    buckets = manifest.memory.gist_buckets[:-1] if contract.memory.num_gists else ()
    return {
        "evictions": max(in_ring - contract.num_ring_slots, 0),
        "ring_wraps": max(in_ring - 1, 0) // contract.num_ring_slots,
        "gist_bucket_changes": sum(size < num_frames for size in buckets),
    }


def _drift_check(rung: str, drift: Sequence[float], floor: float) -> Check:
    """Compare the error of the last frames with that up to frame 10.

    The floor, a tenth of the tolerance, keeps errors that mean nothing from being compared.
    """
    early, late = max(drift[: _DRIFT_FROM + 1]), max(drift[-_DRIFT_LAST:])
    limit = 2 * early + floor
    return Check(
        rung=rung,
        what="drift",
        max_abs=late,
        tolerance=limit,
        worst=f"last {_DRIFT_LAST} frames; up to frame {_DRIFT_FROM}: {early:.2g}",
        ok=late <= limit,
    )


def _worst(tensors: Mapping[str, Difference]) -> tuple[str, Difference]:
    """Return the tensor with the largest error."""
    return max(tensors.items(), key=lambda item: item[1].max_abs)
