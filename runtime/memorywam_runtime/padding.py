"""What stands for the zero rows of a prompt, where graphs take only one of them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import HIDDEN
from memorywam_runtime.tensors import storage_dtype

__all__ = ["check_num_tokens", "text_bias", "with_text_bias"]


def check_num_tokens(num_tokens: int, rows: int, text_len: int) -> None:
    """Refuse a prompt that leaves no row for the zero rows behind it.

    Args:
        num_tokens: Of the prompt.
        rows: Of the prompt's keys in the graphs.
        text_len: Rows that the model was trained with, zero rows among them.

    Raises:
        InputError: too many tokens, or none.
    """
    most = text_len if rows == text_len else rows - 1
    if not 1 <= num_tokens <= most:
        raise InputError(
            f"found a prompt of {num_tokens} tokens; expected 1 to {most}"
            + ("" if rows == text_len else f", as the bundle's graphs take {rows} rows")
            + ": shorten it"
            + ("" if rows == text_len else ", or export with a larger --text-rows")
        )


def text_bias(num_tokens: int, rows: int, text_len: int) -> NDArray[np.float64]:
    """Return what is added to the scores of a prompt's rows, [1, 1, 1, rows].

    The P = text_len - num_tokens zero rows of a context all have one key k and one value v. Their
    part of the softmax, P exp(q k) v over P exp(q k), is that of one row whose score is
    q k + log P: 0 for the prompt's rows, log P for that row, hidden for those beyond.

    Raises:
        InputError: too many tokens, or none.
    """
    check_num_tokens(num_tokens, rows, text_len)
    bias = np.zeros((1, 1, 1, rows))
    if num_tokens < text_len:
        bias[..., num_tokens] = math.log(text_len - num_tokens)
        bias[..., num_tokens + 1 :] = HIDDEN
    return bias


def with_text_bias(
    manifest: Manifest, arrays: Mapping[str, NDArray[Any]], num_tokens: int
) -> dict[str, NDArray[Any]]:
    """Return an instruction's keys and values, and its bias where the bundle's graphs take it.

    Raises:
        InputError: too many tokens, or none.
    """
    found = dict(arrays)
    for spec in manifest.graphs["action_step"].inputs:
        if spec.name == "text_bias":
            text_len = manifest.contract.conventions.text_len
            bias = text_bias(num_tokens, spec.fixed_shape[-1], text_len)
            found[spec.name] = bias.astype(storage_dtype(spec.dtype))
    return found
