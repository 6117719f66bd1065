"""One short text that is the same for the same memory, and for no other."""

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.memory import Memory
from memorywam_runtime.session import Session

__all__ = ["memory_digest"]

_DIGEST_BYTES = 32


def memory_digest(session: Session) -> str:
    """Return BLAKE2b-256 over all that a session remembers: 64 hexadecimal digits.

    That is the counters, the rows of keys and values in use (slots and gists as kept, whatever
    their type), the encoder's caches, and the keys of the instruction and of the joint state.
    What is left over from a chunk, and rows that nothing reads yet, do not count. Memory is read
    to the host, so this takes time in proportion to it.

    Args:
        session: Between frames; images seen of an incomplete group do not count.
    """
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(msgspec.json.encode(session.memory.snapshot(), order="sorted"))
    rows = _rows_in_use(session.memory)
    arrays = session.state_arrays(session.buffers.bucket)
    for name in sorted(arrays):
        values = session.backend.read(arrays[name][1])
        if name.startswith("memory."):
            values = values[:, :, rows]  # [1, H, rows, D]
        digest.update(f"\n{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _rows_in_use(memory: Memory) -> NDArray[np.int64]:
    """Return the rows of a memory tensor that hold something."""
    rows, state = memory.rows, memory.snapshot()
    spans = [(rows.gist(0), memory.num_table_places(state.num_frames) * rows.num_gists)]
    for slot, frame in enumerate(state.slot_frames):
        if frame >= 0:
            spans.append((rows.slot(slot), rows.num_frame))
        if state.slot_has_actions[slot]:
            spans.append((rows.history(slot), rows.num_history))
    return np.concatenate([np.arange(start, start + count) for start, count in spans])
