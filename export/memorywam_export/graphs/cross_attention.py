"""Cross-attention to the prompt in the graphs, with the bias that stands for its zero rows."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from memorywam_export.reference.attention import CrossAttention, attend

__all__ = ["cross_over", "text_mask"]


def text_mask(
    text_bias: torch.Tensor | None, num_queries: int, *, has_state: bool
) -> torch.Tensor | None:
    """Return what is added to the scores [1, 1, n, T], or T + 1 with the state behind the prompt.

    The query axis is spelt out, because ONNX Runtime's Attention does not broadcast it.

    Args:
        text_bias: [1, 1, 1, T], or None where every zero row of the prompt is a row of its own.
        num_queries: n.
        has_state: Does the joint state's key follow? It is always seen.
    """
    if text_bias is None:
        return None
    if has_state:
        text_bias = F.pad(text_bias, (0, 1))
    return text_bias.expand(-1, -1, num_queries, -1)


def cross_over(
    attention: CrossAttention,
    x: torch.Tensor,
    text_k: torch.Tensor,
    text_v: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Attend from x [1, n, hidden] to prompt (and state), [1, H, T, D].

    With a mask and 16-bit weights, scores and softmax are in float32: rounded to bfloat16, a
    bias of log 100 would be 1 % off in the weight of every zero row. The prompt is short, so this
    costs nothing beside the maps around it.
    """
    if mask is None:
        return attention(x, text_k, text_v)  # type: ignore[no-any-return]
    q = attention.queries(x)
    wide = torch.promote_types(q.dtype, torch.float32)
    seen = attend(q.to(wide), text_k.to(wide), text_v.to(wide), mask).to(q.dtype)
    return attention.o(seen)  # type: ignore[no-any-return]
