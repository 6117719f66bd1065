"""A text embedding to keys and values straight from a weights file, one layer at a time."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from memorywam_export.quantize.quantize_weights import tensor_in_floats
from memorywam_export.reference.attention import CrossAttention
from memorywam_export.reference.blocks import text_stem
from memorywam_runtime.contract import InferenceContract

__all__ = ["text_arrays"]


@torch.no_grad()
def text_arrays(
    path: Path, contract: InferenceContract, context: NDArray[Any]
) -> list[NDArray[Any]]:
    """Return prompt_kv's outputs for one context, in the graph's order.

    The text stems and cross-attention maps of the real model are 1.6 GB; here no more than one
    layer of them is mapped at once.

    Args:
        path: The weights, in one type.
        contract: Sizes.
        context: [1, T, text_dim], T rows of `context_from_embedding`; those past the prompt are
            zero.
    """
    arrays = []
    for expert, hidden in (("video", contract.video.hidden), ("action", contract.action.hidden)):
        prefix = f"mixtures.{expert}"
        with torch.device("meta"):
            stem = text_stem(contract.text_dim, hidden)
        _load(stem, path, f"{prefix}.text_embedding.")
        rows = stem(torch.from_numpy(context).to(next(stem.parameters()).dtype))
        # Nothing reads the last video layer's tokens, so it attends to no text.
        for layer in range(contract.num_layers - (expert == "video")):
            with torch.device("meta"):
                cross = CrossAttention(hidden, contract.num_heads, contract.head_dim)
            _load(cross, path, f"{prefix}.blocks.{layer}.cross_attn.")
            arrays += [_numpy(cross.keys(rows)), _numpy(cross.values(rows))]
    return arrays


def _load(module: nn.Module, path: Path, prefix: str) -> None:
    """Give a module its weights, quantized ones as floats; they are unmapped with it."""
    state = {name: tensor_in_floats(path, prefix + name) for name in module.state_dict()}
    module.load_state_dict(state, strict=True, assign=True)


def _numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor's storage as numpy; bfloat16 as its bits."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.contiguous().view(torch.uint16)
    return tensor.contiguous().numpy()
