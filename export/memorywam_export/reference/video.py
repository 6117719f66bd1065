"""The video expert: a latent frame and its gist tokens to keys and values."""

import torch
from torch import nn

from memorywam_export.reference.blocks import Block, first_weight, text_stem, time_stem
from memorywam_export.reference.schedule import time_sinusoid
from memorywam_runtime.contract import InferenceContract

__all__ = ["VideoExpert", "residual_dtype"]


def residual_dtype(contract: InferenceContract, weights: torch.dtype) -> torch.dtype:
    """Return the type of residual stream and modulation: the weights', or at least float32."""
    if contract.conventions.modulation_dtype == "model":
        return weights
    return torch.promote_types(weights, torch.float32)


class VideoExpert(nn.Module):
    """Wan2.2's video transformer without its output head, which inference never uses."""

    def __init__(self, contract: InferenceContract) -> None:
        super().__init__()
        hidden = contract.video.hidden
        self.contract = contract
        patch = (1, *contract.patch)
        self.patch_embedding = nn.Conv3d(contract.vae.latent_channels, hidden, patch, patch)
        self.text_embedding = text_stem(contract.text_dim, hidden)
        self.time_embedding, self.time_projection = time_stem(contract.time_dim, hidden)
        self.blocks = nn.ModuleList(
            Block(hidden, contract.video.ffn, contract.num_heads, contract.head_dim)
            for _ in range(contract.num_layers)
        )

    def tokens(self, latents: torch.Tensor, gist_tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens [B, T * (L + M), hidden], each frame's visual tokens, then its gist.

        Args:
            latents: Clean latent frames [B, C, T, rows, columns].
            gist_tokens: The shared bank [M, hidden].
        """
        visual = self.patch_embedding(latents).flatten(3).permute(0, 2, 3, 1)  # [B, T, L, hidden]
        gist = gist_tokens.to(visual.dtype).expand(*visual.shape[:2], -1, -1)
        tokens = torch.cat((visual, gist), dim=2).flatten(1, 2)
        return tokens.to(residual_dtype(self.contract, visual.dtype))

    def modulation(self, device: torch.device) -> torch.Tensor:
        """Return e [1, 1 or L + M, 6, hidden]: constant, because every frame is clean."""
        conventions = self.contract.conventions
        times = [conventions.clean_timestep]
        if conventions.gist_timestep != conventions.clean_timestep:
            times = [conventions.clean_timestep] * self.contract.num_visual
            times += [conventions.gist_timestep] * self.contract.memory.num_gists
        timestep = torch.tensor([times], dtype=torch.float64, device=device)
        weight = first_weight(self.time_embedding)
        e0 = self.time_embedding(time_sinusoid(timestep, self.contract.time_dim).to(weight.dtype))
        e = self.time_projection(e0).unflatten(-1, (6, -1))
        return e.to(residual_dtype(self.contract, weight.dtype))  # type: ignore[no-any-return]
