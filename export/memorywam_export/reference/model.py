"""The whole model: encoder, two experts, gist bank and state encoder under upstream's names."""

import torch
from torch import nn

from memorywam_export.reference.action import ActionExpert
from memorywam_export.reference.blocks import Block
from memorywam_export.reference.vae import CausalEncoder
from memorywam_export.reference.video import VideoExpert
from memorywam_runtime.contract import InferenceContract

__all__ = ["KeysValues", "MemoryWam"]

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, each [B, H, n, D]."""


class MemoryWam(nn.Module):
    """MemoryWAM (arXiv 2606.20562) as far as inference needs it.

    Names follow FastWAM: `mixtures.video.*`, `mixtures.action.*`, `proprio_encoder.*`; beside
    them `gist_tokens` [M, hidden] and `vae.*`.
    """

    def __init__(self, contract: InferenceContract) -> None:
        super().__init__()
        self.contract = contract
        self.mixtures = nn.ModuleDict(
            {"video": VideoExpert(contract), "action": ActionExpert(contract)}
        )
        self.gist_tokens = nn.Parameter(
            0.02 * torch.randn(contract.memory.num_gists, contract.video.hidden)
        )
        self.proprio_encoder = nn.Linear(contract.actions.state_dim, contract.text_dim)
        self.vae = CausalEncoder(contract.vae)

    @property
    def video(self) -> VideoExpert:
        """The video expert."""
        return self.mixtures["video"]  # type: ignore[return-value]

    @property
    def action(self) -> ActionExpert:
        """The action expert."""
        return self.mixtures["action"]  # type: ignore[return-value]

    def text_keys_values(self, context: torch.Tensor) -> tuple[list[KeysValues], list[KeysValues]]:
        """Return per-layer cross-attention keys and values of a context, video then action.

        Args:
            context: [B, T, text_dim]; rows past the prompt are zero and stay visible.
        """
        return (
            _cross_keys_values(self.video.blocks, self.video.text_embedding(context)),
            _cross_keys_values(self.action.blocks, self.action.text_embedding(context)),
        )

    def state_context(self, state: torch.Tensor) -> torch.Tensor:
        """Return the state as context rows [B, n, text_dim] of normalized states [B, n, dim]."""
        return self.proprio_encoder(  # type: ignore[no-any-return]
            state.to(self.proprio_encoder.weight.dtype)
        )


def _cross_keys_values(blocks: nn.ModuleList, context: torch.Tensor) -> list[KeysValues]:
    """Return each block's keys and values [B, H, T, D] of a context [B, T, hidden]."""
    found = []
    for block in blocks:
        assert isinstance(block, Block)
        found.append((block.cross_attn.keys(context), block.cross_attn.values(context)))
    return found
