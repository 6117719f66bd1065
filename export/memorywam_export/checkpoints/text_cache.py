"""Text embeddings as FastWAM caches them: one torch file an instruction, named after its hash."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from memorywam_export.checkpoints.torch_files import flat_leaves, read_torch_file
from memorywam_export.text.text_encoder import PROMPT_TEMPLATE
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import CheckpointError, InputError

__all__ = [
    "cache_file_name",
    "check_both",
    "embedding_from_cache",
    "embeddings_from_cache",
    "read_cache_entry",
]

ENCODER_ID = "wan22ti2v5b"
"""The last word of Wan-AI/Wan2.2-TI2V-5B, small letters and digits alone (FastWAM,
`scripts/precompute_text_embeds.py`)."""
_MOST_ROWS = 1 << 16
_IGNORED = {"ids"}
"""Token ids, which some forks add."""


def cache_file_name(instruction: str, text_len: int) -> str:
    """Return what the cache calls an instruction's file.

    As FastWAM's `robot_video_dataset.py`: the SHA-256 of the filled template in UTF-8, the number
    of rows, and the encoder.
    """
    digest = hashlib.sha256(PROMPT_TEMPLATE.format(task=instruction).encode()).hexdigest()
    return f"{digest}.t5_len{text_len}.{ENCODER_ID}.pt"


def check_both(folder: Path | None, instructions: Sequence[str]) -> None:
    """Refuse a cache of which nothing is wanted, or instructions without one.

    Raises:
        InputError: one of the two is there.
    """
    if instructions and folder is None:
        raise InputError(
            f"found --instruction {instructions[0]!r} without --text-cache DIR; expected the "
            "folder that holds its embedding"
        )
    if folder is not None and not instructions:
        raise InputError(
            f'found --text-cache {folder} without --instruction "TEXT"; expected the text of a '
            "task, letter by letter: of its own entries the cache knows the hashes alone"
        )


def embeddings_from_cache(
    folder: Path, instructions: Iterable[str], contract: InferenceContract
) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings [tokens, text_dim] of instructions, by their text.

    Raises:
        InputError: an instruction that the cache does not hold, or an entry that does not fit.
    """
    return {text: embedding_from_cache(folder, text, contract)[0] for text in instructions}


def embedding_from_cache(
    folder: Path, instruction: str, contract: InferenceContract
) -> tuple[NDArray[np.float32], str]:
    """Return the embedding of an instruction, and what made it.

    The mask says how many rows the tokens take. What lies past them is left out, and becomes zero
    rows that stay visible, as in training.

    Args:
        folder: The cache, with `<sha256>.t5_len<rows>.wan22ti2v5b.pt` files.
        instruction: Its text; the template is added here.
        contract: Gives the number of rows and their width.

    Returns:
        Rows [tokens, text_dim] in float32, and the entry's name.

    Raises:
        InputError: no such folder or entry, or one of another shape.
    """
    name = cache_file_name(instruction, contract.conventions.text_len)
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"the instruction {instruction!r} is not in {folder}: found {_entries(folder)}; "
            f"expected {name}, the SHA-256 of '{PROMPT_TEMPLATE.format(task=instruction)}'. The "
            "text must be the task's, letter by letter"
        )
    context, num_tokens = read_cache_entry(path)
    wanted = (contract.conventions.text_len, contract.text_dim)
    if context.shape != wanted:
        raise InputError(
            f"{path}: found a context of {list(context.shape)}; contract '{contract.name}' takes "
            f"{list(wanted)}"
        )
    rows: NDArray[np.float32] = context[:num_tokens].float().numpy()
    if not np.isfinite(rows).all():
        raise InputError(f"{path}: found a value that is not finite; encode the text again")
    return rows, f"text cache {name[:16]}"


def read_cache_entry(path: Path) -> tuple[torch.Tensor, int]:
    """Read one entry of a cache: {context [L, D] or [1, L, D], mask [L] or [1, L]}.

    Returns:
        The context [L, D], in the type that it has, and the number of tokens, at least 1.

    Raises:
        InputError: other parts, other shapes, or a mask that is not ones and then zeros.
    """
    try:
        content = read_torch_file(path)
        list(flat_leaves(content))  # refuses tensors without plain numbers
    except CheckpointError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise InputError(f"{where}{error}") from error
    context, mask = content.get("context"), content.get("mask")
    extra = sorted({str(key) for key in content} - {"context", "mask"} - _IGNORED)
    if extra or not isinstance(context, torch.Tensor) or not isinstance(mask, torch.Tensor):
        raise InputError(
            f"{path}: found {sorted(map(str, content))}; expected the tensors context and mask"
        )
    context = context[0] if context.ndim == 3 and len(context) == 1 else context
    if mask.numel() > _MOST_ROWS:  # which may be one number, repeated
        raise InputError(
            f"{path}: found a mask of {mask.numel():,} rows; expected at most {_MOST_ROWS:,}"
        )
    seen = mask.reshape(-1).bool()
    num_tokens = int(seen.sum())
    fits = context.ndim == 2 and len(context) == len(seen) and context.is_floating_point()
    if not fits or not num_tokens or not bool(seen[:num_tokens].all()):
        raise InputError(
            f"{path}: found a context of {list(context.shape)} {context.dtype} and a mask of "
            f"{list(mask.shape)} with {num_tokens} ones; expected rows, and for each a mark: ones "
            "for the tokens, then zeros"
        )
    return context, num_tokens


def _entries(folder: Path) -> str:
    """Say how many entries a cache holds, and of which lengths."""
    if not folder.is_dir():
        return "no such folder"
    kinds = Counter(path.name.partition(".")[2] for path in folder.glob("*.t5_len*.pt"))
    listed = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
    return f"{kinds.total()} entries{f' ({listed})' if listed else ''}"
