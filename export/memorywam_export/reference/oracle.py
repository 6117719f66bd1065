"""A whole episode as one masked sequence: what memory, however kept, must equal."""

from dataclasses import dataclass
from functools import partial

import torch

from memorywam_export.reference.attention import CrossAttention, attend
from memorywam_export.reference.model import KeysValues, MemoryWam
from memorywam_export.reference.rope import action_angles, frame_angles, tables_from_angles
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.memory import Visible

__all__ = ["Episode", "episode_velocities", "through_action_blocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """All that happened in B episodes of T frames."""

    latents: torch.Tensor
    """[B, C, T, rows, columns], clean."""
    states: torch.Tensor
    """[B, T, state_dim], normalized, when each frame was seen."""
    context: torch.Tensor
    """[B, text_len, text_dim]."""
    noisy_actions: torch.Tensor
    """[B, T, horizon, action_dim]: where the velocity of each chunk is asked."""
    timesteps: torch.Tensor
    """[B, T] in 0 .. 1000, float64."""
    executed: torch.Tensor | None = None
    """[B, T, horizon, action_dim], normalized; only with action history."""


def episode_velocities(
    model: MemoryWam, episode: Episode, visible: Visible | None = None
) -> torch.Tensor:
    """Return velocities [B, T, horizon, action_dim] of every chunk at once.

    Video tokens never see actions, so the video expert runs first; each layer's action tokens
    then read the video keys of the same layer (FastWAM, `mot.py`).
    """
    visible = visible or Visible()
    keys_values = _video_keys_values(model, episode, visible)
    return _action_velocities(model, episode, visible, keys_values)


def _video_keys_values(model: MemoryWam, episode: Episode, visible: Visible) -> list[KeysValues]:
    """Return keys and values [B, H, T * (L + M), D] of every layer."""
    contract, num_frames = model.contract, episode.latents.shape[2]
    x = model.video.tokens(episode.latents, model.gist_tokens)
    device, dtype = x.device, model.gist_tokens.dtype
    angles = torch.cat([frame_angles(contract, frame) for frame in range(num_frames)])
    tables = tables_from_angles(angles.to(device), dtype)
    e = model.video.modulation(device)
    if e.shape[1] > 1:
        e = e.repeat(1, num_frames, 1, 1)
    bias = _bias(_video_mask(contract, num_frames, visible), x)
    cross = _cross(model, episode, of_video=True, tokens_per_frame=contract.num_frame_tokens)
    kept = []
    for block, cross_layer in zip(model.video.blocks, cross, strict=True):
        layer: list[KeysValues] = []

        def over_all(
            q: torch.Tensor,
            k: torch.Tensor,
            v: torch.Tensor,
            layer: list[KeysValues] = layer,
        ) -> torch.Tensor:
            layer.append((k, v))
            return attend(q, k, v, bias)

        x = block(x, e, tables, over_all, cross_layer)
        kept += layer
    return kept


def _action_velocities(
    model: MemoryWam, episode: Episode, visible: Visible, video: list[KeysValues]
) -> torch.Tensor:
    """Return velocities of all chunks over the video's keys and, if kept, executed actions."""
    contract = model.contract
    batch, num_frames, horizon, _ = episode.noisy_actions.shape
    has_history = contract.conventions.action_history
    x = model.action.tokens(episode.noisy_actions.flatten(1, 2))
    angles = torch.cat([action_angles(contract, frame) for frame in range(num_frames)])
    timesteps = episode.timesteps.repeat_interleave(horizon, dim=1)
    if has_history:
        if episode.executed is None:
            raise ValueError("this contract keeps executed actions: Episode.executed is needed")
        clean = torch.full_like(timesteps, contract.conventions.clean_timestep)
        x = torch.cat((x, model.action.tokens(episode.executed.flatten(1, 2))), dim=1)
        angles, timesteps = torch.cat((angles, angles)), torch.cat((timesteps, clean), dim=1)
    tables = tables_from_angles(angles.to(x.device), model.gist_tokens.dtype)
    e = model.action.modulation(timesteps)
    bias = _bias(_action_mask(contract, num_frames, visible), x)
    cross = _cross(
        model, episode, of_video=False, tokens_per_frame=horizon, repeats=1 + has_history
    )
    x = through_action_blocks(model, x, e, tables, bias, video, cross)
    velocity = model.action.velocity(x[:, : num_frames * horizon])
    return velocity.reshape(batch, num_frames, horizon, -1)


def through_action_blocks(
    model: MemoryWam,
    x: torch.Tensor,
    e: torch.Tensor,
    tables: tuple[torch.Tensor, torch.Tensor],
    bias: torch.Tensor,
    video: list[KeysValues],
    cross: list[partial[torch.Tensor]],
) -> torch.Tensor:
    """Return action tokens after all blocks; each reads the video's keys of its own layer.

    Args:
        model: Gives the blocks.
        x: Action tokens [B, n, hidden].
        e: Their timestep modulation [B, n, 6, hidden].
        tables: RoPE cosines and sines of the action tokens.
        bias: [B or 1, 1, n, keys] over the video's keys, then the action tokens.
        video: Keys and values [B, H, S, D] per layer.
        cross: Cross-attention per layer.
    """
    for block, (memory_k, memory_v), cross_layer in zip(
        model.action.blocks, video, cross, strict=True
    ):

        def over_memory(
            q: torch.Tensor,
            k: torch.Tensor,
            v: torch.Tensor,
            memory_k: torch.Tensor = memory_k,
            memory_v: torch.Tensor = memory_v,
        ) -> torch.Tensor:
            return attend(q, torch.cat((memory_k, k), 2), torch.cat((memory_v, v), 2), bias)

        x = block(x, e, tables, over_memory, cross_layer)
    return x


def _held(contract: InferenceContract, num_frames: int, visible: Visible) -> torch.Tensor:
    """Return [T, T]: is frame g held in full when frame t has been written?"""
    t = torch.arange(num_frames)[:, None]
    g = torch.arange(num_frames)[None, :]
    reach = contract.num_ring_slots if visible.window else 1
    recent = t - g < reach
    anchor = (g < contract.memory.num_anchors) & visible.anchors
    return (recent | anchor) & (g <= t)


def _video_mask(contract: InferenceContract, num_frames: int, visible: Visible) -> torch.Tensor:
    """Return [T * (L + M), T * (L + M)]: which key each video token sees."""
    frame = torch.arange(num_frames).repeat_interleave(contract.num_frame_tokens)
    is_gist = torch.arange(contract.num_frame_tokens) >= contract.num_visual
    is_gist = is_gist.repeat(num_frames)
    same = frame[:, None] == frame[None, :]
    earlier = frame[None, :] < frame[:, None]
    own_gist = same & (is_gist[:, None] | contract.conventions.visual_sees_own_gist)
    gist = own_gist | (earlier & visible.gists)
    visual = _held(contract, num_frames, visible)[frame][:, frame]
    return torch.where(is_gist[None, :], gist, visual)


def _action_mask(contract: InferenceContract, num_frames: int, visible: Visible) -> torch.Tensor:
    """Return which of [video keys, noisy actions, executed actions] each action token sees."""
    horizon = contract.actions.horizon
    chunk = torch.arange(num_frames).repeat_interleave(horizon)
    frame = torch.arange(num_frames).repeat_interleave(contract.num_frame_tokens)
    is_gist = torch.arange(contract.num_frame_tokens) >= contract.num_visual
    held = _held(contract, num_frames, visible)
    gist = (frame[None, :] <= chunk[:, None]) & visible.gists
    video = torch.where(is_gist.repeat(num_frames)[None, :], gist, held[chunk][:, frame])
    own = chunk[:, None] == chunk[None, :]
    if not contract.conventions.action_history:
        return torch.cat((video, own), dim=1)
    past = held[chunk][:, chunk] & ~own
    nothing = torch.zeros_like(own)
    noisy = torch.cat((video, own, past), dim=1)
    executed = torch.cat((video, nothing, own | past), dim=1)
    return torch.cat((noisy, executed))


def _cross(
    model: MemoryWam,
    episode: Episode,
    *,
    of_video: bool,
    tokens_per_frame: int,
    repeats: int = 1,
) -> list[partial[torch.Tensor]]:
    """Return per layer a cross-attention to the prompt and, where it belongs, the frame's state."""
    contract = model.contract
    expert = 0 if of_video else 1
    text = model.text_keys_values(episode.context)[expert]
    if of_video and not contract.conventions.proprio_in_video_context:
        return [partial(_cross_attend, text_k=k, text_v=v, bias=None) for k, v in text]
    state = model.text_keys_values(model.state_context(episode.states))[expert]
    num_frames = episode.states.shape[1]
    own = torch.eye(num_frames, dtype=torch.bool).repeat_interleave(tokens_per_frame, dim=0)
    seen = torch.ones(own.shape[0], episode.context.shape[1], dtype=torch.bool)
    bias = _bias(torch.cat((seen, own), dim=1).repeat(repeats, 1), text[0][0])
    return [
        partial(
            _cross_attend, text_k=torch.cat((k, sk), 2), text_v=torch.cat((v, sv), 2), bias=bias
        )
        for (k, v), (sk, sv) in zip(text, state, strict=True)
    ]


def _cross_attend(
    attention: CrossAttention,
    x: torch.Tensor,
    text_k: torch.Tensor,
    text_v: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Apply one block's cross-attention to prepared keys and values."""
    return attention(x, text_k, text_v, bias)  # type: ignore[no-any-return]


def _bias(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return 0 where seen and -inf where hidden, [1, 1, n, S]."""
    bias = torch.zeros(mask.shape, dtype=like.dtype).masked_fill(~mask, float("-inf"))
    return bias[None, None].to(like.device)
