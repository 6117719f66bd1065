"""What each channel of a bundle's keys and values is at most, in episodes of a script."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorywam_export.parity.parity import play, text_of
from memorywam_export.parity.parity_graphs import Script, kept_type
from memorywam_runtime.bundle import open_bundle
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import decoded

__all__ = ["memory_absmax"]


def memory_absmax(
    root: Path, scripts: Iterable[Script], num_threads: int = 1
) -> dict[str, NDArray[np.floating]]:
    """Return by tensor, `memory.LL.k`, the largest magnitude of each channel [heads * head_dim].

    Gist tokens are left out: they never go to the window.

    Args:
        root: A bundle that is not quantized.
        scripts: Episodes.
        num_threads: Of ONNX Runtime.
    """
    session = open_bundle(
        root, backend="ort", allow_unverified=True, num_threads=num_threads, spin=False
    )
    largest: dict[str, NDArray[np.floating]] = {}
    for script in scripts:
        session.reset(text_of(session, script.context, script.num_tokens))
        for frame in range(len(script.pixels)):
            play(session, script, frame)
            for name, rows in _newest_rows(session).items():
                seen = np.abs(rows).max(axis=0)
                largest[name] = np.maximum(largest[name], seen) if name in largest else seen
    return largest


def _newest_rows(session: Session) -> dict[str, NDArray[np.floating]]:
    """Return the newest frame's visual rows [rows, heads * head_dim] by tensor."""
    memory, rows = session.memory, session.memory.rows
    first = rows.slot(memory.slot_of(memory.num_frames - 1))
    found = {}
    for name, array in session.calls.memory.items():
        held = session.backend.read(array)[0, :, first : first + rows.num_visual]
        wide = decoded(held, kept_type(session))
        found[name] = wide.transpose(1, 0, 2).reshape(rows.num_visual, -1)
    return found
