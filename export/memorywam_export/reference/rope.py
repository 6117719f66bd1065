"""Rotary positions of frames, gist tokens and actions as tables of cosines and sines.

Angles are computed, never looked up, so that fractional, negative and very late positions are as
exact as any other. Pairs are interleaved (2i, 2i + 1) as in Wan2.2; each axis has its own range
of frequencies (FastWAM, `wan_video_dit.py`, `precompute_freqs_cis_3d`).
"""

import torch

from memorywam_runtime.contract import InferenceContract

__all__ = ["action_angles", "frame_angles", "rotate", "tables_from_angles"]


def frame_angles(contract: InferenceContract, frame: int) -> torch.Tensor:
    """Return the angles [L + M, head_dim / 2] (float64, radians) of one frame's tokens."""
    rows, columns = contract.grid_shape
    time = float(_frame_position(contract, frame))
    visual = torch.cartesian_prod(
        torch.tensor([time], dtype=torch.float64),
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
    ).reshape(-1, 3)
    marker = torch.tensor([[time, *contract.conventions.gist_hw_marker]], dtype=torch.float64)
    positions = torch.cat([visual, marker.expand(contract.memory.num_gists, 3)])
    return _angles(positions, contract.rope_pairs, contract.rope_theta)


def action_angles(contract: InferenceContract, frame: int) -> torch.Tensor:
    """Return the angles [horizon, head_dim / 2] (float64, radians) of the chunk after a frame."""
    horizon = contract.actions.horizon
    time = float(_frame_position(contract, frame))
    steps = torch.arange(horizon, dtype=torch.float64)
    match contract.conventions.action_position:
        case "sequence":  # FastWAM: 1-D over the whole head
            return _angles(steps[:, None], (contract.head_dim // 2,), contract.rope_theta)
        case "row_below":  # one row under the picture, with a gap
            row = float(contract.grid_shape[0] + 1)
            axes = (torch.full_like(steps, time), torch.full_like(steps, row), steps)
        case "fraction":  # LingBot-VA: between this frame and the next
            axes = (
                time + (steps + 1) / (horizon + 1),
                torch.full_like(steps, -1.0),
                torch.full_like(steps, -1.0),
            )
    return _angles(torch.stack(axes, dim=1), contract.rope_pairs, contract.rope_theta)


def tables_from_angles(
    angles: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [.., pairs], at least float32: lower types lose positions."""
    table = torch.promote_types(dtype, torch.float32)
    return angles.cos().to(table), angles.sin().to(table)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the interleaved pairs of x [B, H, S, D] by tables [S, D / 2]; the type stays."""
    pairs = x.to(cos.dtype).unflatten(-1, (-1, 2))  # [B, H, S, D / 2, 2]
    even, odd = pairs[..., 0], pairs[..., 1]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _frame_position(contract: InferenceContract, frame: int) -> int:
    """Return the temporal index: the frame's own, or 0 where each observation stands alone."""
    return 0 if contract.conventions.vae_history == "single_frame" else frame


def _angles(positions: torch.Tensor, pairs: tuple[int, ...], theta: float) -> torch.Tensor:
    """Return positions [n, axes] times each axis' frequencies, side by side [n, sum(pairs)]."""
    columns = [
        positions[:, axis : axis + 1]
        * theta ** -(torch.arange(count, dtype=torch.float64) / max(count, 1))
        for axis, count in enumerate(pairs)
    ]
    return torch.cat(columns, dim=1)
