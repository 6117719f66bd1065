"""An instruction to the text embedding that the model was trained on, by a umT5 encoder on disk."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.files import sha256_of

__all__ = ["PROMPT_TEMPLATE", "embedding_from_text", "encoder_hash"]

PROMPT_TEMPLATE = (
    "A video recorded from a robot's point of view executing the following instruction: {task}"
)
"""What FastWAM wraps an instruction in (`robot_video_dataset.py`)."""


def embedding_from_text(
    text: str, encoder_dir: Path, contract: InferenceContract
) -> tuple[NDArray[np.float32], str]:
    """Return the embedding [tokens, text_dim] of an instruction, and what made it.

    Args:
        text: The instruction; the template is added here.
        encoder_dir: A transformers folder with a UMT5 encoder and its tokenizer. Nothing is
            downloaded.
        contract: Gives text_len (longer prompts are cut, as in training) and text_dim.

    Raises:
        MissingPartError: transformers is not installed.
        InputError: the folder holds no such encoder, or one of another width.
    """
    try:
        import torch
        from transformers import AutoTokenizer, UMT5EncoderModel
    except ImportError as error:
        raise MissingPartError(
            f"cannot encode text: {error}; pip install 'memorywam[text,export]', or pass an "
            "embedding made elsewhere with --embedding FILE"
        ) from error
    if not (encoder_dir / "config.json").is_file():
        raise InputError(
            f"no text encoder at {encoder_dir}: expected a transformers folder with config.json, "
            "weights and tokenizer of umt5-xxl"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder_dir, local_files_only=True)
        encoder = UMT5EncoderModel.from_pretrained(encoder_dir, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the text encoder at {encoder_dir}: {error}") from error
    tokens = tokenizer(
        PROMPT_TEMPLATE.format(task=text),
        max_length=contract.conventions.text_len,
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        rows = encoder(tokens.input_ids, attention_mask=tokens.attention_mask)
    embedding: NDArray[np.float32] = rows.last_hidden_state[0].float().numpy()
    if embedding.shape[1] != contract.text_dim:
        raise InputError(
            f"the encoder at {encoder_dir} gives rows of {embedding.shape[1]}; "
            f"contract '{contract.name}' takes {contract.text_dim}"
        )
    return embedding, f"umt5 {encoder_hash(encoder_dir)[:16]}"


def encoder_hash(encoder_dir: Path) -> str:
    """Return one hash of tokenizer and encoder: of every file's name and SHA-256."""
    total = hashlib.sha256()
    for path in sorted(p for p in encoder_dir.iterdir() if p.is_file()):
        total.update(f"{path.name} {sha256_of(path)}\n".encode())
    return total.hexdigest()
