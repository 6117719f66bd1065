"""What may differ by how much between a bundle and its checkpoint, judged check by check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memorywam_export.parity.diagnosis import diagnosis
from memorywam_export.parity.tolerances import NOISE_FACTOR, SPREAD_SHARE, TOLERANCES
from memorywam_export.parity.trace_report import Difference, RungResult
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.normalization import Normalization

__all__ = ["Check", "Noise", "coverage", "judged", "noise_of", "rung_checks", "rung_data"]

Noise = dict[str, float]
"""latents, memory, actions to a relative RMS."""

_DRIFT_FROM = 10
"""Frames up to this one say how large the error is at the start."""
_DRIFT_LAST = 5
"""So many frames say how large it is at the end."""


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


def rung_checks(result: RungResult, noise: Noise | None = None) -> list[Check]:
    """Return the checks of one rung.

    Args:
        result: Of the rung.
        noise: What the reference is off by in the rung's type; None leaves these checks out.
    """
    name, limit = result.name, TOLERANCES[result.precision].max_abs
    checks = [
        judged(name, f"graph {graph}", tensors, limit) for graph, tensors in result.graphs.items()
    ]
    checks += [
        judged(name, "latents, free-running", {"": result.latents}, limit),
        judged(name, "memory after the last frame", result.memory, limit),
        judged(name, "actions, free-running", {"": result.actions}, limit),
    ]
    drift = [float(error) for error in result.by_frame.actions]
    if len(drift) > _DRIFT_FROM + _DRIFT_LAST:
        checks.append(_drift_check(name, drift, floor=limit / 10))
    if noise is not None:
        checks += _noise_checks(result, noise)
    return checks + _effect_checks(result, limit)


def noise_of(result: RungResult) -> Noise:
    """Return what the reference in one type is off by: relative RMS of each thing compared."""
    return {
        "latents": result.latents.rel_rms,
        "memory": max(one.rel_rms for one in result.memory.values()),
        "actions": result.actions.rel_rms,
    }


def _joints(
    result: RungResult, contract: InferenceContract, normalization: Normalization
) -> list[dict[str, Any]]:
    """Return the largest error of each joint, in its unit and normalized."""
    actions = contract.actions
    count = actions.action_dim
    names = actions.names or tuple(f"joint_{joint}" for joint in range(count))
    units = actions.units or ("rad",) * count
    return [
        {"name": name, "unit": unit, "error": error / abs(scale), "normalized": error}
        for name, unit, error, scale in zip(
            names, units, result.per_joint, normalization.action.scale, strict=True
        )
    ]


def _noise_checks(result: RungResult, noise: Noise) -> list[Check]:
    """Compare errors with the noise of the type, by root mean square."""
    found = noise_of(result)
    return [
        Check(
            rung=result.name,
            what=f"{part} within the noise of {result.precision}",
            max_abs=found[part],
            tolerance=NOISE_FACTOR * noise[part],
            worst=f"relative RMS; the reference in {result.precision}: {noise[part]:.2g}",
            ok=found[part] <= NOISE_FACTOR * noise[part],
        )
        for part in noise
    ]


def _effect_checks(result: RungResult, limit: float) -> list[Check]:
    """Compare what other noise changes, and what the same call changes, with the error."""
    checks = []
    error = result.actions.max_abs
    if result.noise_effect is not None:
        largest = SPREAD_SHARE * result.noise_effect
        checks.append(
            Check(
                rung=result.name,
                what="other noise gives other actions",
                max_abs=error,
                tolerance=largest,
                worst=f"error of actions; other noise changes them by {result.noise_effect:.2g}",
                ok=error <= largest,
            )
        )
    if result.repeat_effect is not None:
        checks.append(
            Check(
                rung=result.name,
                what="the same call twice",
                max_abs=result.repeat_effect,
                tolerance=limit / 10,
                worst="change of actions",
                ok=result.repeat_effect <= limit / 10,
            )
        )
    return checks


def rung_data(
    result: RungResult, contract: InferenceContract, normalization: Normalization
) -> dict[str, Any]:
    """Return one rung's figures.

    Args:
        result: Of the rung.
        contract: Names and units of the joints, kinds of tokens.
        normalization: What brings errors of actions back to the joints' units.
    """
    errors = result.by_frame
    limit = TOLERANCES[result.precision].max_abs
    return {
        "rung": result.name,
        "precision": result.precision,
        "graphs": {
            graph: {
                **_worst(tensors)[1].figures,
                "worst_tensor": _worst(tensors)[0],
                "tensors": {name: one.figures for name, one in tensors.items()},
            }
            for graph, tensors in result.graphs.items()
        },
        "latents": result.latents.figures,
        "actions": {**result.actions.figures, "joints": _joints(result, contract, normalization)},
        "by_frame": [
            {
                "frame": frame,
                "max_abs": float(errors.actions[frame]),
                "latents": float(errors.latents[frame]),
                "memory": float(max(one[frame].max() for one in errors.memory.values())),
            }
            for frame in range(len(errors.actions))
        ],
        "memory": {name: one.figures for name, one in result.memory.items()},
        "noise_effect": result.noise_effect,
        "repeat_effect": result.repeat_effect,
        "diagnosis": diagnosis(errors, contract, limit),
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
