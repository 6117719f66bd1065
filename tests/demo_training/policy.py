"""Train the demo's experts and gist bank on latents of expert episodes, by flow matching."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.oracle import Episode, Visible, episode_velocities
from memorywam_export.reference.schedule import sigmas

__all__ = ["Batches", "open_loop_accuracy", "train_policy"]

STATE_NOISE = 0.02
"""Standard deviation added to normalized states, so that small errors of the arm do not grow."""
LATENT_NOISE = 0.15
"""Largest share of noise mixed into clean latents (the paper's conditioning noise, reduced)."""
HOLD_WEIGHT = 0.1
"""Weight of chunks in which the arms only wait."""


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
    length: torch.Tensor

    def weights(self) -> torch.Tensor:
        """Return [N, T]: 1 where the arm must move, little where it waits, 0 past the end."""
        frame = torch.arange(self.states.shape[1])[None]
        moves = (frame >= self.go[:, None]) & (frame <= self.go[:, None] + 1)
        weight = torch.where(moves, 1.0, HOLD_WEIGHT)
        return weight * (frame < self.length[:, None])

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
    seconds: float,
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
        seconds: Not used to stop, only told in the log.
    """
    torch.manual_seed(seed)
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
        loss = _loss(model, batches.at(rows))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        mean_loss = loss.item() if step == 1 else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 200 == 0 or step == num_steps:
            accuracy = open_loop_accuracy(averaged.module, held_out)
            print(f"policy {step:5d} loss {mean_loss:.4f} {accuracy}", flush=True)
            yield step, averaged.module


def _loss(model: MemoryWam, episodes: Batches) -> torch.Tensor:
    """Return the weighted flow-matching loss of one batch."""
    noise = torch.randn_like(episodes.chunks)
    # Logit-normal timesteps (paper, section 4.1); shift 1 for actions.
    sigma = torch.sigmoid(torch.randn(episodes.chunks.shape[:2]))[..., None, None]
    share = LATENT_NOISE * torch.rand(len(episodes.task), 1, episodes.latents.shape[2], 1, 1)
    latents = (1 - share) * episodes.latents + share * torch.randn_like(episodes.latents)
    velocity = episode_velocities(
        model,
        Episode(
            latents=latents,
            states=episodes.states + STATE_NOISE * torch.randn_like(episodes.states),
            context=episodes.contexts[episodes.task],
            noisy_actions=(1 - sigma) * episodes.chunks + sigma * noise,
            timesteps=1000 * sigma[..., 0, 0].double(),
        ),
    )
    error = (velocity - (noise - episodes.chunks)).pow(2).mean(dim=(2, 3))
    weight = episodes.weights()
    return (error * weight).sum() / weight.sum()


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
