"""The action expert: noisy actions and a timestep to velocities, over a memory of keys."""

import torch
from torch import nn

from memorywam_export.reference.blocks import Block, first_weight, text_stem, time_stem
from memorywam_export.reference.schedule import time_sinusoid
from memorywam_export.reference.video import residual_dtype
from memorywam_runtime.contract import InferenceContract

__all__ = ["ActionExpert"]


class ActionExpert(nn.Module):
    """A narrow transformer with the video expert's depth and attention width."""

    def __init__(self, contract: InferenceContract) -> None:
        super().__init__()
        hidden = contract.action.hidden
        self.contract = contract
        self.action_encoder = nn.Linear(contract.actions.action_dim, hidden)
        self.text_embedding = text_stem(contract.text_dim, hidden)
        self.time_embedding, self.time_projection = time_stem(contract.time_dim, hidden)
        self.blocks = nn.ModuleList(
            Block(hidden, contract.action.ffn, contract.num_heads, contract.head_dim)
            for _ in range(contract.num_layers)
        )
        self.head = nn.Linear(hidden, contract.actions.action_dim)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Return tokens [B, n, hidden] of normalized noisy actions [B, n, action_dim]."""
        weight = self.action_encoder.weight
        tokens = self.action_encoder(x.to(weight.dtype))
        return tokens.to(residual_dtype(self.contract, weight.dtype))  # type: ignore[no-any-return]

    def modulation(self, timestep: torch.Tensor) -> torch.Tensor:
        """Return e [..., 6, hidden] of timesteps [...] in 0 .. 1000."""
        weight = first_weight(self.time_embedding)
        e0 = self.time_embedding(time_sinusoid(timestep, self.contract.time_dim).to(weight.dtype))
        e = self.time_projection(e0).unflatten(-1, (6, -1))
        return e.to(residual_dtype(self.contract, weight.dtype))  # type: ignore[no-any-return]

    def velocity(self, x: torch.Tensor) -> torch.Tensor:
        """Return the velocity [B, n, action_dim] of final tokens; no norm, no modulation."""
        return self.head(x.to(self.head.weight.dtype))  # type: ignore[no-any-return]
