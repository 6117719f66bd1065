"""Train the demo's causal encoder: latents must tell what the pictures showed."""

import numpy as np
import torch
from torch import nn

from memorywam_export.reference.vae import CausalEncoder
from memorywam_runtime.contract import InferenceContract

__all__ = ["encode_all", "train_encoder"]


class PatchDecoder(nn.Module):
    """A two-layer reading of each latent cell back to the pixels that it stands for."""

    def __init__(self, channels: int, num_values: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, 128), nn.GELU(), nn.Linear(128, num_values))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return [B, n, rows, columns, values] of latents [B, C, n, rows, columns]."""
        found: torch.Tensor = self.layers(latents.movedim(1, -1))
        return found


def train_encoder(
    contract: InferenceContract,
    images: np.ndarray,
    *,
    num_steps: int,
    batch: int,
    seed: int,
) -> CausalEncoder:
    """Return an encoder fitted to reconstruct every fourth-frame group from its latent.

    Args:
        contract: Sizes.
        images: Mosaics [episodes, 1 + 4 n, H, W, 3] uint8.
        num_steps: Optimizer steps.
        batch: Clips a step.
        seed: Of weights and of the choice of clips.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder = CausalEncoder(contract.vae)
    factor, per_frame = contract.vae.spatial_factor, contract.images_per_frame
    decoder = PatchDecoder(contract.vae.latent_channels, per_frame * 3 * factor * factor)
    # What never changes is no news: without its removal the background takes 98 % of the latents'
    # variance, and the experts do not see the lamps.
    sample = images[rng.choice(len(images), min(64, len(images)), replace=False)]
    pixels = torch.from_numpy(sample.reshape(-1, *sample.shape[2:])).float() / 127.5 - 1
    std, mean = (value.permute(2, 0, 1)[:, None] for value in torch.std_mean(pixels, dim=0))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    num_groups = 3
    for step in range(num_steps):
        clip = _clips(images, rng, batch, num_groups, per_frame)
        latents = encoder.encode(clip)
        news = (clip - mean) / (std + 0.05)
        # The first latent stands for one image: it is asked for that image four times.
        news = torch.cat((news[:, :, :1].expand(-1, -1, per_frame, -1, -1), news[:, :, 1:]), 2)
        target = _patches(news, per_frame, factor)
        scale = latents.pow(2).mean()
        loss = (decoder(latents) - target).pow(2).mean() + 0.01 * (scale - 1).pow(2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"encoder {step:5d} loss {loss.item():.4f} scale {scale.item():.2f}", flush=True)
    return encoder.eval()


@torch.no_grad()
def encode_all(encoder: CausalEncoder, images: np.ndarray, batch: int = 16) -> torch.Tensor:
    """Return latents [episodes, C, 1 + n, rows, columns] of all mosaics."""
    found = []
    for start in range(0, len(images), batch):
        video = torch.from_numpy(images[start : start + batch]).float() / 127.5 - 1
        found.append(encoder.encode(video.permute(0, 4, 1, 2, 3)))
    return torch.cat(found)


def _clips(
    images: np.ndarray, rng: np.random.Generator, batch: int, num_groups: int, per_frame: int
) -> torch.Tensor:
    """Return random clips [B, 3, 1 + per_frame * num_groups, H, W] in [-1, 1]."""
    rows = rng.integers(len(images), size=batch)
    starts = per_frame * rng.integers(
        (images.shape[1] - 1) // per_frame - num_groups + 1, size=batch
    )
    length = 1 + per_frame * num_groups
    clips = np.stack([images[r, s : s + length] for r, s in zip(rows, starts, strict=True)])
    return torch.from_numpy(clips).float().permute(0, 4, 1, 2, 3) / 127.5 - 1


def _patches(video: torch.Tensor, per_frame: int, factor: int) -> torch.Tensor:
    """Return [B, n, rows, columns, per_frame * 3 * factor^2] of video [B, 3, per_frame n, H, W]."""
    groups = video.unflatten(2, (-1, per_frame)).unflatten(-1, (-1, factor))
    groups = groups.unflatten(-3, (-1, factor))  # [B, 3, n, t, rows, f, columns, f]
    patches: torch.Tensor = groups.permute(0, 2, 4, 6, 3, 1, 5, 7).flatten(4)
    return patches
