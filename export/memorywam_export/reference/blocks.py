"""One transformer block, video and action alike (FastWAM, `wan_video_dit.py`, `DiTBlock`)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from memorywam_export.reference.attention import CrossAttention, SelfAttention

__all__ = ["Attend", "Block", "first_weight", "text_stem", "time_stem"]

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(q, k, v), each [B, H, n, D], to [B, n, H * D]: the caller decides what else is attended."""

_EPS = 1e-6


class Block(nn.Module):
    """Modulated self-attention, cross-attention to text, modulated feed-forward.

    The caller passes `attend`, so that one block serves the whole masked sequence, the slot
    memory and the exported graphs.
    """

    def __init__(self, hidden: int, ffn: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(hidden, num_heads, head_dim)
        self.cross_attn = CrossAttention(hidden, num_heads, head_dim)
        self.norm3 = nn.LayerNorm(hidden, eps=_EPS)
        self.ffn = nn.Sequential(
            nn.Linear(hidden, ffn), nn.GELU(approximate="tanh"), nn.Linear(ffn, hidden)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, hidden) / hidden**0.5)

    def forward(
        self,
        x: torch.Tensor,
        e: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor],
        attend: Attend,
        cross: Callable[[CrossAttention, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return the tokens after this block.

        Args:
            x: Tokens [B, n, hidden], in the type of the residual stream.
            e: Timestep modulation [B, 1 or n, 6, hidden].
            tables: RoPE cosines and sines [n, D / 2].
            attend: Self-attention over whatever the caller keeps.
            cross: Applies the cross-attention of this block to normalized tokens.
        """
        parts = self.modulation.to(e.dtype) + e
        shift1, scale1, gate1, shift2, scale2, gate2 = parts.unbind(dim=-2)
        q, k, v = self.project(x, shift1, scale1, tables)
        x = x + gate1 * self.self_attn.o(attend(q, k, v)).to(x.dtype)
        # LayerNorm in the residual's type; the linear maps that follow in the weights' type.
        affine = F.layer_norm(
            x, x.shape[-1:], self.norm3.weight.to(x.dtype), self.norm3.bias.to(x.dtype), _EPS
        )
        x = x + cross(self.cross_attn, affine.to(k.dtype)).to(x.dtype)
        y = _modulated(x, shift2, scale2).to(k.dtype)
        return x + gate2 * self.ffn(y).to(x.dtype)  # type: ignore[no-any-return]

    def project(
        self,
        x: torch.Tensor,
        shift: torch.Tensor,
        scale: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return q, k, v [B, H, n, D] of modulated tokens."""
        y = _modulated(x, shift, scale).to(self.self_attn.q.weight.dtype)
        return self.self_attn.project(y, *tables)

    def keys_values(
        self, x: torch.Tensor, e: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return only k and v [B, H, n, D]: all that the last video layer is needed for."""
        parts = self.modulation.to(e.dtype) + e
        _, k, v = self.project(x, parts[..., 0, :], parts[..., 1, :], tables)
        return k, v


def text_stem(text_dim: int, hidden: int) -> nn.Sequential:
    """Return the map from text embeddings [.., text_dim] to context [.., hidden]."""
    return nn.Sequential(
        nn.Linear(text_dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, hidden)
    )


def time_stem(time_dim: int, hidden: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Return time_embedding (sinusoid to e0) and time_projection (e0 to six modulations)."""
    embedding = nn.Sequential(nn.Linear(time_dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
    return embedding, nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))


def first_weight(stem: nn.Sequential) -> torch.Tensor:
    """Return the weight of a stem's first map; it tells type and device."""
    first = stem[0]
    assert isinstance(first, nn.Linear)
    return first.weight


def _modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return LayerNorm without affine, then scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift
