"""Chunk error: what quantization does to the actions, joint by joint, in the robot's units."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memorywam_calibration.episodes.episodes import Episode
from memorywam_calibration.episodes.held_out import instruct, session_frames
from memorywam_export.episodes.drift import remember
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.session import Session

__all__ = ["ChunkErrors", "JointError", "chunk_errors", "errors_from_chunks"]

_OPEN = 0.5
"""Of a gripper's fraction: above it is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JointError:
    """How far one joint's actions are off, in its unit."""

    joint: int
    name: str
    unit: str
    rms: float
    p95: float
    p99: float
    max: float
    spread: float
    """Root mean square between two chunks of the float bundle that start from other noise."""
    flips: float | None
    """Of a gripper: share of the actions that are open by one and closed by the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkErrors:
    """How far chunks are off over held-out episodes, each memory its own."""

    num_chunks: int
    cosine_median: float
    """Between normalized chunks."""
    cosine_p5: float
    p95: float
    """Of the absolute differences, normalized."""
    max: float
    joint_p99: float
    """Of the same, of the joint where 99 % reach furthest: the tail that a mean hides."""
    joints: tuple[JointError, ...]


def chunk_errors(
    wide: Session,
    narrow: Session,
    episodes: Sequence[Episode],
    *,
    instruction: str | None = None,
    cameras: Mapping[str, str] | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda doing: None,
) -> ChunkErrors:
    """Play held-out episodes through both, from reset to end, and compare every chunk.

    Args:
        wide: The bundle as exported.
        narrow: The quantized bundle.
        episodes: Held out.
        instruction: Another one than was recorded.
        cameras: The contract's camera to the recording's name for it, where they differ.
        seed: Of the noise, which is the same for both.
        tell: Called with what is at work.

    Raises:
        InputError: recordings that do not fit.
    """
    manifest = wide.manifest
    wanted: list[NDArray[np.float64]] = []
    found: list[NDArray[np.float64]] = []
    others: list[NDArray[np.float64]] = []
    for number, episode in enumerate(episodes, start=1):
        tell(f"compares chunks of {episode.name}, {number} of {len(episodes)} episodes")
        for session in (wide, narrow):
            instruct(session, instruction or episode.recording.header.instruction)
        before = None
        for frame in session_frames(episode, manifest, seed, cameras):
            remember(wide, frame, before)
            remember(narrow, frame, before)
            for noise, other in zip(frame.noise, np.roll(frame.noise, 1, axis=0), strict=True):
                wanted.append(wide.denoise(noise).astype(np.float64))
                found.append(narrow.denoise(noise).astype(np.float64))
                if len(wanted) % len(frame.noise) == 1:
                    others.append(wide.denoise(other).astype(np.float64) - wanted[-1])
            before = frame
    return errors_from_chunks(np.stack(wanted), np.stack(found), np.stack(others), manifest)


def errors_from_chunks(
    wanted: NDArray[np.float64],
    found: NDArray[np.float64],
    others: NDArray[np.float64],
    manifest: Manifest,
) -> ChunkErrors:
    """Return the figures of normalized chunks [chunks, horizon, action_dim].

    Args:
        wanted: Of the float bundle.
        found: Of the quantized one, each from the same noise.
        others: What chunks of the float bundle change by when they start from other noise; there
            may be fewer.
        manifest: Whose statistics and units count.
    """
    off = np.abs(found - wanted)
    flat_wanted, flat_found = (each.reshape(len(each), -1) for each in (wanted, found))
    norms = np.linalg.norm(flat_wanted, axis=1) * np.linalg.norm(flat_found, axis=1)
    cosines = (flat_wanted * flat_found).sum(axis=1) / np.maximum(norms, 1e-12)
    return ChunkErrors(
        num_chunks=len(wanted),
        cosine_median=float(np.median(cosines)),
        cosine_p5=float(np.percentile(cosines, 5)),
        p95=float(np.percentile(off, 95)),
        max=float(off.max()),
        joint_p99=float(np.percentile(off, 99, axis=(0, 1)).max()),
        joints=_joints(wanted, found, others, manifest),
    )


def _joints(
    wanted: NDArray[np.float64],
    found: NDArray[np.float64],
    others: NDArray[np.float64],
    manifest: Manifest,
) -> tuple[JointError, ...]:
    """Return the figures of each joint in its unit."""
    affine, actions = manifest.normalization.action, manifest.contract.actions
    raw_wanted, raw_found = affine.raw(wanted), affine.raw(found)
    zero = affine.raw(np.zeros_like(others))
    raw_others = affine.raw(others) - zero
    off = np.abs(raw_found - raw_wanted).reshape(-1, actions.action_dim)
    names = actions.names or tuple(f"joint_{joint}" for joint in range(actions.action_dim))
    units = actions.units or ("rad",) * actions.action_dim
    joints = []
    for joint, unit in enumerate(units):
        errors = off[:, joint]
        flips = None
        if unit == "fraction":
            is_open = (raw_wanted[..., joint] > _OPEN) != (raw_found[..., joint] > _OPEN)
            flips = float(is_open.mean())
        joints.append(
            JointError(
                joint=joint,
                name=names[joint],
                unit=unit,
                rms=float(np.sqrt((errors**2).mean())),
                p95=float(np.percentile(errors, 95)),
                p99=float(np.percentile(errors, 99)),
                max=float(errors.max()),
                spread=float(np.sqrt((raw_others[..., joint] ** 2).mean())),
                flips=flips,
            )
        )
    return tuple(joints)
