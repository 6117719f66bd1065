"""Train the demo's experts and gist bank on latents of expert episodes, by flow matching."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from memorywam_export.reference import oracle
from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.oracle import Episode, episode_velocities
from memorywam_export.reference.rope import action_angles, tables_from_angles
from memorywam_export.reference.schedule import sigmas
from memorywam_runtime.memory import Visible

__all__ = ["Batches", "open_loop_accuracy", "train_policy"]

STATE_NOISE = 0.02
"""Standard deviation added to normalized states, so that small errors of the arm do not grow."""
LATENT_NOISE = 0.15
"""Largest share of noise mixed into clean latents (the paper's conditioning noise, reduced)."""
CHUNK_WEIGHTS = (1.0, 0.5, 0.2)
"""Of the press, the return, and one chunk of waiting: the three that each episode is asked for."""
CURRICULUM = 0.6
"""Share of the steps in which waiting is cut short, so that the lamp's meaning is learned first.
Its effect was not measured apart from the other choices here."""
SIGMA_SHIFT = 3.0
"""Noisier than the paper's timesteps: only from noise must memory tell which button; a chunk that
is half clean shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Padded episodes as tensors."""

    latents: torch.Tensor
    """[N, C, T, rows, columns]."""
    states: torch.Tensor
    """[N, T, 14], normalized."""
    chunks: torch.Tensor
    """[N, T, 16, 14], normalized."""
    contexts: torch.Tensor
    """[tasks, text_len, text_dim]."""
    task: torch.Tensor
    target: torch.Tensor
    go: torch.Tensor
    cue_end: torch.Tensor
    """Last frame in which the cue is lit."""
    length: torch.Tensor

    def at(self, rows: torch.Tensor) -> "Batches":
        """Return these episodes."""
        named = {name: getattr(self, name)[rows] for name in self.__slots__ if name != "contexts"}
        return Batches(contexts=self.contexts, **named)


def train_policy(
    model: MemoryWam,
    batches: Batches,
    held_out: Batches,
    *,
    num_steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> Iterator[tuple[int, MemoryWam]]:
    """Train all but the encoder; yield (step, averaged model) now and then and at the end.

    Args:
        model: Trained in place.
        batches: Training episodes.
        held_out: Episodes that only measure.
        num_steps: Optimizer steps, at most.
        batch: Episodes a step.
        learning_rate: Peak of the one-cycle schedule.
        seed: Of batches, noise and timesteps.
    """
    torch.manual_seed(seed)
    open_gates(model)
    model.vae.requires_grad_(requires_grad=False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=num_steps, pct_start=0.05
    )
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    mean_loss = 0.0
    for step in range(1, num_steps + 1):
        rows = torch.randint(len(batches.task), (batch,))
        wait = 1.0 if step > CURRICULUM * num_steps else float(torch.rand(()))
        loss = _loss(model, shortened(batches.at(rows), wait * step / (CURRICULUM * num_steps)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        mean_loss = loss.item() if step == 1 else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 250 == 0 or step == num_steps:
            smooth = averaged.module
            assert isinstance(smooth, MemoryWam)
            accuracy = open_loop_accuracy(smooth, held_out)
            print(f"policy {step:5d} loss {mean_loss:.4f} {accuracy}", flush=True)
            yield step, smooth


def shortened(episodes: Batches, wait: float) -> Batches:
    """Cut a share of the dark frames between the cue and the go lamp out of each episode.

    The arms rest and nothing changes in those frames, so what remains is an episode that could
    have happened, with a shorter wait.

    Args:
        episodes: A batch.
        wait: Share of the dark frames that stay, 0 to 1; 1 or more changes nothing.
    """
    if wait >= 1:
        return episodes
    dark = episodes.go - episodes.cue_end - 1
    drop = ((1 - wait) * dark).round().long()
    length = int((episodes.length - drop).max())
    place = torch.arange(length)[None]
    jump = torch.where(place > episodes.cue_end[:, None], drop[:, None], 0)
    frames = torch.minimum(place + jump, episodes.length[:, None] - 1)
    row = torch.arange(len(frames))[:, None]
    return dataclasses.replace(
        episodes,
        latents=episodes.latents.transpose(1, 2)[row, frames].transpose(1, 2),
        states=episodes.states[row, frames],
        chunks=episodes.chunks[row, frames],
        go=episodes.go - drop,
        length=episodes.length - drop,
        cue_end=episodes.cue_end,
    )


@torch.no_grad()
def open_gates(model: MemoryWam) -> None:
    """Start every block as a plain pre-norm transformer: no shift, no scale, gates at one.

    Wan's own initial gates are near zero, for weights that are trained already. The effect was
    not measured apart from the other choices here.
    """
    for expert in (model.video, model.action):
        for block in expert.blocks:
            modulation = block.modulation
            assert isinstance(modulation, torch.Tensor)
            modulation.zero_()
            modulation[:, 2::3] = 1.0


def _loss(model: MemoryWam, episodes: Batches) -> torch.Tensor:
    """Return the weighted flow-matching loss of one batch."""
    row = torch.arange(len(episodes.task))[:, None]
    waiting = (torch.rand(len(row)) * episodes.go).long()
    frames = torch.stack((episodes.go, episodes.go + 1, waiting), dim=1)  # [B, 3]
    chunks = episodes.chunks[row, frames]
    noise = torch.randn_like(chunks)
    u = torch.sigmoid(torch.randn(frames.shape))
    sigma = (SIGMA_SHIFT * u / (1 + (SIGMA_SHIFT - 1) * u))[..., None, None]
    share = LATENT_NOISE * torch.rand(len(row), 1, episodes.latents.shape[2], 1, 1)
    latents = (1 - share) * episodes.latents + share * torch.randn_like(episodes.latents)
    states = episodes.states[row, frames]
    velocity = chunk_velocities(
        model,
        latents,
        episodes.contexts[episodes.task],
        states + STATE_NOISE * torch.randn_like(states),
        frames,
        (1 - sigma) * chunks + sigma * noise,
        1000 * sigma[..., 0, 0].double(),
    )
    error = (velocity - (noise - chunks)).pow(2).mean(dim=(0, 2, 3))
    return (error * torch.tensor(CHUNK_WEIGHTS)).sum() / sum(CHUNK_WEIGHTS)


def chunk_velocities(
    model: MemoryWam,
    latents: torch.Tensor,
    context: torch.Tensor,
    states: torch.Tensor,
    frames: torch.Tensor,
    noisy_actions: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """Return velocities [B, K, horizon, 14] of a few chunks of each episode.

    The oracle computes every chunk of an episode; training needs three of sixteen, which makes
    it twice as fast. A test compares the two.

    Args:
        model: The model.
        latents: [B, C, T, rows, columns].
        context: [B, text_len, text_dim].
        states: [B, K, 14], normalized, when each chunk is asked for.
        frames: [B, K]: the frame that each chunk follows.
        noisy_actions: [B, K, horizon, 14].
        timesteps: [B, K] in 0 .. 1000, float64.
    """
    contract, num_frames = model.contract, latents.shape[2]
    batch, count, horizon, _ = noisy_actions.shape
    episode = Episode(
        latents=latents, states=states, context=context, noisy_actions=noisy_actions,
        timesteps=timesteps,
    )  # fmt: skip
    video = oracle._video_keys_values(model, episode, Visible())
    angles = torch.stack([action_angles(contract, frame) for frame in range(num_frames)])
    tables = tables_from_angles(angles[frames].flatten(1, 2)[:, None], noisy_actions.dtype)
    num_keys = num_frames * contract.num_frame_tokens
    seen = oracle._action_mask(contract, num_frames, Visible())[::horizon, :num_keys][frames]
    own = torch.eye(count, dtype=torch.bool).repeat_interleave(horizon, 1).expand(batch, -1, -1)
    mask = torch.cat((seen, own), dim=2).repeat_interleave(horizon, dim=1)
    x = model.action.tokens(noisy_actions.flatten(1, 2))
    e = model.action.modulation(timesteps.repeat_interleave(horizon, dim=1))
    bias = torch.zeros(mask.shape, dtype=x.dtype).masked_fill(~mask, float("-inf"))[:, None]
    cross = oracle._cross(model, episode, of_video=False, tokens_per_frame=horizon)
    x = oracle.through_action_blocks(model, x, e, tables, bias, video, cross)
    found: torch.Tensor = model.action.velocity(x).unflatten(1, (count, horizon))
    return found


@torch.no_grad()
def open_loop_accuracy(
    model: MemoryWam, episodes: Batches, visible: Visible | None = None, num_steps: int = 6
) -> dict[int, float]:
    """Return per task the share of go chunks that end nearest to the right button's mean chunk."""
    path = sigmas(num_steps, 1.0).float()
    x = torch.randn(episodes.chunks.shape, generator=torch.Generator().manual_seed(0))
    for i in range(num_steps):
        timesteps = torch.full(x.shape[:2], 1000 * float(path[i]), dtype=torch.float64)
        velocity = episode_velocities(
            model,
            Episode(
                latents=episodes.latents,
                states=episodes.states,
                context=episodes.contexts[episodes.task],
                noisy_actions=x,
                timesteps=timesteps,
            ),
            visible,
        )
        x = x + velocity * (path[i + 1] - path[i])
    row = torch.arange(len(x))
    made, wanted = x[row, episodes.go], episodes.chunks[row, episodes.go]
    means = torch.stack([wanted[episodes.target == k].mean(0) for k in range(3)])
    nearest = (made[:, None] - means[None]).pow(2).mean(dim=(2, 3)).argmin(1)
    right = (nearest == episodes.target).float()
    return {
        int(task): round(float(right[episodes.task == task].mean()), 3)
        for task in np.unique(episodes.task)
    }
