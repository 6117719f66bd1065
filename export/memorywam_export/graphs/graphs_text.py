"""The graphs of what conditions a model: an instruction, and the joint state."""

from collections.abc import Iterable

import torch
from torch import nn

from memorywam_export.reference.attention import CrossAttention
from memorywam_export.reference.model import MemoryWam

__all__ = ["PromptKv", "StateKv"]


class PromptKv(nn.Module):
    """prompt_kv: text embeddings to cross-attention keys and values of both experts."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.model = model

    def forward(self, context: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return k and v [1, H, text_len, D] per layer: video, then action."""
        rows = context.to(self.model.gist_tokens.dtype)
        return (*_video(self.model, rows), *_action(self.model, rows))


class StateKv(nn.Module):
    """state_kv: the normalized joint state to one more cross-attention key and value a layer."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.model = model
        self.of_video = model.contract.conventions.proprio_in_video_context

    def forward(self, state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return k and v [1, H, 1, D] per layer: video if it sees the state, then action."""
        context = self.model.state_context(state)[:, None]
        action = _action(self.model, context)
        return (*_video(self.model, context), *action) if self.of_video else action


def _video(model: MemoryWam, context: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return k and v [1, H, T, D] of every video layer that attends to its context.

    Nothing reads the last layer's tokens, so it attends to nothing.
    """
    return _keys_values(list(model.video.blocks)[:-1], model.video.text_embedding(context))


def _action(model: MemoryWam, context: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return k and v [1, H, T, D] of every action layer."""
    return _keys_values(model.action.blocks, model.action.text_embedding(context))


def _keys_values(blocks: Iterable[nn.Module], rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return each block's keys and values of context rows [1, T, hidden]."""
    found: list[torch.Tensor] = []
    for block in blocks:
        cross = block.cross_attn
        assert isinstance(cross, CrossAttention)
        found += [cross.keys(rows), cross.values(rows)]
    return tuple(found)
