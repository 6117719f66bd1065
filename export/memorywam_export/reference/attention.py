"""Attention with an explicit key bias, and the projections around it."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from memorywam_export.reference.rope import rotate

__all__ = ["CrossAttention", "RmsNorm", "SelfAttention", "attend"]


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(D) + bias) v, heads side by side.

    Args:
        q: Queries [B, H, n, D].
        k: Keys [B, H, S, D].
        v: Values [B, H, S, D].
        bias: Added to the scores, broadcastable to [B, H, n, S]: 0 or very negative; or None.

    Returns:
        [B, n, H * D].
    """
    mask = None if bias is None else bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class RmsNorm(nn.Module):
    """Root-mean-square norm over all heads jointly: float32 inside, cast, then the weight."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize x [..., width]; the type stays."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


class _Projections(nn.Module):
    """The four linear maps and two norms that both kinds of attention have."""

    def __init__(self, hidden: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.num_heads = num_heads
        self.q = nn.Linear(hidden, width)
        self.k = nn.Linear(hidden, width)
        self.v = nn.Linear(hidden, width)
        self.o = nn.Linear(width, hidden)
        self.norm_q = RmsNorm(width)
        self.norm_k = RmsNorm(width)

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """Return normalized queries [B, H, n, D] of x [B, n, hidden]."""
        return self._heads(self.norm_q(self.q(x)))

    def keys(self, x: torch.Tensor) -> torch.Tensor:
        """Return normalized keys [B, H, n, D] of x [B, n, hidden]."""
        return self._heads(self.norm_k(self.k(x)))

    def values(self, x: torch.Tensor) -> torch.Tensor:
        """Return raw values [B, H, n, D] of x [B, n, hidden]."""
        return self._heads(self.v(x))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """Split [B, n, H * D] into [B, H, n, D]."""
        heads: torch.Tensor = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads


class SelfAttention(_Projections):
    """Queries, keys and values of one expert's tokens, rotated to their positions."""

    def project(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return q, k (rotated) and v (raw), each [B, H, n, D]; this k and v are what is kept."""
        return rotate(self.queries(x), cos, sin), rotate(self.keys(x), cos, sin), self.values(x)


class CrossAttention(_Projections):
    """Attention to the prompt: no positions, no gate."""

    def forward(
        self,
        x: torch.Tensor,
        text_k: torch.Tensor,
        text_v: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from x [B, n, hidden] to text keys and values [B, H, T, D]."""
        return self.o(attend(self.queries(x), text_k, text_v, bias))  # type: ignore[no-any-return]
