"""Stand-in text embeddings for the demo's instructions.

The real model reads umT5-XXL embeddings (11 GB of weights). The demo's prompts are three fixed
sentences, so each word gets a unit vector from its own hash: no language is understood, but the
prompt travels the same road as a real one.
"""

import hashlib

import numpy as np

__all__ = ["embedding_from_text"]


def embedding_from_text(text: str, text_dim: int) -> np.ndarray:
    """Return [words, text_dim] float32, one unit-variance row a word."""
    rows = []
    for word in text.lower().replace(".", "").replace(",", "").split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
        rows.append(np.random.default_rng(seed).standard_normal(text_dim))
    return np.stack(rows).astype(np.float32)
